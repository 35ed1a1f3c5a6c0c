/** What only the IndexedDB store promises: one transaction, fixed object stores, a place that pages share, chunks and a log. */
import { IDBFactory, IDBObjectStore as FakeObjectStore } from 'fake-indexeddb'
import 'fake-indexeddb/auto'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { DeposedError, EMPTY_META, MovedError, type Store } from '../src/store'
import { idbStore as makeStore } from '../src/store_idb'
import type { WireRow } from '../src/values'
import { mutation, rows, SHAPE, storeConformance } from './store_conformance'

let opened: Store[] = []

/** Closed after the test. */
function idbStore(): Store {
  const store = makeStore()
  opened.push(store)
  return store
}

beforeEach(() => {
  globalThis.indexedDB = new IDBFactory()
})
afterEach(async () => {
  vi.restoreAllMocks()
  for (const store of opened) await store.close()
  opened = []
})

storeConformance('idbStore', () => idbStore)

const URL = 'ws://node/socket'
const draft = (id: string) => ({ id, name: null, args: null, ops: [] })

async function objectStores(name: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name)
    request.onerror = () => reject(request.error)
    request.onsuccess = () => {
      resolve([...request.result.objectStoreNames])
      request.result.close()
    }
  })
}

async function allRecords(name: string, store: string): Promise<unknown[]> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name)
    request.onerror = () => reject(request.error)
    request.onsuccess = () => {
      const all = request.result.transaction(store).objectStore(store).getAllKeys()
      all.onsuccess = () => {
        request.result.close()
        resolve(all.result)
      }
    }
  })
}

/** The database that a store finds itself in when it is opened anew. */
async function databaseOf(store: Store): Promise<string | null> {
  return (await store.open(URL, '')).database
}

const PLACE = 'lockstep ["database","db1","ann"]'

