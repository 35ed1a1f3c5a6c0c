/**
 * Writes to the store, and what happens when it cannot be written: the rows are given up first (they can be loaded
 * again), the outbox last (nobody else has it).
 */
import { EMPTY_META, type Store, type StoreContents, type StoreWrite } from './store'

/** What a store that cannot be opened is taken for. */
const NOTHING: StoreContents = { database: null, meta: EMPTY_META, shapes: [], rows: new Map(), outbox: [], refused: [] }

/** The store as the client uses it: it never throws, it tells. */
export class Keeper {
  private mode: 'all' | 'outbox' | 'nothing' = 'all'
  private database: string | null = null

  /** `report` is called once each time less is kept than before. */
  constructor(
    private readonly store: Store,
    private readonly report: (message: string) => void,
  ) {}

  /** Opens the store; an unusable one is empty. */
  async open(url: string, subject: string): Promise<StoreContents> {
    try {
      const contents = await this.store.open(url, subject)
      this.database = contents.database
      return contents
    } catch (error) {
      this.degrade('nothing', error)
      return NOTHING
    }
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
        this.degrade('nothing', error)
      }
    }
    // without a store the first id changes nothing, another one must not get what was meant for the first
    return before === null ? null : { contents: { ...NOTHING, database }, moved: false }
  }

  /** One transaction. Resolves to null when everything that matters for the outbox is stored, else to the error. */
  async write(write: StoreWrite): Promise<unknown> {
    if (this.mode === 'nothing') return new Error('the store cannot be used')
    if (this.mode === 'all') {
      try {
        await this.store.write(write)
        return null
      } catch (error) {
        this.degrade('outbox', error)
      }
    }
    try {
      await this.store.write(withoutShapes(write))
      return null
    } catch (error) {
      return error
    }
  }

  /** Closes the store. */
  async close(): Promise<void> {
    // what cannot be closed was never open
    await this.store.close().catch(() => undefined)
  }

  private degrade(mode: 'outbox' | 'nothing', error: unknown): void {
    this.mode = mode
    const kept = mode === 'outbox' ? 'only unsent changes are kept' : 'nothing is kept'
    this.report(`the local store failed, ${kept} when this page is left: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** A store without shapes must not hold a cursor, which would cover them. */
function withoutShapes({ shapes: _, meta, ...rest }: StoreWrite): StoreWrite {
  return { ...rest, forgetShapes: true, ...(meta ? { meta: { ...meta, cursor: null } } : {}) }
}
