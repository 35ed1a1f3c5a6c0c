/**
 * The protocol of docs/protocol.md, version 1: types of what travels, and what frames and answers are made of.
 * Nothing here does I/O or keeps state.
 */
import type { Condition } from './condition'
import { type Fields, fieldsOf, FrameError, list, listOf, object, or, type Read, record, text, that } from './reading'
import { type Column, type Json, own, type WireRow } from './values'

export { FrameError } from './reading'

/** The version this client speaks. */
export const PROTOCOL_VERSION = 1

/**
 * The optional features of this client. `widen`: takes a shape described anew without a reset, `fill` included;
 * `provisional`: shows a first load before it is settled.
 */
export const CAPABILITIES: readonly string[] = ['widen', 'provisional']

/** The one topic. */
export const TOPIC = 'sync'

/** `sync`: the rows are stored and resumed after a reload; `live`: they are in memory while somebody looks. */
export type ShapeKeeping = 'sync' | 'live'

/**
 * A shape's definition. `columns` null or absent means all; `keep` is no part of what the shape is, and `sync` unless
 * said otherwise. `condition` is what `where` says, if that is known here.
 */
export interface AskedShape {
  readonly keep?: ShapeKeeping
  readonly table: string
  readonly scope?: Readonly<Record<string, string | number | boolean>> | null
  readonly columns?: readonly string[] | null
  /** An SQL condition over the row's columns, with `$1`, `$2`… for `params`; see docs/protocol.md, Predicates. */
  readonly where?: string | null
  readonly params?: readonly Param[]
  readonly condition?: Condition | readonly Condition[]
}

/** A parameter of a predicate. */
export type Param = string | number | boolean | null

/** A shape's definition as the application gives it. */
export interface ShapeDefinition extends Omit<AskedShape, 'where' | 'condition'> {
  /**
   * Which rows: conditions as in live queries, or SQL over the row's columns with `$1`, `$2`… for `params` (see
   * docs/protocol.md, Predicates). By conditions the client tells of a row written here, too, whether it is shown.
   */
  readonly where?: string | Condition | readonly Condition[] | null
}

/** SHAPE of the protocol: one shape of a join or a subscribe. */
export interface ShapeRequest {
  ref: string
  table: string
  columns: readonly string[] | null
  scope: Readonly<Record<string, string | number | boolean>> | null
  where: string | null
  params?: readonly (string | number | boolean | null)[]
  have: boolean
  fingerprint: string | null
}

/** JOIN of the protocol. */
export interface JoinRequest {
  protocol: number
  capabilities: string[]
  required: string[]
  token: null
  subject: string
  client: string | null
  cursor: string | null
  shapes: ShapeRequest[]
}

/** ERROR of the protocol. `client` and `last` come with the errors of a mutate reply, `retry_in` (milliseconds) with a join's. */
export interface ProtocolErrorBody {
  readonly code: string
  readonly message: string
  readonly client?: string
  readonly last?: string
  readonly retry_in?: number
}

/** The longest that a node's `retry_in` is believed, in milliseconds: a timer of days would be due at once. */
export const RETRY_IN_MS = 600_000

/** SHAPE_ANSWER of the protocol. */
export interface ShapeAnswer {
  readonly ref: string
  readonly error: ProtocolErrorBody | null
}

/** JOINED of the protocol. */
export interface Joined {
  readonly database: string
  readonly subject: string
  readonly client: string
  readonly shapes: readonly ShapeAnswer[]
}

/** One operation of a mutation; values are JSON. */
export type Op =
  | { readonly op: 'insert'; readonly table: string; readonly values: Readonly<Record<string, Json>> }
  | {
      readonly op: 'update'
      readonly table: string
      readonly key: Readonly<Record<string, Json>>
      readonly set: Readonly<Record<string, Json>>
      readonly if?: Readonly<Record<string, Json>>
    }
  | {
      readonly op: 'delete'
      readonly table: string
      readonly key: Readonly<Record<string, Json>>
      readonly if?: Readonly<Record<string, Json>>
    }

/** MUTATION of the protocol. */
export interface MutationRequest {
  n: string
  id: string
  kind: string
  name: string | null
  args: Json
  ops: readonly Op[]
}

/** The event `shape`. */
export interface ShapeFrame {
  readonly event: 'shape'
  readonly ref: string
  readonly shape: string
  readonly fingerprint: string
  readonly table: readonly [string, string]
  readonly key: readonly string[]
  readonly columns: readonly Column[]
  /** values of columns that the rows held so far lack; null where it names none */
  readonly fill: Readonly<Record<string, Json>>
}

/** The event `rows`; absent lists are empty, an absent `reset` is null. */
export interface RowsFrame {
  readonly event: 'rows'
  /** the name under which it was set aside, if it was */
  readonly load?: string
  readonly shape: string
  readonly reset: string | null
  readonly remove: readonly WireRow[]
  readonly put: readonly WireRow[]
  readonly patch: readonly (readonly [WireRow, readonly number[]])[]
}

/** The event `load`: `rows` that are set aside under a name until their batch comes. */
export interface LoadFrame extends Omit<RowsFrame, 'event'> {
  readonly event: 'load'
  readonly load: string
}

/**
 * What becomes of that which was set aside: `loaded` takes it into the batch, `unload` forgets it, `provisional` says that
 * it is all of a first load, at one snapshot.
 */
export interface LoadEndFrame {
  readonly event: 'loaded' | 'unload' | 'provisional'
  readonly loads: readonly string[]
}

/** The event `progress`: about how many rows a load has altogether. */
export interface ProgressFrame {
  readonly event: 'progress'
  readonly load: string
  readonly about: number
}

