/** A first load that is shown before it is settled: until when, by whom it is seen, and what it is never used for. */
import { describe, expect, it } from 'vitest'
import type { Conflict } from '../src/conflicts'
import { memoryStore } from '../src/store_memory'
import { type Sent } from './support/fake_server'
import { answerJoin, commit, join, load, openWorld, type Todo, TODO_COLUMNS, todo, todosShape, turn, type World } from './support/world'

const MILK = todo('1', 'Milk')
const BREAD = todo('2', 'Bread')

interface Loading {
  readonly world: World
  readonly ref: string
  readonly request: Sent
  readonly titles: () => string[]
  /** what was shown at each notification */
  readonly seen: string[][]
  readonly state: () => unknown[]
}

/** A first load of two rows, shown before it is settled. */
async function provisional(world = openWorld()): Promise<Loading> {
  const { client, server } = world
  const subscription = client.subscribe({ table: 'todos' })
  const query = client.query<Todo>({ table: 'todos', orderBy: 'id' })
  const titles = () => query.getSnapshot().map(({ title }) => title)
  const seen: string[][] = []
  query.subscribe(() => seen.push(titles()))
  const request = await join(server)
  server.send('shape', todosShape(subscription.ref))
  server.send('progress', { load: '1', about: 2 })
  server.send('load', { load: '1', shape: 'S', reset: 'first', put: [MILK] })
  server.send('load', { load: '1', shape: 'S', put: [BREAD] })
  await turn()
  expect(seen).toEqual([])
  server.send('provisional', { loads: ['1'] })
  await turn()
  expect(titles()).toEqual(['Milk', 'Bread'])
  const state = () => [subscription.getSnapshot().state, client.status.getSnapshot().connection, client.status.getSnapshot().isProvisional]
  return { world, ref: subscription.ref, request, titles, seen, state }
}

