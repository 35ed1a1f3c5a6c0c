/** Connecting, staying away, going offline, and frames that are not what they should be. */
import { describe, expect, it, vi } from 'vitest'
import { ASK_MS, BEHIND_MS } from '../src/freshness'
import { RETRY_IN_MS } from '../src/protocol'
import { memoryStore } from '../src/store_memory'
import { answerJoin, commit, join, load, openWorld, type Todo, todo, todosShape, turn, untilStatus } from './support/world'

describe('the connection', () => {
  it('shows connecting, loading, live and offline', async () => {
    const world = openWorld()
    const { client, server } = world
    const seen = [client.status.getSnapshot().connection]
    client.status.subscribe(() => seen.push(client.status.getSnapshot().connection))
    const { ref } = client.subscribe({ table: 'todos' })
    await load(world, ref, [])
    client.setOnline(false)
    expect(server.wanted).toBe(false)
    client.setOnline(true)
    expect(server.wanted).toBe(true)
    await join(server)
    await commit(world, 'k2')
    const changes = seen.filter((connection, at) => connection !== seen[at - 1])
    expect(changes).toEqual(['connecting', 'loading', 'live', 'offline', 'connecting', 'loading', 'live'])
  })

  it('connects anew on the browser\'s word that the network went or came, unless the application keeps it offline', async () => {
    const heard = new EventTarget()
    vi.stubGlobal('addEventListener', heard.addEventListener.bind(heard))
    vi.stubGlobal('removeEventListener', heard.removeEventListener.bind(heard))
    const world = openWorld()
    vi.unstubAllGlobals()
    const { client, server } = world
    const { ref } = client.subscribe({ table: 'todos' })
    await load(world, ref, [])
    heard.dispatchEvent(new Event('online'))
    expect([server.wanted, client.status.getSnapshot().connection]).toEqual([true, 'connecting'])
    expect((await join(server)).payload.cursor).not.toBeNull()
    client.setOnline(false)
    heard.dispatchEvent(new Event('online'))
    expect([server.wanted, client.status.getSnapshot().connection]).toEqual([false, 'offline'])
    await client.close()
  })

  it('keeps the same status object until something changes', () => {
    const { client } = openWorld()
    expect(client.status.getSnapshot()).toBe(client.status.getSnapshot())
  })

  it('sends a cursor only after every commit received earlier is in the store', async () => {
    const store = memoryStore()
    const world = openWorld(store)
    const { client, server } = world
    const { ref } = client.subscribe({ table: 'todos' })
    await load(world, ref, [])
    const write = store.write.bind(store)
    let release!: () => void
    const gate = new Promise<void>((resolve) => (release = resolve))
    store.write = async (one) => {
      await gate
      await write(one)
    }
    server.send('rows', { shape: 'S', put: [todo('1', 'Milk')] })
    server.send('commit', { lsn: '0/2', xid: null, cursor: 'k2' })
    server.drop()
    server.open()
    await turn()
    expect(server.unread()).toEqual([])
    release()
    expect((await server.next('phx_join')).payload.cursor).toBe('k2')
  })

  it('stays away when the node says so, until the application asks again', async () => {
    const { client, server } = openWorld()
    await join(server)
    server.sendAway()
    expect([server.wanted, client.status.getSnapshot().connection]).toEqual([false, 'refused'])
    client.setOnline(true)
    await server.untilWanted(true)
    await join(server)
    await untilStatus(client, ({ connection }) => connection === 'live')
  })

  it('stays away when the join can never work, and says why', async () => {
    const { client, server } = openWorld()
    server.open()
    server.refuse(await server.next('phx_join'), 'protocol_unsupported')
    expect(client.status.getSnapshot()).toMatchObject({ connection: 'refused', error: { code: 'protocol_unsupported' } })
    expect(server.wanted).toBe(false)
  })

  it('asks again, each time later, while the node is starting or does not answer', async () => {
    const { client, server, timers } = openWorld()
    server.open()
    server.refuse(await server.next('phx_join'), 'not_ready')
    expect(client.status.getSnapshot().error?.code).toBe('not_ready')
    timers.pass(500)
    await server.next('phx_join')
    timers.pass(15_000)
    timers.pass(1000)
    await answerJoin(server)
    expect(client.status.getSnapshot().error).toBeUndefined()
  })

  it.each(['not_ready', 'crowded'])('waits as long as the node says with %s, and then by its own measure again', async (code) => {
    const { client, server, timers } = openWorld()
    server.open()
    server.refuse(await server.next('phx_join'), code, { retry_in: 1234 })
    expect(client.status.getSnapshot()).toMatchObject({ connection: 'connecting', error: { code } })
    timers.pass(1234)
    server.refuse(await server.next('phx_join'), code, { retry_in: 1e12 })
    // a timer of more than 2^31 ms would be due at once
    timers.pass(RETRY_IN_MS)
    server.refuse(await server.next('phx_join'), code, { retry_in: 'soon' })
    timers.pass(500)
    server.refuse(await server.next('phx_join'), code)
    timers.pass(1000)
    await answerJoin(server)
    expect(client.status.getSnapshot().error).toBeUndefined()
  })

  it('does not storm a node that says to come at once, again and again', async () => {
    const { server, timers } = openWorld()
    server.open()
    const chances = [1, 0.5, 0.9]
    for (const [at, retry_in] of [0, 0.001, 300].entries()) {
      timers.chance = () => chances[at] as number
      server.refuse(await server.next('phx_join'), 'not_ready', { retry_in })
      await turn()
      expect(server.unread()).toEqual([])
      // the first pause of its own, or what it was told if that is longer
      timers.pass(Math.max(retry_in, 500 * timers.chance()))
    }
    await answerJoin(server)
  })

  it('pauses any time up to a bound that doubles, counted until something arrives: a node that takes a connection and drops it is not stormed', async () => {
    const world = openWorld()
    const { client, server, timers } = world
    timers.chance = () => 0.25
    const { ref } = client.subscribe({ table: 'todos' })
    const pauses = []
    for (let turn = 0; turn < 3; turn += 1) {
      server.open()
      await server.next('phx_join')
      server.drop()
      pauses.push(server.pause())
    }
    expect(pauses).toEqual([125, 250, 500])
    await load(world, ref, [])
    server.drop()
    expect(server.pause()).toBe(125)
  })

  it.each(['phx_close', 'phx_error'] as const)('joins again after %s', async (event) => {
    const world = openWorld()
    const { ref } = world.client.subscribe({ table: 'todos' })
    await load(world, ref, [])
    world.server.close(event)
    expect(world.client.status.getSnapshot().connection).toBe('connecting')
    world.timers.pass(500)
    expect((await answerJoin(world.server)).payload).toMatchObject({ cursor: 'k1', shapes: [{ ref, have: true }] })
  })

  it('does not take the end of an older session for that of the join under way', async () => {
    const { client, server, timers } = openWorld()
    server.open()
    const request = await server.next('phx_join')
    server.message(null, null, 'phx_close', {})
    server.reply(request, { database: 'db1', client: 'c1', subject: '', shapes: [] })
    expect([client.status.getSnapshot().connection, timers.delays()]).toEqual(['live', [ASK_MS, BEHIND_MS]])
  })

  it('ignores and counts frames it does not know', async () => {
    const world = openWorld()
    const { ref } = world.client.subscribe({ table: 'todos' })
    await load(world, ref, [])
    world.server.send('remove_digest', { anything: 1 })
    world.server.send('tomorrow', null)
    await commit(world, 'k2')
    expect(world.client.status.getSnapshot()).toMatchObject({ unknownFrames: 2, connection: 'live' })
  })

  it.each<[string, unknown]>([
    ['rows', { put: 'nonsense' }],
    ['rows', { shape: 'S', put: [['too few']] }],
    ['ack', {}],
  ])('starts over from the stored cursor when a frame cannot be applied: %s %j', async (event, payload) => {
    const world = openWorld()
    const { client, server, timers } = world
    const { ref } = client.subscribe({ table: 'todos' })
    const todos = client.query<Todo>({ table: 'todos' })
    await load(world, ref, [todo('1', 'Milk')])
    server.send('rows', { shape: 'S', put: [todo('2', 'of the broken batch')] })
    server.send(event, payload)
    server.send('commit', { lsn: '0/2', xid: null, cursor: 'k2' })
    server.send('commit', { lsn: '0/3', xid: null, cursor: 'k3' })
    await untilStatus(client, ({ error }) => error?.code === 'bad_frame')
    expect(todos.getSnapshot().map(({ title }) => title)).toEqual(['Milk'])
    timers.pass(500)
    expect((await answerJoin(server)).payload.cursor).toBe('k1')
    server.send('shape', todosShape(ref))
    server.send('rows', { shape: 'S', put: [todo('3', 'fine')] })
    await commit(world, 'k4')
    expect(todos.getSnapshot().map(({ title }) => title)).toEqual(['Milk', 'fine'])
    expect(client.status.getSnapshot().error).toBeUndefined()
  })

  it('a subscribe that is not answered ends the session', async () => {
    const { client, server, timers } = openWorld()
    await join(server)
    client.subscribe({ table: 'todos' })
    await server.next('subscribe')
    timers.pass(15_000)
    timers.pass(500)
    expect((await server.next('phx_join')).payload.shapes).toHaveLength(1)
  })

  it('close lets go of the connection and keeps what was written', async () => {
    const store = memoryStore()
    const world = openWorld(store)
    const { ref } = world.client.subscribe({ table: 'todos' })
    await load(world, ref, [])
    world.server.send('commit', { lsn: '0/2', xid: null, cursor: 'k2' })
    world.client.mutate([{ op: 'insert', table: 'todos', values: { id: 'x' } }])
    await world.client.close()
    expect(world.server.wanted).toBe(false)
    world.client.setOnline(true)
    expect(world.server.wanted).toBe(false)
    const contents = await store.open('ws://node/socket', '')
    expect([contents.meta.cursor, contents.outbox.length]).toEqual(['k2', 1])
  })
})

it('a callback that throws does not keep the others, or the commit, from happening', async () => {
  const world = openWorld()
  const { client } = world
  const { ref } = client.subscribe({ table: 'todos' })
  const todos = client.query<Todo>({ table: 'todos' })
  await load(world, ref, [])
  const thrown: (() => void)[] = []
  vi.stubGlobal('queueMicrotask', (run: () => void) => thrown.push(run))
  let told = 0
  todos.subscribe(() => {
    throw new Error('of the application')
  })
  todos.subscribe(() => (told += 1))
  world.server.send('rows', { shape: 'S', put: [todo('1', 'Milk')] })
  await commit(world, 'k2')
  vi.unstubAllGlobals()
  expect(told).toBe(1)
  expect(thrown).toHaveLength(1)
  expect(thrown[0]).toThrow('of the application')
})