/** The event `withdraw`. */
export interface WithdrawFrame {
  readonly event: 'withdraw'
  readonly shape: string
}

/** One decided mutation of an `ack`. */
export interface Decision {
  readonly n: string
  readonly id: string
  readonly outcome: 'applied' | 'refused'
  readonly code?: string
  readonly message?: string
}

/** The event `ack`. */
export interface AckFrame {
  readonly event: 'ack'
  readonly mutations: readonly Decision[]
}

/** The event `commit`: position text, xid text or null, and the opaque cursor. */
export interface CommitFrame {
  readonly event: 'commit'
  readonly lsn: string
  readonly xid: string | null
  readonly cursor: string
}

/** Every event that carries a session's data. */
export type DataFrame = ShapeFrame | RowsFrame | LoadFrame | LoadEndFrame | ProgressFrame | WithdrawFrame | AckFrame | CommitFrame

const texts = listOf(text)
const rows = or([], listOf(list))
const ROWS = {
  shape: text,
  reset: or(null, text),
  remove: rows,
  put: rows,
  patch: or([], listOf(that((item) => list(item) && list(item[0]) && list(item[1]) && item[1].every(Number.isInteger)))),
}
const LOADS = { loads: texts }

/** What the data frames are made of, by event. */
const FRAMES: Readonly<Record<string, Fields>> = {
  shape: {
    ref: text,
    shape: text,
    fingerprint: text,
    table: that((table) => texts(table) && table.length === 2),
    columns: listOf(record({ name: text, type: text, wire: text })),
    key: that((key) => texts(key) && key.length > 0),
    fill: or({}, object),
  },
  rows: ROWS,
  load: { ...ROWS, load: text },
  loaded: LOADS,
  unload: LOADS,
  withdraw: { shape: text },
  ack: {
    mutations: listOf(record({ n: text, id: text, outcome: that((outcome) => outcome === 'applied' || outcome === 'refused'), 'code?': text, 'message?': text })),
  },
  commit: { lsn: text, xid: or(null, text), cursor: text },
}

/** What need not be heeded is nothing to end a session for. */
const HINTS: Readonly<Record<string, Read>> = { progress: record({ load: text, about: that(Number.isFinite) }), provisional: record(LOADS) }

/**
 * Reads a data frame. Gives null for an event this version does not know (the caller counts it).
 * Throws FrameError when a known event is not what the protocol describes.
 */
export function readFrame(event: string, payload: unknown): DataFrame | null {
  const hint = own(HINTS, event)?.(payload)
  if (hint) return { event, ...hint } as DataFrame
  const fields = own(FRAMES, event)
  if (fields === undefined) return null
  const frame = { event, ...fieldsOf<object>(fields, payload, event) } as DataFrame
  if (frame.event === 'shape' && !frame.key.every((name) => frame.columns.some((column) => column.name === name))) throw new FrameError('shape: key')
  return frame
}

const retryIn: Read = (ms: any) => (ms >= 0 && Number.isFinite(ms) ? Math.min(ms, RETRY_IN_MS) : undefined)

/** Reads an ERROR; whatever is missing is filled in, since an error must never hide behind another. */
export function readError(payload: unknown): ProtocolErrorBody {
  const found = fieldsOf<Partial<ProtocolErrorBody>>({ 'code?': text, 'message?': text, 'client?': text, 'last?': text, 'retry_in?': retryIn }, object(payload) ?? {}, '')
  return { code: 'unknown_error', message: 'the node gave no reason', ...found }
}

const ANSWERS = {
  shapes: listOf((answer: any) => text(answer?.ref) === undefined ? undefined : { ref: answer.ref, error: answer.ok === true ? null : readError(answer.error) }),
}

/** Reads the answer to a subscribe. Throws FrameError. */
export function readAnswers(payload: unknown): readonly ShapeAnswer[] {
  return fieldsOf<Pick<Joined, 'shapes'>>(ANSWERS, payload, 'answer').shapes
}

/** Reads a JOINED. Throws FrameError. */
export function readJoined(payload: unknown): Joined {
  return fieldsOf({ database: text, subject: text, client: text, ...ANSWERS }, payload, 'joined')
}

/** Reads a heartbeat reply: its cursor and the age in milliseconds of what was sent; null where it has none. */
export function readHeartbeat(payload: unknown): { cursor: string | null; age: number | null } {
  const { cursor, age } = (payload as { response?: { cursor?: unknown; age?: unknown } } | null)?.response ?? {}
  return { cursor: typeof cursor === 'string' ? cursor : null, age: typeof age === 'number' ? age : null }
}

/** The name a table goes by in this client: `public.` is left out, so `todos` and `public.todos` are one. */
export function tableName(name: string): string {
  return name.startsWith('public.') ? name.slice('public.'.length) : name
}

/** The name of a table that the server gave as [schema, name]. */
export function tableNameOf(table: readonly [string, string]): string {
  return table[0] === 'public' ? table[1] : `${table[0]}.${table[1]}`
}

/** The text that is the same for two definitions exactly when they mean the same shape. */
export function definitionId(definition: AskedShape): string {
  const columns = definition.columns ? [...new Set(definition.columns)].sort() : null
  const scope = definition.scope ? Object.entries(definition.scope).sort(([a], [b]) => (a < b ? -1 : 1)) : null
  const shape = [tableName(definition.table), columns, scope]
  // shapes without a condition keep the names they have in stores of earlier versions
  return JSON.stringify(definition.where ? [...shape, definition.where, definition.params ?? []] : shape)
}
