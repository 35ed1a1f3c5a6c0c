/** What becomes of a client whose browser does not keep what it should: the outbox last, and the application is told. */
import { IDBFactory, IDBObjectStore as FakeObjectStore } from 'fake-indexeddb'
import 'fake-indexeddb/auto'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { idbStore } from '../src/store_idb'
import { watchStores } from './support/throw_away'
import { commit, join, load, openWorld, type Todo, todo, todosShape, untilStatus, type World } from './support/world'

const PLACE = 'lockstep ["database","db1",""]'
const add = (id: string, title: string) => [{ op: 'insert' as const, table: 'todos', values: { id, list_id: 'L', title, done: false } }]

beforeEach(() => {
  globalThis.indexedDB = new IDBFactory()
})
afterEach(() => void vi.restoreAllMocks())

type Open = World & { ref: string; titles: () => string[] }

function open(): Open {
  const world = openWorld(idbStore())
  const { ref } = world.client.subscribe({ table: 'todos' })
  const todos = world.client.query<Todo>({ table: 'todos', orderBy: 'id' })
  return { ...world, ref, titles: () => todos.getSnapshot().map(({ title }) => title) }
}

async function loaded(...rows: unknown[]): Promise<Open> {
  const world = open()
  await load(world, world.ref, rows.length > 0 ? rows : [todo('1', 'Milk')])
  return world
}

function request<T>(of: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    of.onsuccess = () => resolve(of.result)
    of.onerror = () => reject(of.error)
  })
}

/** Changes the records of a closed place behind the client's back. */
async function tamper(store: string, change: (records: IDBObjectStore, keys: IDBValidKey[]) => void): Promise<void> {
  const db = await request(indexedDB.open(PLACE))
  const tx = db.transaction(store, 'readwrite')
  const done = new Promise((resolve) => (tx.oncomplete = resolve))
  change(tx.objectStore(store), await request(tx.objectStore(store).getAllKeys()))
  await done
  db.close()
}

const errorOf = ({ client }: World) => client.status.getSnapshot().error

describe('a full disk', () => {
  it('costs the rows, with them the cursor, and never an unsent change', async () => {
    const world = await loaded()
    await world.client.mutate(add('2', 'before')).saved
    const put = FakeObjectStore.prototype.put
    vi.spyOn(FakeObjectStore.prototype, 'put').mockImplementation(function (this: IDBObjectStore, value, key) {
      if (this.name === 'rows') throw new DOMException('no room', 'QuotaExceededError')
      return put.call(this as never, value, key) as never
    })
    world.server.send('rows', { shape: 'S', put: [todo('3', 'shown all the same')] })
    await commit(world, 'k2')
    expect([world.titles(), errorOf(world)?.code]).toEqual([['Milk', 'before', 'shown all the same'], 'store_full'])
    await world.client.mutate(add('4', 'after')).saved
    await world.client.close()
    vi.restoreAllMocks()
    const later = open()
    await untilStatus(later.client, ({ unsent }) => unsent === 2)
    expect((await join(later.server)).payload).toMatchObject({ client: 'c1', cursor: null, shapes: [{ have: false }] })
    expect((await later.server.next('mutate')).payload.mutations).toMatchObject([{ n: '1' }, { n: '2' }])
    await later.client.close()
  })

  it('so full that not even a change fits: `saved` says no, and it is sent', async () => {
    const world = await loaded()
    vi.spyOn(FakeObjectStore.prototype, 'put').mockImplementation(() => {
      throw new DOMException('no room', 'QuotaExceededError')
    })
    const mutation = world.client.mutate(add('2', 'Bread'))
    await expect(mutation.saved).rejects.toThrow('no room')
    expect(errorOf(world)).toMatchObject({ code: 'store_full', message: expect.stringContaining('only unsent changes are kept') })
    expect((await world.server.next('mutate')).payload.mutations).toMatchObject([{ id: mutation.id }])
    vi.restoreAllMocks()
    await world.client.close()
  })
})

describe('a browser without IndexedDB, or one that throws in a private window', () => {
  it.each([
    ['missing', undefined],
    ['throwing', { open: () => { throw new DOMException('not in a private window', 'SecurityError') } }],
  ])('%s: the client works in memory and says so', async (_, factory) => {
    globalThis.indexedDB = factory as never
    const world = await loaded()
    expect(errorOf(world)).toMatchObject({ code: 'store_failed', message: expect.stringContaining('nothing is kept') })
    const mutation = world.client.mutate(add('2', 'Bread'))
    await expect(mutation.saved).rejects.toThrow()
    expect([world.titles(), (await world.server.next('mutate')).payload.mutations.length]).toEqual([['Milk', 'Bread'], 1])
    await world.client.close()
  })
})

