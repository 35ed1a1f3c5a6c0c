/**
 * The traces of `vectors/traces`, which the simulation wrote with the reference client, replayed by this client.
 *
 * Faults: besides those in the traces, frames come faster than they are stored, and the page dies before every
 * transaction of its store, after every request in it, and after it.
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

async function replay(trace: Trace, kind: (typeof KINDS)[number], mode: 'calm' | 'hurried' | 'deadly'): Promise<Disk> {
  const disk = new Disk(kind)
  counts.comparisons += await new Replay(trace, disk, mode).run()
  counts.before += disk.deaths.before
  counts.within += disk.deaths.within
  counts.after += disk.deaths.after
  return disk
}

afterAll(() => console.log(`vectors: ${traces.length} traces, ${JSON.stringify(counts)}`))

it('has traces', () => {
  expect(traces.length).toBeGreaterThanOrEqual(10)
})

describe.each(KINDS)('over %s', (kind) => {
  it.each(traces.map((trace) => [trace.name, trace] as const))("%s: every state is the reference client's", async (_, trace) => {
    await replay(trace, kind, 'calm')
  })

  it.each(traces.map((trace) => [trace.name, trace] as const))('%s: frames may come faster than they are stored', async (_, trace) => {
    await replay(trace, kind, 'hurried')
  })

  it.each(traces.map((trace) => [trace.name, trace] as const))('%s: a page may die anywhere', async (_, trace) => {
    const { deaths } = await replay(trace, kind, 'deadly')
    expect(Math.min(deaths.before, deaths.after)).toBeGreaterThan(3)
    expect(deaths.within > 3).toBe(kind === 'indexeddb')
  }, 60_000)
})
