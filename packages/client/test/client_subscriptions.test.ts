/** Subscriptions: shared, made and given up at any time, resumed, and never kept as current when they are not. */
import { describe, expect, it } from 'vitest'
import { memoryStore } from '../src/store_memory'
import { answerJoin, commit, join, load, openWorld, type Todo, todo, todosShape, turn, untilStatus } from './support/world'

const A = { table: 'todos', scope: { list_id: 'A' } }
const B = { table: 'todos', scope: { list_id: 'B' } }

/** Loads A and B and gives back what a reload finds. */
async function storeWithBoth() {
  const world = openWorld()
  const [a, b] = [world.client.subscribe(A), world.client.subscribe(B)]
  await join(world.server)
  world.server.send('shape', todosShape(a.ref, 'SA'))
  world.server.send('rows', { shape: 'SA', reset: 'first', put: [todo('a1', 'of A', false, 'A')] })
  world.server.send('shape', todosShape(b.ref, 'SB'))
  world.server.send('rows', { shape: 'SB', reset: 'first', put: [todo('b1', 'of B', false, 'B')] })
  await commit(world, 'k1')
  await world.client.close()
  return world.store
}

describe('subscriptions', () => {
  it('of one definition share one shape, and the last one out gives it up', async () => {
    const world = openWorld()
    const { client, server } = world
    const first = client.subscribe({ ...A, columns: ['title', 'id'] })
    const second = client.subscribe({ table: 'public.todos', scope: { list_id: 'A' }, columns: ['id', 'title'] })
    expect(second.ref).toBe(first.ref)
    expect((await join(server)).payload.shapes).toHaveLength(1)
    first.unsubscribe()
    first.unsubscribe()
    const third = client.subscribe(B)
    expect((await server.next('subscribe')).payload.shapes.map(({ ref }: { ref: string }) => ref)).toEqual([third.ref])
    second.unsubscribe()
    expect((await server.next('unsubscribe')).payload).toEqual({ refs: [first.ref] })
  })

  it('with a condition are shapes of their own, and take it and its parameters to the node', async () => {
    const { client, server } = openWorld()
    const where = 'due < $1'
    const first = client.subscribe({ ...A, where, params: ['2026-12-24'] })
    expect(client.subscribe({ ...A, where, params: ['2026-12-24'] }).ref).toBe(first.ref)
    const others = [client.subscribe({ ...A, where, params: ['2026-12-25'] }), client.subscribe({ ...A, where: 'done' }), client.subscribe(A)]
    expect(new Set(others.map(({ ref }) => ref).concat(first.ref)).size).toBe(4)
    const { shapes } = (await join(server)).payload
    expect(shapes.map(({ where, params }: any) => [where, params])).toEqual([
      [where, ['2026-12-24']],
      [where, ['2026-12-25']],
      ['done', []],
      [null, undefined],
    ])
  })

  it('made while the socket opens travel with the join', async () => {
    const { client, server } = openWorld()
    server.open()
    client.subscribe(A)
    await Promise.resolve()
    client.subscribe(B)
    expect((await server.next('phx_join')).payload.shapes).toHaveLength(2)
  })

  it('made while joining or live are asked for by themselves, those of one turn together', async () => {
    const world = openWorld()
    const { client, server } = world
    server.open()
    const request = await server.next('phx_join')
    const early = client.subscribe(A)
    server.reply(request, { database: 'db1', client: 'c1', subject: '', shapes: [] })
    const asked = await server.next('subscribe')
    expect(asked.payload.shapes).toEqual([
      { ref: early.ref, table: 'todos', columns: null, scope: { list_id: 'A' }, where: null, have: false, fingerprint: null },
    ])
    client.subscribe(B)
    client.subscribe({ table: 'lists' })
    expect((await server.next('subscribe')).payload.shapes).toHaveLength(2)
    const gone = client.subscribe({ table: 'never asked for' })
    gone.unsubscribe()
    client.subscribe({ table: 'last' })
    expect((await server.next('subscribe')).payload.shapes.map(({ table }: { table: string }) => table)).toEqual(['last'])
    expect(server.unread()).toEqual([])
  })

  it('given up while joining are given up after the join', async () => {
    const { client, server } = openWorld()
    const a = client.subscribe(A)
    server.open()
    const request = await server.next('phx_join')
    a.unsubscribe()
    await turn()
    server.reply(request, { database: 'db1', client: 'c1', subject: '', shapes: [{ ref: a.ref, ok: true }] })
    expect((await server.next('unsubscribe')).payload).toEqual({ refs: [a.ref] })
  })

  it('are ready at the commit that brings them, not at one before it', async () => {
    const world = openWorld()
    const { client, server } = world
    const sub = client.subscribe(A)
    const states: string[] = []
    sub.subscribe(() => states.push(sub.getSnapshot().state))
    await join(server)
    await untilStatus(client, ({ connection }) => connection === 'loading')
    server.send('shape', todosShape(sub.ref))
    await commit(world, 'k1')
    expect(sub.getSnapshot()).toEqual({ state: 'pending' })
    server.send('rows', { shape: 'S', reset: 'first' })
    await commit(world, 'k2')
    await sub.ready
    expect([sub.getSnapshot(), states, client.status.getSnapshot().connection]).toEqual([{ state: 'live' }, ['live'], 'live'])
  })

  it('that the node refuses say so, and do not hold up the others', async () => {
    const world = openWorld()
    const { client, server } = world
    const [bad, good] = [client.subscribe({ table: 'nothing' }), client.subscribe(A)]
    server.open()
    const request = await server.next('phx_join')
    const error = { code: 'unknown_table', message: 'there is no table nothing' }
    server.reply(request, { database: 'db1', client: 'c1', subject: '', shapes: [{ ref: bad.ref, error }, { ref: good.ref, ok: true }] })
    await expect(bad.ready).rejects.toMatchObject({ code: 'unknown_table' })
    expect(bad.getSnapshot()).toEqual({ state: 'error', error })
    server.send('shape', todosShape(good.ref))
    server.send('rows', { shape: 'S', reset: 'first' })
    await commit(world, 'k1')
    await good.ready
    expect(client.status.getSnapshot().connection).toBe('live')
  })

  it('that the node refuses to resume leave the store with the next commit', async () => {
    const world = openWorld(await storeWithBoth())
    const { client, server } = world
    const [a, b] = [client.subscribe(A), client.subscribe(B)]
    server.open()
    const request = await server.next('phx_join')
    const error = { code: 'unknown_scope', message: 'no longer' }
    server.reply(request, { database: 'db1', client: 'c1', subject: '', shapes: [{ ref: a.ref, ok: true }, { ref: b.ref, error }] })
    const todos = client.query<Todo>({ table: 'todos' })
    await commit(world, 'k2')
    expect([todos.getSnapshot().map(({ id }) => id), b.getSnapshot().state]).toEqual([['a1'], 'error'])
  })

  it('show what the store holds before there is a connection, and resume with one cursor', async () => {
    const store = await storeWithBoth()
    const { client, server } = openWorld(store)
    const [a, b] = [client.subscribe(A), client.subscribe(B)]
    const todos = client.query<Todo>({ table: 'todos' })
    await Promise.all([a.ready, b.ready])
    expect(todos.getSnapshot().map(({ id }) => id)).toEqual(['a1', 'b1'])
    expect(client.status.getSnapshot().connection).toBe('connecting')
    const { payload } = await join(server)
    expect(payload).toMatchObject({ client: 'c1', cursor: 'k1', shapes: [{ have: true, fingerprint: 'f1' }, { have: true, fingerprint: 'f1' }] })
  })

  it('not named in a join leave the store with the commit that moves the cursor, and not before', async () => {
    const store = await storeWithBoth()
    const idle = openWorld(store)
    idle.client.subscribe(A)
    await join(idle.server)
    await idle.client.close()
    const still = openWorld(store)
    const a = still.client.subscribe(A)
    expect((await join(still.server)).payload.cursor).toBe('k1')
    await a.ready
    await commit(still, 'k2')
    await still.client.close()
    const later = openWorld(store)
    const [laterA, laterB] = [later.client.subscribe(A), later.client.subscribe(B)]
    const { payload } = await join(later.server)
    expect(payload.cursor).toBe('k2')
    expect(payload.shapes).toMatchObject([{ ref: laterA.ref, have: true }, { ref: laterB.ref, have: false, fingerprint: null }])
    expect(laterB.getSnapshot().state).toBe('pending')
  })

  it('given up while live leave the screen at once and the store with the next commit', async () => {
    const store = await storeWithBoth()
    const world = openWorld(store)
    const { client, server } = world
    const [a, b] = [client.subscribe(A), client.subscribe(B)]
    const todos = client.query<Todo>({ table: 'todos' })
    await join(server)
    await Promise.all([a.ready, b.ready])
    b.unsubscribe()
    await server.next('unsubscribe')
    expect(todos.getSnapshot().map(({ id }) => id)).toEqual(['a1'])
    server.send('rows', { shape: 'SB', put: [todo('b2', 'late', false, 'B')] })
    await commit(world, 'k2')
    expect(todos.getSnapshot().map(({ id }) => id)).toEqual(['a1'])
    await client.close()
    const later = openWorld(store)
    later.client.subscribe(B)
    expect((await join(later.server)).payload.shapes).toMatchObject([{ have: false }])
  })

  it('held from before but asked for too late to resume do not pass for current', async () => {
    const world = openWorld(await storeWithBoth())
    const { client, server } = world
    const a = client.subscribe(A)
    await join(server)
    await a.ready
    const b = client.subscribe(B)
    const todos = client.query<Todo>({ table: 'todos', where: ({ list_id }) => list_id === 'B' })
    expect((await server.next('subscribe')).payload.shapes).toMatchObject([{ ref: b.ref, have: false, fingerprint: null }])
    expect(todos.getSnapshot().map(({ id }) => id)).toEqual(['b1'])
    await commit(world, 'k2')
    expect([todos.getSnapshot(), b.getSnapshot().state]).toEqual([[], 'pending'])
    server.send('shape', todosShape(b.ref, 'SB'))
    server.send('rows', { shape: 'SB', reset: 'first', put: [todo('b2', 'now', false, 'B')] })
    await commit(world, 'k3')
    expect([todos.getSnapshot().map(({ id }) => id), b.getSnapshot().state]).toEqual([['b2'], 'live'])
  })

  it('of two shapes: a row that leaves one stays for the other', async () => {
    const world = openWorld(await storeWithBoth())
    const { client, server } = world
    const [a, all] = [client.subscribe(A), client.subscribe({ table: 'todos' })]
    const todos = client.query<Todo>({ table: 'todos' })
    await join(server)
    server.send('shape', todosShape(all.ref, 'ALL'))
    server.send('rows', { shape: 'ALL', reset: 'first', put: [todo('a1', 'of A', false, 'A')] })
    server.send('shape', todosShape(a.ref, 'SA'))
    server.send('rows', { shape: 'SA', remove: [['a1']] })
    await commit(world, 'k2')
    expect(todos.getSnapshot().map(({ id }) => id)).toEqual(['a1'])
    server.send('rows', { shape: 'ALL', remove: [['a1']] })
    await commit(world, 'k3')
    expect(todos.getSnapshot()).toEqual([])
  })
})

