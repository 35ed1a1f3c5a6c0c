/**
 * The store as the client uses it, and what happens when it cannot be used: the rows are given up first (they can be
 * loaded again), the outbox last (nobody else has it), and the application is told each time less is kept than before.
 */
import {
  DeposedError,
  type DraftMutation,
  EMPTY_META,
  MovedError,
  type Store,
  type StoreContents,
  type StoredMeta,
  type StoredMutation,
  type StoreEvent,
  type StoreWrite,
} from './store'
import type { WireRow } from './values'

/** What a store that cannot be opened is taken for. */
const NOTHING: StoreContents = {
  database: null,
  meta: EMPTY_META,
  revision: 0,
  damaged: [],
  shapes: [],
  rows: new Map(),
  outbox: [],
  refused: [],
}

/** A failure of the store as the application hears of it; null when it is over. */
export type StoreReport = { readonly code: string; readonly message: string } | null

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** A store that never throws but for DeposedError and MovedError: it tells. */
export class Keeper {
  private mode: 'all' | 'outbox' | 'nothing' = 'all'
  /** the server's database id, null as long as no server has been met */
  database: string | null = null
  private meta: StoredMeta = EMPTY_META

  constructor(
    private readonly store: Store,
    private readonly report: (report: StoreReport) => void,
    onEvent: (event: StoreEvent) => void,
  ) {
    store.onEvent = onEvent
  }

  /** What pages that share the store call it; null when there is nothing to share. */
  get place(): string | null {
    return this.mode === 'nothing' ? null : this.store.place
  }

  /** The epoch under which this page led last. */
  get epoch(): number {
    return this.store.epoch
  }

  /** Whether the rows shown are those stored. */
  get keepsRows(): boolean {
    return this.mode === 'all'
  }

  /** Whether the store should be written anew where it helps. */
  get isScattered(): boolean {
    return this.mode === 'all' && this.store.isScattered
  }

  /** Opens the store; an unusable one is empty. */
  async open(url: string, subject: string): Promise<StoreContents> {
    return this.opened(() => this.store.open(url, subject))
  }

  /** Makes this page the leader of the store. `rows` is empty when `revision` is that of the store. */
  async lead(revision: number | null, lastSeq: number): Promise<StoreContents> {
    if (this.mode === 'nothing') return { ...NOTHING, database: this.database }
    return this.opened(() => this.store.lead(revision, lastSeq))
  }

  /** Whether this page may send. Without a store nobody else can. */
  async isLeader(): Promise<boolean> {
    if (this.mode === 'nothing') return true
    return this.store.isLeader().catch(() => false)
  }

  /** Opens a store that the browser threw away, and leads it. Null when that does not work (yet). */
  async reopen(url: string, subject: string, database: string | null, lastSeq: number): Promise<StoreContents | null> {
    this.mode = 'nothing'
    try {
      await this.store.open(url, subject)
      let contents = await this.store.lead(null, lastSeq)
      if (database !== null && (await this.store.adopt(database)) !== null) contents = await this.store.lead(null, lastSeq)
      this.mode = 'all'
      return contents
    } catch {
      return null
    }
  }

  /** Nothing of the store can be used from here on. */
  giveUp(report: StoreReport): void {
    this.mode = 'nothing'
    this.report(report)
  }

  /** The server's database id; contents when another place was opened, with `moved` when it was the first id ever. */
  async adopt(database: string): Promise<{ contents: StoreContents; moved: boolean } | null> {
    const before = this.database
    if (before === database) return null
    this.database = database
    if (this.mode !== 'nothing') {
      try {
        const contents = await this.store.adopt(database)
        return contents === null ? null : { contents, moved: before === null }
      } catch (error) {
        this.rethrow(error)
        this.degrade('nothing', error)
      }
    }
    // without a store the first id changes nothing, another one must not get what was meant for the first
    return before === null ? null : { contents: { ...NOTHING, database }, moved: false }
  }

  /** One transaction. Resolves to null when everything that matters for the outbox is stored, else to the error. */
  async write(write: StoreWrite): Promise<unknown> {
    if (write.meta) this.meta = write.meta
    return this.attempt(() => this.store.write(this.mode === 'all' ? write : withoutShapes(write)))
  }

