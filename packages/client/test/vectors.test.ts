/**
 * The traces of `vectors/traces`, which the simulation wrote with the reference client, replayed by this client.
 *
 * Faults: besides those in the traces, the page dies after every request of every transaction of its store, and after every transaction.
 * Oracle: the reference client's state after every step: rows, view, outbox, refusals and cursor, as shown and as
 * stored. A page that was born again finds the state before or after what it died in, and ends where the trace ends.
 */
import { afterAll, describe, expect, it } from 'vitest'
import { Disk } from './support/disk'
import { Replay } from './support/replay'
import { readTraces, type Trace } from './support/trace'

const traces = readTraces()
const KINDS = ['indexeddb', 'memory'] as const
const counts = { comparisons: 0, before: 0, within: 0, after: 0 }

async function replay(trace: Trace, kind: (typeof KINDS)[number], dies: 'never' | 'everywhere'): Promise<void> {
  const disk = new Disk(kind)
  counts.comparisons += await new Replay(trace, disk, dies).run()
  counts.before += disk.deaths.before
  counts.within += disk.deaths.within
  counts.after += disk.deaths.after
}

afterAll(() => console.log(`vectors: ${traces.length} traces, ${JSON.stringify(counts)}`))

it('has traces', () => {
  expect(traces.length).toBeGreaterThanOrEqual(10)
})

describe.each(KINDS)('over %s', (kind) => {
  it.each(traces.map((trace) => [trace.name, trace] as const))('%s: every state is the reference client\'s', async (_, trace) => {
    await replay(trace, kind, 'never')
  })

  it.each(traces.map((trace) => [trace.name, trace] as const))('%s: a page may die anywhere', async (_, trace) => {
    await replay(trace, kind, 'everywhere')
  }, 60_000)
})
