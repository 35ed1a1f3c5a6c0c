/**
 * What outlives a page: a store (IndexedDB or memory) and the locks, with a page on it that can die between any two
 * operations. Whatever a dying page had under way and not committed is undone, as a browser does it.
 */
import { IDBFactory, IDBObjectStore } from 'fake-indexeddb'
import 'fake-indexeddb/auto'
import type { Store, StoreContents } from '../../src/store'
import { idbStore } from '../../src/store_idb'
import { memoryStore } from '../../src/store_memory'

/** Any; a page finds its store by it. */
export const URL_OF_NODE = 'ws://trace/socket'

/**
 * When a page dies, counted in its transactions (1 is the first after opening): before one, in it after so many of its
 * requests were carried out (the last one, if there are fewer), or after it, before anybody hears of it.
 */
export type Death = { at: 'before' | 'after'; transaction: number } | { at: 'within'; transaction: number; requests: number }

/** Rejections of the page's waits, once it is dead. */
export class Died extends Error {}

class Locks {
  private readonly held = new Set<string>()
  /** somebody looks at the store beside its page */
  ignored = false

  request(name: string, _options: unknown, hold: (lock: unknown) => Promise<void> | undefined): Promise<unknown> {
    if (this.ignored) return Promise.resolve(hold({ name }))
    if (this.held.has(name)) return Promise.resolve(hold(null))
    this.held.add(name)
    return Promise.resolve(hold({ name })).then(() => this.held.delete(name))
  }

  clear(): void {
    this.held.clear()
  }
}

export class Disk {
  /** pages that died, by where */
  readonly deaths = { before: 0, within: 0, after: 0 }
  /** what the page found when it opened */
  found: StoreContents | null = null
  private readonly memory = memoryStore()
  private readonly locks = new Locks()
  private page = { dead: false, busy: 0, transactions: 0, death: null as Death | null }

  constructor(private readonly kind: 'indexeddb' | 'memory') {
    globalThis.indexedDB = new IDBFactory()
    Object.defineProperty(globalThis, 'navigator', { value: { locks: this.locks }, configurable: true })
  }

  /** The store of a new page. */
  newPage(death: Death | null): Store {
    this.locks.clear()
    const page = { dead: false, busy: 0, transactions: 0, death }
    this.page = page
    const store = this.kind === 'memory' ? this.memory : idbStore()
    const guarded = async <T>(isTransaction: boolean, call: () => Promise<T>): Promise<T> => {
      if (page.dead) return never()
      if (isTransaction) page.transactions += 1
      const planned = isTransaction && page.death?.transaction === page.transactions ? page.death.at : null
      if (planned === 'before') return this.die(planned)
      page.busy += 1
      const undo = planned === 'within' && this.kind === 'indexeddb' ? dieWithin((page.death as { requests: number }).requests) : null
      const ended = await call().then(
        (value) => ({ value }),
        (error: unknown) => ({ error }),
      )
      undo?.()
      page.busy -= 1
      // a transaction without requests cannot be cut short
      if (undo !== null) return this.die('error' in ended ? 'within' : 'after')
      if (planned === 'after') return this.die(planned)
      if (page.dead) return never()
      if ('error' in ended) throw ended.error
      return ended.value
    }
    return {
      open: (url, subject) => guarded(false, async () => (this.found = await store.open(url, subject))),
      adopt: (database) => guarded(true, () => store.adopt(database)),
      write: (write) => guarded(true, () => store.write(write)),
      close: () => guarded(false, () => store.close()),
    }
  }

  /** Waits until the page has done all that it does by itself. Rejects with Died when it died. */
  async quiet(): Promise<void> {
    for (let calm = 0; calm < 4; ) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      if (this.page.dead) throw new Died()
      calm = this.page.busy > 0 ? 0 : calm + 1
    }
  }

  /** What a page would find now. */
  async look(): Promise<StoreContents> {
    if (this.kind === 'memory') return this.memory.open(URL_OF_NODE, '')
    this.locks.ignored = true
    const store = idbStore()
    try {
      return await store.open(URL_OF_NODE, '')
    } finally {
      await store.close()
      this.locks.ignored = false
    }
  }

  private die<T>(at: Death['at']): Promise<T> {
    this.page.dead = true
    this.deaths[at] += 1
    return never()
  }
}

function never<T>(): Promise<T> {
  return new Promise<T>(() => undefined)
}

/** Aborts the transaction under way once so many of its requests are done, or its last one. Returns how to stop that. */
function dieWithin(requests: number): () => void {
  const methods = ['put', 'delete', 'clear'] as const
  const originals = methods.map((name) => IDBObjectStore.prototype[name])
  let done = 0
  let issued = 0
  methods.forEach((name, at) => {
    IDBObjectStore.prototype[name] = function (this: IDBObjectStore, ...args: unknown[]) {
      const request = (originals[at] as (...args: unknown[]) => IDBRequest).apply(this, args)
      issued += 1
      request.addEventListener('success', () => {
        done += 1
        if (done === requests || (done < requests && done === issued)) request.transaction?.abort()
      })
      return request
    } as never
  })
  return () => methods.forEach((name, at) => void (IDBObjectStore.prototype[name] = originals[at] as never))
}
