/**
 * The traces of `vectors/traces`, which the simulation wrote with the reference client, replayed by this client.
 *
 * Faults: besides those in the traces, the page dies before, within and after every transaction of its store.
 * Oracle: the reference client's state after every step: rows, view, outbox, refusals and cursor, as shown and as
 * stored. A page that was born again finds the state before or after what it died in, and ends where the trace ends.
 */
import { afterAll, describe, expect, it } from 'vitest'
import { type Death, Disk } from './support/disk'
import { type Fate, Replay } from './support/replay'
import { readTraces, type Trace } from './support/trace'

const traces = readTraces()
const KINDS = ['indexeddb', 'memory'] as const
const counts = { comparisons: 0, before: 0, within: 0, after: 0 }

async function replay(trace: Trace, kind: (typeof KINDS)[number], fate?: Fate, looksOften = false): Promise<void> {
  const disk = new Disk(kind)
  counts.comparisons += await new Replay(trace, disk, fate, looksOften).run()
  counts.before += disk.deaths.before
  counts.within += disk.deaths.within
  counts.after += disk.deaths.after
}

/** In IndexedDB a transaction is many requests; in memory it is one step. */
const DEATHS: Record<(typeof KINDS)[number], readonly ({ at: 'before' | 'after' } | { at: 'within'; requests: number })[]> = {
  indexeddb: [{ at: 'before' }, ...[1, 2, 3, 5, 8, 13, Infinity].map((requests) => ({ at: 'within' as const, requests })), { at: 'after' }],
  memory: [{ at: 'before' }, { at: 'after' }],
}

/** Every page dies: in its first transaction, in all the ways there are, then in its second, until the trace moves on. */
function dieEverywhere(kind: (typeof KINDS)[number]): Fate {
  const ways = DEATHS[kind]
  return (deaths) => ({ ...ways[deaths % ways.length], transaction: 1 + Math.floor(deaths / ways.length) }) as Death
}

afterAll(() => console.log(`vectors: ${traces.length} traces, ${JSON.stringify(counts)}`))

it('has traces', () => {
  expect(traces.length).toBeGreaterThanOrEqual(10)
})

describe.each(KINDS)('over %s', (kind) => {
  it.each(traces.map((trace) => [trace.name, trace] as const))('%s: every state is the reference client\'s', async (_, trace) => {
    await replay(trace, kind, undefined, true)
  })

  it.each(traces.map((trace) => [trace.name, trace] as const))('%s: a page may die anywhere', async (_, trace) => {
    await replay(trace, kind, dieEverywhere(kind))
  })
})
