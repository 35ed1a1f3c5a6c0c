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

/** What waits for a page rejects with when it is dead. */
export class Died extends Error {}

/**
 * One page. Each request of a transaction that was carried out is a step, and so is the end of each transaction. At its
 * last step the page dies: after a request, what it was part of is undone; after an end, nobody hears of it.
 */
interface Page {
  dead: boolean
  isBorn: boolean
  busy: number
  steps: number
  lastStep: number
}

export class Disk {
  /** pages that died, by where: before their first transaction, within one, after one that nobody heard the end of */
  readonly deaths = { before: 0, within: 0, after: 0 }
  /** what the page found when it opened */
  found: StoreContents | null = null
  private readonly memory = memoryStore()
  private page: Page = { dead: false, isBorn: false, busy: 0, steps: 0, lastStep: Infinity }

  constructor(private readonly kind: 'indexeddb' | 'memory') {
    globalThis.indexedDB = new IDBFactory()
  }

  /** The store of a new page. */
  newPage(): Store {
    const page: Page = { dead: false, isBorn: false, busy: 0, steps: 0, lastStep: Infinity }
    this.page = page
    const store = this.kind === 'memory' ? this.memory : idbStore()
    const transaction = async <T>(call: () => Promise<T>): Promise<T> => {
      if (page.dead) return never()
      if (page.steps === page.lastStep) return this.die('before')
      page.busy += 1
      const unwatch = this.kind === 'indexeddb' ? watch(page) : () => undefined
      const ended = await call().then(
        (value) => ({ value }),
        (error: unknown) => ({ error }),
      )
      unwatch()
      page.busy -= 1
      if (page.steps === page.lastStep) return this.die('within')
      page.steps += 1
      if (page.steps === page.lastStep) return this.die('after')
      if ('error' in ended) throw ended.error
      return ended.value
    }
    const first = async <T>(call: () => Promise<T>): Promise<T> => {
      page.busy += 1
      try {
        return await call()
      } finally {
        page.busy -= 1
      }
    }
    return {
      place: null,
      isScattered: false,
      get epoch() {
        return store.epoch
      },
      onEvent: () => undefined,
      open: (url, subject) => first(async () => (this.found = await store.open(url, subject))),
      // a page that has just been opened leads without further ado; after a move it is a step
      lead: (...args) => (page.isBorn ? transaction(() => store.lead(...args)) : first(() => ((page.isBorn = true), store.lead(...args)))),
      isLeader: () => store.isLeader(),
      adopt: (database) => transaction(() => store.adopt(database)),
      append: (drafts) => transaction(() => store.append(drafts)),
      outboxAfter: (seq) => store.outboxAfter(seq),
      change: (seq, propose) => transaction(() => store.change(seq, propose)),
      write: (write) => transaction(() => store.write(write)),
      compact: () => Promise.resolve(),
      wipe: () => store.wipe(),
      close: () => store.close(),
    }
  }

  /** The page will die so many steps from now; 0 is before its next transaction. */
  dieAfter(steps: number): void {
    this.page.lastStep = this.page.steps + steps
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
    const store = idbStore()
    try {
      return await store.open(URL_OF_NODE, '')
    } finally {
      await store.close()
    }
  }

  private die<T>(at: keyof Disk['deaths']): Promise<T> {
    this.page.dead = true
    this.deaths[at] += 1
    return never()
  }
}

function never<T>(): Promise<T> {
  return new Promise<T>(() => undefined)
}

/** Counts requests that were carried out, and at the last step aborts their transaction. Returns how to stop. */
function watch(page: Page): () => void {
  const methods = ['put', 'delete', 'clear'] as const
  const originals = methods.map((name) => IDBObjectStore.prototype[name])
  methods.forEach((name, at) => {
    IDBObjectStore.prototype[name] = function (this: IDBObjectStore, ...args: unknown[]) {
      const request = (originals[at] as (...args: unknown[]) => IDBRequest).apply(this, args)
      request.addEventListener('success', () => {
        if (page.steps === page.lastStep) return
        page.steps += 1
        if (page.steps === page.lastStep) request.transaction?.abort()
      })
      return request
    } as never
  })
  return () => methods.forEach((name, at) => void (IDBObjectStore.prototype[name] = originals[at] as never))
}
