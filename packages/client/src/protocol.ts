/**
 * The protocol of docs/protocol.md, version 1: types of what travels, and readers that turn outside bytes into them.
 * Nothing here does I/O or keeps state.
 */
import type { Condition } from './condition'
import type { Column, Json, WireRow } from './values'

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

/** ERROR of the protocol. `client` and `last` come with the errors of a mutate reply, `retryIn` (milliseconds) with a join's. */
export interface ProtocolErrorBody {
  readonly code: string
  readonly message: string
  readonly client?: string
  readonly last?: string
  readonly retryIn?: number
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

/** A message that is not what docs/protocol.md describes: `what` of it. The text never holds row values. */
export class FrameError extends Error {
  override name = 'FrameError'
  constructor(readonly what: string) {
    super(`${what}: not as the protocol has it`)
  }
}

type Fields = Record<string, unknown>

function fields(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new FrameError(what)
  return value as Fields
}

function text(from: Fields, name: string): string {
  const value = from[name]
  if (typeof value !== 'string') throw new FrameError(name)
  return value
}

function textOrNull(from: Fields, name: string): string | null {
  return (from[name] ?? null) === null ? null : text(from, name)
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new FrameError(what)
  return value
}

function texts(from: Fields, name: string): string[] {
  const all = list(from[name], name)
  if (!all.every((item) => typeof item === 'string')) throw new FrameError(name)
  return all as string[]
}

function readShape(from: Fields): ShapeFrame {
  const table = texts(from, 'table')
  if (table.length !== 2) throw new FrameError('table')
  const columns = list(from['columns'], 'columns').map((item) => {
    const column = fields(item, 'columns')
    return { name: text(column, 'name'), type: text(column, 'type'), wire: text(column, 'wire') }
  })
  const key = texts(from, 'key')
  if (key.length === 0 || !key.every((name) => columns.some((column) => column.name === name))) throw new FrameError('key')
  return {
    event: 'shape',
    ref: text(from, 'ref'),
    shape: text(from, 'shape'),
    fingerprint: text(from, 'fingerprint'),
    table: table as [string, string],
    key,
    columns,
    fill: fields(from['fill'] ?? {}, 'fill') as Record<string, Json>,
  }
}

function readRows(from: Fields): RowsFrame {
  const rows = (name: string) => list(from[name] ?? [], name).map((row) => list(row, name) as WireRow)
  const patch = rows('patch').map(([row, kept]) => {
    const indexes = list(kept, 'patch') as readonly number[]
    if (!indexes.every(Number.isInteger)) throw new FrameError('patch')
    return [list(row, 'patch') as WireRow, indexes] as const
  })
  return { event: 'rows', shape: text(from, 'shape'), reset: textOrNull(from, 'reset'), remove: rows('remove'), put: rows('put'), patch }
}

function readDecision(item: unknown): Decision {
  const one = fields(item, 'mutations')
  const { outcome, code, message } = one
  if (outcome !== 'applied' && outcome !== 'refused') throw new FrameError('outcome')
  return {
    n: text(one, 'n'),
    id: text(one, 'id'),
    outcome,
    ...(typeof code === 'string' ? { code } : {}),
    ...(typeof message === 'string' ? { message } : {}),
  }
}

function read(event: string, payload: unknown): DataFrame | null {
  if (!['shape', 'rows', 'load', 'loaded', 'unload', 'provisional', 'progress', 'withdraw', 'ack', 'commit'].includes(event)) return null
  const from = fields(payload, 'payload')
  switch (event) {
    case 'shape':
      return readShape(from)
    case 'rows':
      return readRows(from)
    case 'load':
      return { ...readRows(from), event, load: text(from, 'load') }
    case 'loaded':
    case 'unload':
      return { event, loads: texts(from, 'loads') }
    // what need not be heeded is nothing to end a session for
    case 'provisional':
      return Array.isArray(from['loads']) ? { event, loads: texts(from, 'loads') } : null
    case 'progress': {
      const { load, about } = from
      return typeof load === 'string' && typeof about === 'number' ? { event, load, about } : null
    }
    case 'withdraw':
      return { event, shape: text(from, 'shape') }
    case 'ack':
      return { event, mutations: list(from['mutations'], 'mutations').map(readDecision) }
    default:
      return { event: 'commit', lsn: text(from, 'lsn'), xid: textOrNull(from, 'xid'), cursor: text(from, 'cursor') }
  }
}

/**
 * Reads a data frame. Gives null for an event this version does not know (the caller counts it).
 * Throws FrameError when a known event is not what the protocol describes.
 */
export function readFrame(event: string, payload: unknown): DataFrame | null {
  try {
    return read(event, payload)
  } catch (error) {
    throw error instanceof FrameError ? new FrameError(`${event}: ${error.what}`) : error
  }
}

/** Reads an ERROR; whatever is missing is filled in, since an error must never hide behind another. */
export function readError(payload: unknown): ProtocolErrorBody {
  const from = typeof payload === 'object' && payload !== null ? (payload as Fields) : {}
  const { retry_in } = from
  const body: { code: string; message: string; client?: string; last?: string; retryIn?: number } = {
    code: typeof from['code'] === 'string' ? from['code'] : 'unknown_error',
    message: typeof from['message'] === 'string' ? from['message'] : 'the node gave no reason',
  }
  if (typeof from['client'] === 'string') body.client = from['client']
  if (typeof from['last'] === 'string') body.last = from['last']
  if (typeof retry_in === 'number' && retry_in >= 0) body.retryIn = Math.min(retry_in, RETRY_IN_MS)
  return body
}

/** Reads the `shapes` of a JOINED or of a subscribe's answer. Throws FrameError. */
export function readAnswers(payload: unknown): ShapeAnswer[] {
  return list(fields(payload, 'answer')['shapes'], 'shapes').map((item) => {
    const answer = fields(item, 'shapes')
    return { ref: text(answer, 'ref'), error: answer['ok'] === true ? null : readError(answer['error']) }
  })
}

/** Reads a JOINED. Throws FrameError. */
export function readJoined(payload: unknown): Joined {
  const from = fields(payload, 'joined')
  return { database: text(from, 'database'), subject: text(from, 'subject'), client: text(from, 'client'), shapes: readAnswers(payload) }
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
