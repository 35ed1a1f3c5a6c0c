/** The whole client over IndexedDB: one transaction per commit, and a reload that needs no network. */
import { IDBFactory } from 'fake-indexeddb'
import 'fake-indexeddb/auto'
import { beforeEach, expect, it, vi } from 'vitest'
import { idbStore } from '../src/store_idb'
import { commit, join, load, openWorld, type Todo, todo, todosShape, untilStatus } from './support/world'

beforeEach(() => {
  globalThis.indexedDB = new IDBFactory()
})

it('writes a batch, its cursor and its acknowledgements in one transaction, and finds all of it after a reload', async () => {
  const world = openWorld(idbStore())
  const { client, server } = world
  const { ref } = client.subscribe({ table: 'todos' })
  await load(world, ref, [todo('1', 'Milk'), todo('2', 'Bread')])
  const [refused, kept] = ['1', '3'].map((id) => client.mutate([{ op: 'insert', table: 'todos', values: { id, title: 'x' } }]))
  await kept!.saved
  const first = await server.next('mutate')
  server.reply(first, {})
  const transactions = vi.spyOn(IDBDatabase.prototype, 'transaction')
  server.send('rows', { shape: 'S', remove: [['2']] })
  server.send('rows', { shape: 'S', put: [todo('4', 'Jam')] })
  server.send('ack', { mutations: [{ n: '1', id: refused!.id, outcome: 'refused', code: '23505', message: 'twice' }] })
  await commit(world, 'k2')
  expect(transactions.mock.calls.map(([, mode, options]) => [mode, options])).toEqual([['readwrite', { durability: 'strict' }]])
  transactions.mockRestore()
  await client.close()
  const later = openWorld(idbStore())
  const todos = later.client.query<Todo>({ table: 'todos', orderBy: 'id' })
  const sub = later.client.subscribe({ table: 'todos' })
  await sub.ready
  expect(todos.getSnapshot().map(({ id, title }) => [id, title])).toEqual([['1', 'Milk'], ['3', 'x'], ['4', 'Jam']])
  await untilStatus(later.client, (status) => status.refused.length === 1 && status.unsent === 1)
  const { payload } = await join(later.server)
  expect(payload).toMatchObject({ client: 'c1', cursor: 'k2', shapes: [{ ref: sub.ref, have: true, fingerprint: 'f1' }] })
  expect((await later.server.next('mutate')).payload).toMatchObject({ confirmed: '1', mutations: [{ n: '2', id: kept!.id }] })
  later.server.send('shape', todosShape(sub.ref))
  await commit(later, 'k3')
  await later.client.close()
})

it('folds what has changed into chunks once nothing else is to do, and shows the same afterwards', async () => {
  const world = openWorld(idbStore())
  const { client, server, timers } = world
  const { ref } = client.subscribe({ table: 'todos' })
  await load(world, ref, Array.from({ length: 1500 }, (_, at) => todo(`${at}`, 'old')))
  server.send('rows', { shape: 'S', put: Array.from({ length: 1200 }, (_, at) => todo(`${at}`, 'new')), remove: [['1499']] })
  await commit(world, 'k2')
  expect(await kinds()).toEqual([0, 1])
  timers.pass(2000)
  await client.mutate([{ op: 'delete', table: 'todos', key: { id: '0' } }]).saved
  expect(await kinds()).toEqual([0])
  server.send('rows', { shape: 'S', put: [todo('7', 'newest')] })
  await commit(world, 'k3')
  await client.close()
  const later = openWorld(idbStore())
  const todos = later.client.query<Todo>({ table: 'todos' })
  await later.client.subscribe({ table: 'todos' }).ready
  const counts = new Map<string, number>()
  for (const { title } of todos.getSnapshot()) counts.set(title, (counts.get(title) ?? 0) + 1)
  expect(Object.fromEntries(counts)).toEqual({ new: 1198, newest: 1, old: 299 })
  await later.client.close()
})

/** Of each record of rows, whether it is a chunk (0) or of the log (1). */
async function kinds(): Promise<number[]> {
  const request = <T>(of: IDBRequest<T>) => new Promise<T>((resolve) => (of.onsuccess = () => resolve(of.result)))
  const db = await request(indexedDB.open('lockstep ["database","db1",""]'))
  const keys = await request(db.transaction('rows').objectStore('rows').getAllKeys())
  db.close()
  return keys.map((key) => (key as [string, number, number])[1])
}