describe('a damaged record', () => {
  async function closedWithOutbox(): Promise<void> {
    const world = await loaded()
    await world.client.mutate(add('2', 'one')).saved
    await world.client.mutate(add('3', 'two')).saved
    await world.client.close()
  }

  it.each([
    ['that is no JSON', '[["1","L","Mi'],
    ['with too few values', '[["1","L"]]'],
    ['that is no list', '{}'],
    ['of another type', 7],
  ])('of rows, %s, costs that shape, which is loaded anew', async (_, record) => {
    await closedWithOutbox()
    await tamper('rows', (records, [key]) => void records.put(record, key))
    const world = open()
    await untilStatus(world.client, ({ unsent }) => unsent === 2)
    expect(errorOf(world)).toMatchObject({ code: 'store_damaged', message: expect.stringContaining('rows of 1 shape') })
    expect((await join(world.server)).payload).toMatchObject({ client: 'c1', cursor: 'k1', shapes: [{ have: false }] })
    world.server.send('shape', todosShape(world.ref))
    world.server.send('rows', { shape: 'S', reset: 'first', put: [todo('1', 'Milk')] })
    await commit(world, 'k2')
    await world.client.close()
    const later = open()
    await untilStatus(later.client, ({ unsent }) => unsent === 2)
    expect([later.titles(), errorOf(later)]).toEqual([['Milk', 'one', 'two'], undefined])
    await later.client.close()
  })

  it('of the cursor costs all rows, and the outbox is not sent under a number that may be wrong', async () => {
    await closedWithOutbox()
    await tamper('meta', (records) => void records.put({ cursor: 5 }, 'meta'))
    const world = open()
    await untilStatus(world.client, ({ unsent }) => unsent === 2)
    expect(errorOf(world)?.message).toContain('the cursor')
    expect((await join(world.server, { client: 'c9' })).payload).toMatchObject({ client: null, cursor: null, shapes: [{ have: false }] })
    expect((await world.server.next('mutate')).payload.mutations).toMatchObject([{ n: '1' }, { n: '2' }])
    await world.client.close()
  })

  it('of the outbox is told like a refusal, and the others are sent', async () => {
    await closedWithOutbox()
    await tamper('outbox', (records, [key]) => void records.put({ seq: key, id: 'torn' }))
    const world = open()
    await untilStatus(world.client, ({ refused }) => refused.length === 1)
    expect(world.client.status.getSnapshot()).toMatchObject({ unsent: 1, refused: [{ id: 'torn', code: 'damaged' }] })
    await join(world.server)
    world.server.refuse(await world.server.next('mutate'), 'gap', { last: '0' })
    expect((await world.server.next('mutate')).payload.mutations).toMatchObject([{ n: '1', ops: [{ values: { title: 'two' } }] }])
    world.client.dismiss('torn')
    await untilStatus(world.client, ({ refused }) => refused.length === 0)
    await world.client.close()
  })
})

describe('two versions of the application', () => {
  it('a newer one takes the store over: the older one stops, says so, and keeps nothing from then on', async () => {
    const world = await loaded()
    await world.client.mutate(add('2', 'kept')).saved
    await world.server.next('mutate')
    const newer = await request(indexedDB.open(PLACE, 99))
    expect([errorOf(world)?.code, world.server.wanted]).toEqual(['store_replaced', false])
    await expect(world.client.mutate(add('3', 'not kept')).saved).rejects.toThrow()
    const outbox = await request(newer.transaction('outbox').objectStore('outbox').getAll())
    expect(outbox.map(({ ops }) => ops[0].values.title)).toEqual(['kept'])
    newer.close()
    await world.client.close()
  })

  it('an older one finds a store that it does not know: it works in memory and says so', async () => {
    const world = await loaded()
    await world.client.close()
    ;(await request(indexedDB.open(PLACE, 99))).close()
    const older = await loaded()
    expect([errorOf(older)?.code, older.titles()]).toEqual(['store_newer', ['Milk']])
    await older.client.close()
  })

  it('an older one that does not let go is waited for, and said to be in the way', async () => {
    const world = await loaded()
    await world.client.mutate(add('2', 'unsent')).saved
    await world.client.close()
    // the same place as the version before had it, held by a page that does not listen
    const held = await oldPlace('lockstep ["url","ws://older/socket",""]', 1)
    const newer = openWorld(idbStore(), 'ws://older/socket')
    await untilStatus(newer.client, ({ error }) => error?.code === 'store_blocked')
    const draft = newer.client.mutate(add('3', 'waits'))
    held.close()
    await draft.saved
    expect([newer.client.status.getSnapshot().unsent, errorOf(newer)]).toEqual([2, undefined])
    await newer.client.close()
  })

  it('a store of the layout before keeps outbox, refusals and number, and loads its rows anew', async () => {
    ;(await oldPlace('lockstep ["url","ws://older/socket",""]', 1)).close()
    const store = idbStore()
    const contents = await store.open('ws://older/socket', '')
    expect(contents).toMatchObject({
      meta: { cursor: null, client: 'c1', confirmed: '4' },
      shapes: [],
      outbox: [{ seq: 3, n: '5', id: 'old' }],
      refused: [{ id: 'r' }],
    })
    await store.close()
  })

  /** What version 1 made. */
  async function oldPlace(name: string, version: number): Promise<IDBDatabase> {
    const opening = indexedDB.open(name, version)
    opening.onupgradeneeded = () => {
      const db = opening.result
      db.createObjectStore('meta').put({ cursor: 'k1', client: 'c1', confirmed: '4', unknown: null }, 'meta')
      db.createObjectStore('shapes', { keyPath: 'id' }).put({ id: 's', fingerprint: 'f', table: ['public', 'todos'], key: ['id'], columns: [] })
      db.createObjectStore('rows').put('[]', ['s', 0, 0])
      db.createObjectStore('outbox', { keyPath: 'seq' }).put({ seq: 3, n: '5', id: 'old', kind: 'ops', name: null, args: null, ops: [] })
      db.createObjectStore('refused', { keyPath: 'id' }).put({ id: 'r', name: null, args: null, ops: [], code: '23505', message: '' })
    }
    return request(opening)
  }
})

