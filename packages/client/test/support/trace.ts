/**
 * The shared traces of `vectors/traces`, read: what a client did and heard, and the state that the reference client
 * (Rust) was in after each step. The format is in vectors/README.md.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { Op, AskedShape } from '../../src/protocol'
import type { Json } from '../../src/values'

export type TraceEvent =
  | { do: 'subscribe'; ref: string; shape: AskedShape }
  | { do: 'unsubscribe'; ref: string }
  | { do: 'mutate'; id: string; ops: Op[] }
  | { do: 'join'; client: string | null; cursor: string | null; shapes: { ref: string; have: boolean; fingerprint: string | null }[] }
  | { do: 'frame'; text: string }
  | { do: 'disconnect' }
  | ({ do: 'expect' } & Change)

interface Change {
  client?: string | null
  cursor?: string
  outbox?: [n: string, id: string][]
  refused?: [id: string, code: string][]
  rows?: Record<string, { columns?: string[]; rows?: Record<string, Json[] | null> } | null>
  view?: Record<string, Record<string, Record<string, Json> | null>>
}

/** A subscription's rows, by key text. */
export interface ExpectedShape {
  columns: string[]
  rows: Record<string, Json[]>
}

/** What a client holds. States are never changed, so that many of them can share what they have in common. */
export interface State {
  client: string | null
  cursor: string | null
  outbox: [n: string, id: string][]
  refused: [id: string, code: string][]
  rows: Record<string, ExpectedShape>
  view: Record<string, Record<string, Record<string, Json>>>
}

export interface Trace {
  name: string
  covers: string[]
  events: TraceEvent[]
  /** the state after each event */
  states: State[]
}

const NOTHING: State = { client: null, cursor: null, outbox: [], refused: [], rows: {}, view: {} }

function merged<T>(before: Record<string, T>, changes: Record<string, T | null>): Record<string, T> {
  return Object.fromEntries(Object.entries({ ...before, ...changes }).filter((one): one is [string, T] => one[1] !== null))
}

function after(before: State, change: Change): State {
  const rows = { ...before.rows }
  for (const [ref, one] of Object.entries(change.rows ?? {})) {
    if (one === null) {
      delete rows[ref]
      continue
    }
    const old = one.columns ? { columns: one.columns, rows: {} } : (rows[ref] as ExpectedShape)
    rows[ref] = { columns: old.columns, rows: merged(old.rows, one.rows ?? {}) }
  }
  const view = { ...before.view }
  for (const [table, one] of Object.entries(change.view ?? {})) view[table] = merged(view[table] ?? {}, one)
  const { client = before.client, cursor = before.cursor, outbox = before.outbox, refused = before.refused } = change
  return { client, cursor, outbox, refused, rows, view }
}

function statesOf(events: readonly TraceEvent[]): State[] {
  let state = NOTHING
  return events.map((event) => (state = event.do === 'expect' ? after(state, event) : state))
}

const DIRECTORY = new URL('../../../../vectors/traces/', import.meta.url)

/** Every trace, by name. */
export function readTraces(): Trace[] {
  const files = readdirSync(DIRECTORY).filter((file) => file.endsWith('.json'))
  return files.sort().map((file) => {
    const { format, covers, events } = JSON.parse(readFileSync(new URL(file, DIRECTORY), 'utf8'))
    if (format !== 1) throw new Error(`${file} is of another format than this test`)
    return { name: file.replace('.json', ''), covers, events, states: statesOf(events) }
  })
}
