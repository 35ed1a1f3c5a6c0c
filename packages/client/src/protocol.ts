/**
 * The protocol of docs/protocol.md, version 1: types of what travels, and readers that turn outside bytes into them.
 * Nothing here does I/O or keeps state.
 */
import type { Column, Json, WireRow } from './values'

/** The version this client speaks. */
export const PROTOCOL_VERSION = 1

/** The optional features of this client: `widen`, to take a shape described anew without a reset, `fill` included. */
export const CAPABILITIES: readonly string[] = ['widen']

/** The one topic. */
export const TOPIC = 'sync'

/** `sync`: the rows are stored and resumed after a reload; `live`: they are in memory while somebody looks. */
export type ShapeKeeping = 'sync' | 'live'

/**
 * A shape's definition as the application gives it. `columns` null or absent means all; `keep` is no part of what the
 * shape is, and `sync` unless said otherwise.
 */
export interface ShapeDefinition {
  readonly keep?: ShapeKeeping
  readonly table: string
  readonly scope?: Readonly<Record<string, string | number | boolean>> | null
  readonly columns?: readonly string[] | null
  /** An SQL condition over the row's columns, with `$1`, `$2`… for `params`; see docs/protocol.md, Predicates. */
  readonly where?: string | null
  readonly params?: readonly (string | number | boolean | null)[]
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

/** ERROR of the protocol. `client` and `last` come with the errors of a mutate reply. */
export interface ProtocolErrorBody {
  readonly code: string
  readonly message: string
  readonly client?: string
  readonly last?: string
}

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

/** The events `loaded`, which takes what was set aside into the batch, and `unload`, which forgets it. */
export interface LoadEndFrame {
  readonly event: 'loaded' | 'unload'
  readonly loads: readonly string[]
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
export type DataFrame = ShapeFrame | RowsFrame | LoadFrame | LoadEndFrame | WithdrawFrame | AckFrame | CommitFrame

/** A message that is not what docs/protocol.md describes. The text never holds row values. */
export class FrameError extends Error {
  override name = 'FrameError'
}

type Fields = Record<string, unknown>

function fields(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new FrameError(`${what} is not an object`)
  return value as Fields
}

function text(from: Fields, name: string, what: string): string {
  const value = from[name]
  if (typeof value !== 'string') throw new FrameError(`${what}: ${name} is not text`)
  return value
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new FrameError(`${what} is not a list`)
  return value
}

function optionalList(from: Fields, name: string, what: string): readonly unknown[] {
  return from[name] === undefined || from[name] === null ? [] : list(from[name], `${what}: ${name}`)
}

function texts(value: unknown, what: string): string[] {
  return list(value, what).map((item) => {
    if (typeof item !== 'string') throw new FrameError(`${what} holds something that is not text`)
    return item
  })
}

function readShape(from: Fields): ShapeFrame {
  const table = texts(from['table'], 'shape: table')
  if (table.length !== 2) throw new FrameError('shape: table is not [schema, name]')
  const columns = list(from['columns'], 'shape: columns').map((item) => {
    const column = fields(item, 'shape: a column')
    return {
      name: text(column, 'name', 'shape: a column'),
      type: text(column, 'type', 'shape: a column'),
      wire: text(column, 'wire', 'shape: a column'),
    }
  })
  const key = texts(from['key'], 'shape: key')
  if (key.length === 0 || !key.every((name) => columns.some((column) => column.name === name))) {
    throw new FrameError('shape: key names no column of the shape')
  }
  return {
    event: 'shape',
    ref: text(from, 'ref', 'shape'),
    shape: text(from, 'shape', 'shape'),
    fingerprint: text(from, 'fingerprint', 'shape'),
    table: [table[0] as string, table[1] as string],
    key,
    columns,
    fill: (from['fill'] ?? null) === null ? {} : (fields(from['fill'], 'shape: fill') as Record<string, Json>),
  }
}

function readRows(from: Fields): RowsFrame {
  const reset = from['reset'] ?? null
  if (reset !== null && typeof reset !== 'string') throw new FrameError('rows: reset is not text')
  const rows = (name: string) => optionalList(from, name, 'rows').map((row) => list(row, `rows: ${name}`) as WireRow)
  const patch = optionalList(from, 'patch', 'rows').map((item) => {
    const [row, kept] = list(item, 'rows: patch')
    const indexes = list(kept, 'rows: patch').map((index) => {
      if (!Number.isInteger(index)) throw new FrameError('rows: patch names a column by something else than its index')
      return index as number
    })
    return [list(row, 'rows: patch') as WireRow, indexes] as const
  })
  return { event: 'rows', shape: text(from, 'shape', 'rows'), reset, remove: rows('remove'), put: rows('put'), patch }
}

function readAck(from: Fields): AckFrame {
  const mutations = list(from['mutations'], 'ack: mutations').map((item): Decision => {
    const one = fields(item, 'ack: a mutation')
    const outcome = one['outcome']
    if (outcome !== 'applied' && outcome !== 'refused') throw new FrameError('ack: an outcome is neither applied nor refused')
    return {
      n: text(one, 'n', 'ack'),
      id: text(one, 'id', 'ack'),
      outcome,
      ...(typeof one['code'] === 'string' ? { code: one['code'] } : {}),
      ...(typeof one['message'] === 'string' ? { message: one['message'] } : {}),
    }
  })
  return { event: 'ack', mutations }
}

function readCommit(from: Fields): CommitFrame {
  const xid = from['xid'] ?? null
  if (xid !== null && typeof xid !== 'string') throw new FrameError('commit: xid is not text')
  return { event: 'commit', lsn: text(from, 'lsn', 'commit'), xid, cursor: text(from, 'cursor', 'commit') }
}

/**
 * Reads a data frame. Gives null for an event this version does not know (the caller counts it).
 * Throws FrameError when a known event is not what the protocol describes.
 */
export function readFrame(event: string, payload: unknown): DataFrame | null {
  switch (event) {
    case 'shape':
      return readShape(fields(payload, 'shape'))
    case 'rows':
      return readRows(fields(payload, 'rows'))
    case 'load': {
      const from = fields(payload, 'load')
      return { ...readRows(from), event: 'load', load: text(from, 'load', 'load') }
    }
    case 'loaded':
    case 'unload':
      return { event, loads: texts(fields(payload, event)['loads'], `${event}: loads`) }
    case 'withdraw':
      return { event: 'withdraw', shape: text(fields(payload, 'withdraw'), 'shape', 'withdraw') }
    case 'ack':
      return readAck(fields(payload, 'ack'))
    case 'commit':
      return readCommit(fields(payload, 'commit'))
    default:
      return null
  }
}

/** Reads an ERROR; whatever is missing is filled in, since an error must never hide behind another. */
export function readError(payload: unknown): ProtocolErrorBody {
  const from = typeof payload === 'object' && payload !== null ? (payload as Fields) : {}
  const body: { code: string; message: string; client?: string; last?: string } = {
    code: typeof from['code'] === 'string' ? from['code'] : 'unknown_error',
    message: typeof from['message'] === 'string' ? from['message'] : 'the node gave no reason',
  }
  if (typeof from['client'] === 'string') body.client = from['client']
  if (typeof from['last'] === 'string') body.last = from['last']
  return body
}

/** Reads the `shapes` of a JOINED or of a subscribe's answer. Throws FrameError. */
export function readAnswers(payload: unknown): ShapeAnswer[] {
  return list(fields(payload, 'the answer')['shapes'], 'the answer: shapes').map((item) => {
    const answer = fields(item, 'a shape answer')
    const ok = answer['ok'] === true
    return { ref: text(answer, 'ref', 'a shape answer'), error: ok ? null : readError(answer['error']) }
  })
}

/** Reads a JOINED. Throws FrameError. */
export function readJoined(payload: unknown): Joined {
  const from = fields(payload, 'joined')
  return {
    database: text(from, 'database', 'joined'),
    subject: text(from, 'subject', 'joined'),
    client: text(from, 'client', 'joined'),
    shapes: readAnswers(payload),
  }
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
export function definitionId(definition: ShapeDefinition): string {
  const columns = definition.columns ? [...new Set(definition.columns)].sort() : null
  const scope = definition.scope ? Object.entries(definition.scope).sort(([a], [b]) => (a < b ? -1 : 1)) : null
  const shape = [tableName(definition.table), columns, scope]
  // shapes without a condition keep the names they have in stores of earlier versions
  return JSON.stringify(definition.where ? [...shape, definition.where, definition.params ?? []] : shape)
}
