/** Mutations as an application writes them, and the promises it gets for them. */
import type { DraftMutation } from './store'
import type { Op } from './protocol'
import { encodeRecord, encodeValue, type Json, own } from './values'

type Values = Readonly<Record<string, unknown>>

/**
 * One operation as the application gives it; values may be bigint or Date besides JSON. With `if` the mutation is
 * carried out only when the row is there and has these values still: `unchanged` means those that are shown now, of the
 * columns that an update sets, of all columns for a delete.
 */
export type OpInput =
  | { readonly op: 'insert'; readonly table: string; readonly values: Values }
  | { readonly op: 'update'; readonly table: string; readonly key: Values; readonly set: Values; readonly if?: 'unchanged' | Values }
  | { readonly op: 'delete'; readonly table: string; readonly key: Values; readonly if?: 'unchanged' | Values }

/** The bytes of one message to a node, and of what is around a mutation in it. */
export const MESSAGE_BYTES = 1_048_576
const ENVELOPE_BYTES = 1024

const encoder = new TextEncoder()

/** The bytes that a mutation takes in a message. */
export function bytesOf(mutation: unknown): number {
  return encoder.encode(JSON.stringify(mutation)).length
}

/** A name and arguments that tell the application later what a mutation was; stored and sent along. */
export interface MutationOptions {
  readonly name?: string
  readonly args?: unknown
}

/** What became of a mutation; `code` and `message` with a refusal, as in docs/protocol.md. */
export interface MutationOutcome {
  readonly outcome: 'applied' | 'refused'
  readonly code?: string
  readonly message?: string
}

/** A mutation that was accepted for sending. */
export interface Mutation {
  readonly id: string
  /** Resolves when it would survive a restart of the machine; rejects when the store cannot be written. */
  readonly saved: Promise<void>
  /** Resolves in the commit that decides it; pending as long as there is no connection. */
  readonly outcome: Promise<MutationOutcome>
}

/** A random (version 4) UUID; `crypto.randomUUID` is missing on pages without TLS. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

/** What is shown of a row, as it travels; undefined when nothing is. */
export type Seen = (table: string, key: Record<string, Json>) => Record<string, Json> | undefined

function conditionOf(input: OpInput & { op: 'update' | 'delete' }, key: Record<string, Json>, seen: Seen): { if?: Record<string, Json> } {
  if (input.if === undefined) return {}
  if (input.if !== 'unchanged') return { if: encodeRecord(input.if) }
  const row = seen(input.table, key)
  if (row === undefined) throw new TypeError('a row that is not shown cannot be unchanged since it was')
  const names = input.op === 'update' ? Object.keys(input.set) : Object.keys(row)
  return { if: Object.fromEntries(names.map((name) => [name, own(row, name) ?? null])) }
}

function toOp(input: OpInput, seen: Seen): Op {
  if (typeof input.table !== 'string') throw new TypeError('an operation names no table')
  const { op, table } = input
  if (op === 'insert') return { op, table, values: encodeRecord(input.values) }
  if (op !== 'update' && op !== 'delete') throw new TypeError(`an operation is insert, update or delete, not ${String(op)}`)
  const key = encodeRecord(input.key)
  const condition = conditionOf(input, key, seen)
  return op === 'update' ? { op, table, key, set: encodeRecord(input.set), ...condition } : { op, table, key, ...condition }
}

/**
 * A mutation with an id of its own. Throws a TypeError for what is no operation or no value, a RangeError for what no
 * message could hold.
 */
export function newMutation(ops: readonly OpInput[], options: MutationOptions, seen: Seen): DraftMutation {
  if (ops.length === 0) throw new TypeError('a mutation has at least one operation')
  const draft = { id: randomId(), name: options.name ?? null, args: encodeValue(options.args) ?? null, ops: ops.map((op) => toOp(op, seen)) }
  const bytes = bytesOf(draft)
  if (bytes > MESSAGE_BYTES - ENVELOPE_BYTES) {
    throw new RangeError(`this mutation has ${bytes.toLocaleString('en')} bytes and a message at most 1 MiB: write less at once, in several mutations`)
  }
  return draft
}

interface Wait {
  readonly saved: (failure: unknown) => void
  readonly decided: (outcome: MutationOutcome) => void
}

/** The promises of this run's mutations. */
export class MutationWaits {
  private readonly waits = new Map<string, Wait>()

  /** Promises for one mutation. */
  add(id: string): { saved: Promise<void>; outcome: Promise<MutationOutcome> } {
    let onSaved!: Wait['saved']
    let onDecided!: Wait['decided']
    const saved = new Promise<void>((resolve, reject) => {
      onSaved = (failure) => (failure === null ? resolve() : reject(failure))
    })
    // whoever does not wait for it reads `status.error` instead
    saved.catch(() => undefined)
    const outcome = new Promise<MutationOutcome>((resolve) => {
      onDecided = resolve
    })
    this.waits.set(id, { saved: onSaved, decided: onDecided })
    return { saved, outcome }
  }

  /** It is in the store, or (an error) is not. */
  save(id: string, failure: unknown): void {
    this.waits.get(id)?.saved(failure)
  }

  /** It is decided. */
  decide(id: string, outcome: MutationOutcome): void {
    this.waits.get(id)?.decided(outcome)
    this.waits.delete(id)
  }
}