describe('heartbeat cursors', () => {
  it('are stored when nothing waits for a commit, and only then', async () => {
    const store = memoryStore()
    const world = openWorld(store)
    const { client, server } = world
    const sub = client.subscribe(A)
    await load(world, sub.ref, [])
    server.heartbeat('k2')
    server.heartbeat(null)
    server.drop()
    expect((await join(server)).payload.cursor).toBe('k2')
    server.send('shape', todosShape(sub.ref))
    server.send('rows', { shape: 'S', put: [todo('a2', 'open', false, 'A')] })
    server.heartbeat('k3')
    server.drop()
    expect((await join(server)).payload.cursor).toBe('k2')
  })

  it('come after the commits that came before them', async () => {
    const world = openWorld()
    const { client, server } = world
    const sub = client.subscribe(A)
    await load(world, sub.ref, [])
    server.send('commit', { lsn: '0/2', xid: null, cursor: 'k2' })
    server.heartbeat('k3')
    server.drop()
    expect((await join(server)).payload.cursor).toBe('k3')
  })

  it('drop what the session does not cover, like commits', async () => {
    const store = await storeWithBoth()
    const world = openWorld(store)
    const a = world.client.subscribe(A)
    await join(world.server)
    await a.ready
    world.server.heartbeat('k2')
    await world.client.close()
    const later = openWorld(store)
    later.client.subscribe(B)
    const { payload } = await join(later.server)
    expect([payload.cursor, payload.shapes[0].have]).toEqual(['k2', false])
  })
})