describe('a browser that throws the store away', () => {
  it('while the page is open: what memory holds is stored anew, the outbox first, and the application is told', async () => {
    const throwAway = watchStores()
    const world = await loaded()
    await world.client.mutate(add('2', 'unsent')).saved
    throwAway()
    await untilStatus(world.client, ({ error }) => error?.code === 'store_lost')
    world.server.send('rows', { shape: 'S', put: [todo('3', 'goes on')] })
    await commit(world, 'k2')
    await world.client.close()
    const later = open()
    await untilStatus(later.client, ({ unsent }) => unsent === 1)
    expect(later.titles()).toEqual(['Milk', 'unsent', 'goes on'])
    expect((await join(later.server)).payload).toMatchObject({ client: 'c1', cursor: 'k2', shapes: [{ have: true }] })
    await later.client.close()
  })

  it('with nothing unsent: what is written afterwards is sent, in order and under the next number', async () => {
    const throwAway = watchStores()
    const world = await loaded()
    const taken = async () => {
      const message = await world.server.next('mutate')
      world.server.reply(message, {})
      return message.payload.mutations.map(({ n, id }: { n: string; id: string }) => ({ n, id }))
    }
    const write = (id: string) => world.client.mutate(add(id, id)).id
    const first = write('2')
    const [{ id }] = await taken()
    expect(id).toBe(first)
    world.server.send('ack', { mutations: [{ n: '1', id, outcome: 'applied' }] })
    await commit(world, 'k2')
    throwAway()
    await untilStatus(world.client, ({ error }) => error?.code === 'store_lost')
    for (const n of ['2', '3']) {
      const id = write(n)
      expect(await taken()).toEqual([{ n, id }])
    }
    await world.client.close()
  })

  it('while another page writes into the place before the outbox is back: no number is given twice', async () => {
    const throwAway = watchStores()
    const store = idbStore()
    const world = openWorld(store)
    await load(world, world.client.subscribe({ table: 'todos' }).ref, [todo('1', 'Milk')])
    await world.client.mutate(add('2', 'unsent')).saved
    const other = idbStore()
    const lead = store.lead
    store.lead = async (...args) => {
      const contents = await lead.apply(store, args)
      if (store.place === PLACE) {
        await other.open('ws://node/socket', '')
        await other.append([{ id: 'other', name: null, args: null, ops: [] }])
      }
      return contents
    }
    throwAway()
    await untilStatus(world.client, ({ error }) => error?.code === 'store_lost')
    await world.client.mutate(add('3', 'later')).saved
    expect((await other.outboxAfter(0)).map(({ n, seq }) => [n, seq])).toEqual([['1', 1], ['2', 2], ['3', 3]])
    await other.close()
    await world.client.close()
  })

  it('between two visits: the next one begins from nothing, without an error', async () => {
    const world = await loaded()
    await world.client.close()
    globalThis.indexedDB = new IDBFactory()
    const later = open()
    expect((await join(later.server)).payload).toMatchObject({ client: null, cursor: null, shapes: [{ have: false }] })
    expect(errorOf(later)).toBeUndefined()
    await later.client.close()
  })
})
