/**
 * What a store keeps and how it is written. Two stores implement it, `store_idb` and `store_memory`; one conformance
 * suite (test/store_conformance) holds for both.
 */
import type { Op } from './protocol'
import type { Column, Json, WireRow } from './values'

/** A shape whose rows are held as of the stored cursor. `id` is its definition's text. */
export interface StoredShape {
  readonly id: string
  readonly fingerprint: string
  readonly table: readonly [string, string]
  readonly key: readonly string[]
  readonly columns: readonly Column[]
}

/**
 * A mutation that is not decided yet. `seq` orders the outbox and never changes; `n` is its number for the current
 * client id. Fields and kinds of later versions are kept as they are.
 */
export interface StoredMutation {
  readonly seq: number
  readonly n: string
  readonly id: string
  readonly kind: string
  readonly name: string | null
  readonly args: Json
  readonly ops: readonly Op[]
}

/** A mutation that the server refused, kept until the application dismisses it. `code` as in docs/protocol.md. */
export interface RefusedMutation {
  readonly id: string
  readonly name: string | null
  readonly args: Json
  readonly ops: readonly Op[]
  readonly code: string
  readonly message: string
}

/**
 * - `cursor`: the newest cursor, or null before the first commit.
 * - `client`: the id that the server gave, or null.
 * - `confirmed`: the highest mutation number whose outcome is stored, decimal text.
 * - `unknown`: a fresh client id that waits for the application's word on mutations of unknown outcome, or null.
 */
export interface StoredMeta {
  readonly cursor: string | null
  readonly client: string | null
  readonly confirmed: string
  readonly unknown: string | null
}

/** The meta record of a store that was never written. */
export const EMPTY_META: StoredMeta = { cursor: null, client: null, confirmed: '0', unknown: null }

/** The number after `n`, both decimal text of 64 bits. */
export function numberAfter(n: string): string {
  return (BigInt(n) + 1n).toString()
}

/** Those whose ids are not among the others. */
export function without<T extends { readonly id: string }>(mutations: readonly T[], others: readonly { readonly id: string }[]): T[] {
  const ids = new Set(others.map(({ id }) => id))
  return mutations.filter(({ id }) => !ids.has(id))
}

/**
 * Everything in one store. `database`: the server's database id, null as long as no server has been met. `revision`
 * counts the writes that changed rows or cursor. `damaged`: what could not be read and was left out, in words.
 */
export interface StoreContents {
  readonly database: string | null
  readonly meta: StoredMeta
  readonly revision: number
  readonly damaged: readonly string[]
  readonly shapes: readonly StoredShape[]
  /** by shape id, then by key text */
  readonly rows: ReadonlyMap<string, Map<string, WireRow>>
  /** ordered by seq */
  readonly outbox: readonly StoredMutation[]
  readonly refused: readonly RefusedMutation[]
}

/** What happens to one shape: dropped with its rows, or described anew, emptied, and rows put (row) or removed (null). */
export type ShapeWrite =
  | { readonly id: string; readonly drop: true }
  | {
      readonly id: string
      readonly drop: false
      readonly shape: StoredShape | null
      readonly reset: boolean
      readonly rows: ReadonlyMap<string, WireRow | null>
    }

/** One transaction. What is absent stays. */
export interface StoreWrite {
  /** `strict` reaches the disk before the promise resolves; `relaxed` may be lost with the power, as a whole. */
  readonly durability: 'strict' | 'relaxed'
  readonly meta?: StoredMeta
  readonly shapes?: readonly ShapeWrite[]
  readonly outboxPut?: readonly StoredMutation[]
  readonly outboxRemove?: readonly number[]
  readonly refusedPut?: readonly RefusedMutation[]
  readonly refusedRemove?: readonly string[]
  /** Drops every shape and row, to make room. */
  readonly forgetShapes?: true
}

/** A mutation of this run that is not in a store yet: it has no number. */
export interface DraftMutation {
  readonly id: string
  readonly name: string | null
  readonly args: Json
  readonly ops: readonly Op[]
}

/** The kinds this version writes and shows; others are kept and sent, not shown. The second: operations with `if`. */
export const KIND_OPS = 'ops'
export const KIND_CONDITIONAL = 'ops_if'