describe('other databases', () => {
  it('have another place: nothing of the first is shown, sent or lost', async () => {
    const store = await storeWithBoth()
    const world = openWorld(store)
    const { client, server } = world
    const a = client.subscribe(A)
    const todos = client.query<Todo>({ table: 'todos' })
    await a.ready
    const { saved } = client.mutate([{ op: 'insert', table: 'todos', values: { id: 'n', list_id: 'A', title: 'for db1' } }])
    await saved
    await join(server, { database: 'db2', client: 'x1' })
    const again = await answerJoin(server, { database: 'db2', client: 'x1' })
    expect(again.payload).toMatchObject({ client: null, cursor: null, shapes: [{ have: false }] })
    server.send('shape', todosShape(a.ref, 'SA'))
    server.send('rows', { shape: 'SA', reset: 'first', put: [todo('z', 'of db2', false, 'A')] })
    await commit(world, 'z1')
    expect(todos.getSnapshot().map(({ id }) => id)).toEqual(['z'])
    expect([client.status.getSnapshot().unsent, server.unread()]).toEqual([0, []])
    await client.close()
    const back = openWorld(store)
    back.client.subscribe(A)
    await join(back.server, { database: 'db1' })
    expect((await answerJoin(back.server)).payload).toMatchObject({ client: 'c1', cursor: 'k1' })
    expect((await back.server.next('mutate')).payload.mutations[0].ops[0].values.title).toBe('for db1')
  })

  it('do not get what was written while the first was shown, not even in the same turn', async () => {
    const store = await storeWithBoth()
    const world = openWorld(store)
    const { client, server } = world
    await client.subscribe(A).ready
    server.open()
    const request = await server.next('phx_join')
    const write = store.write.bind(store)
    let release!: () => void
    const gate = new Promise<void>((resolve) => (release = resolve))
    store.write = async (one) => {
      await gate
      await write(one)
    }
    // the first write holds the queue up, so that the second mutation is still a draft when the answer arrives
    client.mutate([{ op: 'insert', table: 'todos', values: { id: 'n1' } }])
    await turn()
    server.reply(request, { database: 'db2', client: 'x1', subject: '', shapes: [] })
    const second = client.mutate([{ op: 'insert', table: 'todos', values: { id: 'n2' } }])
    release()
    await second.saved
    expect((await answerJoin(server, { database: 'db2', client: 'x1' })).payload.client).toBeNull()
    await commit(world, 'z1')
    expect([client.status.getSnapshot().unsent, server.unread()]).toEqual([0, []])
  })

  it('frames of the session with the other database are not applied', async () => {
    const world = openWorld(await storeWithBoth())
    const { client, server } = world
    const a = client.subscribe(A)
    const todos = client.query<Todo>({ table: 'todos' })
    await a.ready
    await join(server, { database: 'db2', client: 'x1' })
    server.send('shape', todosShape(a.ref, 'SA'))
    server.send('rows', { shape: 'SA', reset: 'other_database', put: [todo('z', 'too early', false, 'A')] })
    server.send('commit', { lsn: '0/1', xid: null, cursor: 'z1' })
    expect((await answerJoin(server, { database: 'db2', client: 'x1' })).payload.cursor).toBeNull()
    expect(todos.getSnapshot()).toEqual([])
  })
})
