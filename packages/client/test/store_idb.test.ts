/** What only the IndexedDB store promises: one transaction, fixed object stores, a place per tab, chunks. */
import { IDBFactory, IDBObjectStore as FakeObjectStore } from 'fake-indexeddb'
import 'fake-indexeddb/auto'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { EMPTY_META, type Store } from '../src/store'
import { idbStore as makeStore } from '../src/store_idb'
import { mutation, rows, SHAPE, storeConformance } from './store_conformance'

let opened: Store[] = []

/** Closed after the test, or its slot would stay taken. */
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

const PLACE = 'lockstep ["database","db1","ann"]'

describe('idbStore', () => {
  it('has a fixed set of object stores in a database named by database id and subject', async () => {
    const store = idbStore()
    await store.open(URL, 'ann')
    await store.adopt('db1')
    for (const id of ['a', 'b', 'c']) {
      await store.write({ durability: 'relaxed', shapes: [{ id, drop: false, shape: { ...SHAPE, id, table: ['public', id] }, reset: true, rows: rows(['1', 'x']) }] })
    }
    await store.close()
    const names = (await indexedDB.databases()).map(({ name }) => name)
    expect(names.sort()).toEqual(['lockstep', PLACE, 'lockstep ["url","ws://node/socket","ann"]'].sort())
    expect(await objectStores(PLACE)).toEqual(['meta', 'outbox', 'refused', 'rows', 'shapes'])
    expect(await objectStores('lockstep')).toEqual(['databases'])
  })

  it('writes everything in one transaction with the durability asked for', async () => {
    const store = idbStore()
    await store.open(URL, 'ann')
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

  it('writes a first load in chunks and single rows beside them, and folds them when there are many', async () => {
    const store = idbStore()
    await store.open(URL, 'ann')
    await store.adopt('db1')
    const many = Array.from({ length: 600 }, (_, at) => [`${at}`, 'old'])
    await store.write({ durability: 'relaxed', shapes: [{ id: SHAPE.id, drop: false, shape: SHAPE, reset: true, rows: rows(...many) }] })
    await store.close()
    expect(await allRecords(PLACE, 'rows')).toEqual([[SHAPE.id, 0, 0], [SHAPE.id, 0, 1], [SHAPE.id, 0, 2]])
    const again = idbStore()
    await again.open(URL, 'ann')
    const changed = rows(...Array.from({ length: 500 }, (_, at) => [`${at}`, 'new']))
    await again.write({ durability: 'relaxed', shapes: [{ id: SHAPE.id, drop: false, shape: null, reset: false, rows: changed }] })
    await again.close()
    expect(await allRecords(PLACE, 'rows')).toHaveLength(503)
    const folding = idbStore()
    const before = await folding.open(URL, 'ann')
    await folding.close()
    expect(await allRecords(PLACE, 'rows')).toHaveLength(3)
    const after = await idbStore().open(URL, 'ann')
    expect(after.rows.get(SHAPE.id)).toEqual(before.rows.get(SHAPE.id))
    expect([...(after.rows.get(SHAPE.id)?.values() ?? [])].filter(([, title]) => title === 'new')).toHaveLength(500)
  })

  it('gives a second tab a place of its own, and the first place to whoever comes after', async () => {
    const first = idbStore()
    await first.open(URL, 'ann')
    await first.write({ durability: 'strict', outboxPut: [mutation(1)] })
    const second = idbStore()
    expect((await second.open(URL, 'ann')).outbox).toEqual([])
    await second.write({ durability: 'strict', outboxPut: [mutation(1, { id: 'of the second' })] })
    await second.close()
    await first.close()
    const third = idbStore()
    expect((await third.open(URL, 'ann')).outbox.map(({ id }) => id)).toEqual(['m1'])
    await third.close()
  })

  it('rejects where there is no IndexedDB', async () => {
    globalThis.indexedDB = undefined as never
    await expect(idbStore().open(URL, 'ann')).rejects.toThrow()
  })
})