  /** Numbers drafts and stores them; `fallback` numbers what no store can take. */
  async append(drafts: readonly DraftMutation[], fallback: () => StoredMutation[]): Promise<{ stored: StoredMutation[]; failure: unknown }> {
    let stored: StoredMutation[] | null = null
    const failure = await this.attempt(async () => {
      stored = await this.store.append(drafts)
    })
    return { stored: stored ?? fallback(), failure }
  }

  /** What other pages appended; nothing when it cannot be read. */
  async outboxAfter(seq: number): Promise<readonly StoredMutation[]> {
    return this.mode === 'nothing' ? [] : this.store.outboxAfter(seq).catch(() => [])
  }

  /** One strict transaction over the outbox as it is then. Like `write`, but that `propose` is called in any case. */
  async change(seq: number, propose: (tail: readonly StoredMutation[]) => StoreWrite | null): Promise<unknown> {
    let isProposed = false
    let proposed: StoreWrite | null = null
    const once = (tail: readonly StoredMutation[]) => {
      if (!isProposed) proposed = propose(tail)
      isProposed = true
      if (proposed?.meta) this.meta = proposed.meta
      return proposed && this.mode !== 'all' ? withoutShapes(proposed) : proposed
    }
    const failure = await this.attempt(() => this.store.change(seq, once))
    if (!isProposed) once([])
    return proposed === null ? null : failure
  }

  /** Writes rows anew where that helps. */
  async compact(rows: (shape: string) => ReadonlyMap<string, WireRow> | undefined): Promise<void> {
    if (this.mode === 'all') await this.attempt(() => this.store.compact(rows))
  }

  /** Deletes everything. */
  async wipe(): Promise<void> {
    if (this.mode !== 'nothing') await this.store.wipe()
    this.mode = 'nothing'
  }

  /** Closes the store. */
  async close(): Promise<void> {
    // what cannot be closed was never open
    await this.store.close().catch(() => undefined)
  }

  private async opened(open: () => Promise<StoreContents>): Promise<StoreContents> {
    try {
      const contents = await open()
      this.mode = 'all'
      this.database = contents.database
      this.meta = contents.meta
      if (contents.damaged.length > 0) {
        const message = `the local store was damaged: ${contents.damaged.join(' and ')} could not be read; rows are loaded anew`
        this.report({ code: 'store_damaged', message })
      }
      return contents
    } catch (error) {
      this.rethrow(error)
      this.degrade('nothing', error)
      return NOTHING
    }
  }

  /** Tries once with all that is kept, once more with the outbox alone. */
  private async attempt(act: () => Promise<void>): Promise<unknown> {
    if (this.mode === 'nothing') return new Error('the store cannot be used')
    if (this.mode === 'all') {
      try {
        await act()
        return null
      } catch (error) {
        this.rethrow(error)
        this.degrade('outbox', error)
        // makes room, and takes away what no cursor covers any more
        await this.store.write(withoutShapes({ durability: 'strict', meta: this.meta })).catch(() => undefined)
      }
    }
    try {
      await act()
      return null
    } catch (error) {
      this.rethrow(error)
      return error
    }
  }

  private rethrow(error: unknown): void {
    if (error instanceof DeposedError || error instanceof MovedError) throw error
  }

  private degrade(mode: 'outbox' | 'nothing', error: unknown): void {
    this.mode = mode
    const { name } = (error ?? {}) as { name?: string }
    const code = name === 'QuotaExceededError' ? 'store_full' : name === 'VersionError' ? 'store_newer' : 'store_failed'
    const kept = mode === 'outbox' ? 'only unsent changes are kept' : 'nothing is kept'
    this.report({ code, message: `the local store failed, ${kept} when this page is left: ${words(error)}` })
  }
}

/** A store without shapes must not hold a cursor, which would cover them. */
function withoutShapes({ shapes: _, meta, ...rest }: StoreWrite): StoreWrite {
  return { ...rest, forgetShapes: true, ...(meta ? { meta: { ...meta, cursor: null } } : {}) }
}