/** The kind of a mutation with these operations. A node that knows no conditions refuses the kind by name. */
export function kindOf(ops: readonly Op[]): string {
  return ops.some((op) => op.op !== 'insert' && op.if !== undefined) ? KIND_CONDITIONAL : KIND_OPS
}

/**
 * Drafts, or mutations of another outbox that were never sent, with the numbers and the order that follow from what is
 * there; without those that are there already (a move that was cut short is done again). `lastSeq`: the highest ever
 * given here.
 */
export function numbered(
  meta: StoredMeta,
  outbox: readonly StoredMutation[],
  lastSeq: number,
  fresh: readonly (DraftMutation | StoredMutation)[],
): StoredMutation[] {
  const last = outbox.at(-1)
  let n = last && BigInt(last.n) > BigInt(meta.confirmed) ? last.n : meta.confirmed
  let seq = Math.max(lastSeq, last?.seq ?? 0)
  return without(fresh, outbox).map((mutation) => {
    n = numberAfter(n)
    seq += 1
    return { kind: kindOf(mutation.ops), ...mutation, seq, n }
  })
}

/** Another page leads now: nothing was written, and this page must neither write nor send until it leads again. */
export class DeposedError extends Error {
  override name = 'DeposedError'
}

/** The outbox has moved to another place: nothing was written, and the store has to be opened again. */
export class MovedError extends Error {
  override name = 'MovedError'
}

/**
 * What a store may tell by itself. `blocked`: another page keeps it from being opened; `lost`: the browser threw it away;
 * `replaced`: a newer version of the application took it over; `wiped`: another page signed out.
 */
export type StoreEvent = 'blocked' | 'unblocked' | 'lost' | 'replaced' | 'wiped'

/**
 * A durable place for one (URL, subject), which several pages may have open. One of them leads: `lead` raises an epoch
 * that every later transaction of a leader finds unchanged, or else writes nothing and throws DeposedError. Everybody
 * may append to the outbox. All promises reject with the platform's error.
 */
export interface Store {
  /** What pages that share this place call it; null when no other page can open it, or it is not open. */
  readonly place: string | null
  /** The epoch under which this page led last; 0 before. */
  readonly epoch: number
  /** Set by whoever wants to hear. */
  onEvent: (event: StoreEvent) => void
  /** Opens what is kept for this URL and subject; works without a network. */
  open(url: string, subject: string): Promise<StoreContents>
  /**
   * Makes this page the leader and reads all there is; `rows` is empty when `revision` is that of the store. `lastSeq` is
   * the highest order number that the page has seen, in another place perhaps: what is appended here from now on comes
   * behind it, so that no page ever takes it for something that was read, sent or decided before.
   */
  lead(revision: number | null, lastSeq?: number): Promise<StoreContents>
  /** Whether this page leads still. */
  isLeader(): Promise<boolean>
  /**
   * The server said which database it is. The same as before: null. The first answer ever: outbox and refusals move
   * into that database's place, whose contents are returned. Another one: its own place is opened and returned, and
   * everything of the old one stays where it is. Nobody leads the place that was opened.
   */
  adopt(database: string): Promise<StoreContents | null>
  /** Numbers drafts and stores them, strictly durable. For every page. */
  append(drafts: readonly DraftMutation[]): Promise<StoredMutation[]>
  /** The mutations behind this one, whichever page appended them. */
  outboxAfter(seq: number): Promise<readonly StoredMutation[]>
  /** One strict transaction: hands over the mutations behind this one, and writes what is made of it. For the leader. */
  change(seq: number, propose: (tail: readonly StoredMutation[]) => StoreWrite | null): Promise<void>
  /** One transaction: all of it or none. For the leader. */
  write(write: StoreWrite): Promise<void>
  /** Whether reading it back would be quicker after `compact`. */
  readonly isScattered: boolean
  /** Writes rows anew where that helps; `rows` are those of the stored shapes as they are. For the leader. */
  compact(rows: (shape: string) => ReadonlyMap<string, WireRow> | undefined): Promise<void>
  /** Deletes all of this URL and subject; the store is closed then. */
  wipe(): Promise<void>
  /** Releases what is held; the contents stay. */
  close(): Promise<void>
}

