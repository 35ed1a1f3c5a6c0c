/** What the application asked for: one entry per definition, shared and counted. */
import type { Base, TouchedKeys } from './apply'
import { Listeners } from './listeners'
import { definitionId, type ProtocolErrorBody, type ShapeDefinition, tableNameOf } from './protocol'
import type { ActiveShape } from './view'

/** `pending` until rows are held, `error` when the server refused the shape. */
export interface SubscriptionSnapshot {
  readonly state: 'pending' | 'live' | 'error'
  readonly error?: { readonly code: string; readonly message: string }
}

/** One interest in a shape. */
export interface Subscription {
  /** What the server calls it. */
  readonly ref: string
  /** Resolves when rows are held, with or without a network; rejects when the server refuses the shape. */
  readonly ready: Promise<void>
  /** Gives the interest up; with the last one the rows disappear. */
  unsubscribe(): void
  getSnapshot(): SubscriptionSnapshot
  subscribe(callback: () => void): () => void
}

/** A refusal as an Error, with the server's code. */
export class ShapeRefusedError extends Error {
  override name = 'ShapeRefusedError'
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
}

const PENDING: SubscriptionSnapshot = { state: 'pending' }
const LIVE: SubscriptionSnapshot = { state: 'live' }

/** One definition. */
export class SubscriptionEntry {
  readonly listeners = new Listeners()
  readonly ready: Promise<void>
  count = 0
  snapshot = PENDING
  private resolve!: () => void
  private reject!: (error: Error) => void

  constructor(
    readonly ref: string,
    readonly id: string,
    readonly definition: ShapeDefinition,
  ) {
    this.ready = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // whoever does not wait for it reads the state instead
    this.ready.catch(() => undefined)
  }

  /** Takes a state; true when it is another one. */
  become(next: SubscriptionSnapshot): boolean {
    if (next.state === 'live') this.resolve()
    if (next.error) this.reject(new ShapeRefusedError(next.error.code, next.error.message))
    if (next.state === this.snapshot.state && next.error?.code === this.snapshot.error?.code) return false
    this.snapshot = next
    return true
  }
}

/** All definitions of one client. */
export class Subscriptions {
  private readonly entries = new Map<string, SubscriptionEntry>()
  private refs = 0

  /** Adds an interest; `isNew` when nobody had it. */
  add(definition: ShapeDefinition): { entry: SubscriptionEntry; isNew: boolean } {
    const id = definitionId(definition)
    const known = this.entries.get(id)
    // a ref is never used twice, so that a late frame of an earlier interest means nothing
    const entry = known ?? new SubscriptionEntry(`s${(this.refs += 1)}`, id, definition)
    entry.count += 1
    this.entries.set(id, entry)
    return { entry, isNew: known === undefined }
  }

  /** Every entry. */
  all(): SubscriptionEntry[] {
    return [...this.entries.values()]
  }

  /** Takes out what nobody is interested in any more. */
  sweep(): SubscriptionEntry[] {
    const gone = this.all().filter(({ count }) => count === 0)
    for (const { id } of gone) this.entries.delete(id)
    return gone
  }

  /** The entry with this ref. */
  byRef(ref: string): SubscriptionEntry | undefined {
    return this.all().find((entry) => entry.ref === ref)
  }

  /** What the view is made of. */
  active(base: Base): ActiveShape[] {
    return this.all().map(({ id, definition }) => ({ definition, held: base.shapes.get(id) ?? null }))
  }

  /** Brings the states in line with what is held; gives the entries whose state changed. */
  follow(base: Base): SubscriptionEntry[] {
    return this.all().filter((entry) => {
      if (base.shapes.has(entry.id)) return entry.become(LIVE)
      return entry.snapshot.state === 'live' && entry.become(PENDING)
    })
  }

  /** Takes a server's refusal. */
  refuse(ref: string, error: ProtocolErrorBody): boolean {
    return this.byRef(ref)?.become({ state: 'error', error: { code: error.code, message: error.message } }) ?? false
  }

  /** Whether rows of something are still to come; before a session's first commit, those of everything not refused. */
  isLoading(isEstablished: boolean): boolean {
    return this.all().some(({ snapshot }) => snapshot.state === 'pending' || (snapshot.state === 'live' && !isEstablished))
  }
}

/** All keys of the shapes with these ids. */
export function keysOf(base: Base, ids: Iterable<string>): TouchedKeys {
  const touched: TouchedKeys = new Map()
  for (const id of ids) {
    const held = base.shapes.get(id)
    if (held === undefined) continue
    const table = tableNameOf(held.table)
    const keys = touched.get(table) ?? new Set<string>()
    for (const key of held.rows.keys()) keys.add(key)
    touched.set(table, keys)
  }
  return touched
}
