/** What the application asked for: one entry per definition, shared and counted. */
import { type Base, shownShape } from './apply'
import { Listeners } from './listeners'
import { definitionId, type ProtocolErrorBody, type AskedShape, type ShapeKeeping } from './protocol'
import type { ActiveShape } from './view'

/**
 * `pending` until rows are held, `error` when the server refused the shape. `provisional`: a first load is shown before it
 * is settled, until the next commit; if the connection is lost before, it disappears again.
 */
export interface SubscriptionSnapshot {
  readonly state: 'pending' | 'provisional' | 'live' | 'error'
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

/** The node does not give out this shape. */
export interface ShapeRefusal {
  readonly id: string
  readonly error: { readonly code: string; readonly message: string }
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
const PROVISIONAL: SubscriptionSnapshot = { state: 'provisional' }
const LIVE: SubscriptionSnapshot = { state: 'live' }

/** One definition. */
export class SubscriptionEntry {
  readonly listeners = new Listeners()
  readonly ready: Promise<void>
  /** interests of this page, by how they want it kept */
  readonly counts: Record<ShapeKeeping, number> = { sync: 0, live: 0 }
  /** what other pages want, for which this one speaks to the node */
  readonly others = new Map<string, ShapeKeeping>()
  /** whether this page shows its rows */
  isShown = false
  snapshot = PENDING
  private resolve!: () => void
  private reject!: (error: Error) => void

  constructor(
    readonly ref: string,
    readonly id: string,
    readonly definition: AskedShape,
  ) {
    this.ready = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // whoever does not wait for it reads the state instead
    this.ready.catch(() => undefined)
  }

  /** How many interests of this page there are. */
  get count(): number {
    return this.counts.sync + this.counts.live
  }

  /** Whether anybody wants its rows to be stored. */
  get isSync(): boolean {
    return this.counts.sync > 0 || [...this.others.values()].includes('sync')
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

  /** Adds an interest of this page; `isNew` when it had none. */
  add(definition: AskedShape): { entry: SubscriptionEntry; isNew: boolean } {
    const entry = this.entryOf(definition)
    const isNew = !entry.isShown
    entry.isShown = true
    entry.counts[definition.keep ?? 'sync'] += 1
    return { entry, isNew }
  }

  /** What this page wants, for the page that speaks to the node. */
  wants(): AskedShape[] {
    return this.shown().map((entry) => ({ ...entry.definition, keep: entry.counts.sync > 0 ? 'sync' : 'live' }))
  }

  /** Another page wants these, and nothing else. */
  setOther(page: string, wants: readonly AskedShape[]): void {
    const ids = new Set(wants.map(definitionId))
    for (const entry of this.entries.values()) if (!ids.has(entry.id)) entry.others.delete(page)
    for (const definition of wants) this.entryOf(definition).others.set(page, definition.keep ?? 'sync')
  }

  /** No other page wants anything. */
  forgetOthers(): void {
    for (const entry of this.entries.values()) entry.others.clear()
  }

  private entryOf(definition: AskedShape): SubscriptionEntry {
    const id = definitionId(definition)
    // a ref is never used twice, so that a late frame of an earlier interest means nothing
    const entry = this.entries.get(id) ?? new SubscriptionEntry(`s${(this.refs += 1)}`, id, definition)
    this.entries.set(id, entry)
    return entry
  }

  /** Every entry. */
  all(): SubscriptionEntry[] {
    return [...this.entries.values()]
  }

  /** Those whose rows this page shows. */
  shown(): SubscriptionEntry[] {
    return this.all().filter(({ isShown }) => isShown)
  }

  /** Takes out what nobody is interested in any more: of this page (`hidden`), of any page (`gone`). */
  sweep(): { hidden: SubscriptionEntry[]; gone: SubscriptionEntry[] } {
    const hidden = this.all().filter(({ count, isShown }) => count === 0 && isShown)
    for (const entry of hidden) entry.isShown = false
    const gone = this.all().filter(({ isShown, others }) => !isShown && others.size === 0)
    for (const { id } of gone) this.entries.delete(id)
    return { hidden, gone }
  }

  /** The entry with this ref. */
  byRef(ref: string): SubscriptionEntry | undefined {
    return this.all().find((entry) => entry.ref === ref)
  }

  /** What the view is made of. */
  active(base: Base): ActiveShape[] {
    return this.shown().map(({ id, definition }) => ({ definition, held: shownShape(base, id) ?? null }))
  }

  /** Brings the states in line with what is held; gives the entries whose state changed. */
  follow(base: Base): SubscriptionEntry[] {
    return this.all().filter((entry) => {
      if (base.shapes.has(entry.id)) return entry.become(LIVE)
      return entry.snapshot.state !== 'error' && entry.become(base.provisional?.has(entry.id) ? PROVISIONAL : PENDING)
    })
  }

  /** Takes a server's refusal. */
  refuse(ref: string, error: ProtocolErrorBody): boolean {
    return this.byRef(ref)?.become({ state: 'error', error: { code: error.code, message: error.message } }) ?? false
  }

  /** The refusals, by shape, for other pages. */
  refusals(): ShapeRefusal[] {
    return this.all().flatMap(({ id, snapshot: { error } }) => (error ? [{ id, error }] : []))
  }

  /** Takes over what another page was told; gives the entries whose state changed. */
  takeRefusals(refusals: readonly ShapeRefusal[]): SubscriptionEntry[] {
    return refusals.flatMap(({ id, error }) => {
      const entry = this.entries.get(id)
      return entry?.become({ state: 'error', error }) ? [entry] : []
    })
  }

  /** The ids of shapes whose rows are to be stored. */
  syncIds(): Set<string> {
    return new Set(this.all().flatMap(({ id, isSync }) => (isSync ? [id] : [])))
  }

  /** Whether rows of something are still to come; before a session's first commit, those of everything not refused. */
  isLoading(isEstablished: boolean): boolean {
    return this.shown().some(({ snapshot: { state } }) => state !== 'error' && (state !== 'live' || !isEstablished))
  }
}
