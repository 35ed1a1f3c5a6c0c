/** Rows from the node to the screen: nothing before `commit`, one notification, membership per shape. */
import { describe, expect, it } from 'vitest'
import { commit, join, load, nextCommit, openWorld, type Todo, todo, todosShape } from './support/world'

describe('commits', () => {
  it('loads a shape and shows it at its commit', async () => {
    const world = openWorld()
    const { client, server } = world
    const sub = client.subscribe({ table: 'todos', scope: { list_id: 'L' } })
    const todos = client.query<Todo>({ table: 'todos', orderBy: 'title' })
    const request = await load(world, sub.ref, [todo('2', 'Bread'), todo('1', 'Milk')])
    expect(request.payload).toEqual({
      protocol: 1,
      capabilities: ['widen', 'provisional'],
      required: [],
      token: null,
      subject: '',
      client: null,
      cursor: null,
      shapes: [{ ref: sub.ref, table: 'todos', columns: null, scope: { list_id: 'L' }, where: null, have: false, fingerprint: null }],
    })
    await sub.ready
    expect(todos.getSnapshot()).toEqual([
      { id: '2', list_id: 'L', title: 'Bread', done: false },
      { id: '1', list_id: 'L', title: 'Milk', done: false },
    ])
    expect(client.status.getSnapshot().connection).toBe('live')
    expect(server.unread()).toEqual([])
  })

  it('shows nothing before the commit, and then all of it in one notification', async () => {
    const world = openWorld()
    const { client, server } = world
    const sub = client.subscribe({ table: 'todos' })
    await load(world, sub.ref, [todo('1', 'Milk')])
    const todos = client.query<Todo>({ table: 'todos' })
    let told = 0
    todos.subscribe(() => (told += 1))
    server.send('rows', { shape: 'S', put: [todo('2', 'Bread')] })
    server.send('rows', { shape: 'S', remove: [['1']] })
    expect(todos.getSnapshot().map(({ id }) => id)).toEqual(['1'])
    expect(told).toBe(0)
    const notice = await commit(world, 'k2', '812')
    expect(todos.getSnapshot().map(({ id }) => id)).toEqual(['2'])
    expect(told).toBe(1)
    expect(notice).toEqual({ lsn: '0/1', xid: '812', rows: 2, tables: ['todos'], reloaded: [] })
  })

  it('tells why a shape that was held is loaded anew, and nothing of a first load', async () => {
    const world = openWorld()
    const { client, server } = world
    const sub = client.subscribe({ table: 'todos' })
    const notices: unknown[] = []
    client.onCommit(({ reloaded }) => notices.push(reloaded))
    await load(world, sub.ref, [todo('1', 'Milk')])
    server.send('shape', { ...todosShape(sub.ref), fingerprint: 'f2' })
    server.send('rows', { shape: 'S', reset: 'schema_changed', put: [todo('1', 'Milk')] })
    server.send('rows', { shape: 'S', put: [todo('2', 'Bread')] })
    await commit(world, 'k2', null)
    server.send('rows', { shape: 'S', put: [todo('3', 'Eggs')] })
    await commit(world, 'k3', '7')
    expect(notices).toEqual([[], [{ table: 'todos', reason: 'schema_changed' }], []])
  })

  it('throws an open batch away when the connection drops', async () => {
    const world = openWorld()
    const { client, server } = world
    const sub = client.subscribe({ table: 'todos' })
    await load(world, sub.ref, [todo('1', 'Milk')])
    const todos = client.query<Todo>({ table: 'todos' })
    server.send('rows', { shape: 'S', put: [todo('2', 'torn')] })
    server.drop()
    const again = await join(server)
    expect(again.payload.cursor).toBe('k1')
    expect(again.payload.shapes[0]).toMatchObject({ ref: sub.ref, have: true, fingerprint: 'f1' })
    server.send('shape', todosShape(sub.ref))
    server.send('rows', { shape: 'S', put: [todo('3', 'whole')] })
    await commit(world, 'k3')
    expect(todos.getSnapshot().map(({ title }) => title)).toEqual(['Milk', 'whole'])
  })

  it('drops frames of an older session that arrive before the answer to a join', async () => {
    const world = openWorld()
    const { client, server } = world
    const sub = client.subscribe({ table: 'todos' })
    await load(world, sub.ref, [todo('1', 'Milk')])
    const todos = client.query<Todo>({ table: 'todos' })
    server.close('phx_error')
    world.timers.pass(500)
    const request = await server.next('phx_join')
    server.send('rows', { shape: 'S', put: [todo('2', 'stale')] })
    server.send('commit', { lsn: '0/2', xid: null, cursor: 'stale' })
    server.reply(request, { database: 'db1', subject: '', client: 'c1', shapes: [{ ref: sub.ref, ok: true }] })
    server.send('shape', todosShape(sub.ref))
    const applied = nextCommit(client)
    server.send('commit', { lsn: '0/3', xid: null, cursor: 'k3' })
    expect((await applied).lsn).toBe('0/3')
    expect(todos.getSnapshot().map(({ title }) => title)).toEqual(['Milk'])
  })
})