describe('idbStore', () => {
  it('has a fixed set of object stores in a database named by database id and subject', async () => {
    const store = idbStore()
    await store.open(URL, 'ann')
    await store.lead(null)
    await store.adopt('db1')
    await store.lead(null)
    for (const id of ['a', 'b', 'c']) {
      await store.write({ durability: 'relaxed', shapes: [{ id, drop: false, shape: { ...SHAPE, id, table: ['public', id] }, reset: true, rows: rows(['1', 'x']) }] })
    }
    await store.close()
    const names = (await indexedDB.databases()).map(({ name }) => name)
    expect(names.sort()).toEqual(['lockstep', PLACE, 'lockstep ["url","ws://node/socket","ann"]'].sort())
    expect(await objectStores(PLACE)).toEqual(['lead', 'meta', 'outbox', 'refused', 'rows', 'shapes'])
    expect(await objectStores('lockstep')).toEqual(['databases'])
  })

  it('shares nothing with a store of another name', async () => {
    const [ann, bob] = [idbStore(), makeStore({ name: 'bob' })]
    opened.push(bob)
    for (const store of [ann, bob]) {
      await store.open(URL, '')
      await store.lead(null)
      await store.adopt('db1')
      await store.lead(null)
    }
    await ann.append([draft('m1')])
    expect([ann.place, bob.place]).toEqual(['lockstep ["database","db1",""]', 'bob ["database","db1",""]'])
    expect((await bob.outboxAfter(0)).length).toBe(0)
    await ann.wipe()
    expect((await indexedDB.databases()).map(({ name }) => name)).toEqual(expect.arrayContaining(['bob', 'bob ["database","db1",""]']))
    expect(await databaseOf(bob)).toBe('db1')
  })

  it('writes everything in one transaction with the durability asked for', async () => {
    const store = idbStore()
    await store.open(URL, 'ann')
    await store.lead(null)
    const transaction = vi.spyOn(IDBDatabase.prototype, 'transaction')
    await store.write({
      durability: 'strict',
      meta: { ...EMPTY_META, cursor: 'k' },
      shapes: [
        { id: SHAPE.id, drop: false, shape: SHAPE, reset: true, rows: rows(['1', 'a']) },
        { id: 'gone', drop: true },
      ],
      outboxPut: [mutation(2)],
      outboxRemove: [1],
    })
    expect(transaction.mock.calls.map(([, mode, options]) => [mode, options])).toEqual([['readwrite', { durability: 'strict' }]])
    await store.close()
  })

  it('keeps nothing of a write of which one request fails', async () => {
    const store = idbStore()
    await store.open(URL, 'ann')
    await store.lead(null)
    await store.write({ durability: 'strict', meta: { ...EMPTY_META, cursor: 'k1' } })
    const put = FakeObjectStore.prototype.put
    vi.spyOn(FakeObjectStore.prototype, 'put').mockImplementation(function (this: IDBObjectStore, value, key) {
      if (this.name === 'outbox') throw new DOMException('full', 'QuotaExceededError')
      return put.call(this as never, value, key) as never
    })
    const write = {
      durability: 'strict' as const,
      meta: { ...EMPTY_META, cursor: 'k2' },
      shapes: [{ id: SHAPE.id, drop: false as const, shape: SHAPE, reset: true, rows: rows(['1', 'a']) }],
      outboxPut: [mutation(1)],
    }
    await expect(store.write(write)).rejects.toThrow('full')
    vi.restoreAllMocks()
    await store.close()
    const contents = await idbStore().open(URL, 'ann')
    expect([contents.meta.cursor, contents.shapes, contents.outbox]).toEqual(['k1', [], []])
  })

  it('writes a first load in chunks and each change behind them, and folds the log when it has grown', async () => {
    const store = idbStore()
    await store.open(URL, 'ann')
    await store.adopt('db1')
    await store.lead(null)
    const held = rows(...Array.from({ length: 4500 }, (_, at) => [`${at}`, 'old']))
    const change = async (reset: boolean, changed: Map<string, WireRow | null>) => {
      await store.write({ durability: 'relaxed', shapes: [{ id: SHAPE.id, drop: false, shape: reset ? SHAPE : null, reset, rows: changed }] })
      for (const [key, row] of changed) row === null ? held.delete(key) : held.set(key, row)
    }
    const fold = () => store.compact((id) => (id === SHAPE.id ? held : undefined))
    await change(true, held)
    expect(await allRecords(PLACE, 'rows')).toEqual([[SHAPE.id, 0, 0], [SHAPE.id, 0, 1], [SHAPE.id, 0, 2]])
    await change(false, new Map<string, WireRow | null>([['["1"]', null], ['["2"]', ['2', 'new']]]))
    expect(store.isScattered).toBe(false)
    await fold()
    expect(await allRecords(PLACE, 'rows')).toEqual([[SHAPE.id, 0, 0], [SHAPE.id, 0, 1], [SHAPE.id, 0, 2], [SHAPE.id, 1, 2]])
    await change(false, rows(...Array.from({ length: 3000 }, (_, at) => [`${at}`, 'newer'])))
    expect(store.isScattered).toBe(true)
    await fold()
    expect([await allRecords(PLACE, 'rows'), store.isScattered]).toEqual([[[SHAPE.id, 0, 0], [SHAPE.id, 0, 1], [SHAPE.id, 0, 2]], false])
    await change(false, rows(['5', 'newest']))
    await store.close()
    const again = idbStore()
    expect((await again.open(URL, 'ann')).rows.get(SHAPE.id)).toEqual(held)
  })

  it('is shared by pages: one leads and writes, each appends, and an older leader writes nothing', async () => {
    const [first, second] = [idbStore(), idbStore()]
    await first.open(URL, 'ann')
    await second.open(URL, 'ann')
    expect([first.place, second.place]).toEqual(['lockstep ["url","ws://node/socket","ann"]', 'lockstep ["url","ws://node/socket","ann"]'])
    await first.lead(null)
    const [one] = await first.append([draft('a')])
    const [two] = await second.append([draft('b')])
    expect([one, two].map((mutation) => [mutation?.seq, mutation?.n])).toEqual([[1, '1'], [2, '2']])
    expect((await first.outboxAfter(1)).map(({ id }) => id)).toEqual(['b'])
    expect((await second.lead(null)).outbox.map(({ id }) => id)).toEqual(['a', 'b'])
    expect([await first.isLeader(), await second.isLeader()]).toEqual([false, true])
    await expect(first.write({ durability: 'strict', outboxRemove: [1] })).rejects.toThrow(DeposedError)
    await expect(first.change(0, () => ({ durability: 'strict', outboxRemove: [1] }))).rejects.toThrow(DeposedError)
    expect((await second.outboxAfter(0)).map(({ id }) => id)).toEqual(['a', 'b'])
    await second.write({ durability: 'strict', outboxRemove: [1, 2] })
    expect((await first.append([draft('c')]))[0]).toMatchObject({ seq: 3, n: '1' })
  })

  it('takes no mutation where the outbox has moved away from', async () => {
    const [first, second] = [idbStore(), idbStore()]
    await first.open(URL, 'ann')
    await second.open(URL, 'ann')
    await first.lead(null)
    await second.append([draft('a')])
    expect((await first.adopt('db1'))?.outbox.map(({ id }) => id)).toEqual(['a'])
    await expect(second.append([draft('b')])).rejects.toThrow(MovedError)
    await expect(second.lead(null)).rejects.toThrow(MovedError)
    expect((await second.open(URL, 'ann')).database).toBe('db1')
    expect((await second.append([draft('b')]))[0]).toMatchObject({ seq: 2, n: '2' })
  })

  it('rejects where there is no IndexedDB', async () => {
    globalThis.indexedDB = undefined as never
    await expect(idbStore().open(URL, 'ann')).rejects.toThrow()
  })
})