describe('a provisional first load', () => {
  it('is shown at once, marked, with one notification, and settled by the commit with none where nothing changed', async () => {
    const { world, request, titles, seen, state } = await provisional()
    const { client, server, store } = world
    expect(request.payload.capabilities).toContain('provisional')
    expect(state()).toEqual(['provisional', 'loading', true])
    const before = client.query<Todo>({ table: 'todos', orderBy: 'id' }).getSnapshot()
    expect((await store.lead(null)).shapes).toEqual([])
    server.send('loaded', { loads: ['1'] })
    const notice = await commit(world, 'k1')
    expect(notice.rows).toBe(2)
    expect([state(), seen]).toEqual([['live', 'live', false], [['Milk', 'Bread']]])
    expect(titles()).toEqual(['Milk', 'Bread'])
    const after = client.query<Todo>({ table: 'todos', orderBy: 'id' }).getSnapshot()
    expect(after.every((row, at) => row === before[at])).toBe(true)
    const stored = await store.lead(null)
    expect([stored.meta.cursor, [...stored.rows.values()].map(({ size }) => size)]).toEqual(['k1', [2]])
  })

  it('that is offered once more with the commit right behind it does not leave the screen in between', async () => {
    const { world, titles, seen } = await provisional()
    world.server.send('provisional', { loads: ['1'] })
    world.server.send('loaded', { loads: ['1'] })
    await commit(world, 'k1')
    expect([titles(), seen]).toEqual([['Milk', 'Bread'], [['Milk', 'Bread']]])
  })

  it('is nothing that anybody waits for: `ready` and `onCommit` mean what is settled', async () => {
    const { world } = await provisional()
    const { client, server } = world
    const said: string[] = []
    client.onCommit(() => said.push('commit'))
    void client.subscribe({ table: 'todos' }).ready.then(() => said.push('ready'))
    await turn()
    expect(said).toEqual([])
    server.send('loaded', { loads: ['1'] })
    await commit(world, 'k1')
    await turn()
    expect(said.sort()).toEqual(['commit', 'ready'])
  })

  it('gives way to what the commit says, in one step', async () => {
    const { world, titles, seen } = await provisional()
    world.server.send('loaded', { loads: ['1'] })
    world.server.send('rows', { shape: 'S', remove: [['1']], put: [todo('2', 'Rye bread'), todo('3', 'Eggs')] })
    await commit(world, 'k1')
    expect(titles()).toEqual(['Rye bread', 'Eggs'])
    expect(seen).toEqual([['Milk', 'Bread'], ['Rye bread', 'Eggs']])
  })

  it('ends with the next commit also where that does not have it', async () => {
    const { world, titles, state } = await provisional()
    await commit(world, 'k1')
    expect([titles(), state()]).toEqual([[], ['pending', 'loading', false]])
  })

  it('and no second one: after what was shown is forgotten the status says that it loads, until the commit shows all', async () => {
    const { world, titles, seen, state } = await provisional()
    const { client, server } = world
    server.send('unload', { loads: ['1'] })
    expect([titles(), state()]).toEqual([[], ['pending', 'loading', false]])
    expect(client.status.getSnapshot()).toMatchObject({ loadedRows: 0, aboutRows: 0 })
    server.send('load', { load: '2', shape: 'S', reset: 'first', put: [MILK, BREAD] })
    await turn()
    expect([titles(), state(), client.status.getSnapshot().loadedRows]).toEqual([[], ['pending', 'loading', false], 2])
    server.send('loaded', { loads: ['2'] })
    await turn()
    expect([titles(), state()]).toEqual([[], ['pending', 'loading', false]])
    await commit(world, 'k1')
    expect([titles(), state()]).toEqual([['Milk', 'Bread'], ['live', 'live', false]])
    expect(seen).toEqual([['Milk', 'Bread'], [], ['Milk', 'Bread']])
  })

  it('of which a shape is withdrawn before the batch goes with the commit, and what else there was is settled by it', async () => {
    const { world, titles, state } = await provisional()
    const { client, server } = world
    const other = client.subscribe({ table: 'todos', scope: { list_id: 'M' } })
    const request = await server.next('subscribe')
    server.reply(request, { shapes: [{ ref: other.ref, ok: true }] })
    server.send('shape', todosShape(other.ref, 'T'))
    server.send('loaded', { loads: ['1'] })
    server.send('withdraw', { shape: 'S' })
    server.send('rows', { shape: 'T', reset: 'first', put: [todo('7', 'Paint', false, 'M')] })
    await turn()
    // a withdrawal is part of its batch like everything else
    expect([titles(), state()[0]]).toEqual([['Milk', 'Bread'], 'provisional'])
    await commit(world, 'k1')
    expect([titles(), state(), other.getSnapshot().state]).toEqual([['Paint'], ['pending', 'loading', false], 'live'])
    expect((await world.store.lead(null)).shapes).toHaveLength(1)
  })

  it('of which a shape is described anew before the batch is shown as it was until the commit, which has the new columns', async () => {
    const { world, ref, titles } = await provisional()
    const { client, server } = world
    const rows = client.query({ table: 'todos', orderBy: 'id' })
    const wide = { ...todosShape(ref, 'S', 'f2'), columns: [...TODO_COLUMNS, { name: 'due', type: 'date', wire: 'text' }], fill: { due: '2026-12-24' } }
    server.send('loaded', { loads: ['1'] })
    server.send('shape', wide)
    server.send('rows', { shape: 'S', put: [[...todo('3', 'Eggs'), null]] })
    await turn()
    expect([titles(), 'due' in rows.getSnapshot()[0]!]).toEqual([['Milk', 'Bread'], false])
    await commit(world, 'k1')
    expect(rows.getSnapshot().map(({ title, due }) => [title, due])).toEqual([['Milk', '2026-12-24'], ['Bread', '2026-12-24'], ['Eggs', null]])
    expect((await world.store.lead(null)).shapes).toMatchObject([{ fingerprint: 'f2' }])
  })

  it('of which a shape is described anew and loaded again is shown anew, by the new description', async () => {
    const { world, ref, titles, state } = await provisional()
    const { client, server } = world
    const columns = TODO_COLUMNS.filter(({ name }) => name !== 'done')
    server.send('unload', { loads: ['1'] })
    server.send('shape', { ...todosShape(ref, 'S2', 'f2'), columns })
    server.send('load', { load: '2', shape: 'S2', reset: 'first', put: [['2', 'L', 'Rye bread']] })
    server.send('provisional', { loads: ['2'] })
    await turn()
    expect([client.query({ table: 'todos' }).getSnapshot(), state()[0]]).toEqual([[{ id: '2', list_id: 'L', title: 'Rye bread' }], 'provisional'])
    server.send('loaded', { loads: ['2'] })
    await commit(world, 'k1')
    expect([titles(), state()]).toEqual([['Rye bread'], ['live', 'live', false]])
  })

  it('is forgotten with what it was set aside under, also before it was shown', async () => {
    const { world, ref, titles, state } = await provisional()
    const { server } = world
    server.send('unload', { loads: ['1'] })
    expect([titles(), state()]).toEqual([[], ['pending', 'loading', false]])
    server.send('load', { load: '2', shape: 'S', reset: 'first', put: [MILK] })
    server.send('provisional', { loads: ['2'] })
    server.send('unload', { loads: ['2'] })
    await turn()
    expect(titles()).toEqual([])
    server.send('shape', todosShape(ref))
    server.send('load', { load: '3', shape: 'S', reset: 'first', put: [BREAD] })
    server.send('provisional', { loads: ['3'] })
    await turn()
    expect(titles()).toEqual(['Bread'])
    // of another load
    server.send('load', { load: '4', shape: 'S', put: [MILK] })
    server.send('unload', { loads: ['4'] })
    expect(titles()).toEqual(['Bread'])
    server.send('loaded', { loads: ['3'] })
    await commit(world, 'k1')
    expect([titles(), state()]).toEqual([['Bread'], ['live', 'live', false]])
  })

  it('of several shapes loses what is forgotten and nothing else, shown already or about to be', async () => {
    const world = openWorld()
    const { client, server } = world
    const [milk, paint] = ['L', 'M'].map((list_id) => client.subscribe({ table: 'todos', scope: { list_id } }))
    const query = client.query<Todo>({ table: 'todos', orderBy: 'id' })
    const shown = () => [query.getSnapshot().map(({ title }) => title), milk!.getSnapshot().state, paint!.getSnapshot().state, client.status.getSnapshot().isProvisional]
    const seen: string[][] = []
    query.subscribe(() => seen.push(query.getSnapshot().map(({ title }) => title)))
    await join(server)
    server.send('shape', todosShape(milk!.ref, 'S'))
    server.send('shape', todosShape(paint!.ref, 'T'))
    const loads = (from: number) => {
      server.send('load', { load: `${from}`, shape: 'S', reset: 'first', put: [MILK] })
      server.send('load', { load: `${from + 1}`, shape: 'T', reset: 'first', put: [todo('7', 'Paint', false, 'M')] })
      server.send('provisional', { loads: [`${from}`, `${from + 1}`] })
    }
    loads(1)
    await turn()
    const before = query.getSnapshot()
    expect(shown()).toEqual([['Milk', 'Paint'], 'provisional', 'provisional', true])
    server.send('unload', { loads: ['1'] })
    expect(shown()).toEqual([['Paint'], 'pending', 'provisional', true])
    expect(query.getSnapshot()[0]).toBe(before[1])
    server.send('unload', { loads: ['2'] })
    expect(shown()).toEqual([[], 'pending', 'pending', false])
    loads(3)
    server.send('unload', { loads: ['4'] })
    await turn()
    expect(shown()).toEqual([['Milk'], 'provisional', 'pending', true])
    server.send('loaded', { loads: ['3'] })
    server.send('rows', { shape: 'T', reset: 'first', put: [todo('8', 'Brush', false, 'M')] })
    await commit(world, 'k1')
    expect(shown()).toEqual([['Milk', 'Brush'], 'live', 'live', false])
    expect(seen).toEqual([['Milk', 'Paint'], ['Paint'], [], ['Milk'], ['Milk', 'Brush']])
  })

  it.each<[string, (world: World) => Promise<Sent>]>([
    ['a lost connection', async ({ server }) => (server.drop(), join(server))],
    ['a session that the node ends', async ({ server, timers }) => (server.close(), timers.pass(500), answerJoin(server))],
    ['the wish to be offline', async ({ client, server }) => (client.setOnline(false), client.setOnline(true), join(server))],
  ])('goes with %s: nothing of it is shown, or resumed from', async (_, lose) => {
    const { world, ref, titles, state } = await provisional()
    const { client, server } = world
    const again = lose(world)
    expect([titles(), state()[0], client.status.getSnapshot().isProvisional]).toEqual([[], 'pending', false])
    expect((await again).payload).toMatchObject({ cursor: null, shapes: [{ have: false, fingerprint: null }] })
    server.send('shape', todosShape(ref))
    server.send('rows', { shape: 'S', reset: 'first', put: [BREAD] })
    await commit(world, 'k1')
    expect(titles()).toEqual(['Bread'])
  })

  it('is not there after a reload', async () => {
    const store = memoryStore()
    await provisional(openWorld(store))
    const { client, server } = openWorld(store)
    client.subscribe({ table: 'todos' })
    const request = await join(server)
    expect(request.payload).toMatchObject({ cursor: null, shapes: [{ have: false }] })
    expect(client.query({ table: 'todos' }).getSnapshot()).toEqual([])
  })

  it('is not shown beside rows that are held: they are of another state', async () => {
    const world = openWorld()
    const { client, server } = world
    const held = client.subscribe({ table: 'todos', scope: { list_id: 'L' } })
    await load(world, held.ref, [MILK])
    const fresh = client.subscribe({ table: 'todos', scope: { list_id: 'M' } })
    const request = await server.next('subscribe')
    server.reply(request, { shapes: [{ ref: fresh.ref, ok: true }] })
    server.send('shape', todosShape(fresh.ref, 'T'))
    server.send('load', { load: '1', shape: 'T', reset: 'first', put: [todo('7', 'Paint', false, 'M')] })
    server.send('provisional', { loads: ['1'] })
    await turn()
    expect(client.query<Todo>({ table: 'todos' }).getSnapshot().map(({ title }) => title)).toEqual(['Milk'])
    expect(fresh.getSnapshot().state).toBe('pending')
    server.send('loaded', { loads: ['1'] })
    await commit(world, 'k2')
    expect(fresh.getSnapshot().state).toBe('live')
  })

  it('shows an edit of it, whose `if` is what was seen: where that was never settled, the database has it as a conflict', async () => {
    const { world, titles } = await provisional()
    const { client, server } = world
    const told: Conflict[] = []
    client.onConflict((conflict) => told.push(conflict))
    const edit = client.mutate([{ op: 'update', table: 'todos', key: { id: '1' }, set: { title: 'Oat milk' }, if: 'unchanged' }])
    expect(titles()).toEqual(['Oat milk', 'Bread'])
    const { payload } = await server.next('mutate')
    expect(payload.mutations[0].ops[0].if).toEqual({ title: 'Milk' })
    server.send('unload', { loads: ['1'] })
    server.send('rows', { shape: 'S', reset: 'first', put: [todo('1', 'Whole milk')] })
    server.send('ack', { mutations: [{ n: '1', id: edit.id, outcome: 'refused', code: 'conflict', message: '' }] })
    await commit(world, 'k1')
    expect(titles()).toEqual(['Whole milk'])
    expect(told.map(({ rows }) => rows)).toEqual([[{ table: 'todos', key: { id: '1' }, base: { title: 'Milk' }, mine: { title: 'Oat milk' }, theirs: expect.objectContaining({ title: 'Whole milk' }) }]])
  })
})
