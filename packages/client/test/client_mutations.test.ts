/** Mutations: shown at once, durable, sent in order until decided, decided together with the rows. */
import { describe, expect, it } from 'vitest'
import type { OpInput } from '../src/mutation'
import type { Store, StoreWrite } from '../src/store'
import { memoryStore } from '../src/store_memory'
import type { Sent } from './support/fake_server'
import { answerJoin, commit, join, load, openWorld, type Todo, todo, todosShape, turn, untilStatus, type World } from './support/world'

const add = (id: string, title: string): OpInput => ({ op: 'insert', table: 'todos', values: { id, list_id: 'L', title, done: false } })

async function loaded(store?: Store): Promise<World & { ref: string; titles: () => string[] }> {
  const world = openWorld(store)
  const { ref } = world.client.subscribe({ table: 'todos' })
  const todos = world.client.query<Todo>({ table: 'todos' })
  await load(world, ref, [todo('1', 'Milk')])
  return { ...world, ref, titles: () => todos.getSnapshot().map(({ title }) => title) }
}

/** What one test is about, taken and answered. */
async function taken(world: World): Promise<Sent> {
  const message = await world.server.next('mutate')
  world.server.reply(message, {})
  return message
}

const sentNumbers = ({ payload }: Sent) => payload.mutations.map(({ n }: { n: string }) => n)

/** Sends an ack for everything in a message, in a commit of its own. */
async function ack(world: World, message: Sent, cursor: string, outcome: object = { outcome: 'applied' }) {
  world.server.send('ack', { mutations: message.payload.mutations.map(({ n, id }: any) => ({ n, id, ...outcome })) })
  await commit(world, cursor)
}

describe('a mutation', () => {
  it('is shown at once, sent when it is durable, and replaced by the server\'s rows in one notification', async () => {
    const world = await loaded()
    const { client, server, titles } = world
    const todos = client.query<Todo>({ table: 'todos' })
    const seen: string[][] = []
    todos.subscribe(() => seen.push(todos.getSnapshot().map(({ title }) => title)))
    const mutation = client.mutate([add('2', 'Bread'), { op: 'update', table: 'todos', key: { id: '1' }, set: { done: true } }], { name: 'add', args: { x: 1n } })
    expect(titles()).toEqual(['Milk', 'Bread'])
    expect(client.status.getSnapshot().unsent).toBe(1)
    const message = await taken(world)
    expect(message.payload).toEqual({
      confirmed: '0',
      mutations: [
        {
          n: '1',
          id: mutation.id,
          kind: 'ops',
          name: 'add',
          args: { x: '1' },
          ops: [
            { op: 'insert', table: 'todos', values: { id: '2', list_id: 'L', title: 'Bread', done: false } },
            { op: 'update', table: 'todos', key: { id: '1' }, set: { done: true } },
          ],
        },
      ],
    })
    server.send('rows', { shape: 'S', put: [todo('2', 'BREAD'), todo('1', 'Milk', true)] })
    await ack(world, message, 'k2')
    expect(await mutation.outcome).toEqual({ outcome: 'applied' })
    expect(seen).toEqual([['Milk', 'Bread'], ['Milk', 'BREAD']])
    expect(client.status.getSnapshot().unsent).toBe(0)
  })

  it('is not told of again when the server\'s rows are what was guessed', async () => {
    const world = await loaded()
    const todos = world.client.query<Todo>({ table: 'todos' })
    let told = 0
    todos.subscribe(() => (told += 1))
    world.client.mutate([add('2', 'Bread')])
    const message = await taken(world)
    const guessed = todos.getSnapshot()
    world.server.send('rows', { shape: 'S', put: [todo('2', 'Bread')] })
    await ack(world, message, 'k2')
    expect([told, todos.getSnapshot() === guessed]).toEqual([1, true])
  })

  it('leaves the outbox only with its acknowledgement, not with its rows and not with the reply', async () => {
    const world = await loaded()
    world.client.mutate([add('2', 'mine')])
    await taken(world)
    world.server.send('rows', { shape: 'S', put: [todo('2', 'theirs')] })
    await commit(world, 'k2')
    expect([world.titles(), world.client.status.getSnapshot().unsent]).toEqual([['Milk', 'mine'], 1])
  })

  it('is not sent before it is in the store', async () => {
    const store = memoryStore()
    const world = await loaded(store)
    let release!: () => void
    const gate = new Promise<void>((resolve) => (release = resolve))
    const append = store.append.bind(store)
    store.append = async (drafts) => {
      await gate
      return append(drafts)
    }
    let saved = false
    const mutation = world.client.mutate([add('2', 'Bread')])
    void mutation.saved.then(() => (saved = true))
    await turn()
    expect([saved, world.server.unread(), world.titles()]).toEqual([false, [], ['Milk', 'Bread']])
    release()
    await mutation.saved
    expect(sentNumbers(await world.server.next('mutate'))).toEqual(['1'])
  })

  it('made offline survives a reload, and a reload before there ever was a server', async () => {
    const store = memoryStore()
    const first = openWorld(store)
    await first.client.mutate([add('2', 'offline')]).saved
    await first.client.close()
    const second = openWorld(store)
    second.client.subscribe({ table: 'todos' })
    const todos = second.client.query<Todo>({ table: 'todos' })
    await untilStatus(second.client, ({ unsent }) => unsent === 1)
    expect(todos.getSnapshot().map(({ title }) => title)).toEqual(['offline'])
    await join(second.server)
    expect(sentNumbers(await second.server.next('mutate'))).toEqual(['1'])
  })

  it('is sent again, in order, in every session until it is decided', async () => {
    const world = await loaded()
    const { client, server } = world
    for (const title of ['a', 'b', 'c']) await client.mutate([add(title, title)]).saved
    server.drop()
    await join(server)
    const first = await taken(world)
    expect(sentNumbers(first)).toEqual(['1', '2', '3'])
    server.send('ack', { mutations: [{ n: '1', id: first.payload.mutations[0].id, outcome: 'applied' }] })
    await commit(world, 'k2')
    server.drop()
    await join(server)
    const second = await server.next('mutate')
    expect([sentNumbers(second), second.payload.confirmed]).toEqual([['2', '3'], '1'])
    expect(second.payload.mutations.map(({ id }: any) => id)).toEqual(first.payload.mutations.slice(1).map(({ id }: any) => id))
  })

  it('waits for the reply to the message before it', async () => {
    const world = await loaded()
    world.client.mutate([add('2', 'a')])
    const first = await world.server.next('mutate')
    await world.client.mutate([add('3', 'b')]).saved
    await world.client.mutate([add('4', 'c')]).saved
    expect(world.server.unread()).toEqual([])
    world.server.reply(first, {})
    expect(sentNumbers(await world.server.next('mutate'))).toEqual(['2', '3'])
  })

  it('of a kind that this version does not know is kept and sent as it is', async () => {
    const store = memoryStore()
    await store.open('ws://node/socket', '')
    await store.lead(null)
    const later = { seq: 1, n: '1', id: 'm', kind: 'call', name: 'f', args: [1], ops: [] }
    await store.write({ durability: 'strict', outboxPut: [later] })
    const world = openWorld(store)
    await join(world.server)
    expect((await world.server.next('mutate')).payload.mutations).toEqual([{ n: '1', id: 'm', kind: 'call', name: 'f', args: [1], ops: [] }])
  })

  it('that is none is refused where it is made', () => {
    const { client } = openWorld()
    expect(() => client.mutate([])).toThrow(TypeError)
    expect(() => client.mutate([{ op: 'upsert', table: 't' } as never])).toThrow('upsert')
    expect(() => client.mutate([{ op: 'insert', values: {} } as never])).toThrow(TypeError)
    expect(client.status.getSnapshot().unsent).toBe(0)
  })
})

describe('a refusal', () => {
  it('takes the guess back, is told once, survives a reload and leaves when dismissed', async () => {
    const store = memoryStore()
    const world = await loaded(store)
    const { client } = world
    const mutation = client.mutate([add('1', 'twice')], { name: 'add' })
    expect(world.titles()).toEqual(['twice'])
    const message = await taken(world)
    await ack(world, message, 'k2', { outcome: 'refused', code: '23505', message: 'there is one' })
    expect(world.titles()).toEqual(['Milk'])
    expect(await mutation.outcome).toEqual({ outcome: 'refused', code: '23505', message: 'there is one' })
    await ack(world, message, 'k3', { outcome: 'refused', code: '23505', message: 'there is one' })
    const refused = { id: mutation.id, name: 'add', args: null, ops: message.payload.mutations[0].ops, code: '23505', message: 'there is one' }
    expect(client.status.getSnapshot()).toMatchObject({ unsent: 0, refused: [refused] })
    await client.close()
    const reloaded = openWorld(store)
    await untilStatus(reloaded.client, (status) => status.refused.length === 1)
    reloaded.client.dismiss('something else')
    reloaded.client.dismiss(mutation.id)
    await untilStatus(reloaded.client, (status) => status.refused.length === 0)
    await reloaded.client.close()
    const { client: last } = openWorld(store)
    await last.mutate([add('9', 'x')]).saved
    expect(last.status.getSnapshot().refused).toEqual([])
  })

  it('of one does not hold up the next', async () => {
    const world = await loaded()
    world.client.mutate([add('1', 'twice')])
    const message = await taken(world)
    const next = world.client.mutate([add('2', 'fine')])
    const second = await taken(world)
    world.server.send('ack', { mutations: [{ n: '1', id: message.payload.mutations[0].id, outcome: 'refused', code: '23505' }] })
    world.server.send('ack', { mutations: [{ n: '2', id: next.id, outcome: 'applied' }] })
    world.server.send('rows', { shape: 'S', put: [todo('2', 'fine')] })
    await commit(world, 'k2')
    expect([sentNumbers(second), world.titles(), world.client.status.getSnapshot().unsent]).toEqual([['2'], ['Milk', 'fine'], 0])
  })
})

describe('the store', () => {
  it('gets rows, cursor, acknowledgement, refusal and what is confirmed in one strict write', async () => {
    const store = memoryStore()
    const world = await loaded(store)
    const mutation = world.client.mutate([add('1', 'twice')])
    const message = await taken(world)
    const writes: StoreWrite[] = []
    const write = store.write.bind(store)
    store.write = (one) => {
      writes.push(one)
      return write(one)
    }
    world.server.send('rows', { shape: 'S', put: [todo('3', 'Tea')] })
    await ack(world, message, 'k2', { outcome: 'refused', code: '23505', message: 'm' })
    expect(writes).toEqual([
      {
        durability: 'strict',
        meta: { cursor: 'k2', client: 'c1', confirmed: '1', unknown: null },
        shapes: [{ id: expect.any(String), drop: false, shape: null, reset: false, rows: new Map([['["3"]', todo('3', 'Tea')]]) }],
        outboxRemove: [1],
        refusedPut: [expect.objectContaining({ id: mutation.id, code: '23505' })],
      },
    ])
    world.server.send('rows', { shape: 'S', put: [todo('4', 'Jam')] })
    await commit(world, 'k3')
    expect(writes.map(({ durability }) => durability)).toEqual(['strict', 'relaxed'])
  })

  it('that fails costs the rows first: the client goes on in memory, says so, and still keeps what is unsent', async () => {
    const store = memoryStore()
    const world = await loaded(store)
    const { client, server, titles } = world
    const write = store.write.bind(store)
    store.write = async (one) => {
      if (one.shapes?.length) throw new DOMException('the disk is full', 'QuotaExceededError')
      await write(one)
    }
    server.send('rows', { shape: 'S', put: [todo('2', 'in memory')] })
    await commit(world, 'k2')
    expect(titles()).toEqual(['Milk', 'in memory'])
    expect(client.status.getSnapshot().error).toMatchObject({ code: 'store_full', message: expect.stringContaining('the disk is full') })
    await client.mutate([add('3', 'kept')]).saved
    await client.close()
    store.write = write
    const later = openWorld(store)
    const { ref } = later.client.subscribe({ table: 'todos' })
    const { payload } = await join(later.server)
    expect(payload).toMatchObject({ cursor: null, shapes: [{ ref, have: false }] })
    expect((await later.server.next('mutate')).payload.mutations[0].ops[0].values.title).toBe('kept')
  })

  it('that can keep nothing more rejects `saved`, and the mutation is sent all the same', async () => {
    const store = memoryStore()
    const world = await loaded(store)
    store.write = store.change = store.append = async () => {
      throw new Error('gone')
    }
    const mutation = world.client.mutate([add('2', 'Bread')])
    await expect(mutation.saved).rejects.toThrow('gone')
    const message = await taken(world)
    await ack(world, message, 'k2')
    expect(await mutation.outcome).toEqual({ outcome: 'applied' })
    // the node must keep the outcome: after a reload the mutation may be unknown here, or known still
    world.client.mutate([add('3', 'Jam')])
    expect((await world.server.next('mutate')).payload).toMatchObject({ confirmed: '0', mutations: [{ n: '2' }] })
  })

  it('that cannot be opened leaves a client without memory, which works', async () => {
    const store = memoryStore()
    store.open = async () => {
      throw new Error('private window')
    }
    const world = await loaded(store)
    expect(world.titles()).toEqual(['Milk'])
    expect(world.client.status.getSnapshot().error?.message).toContain('private window')
    world.client.mutate([add('2', 'Bread')])
    expect(sentNumbers(await world.server.next('mutate'))).toEqual(['1'])
  })
})

describe('errors of a reply', () => {
  it('renumber: a new client id and numbers from 1, stored and sent again', async () => {
    const store = memoryStore()
    const world = await loaded(store)
    world.client.mutate([add('2', 'a')])
    await ack(world, await taken(world), 'k2')
    const mutation = world.client.mutate([add('3', 'b')])
    world.server.refuse(await world.server.next('mutate'), 'renumber', { client: 'c2' })
    expect((await answerJoin(world.server)).payload).toMatchObject({ client: 'c1', cursor: 'k2' })
    expect(world.server.unread()).toEqual([])
    world.server.send('commit', { lsn: '0/1', xid: null, cursor: 'k2' })
    expect((await answerJoin(world.server, { client: 'c2' })).payload).toMatchObject({ client: 'c2', cursor: 'k2' })
    expect((await taken(world)).payload).toMatchObject({ confirmed: '0', mutations: [{ n: '1', id: mutation.id }] })
    await world.client.close()
    expect((await store.open('ws://node/socket', '')).meta).toMatchObject({ client: 'c2', confirmed: '0' })
  })

  it('renumber: what the old client id carried out is not sent under the new one', async () => {
    const world = await loaded()
    const first = world.client.mutate([add('2', 'done, not acknowledged')])
    const second = world.client.mutate([add('3', 'number taken')])
    await second.saved
    world.server.drop()
    await join(world.server)
    world.server.refuse(await world.server.next('mutate'), 'renumber', { client: 'c2' })
    await answerJoin(world.server)
    world.server.send('ack', { mutations: [{ n: '1', id: first.id, outcome: 'applied' }, { n: '2', id: 'of the copy', outcome: 'applied' }] })
    world.server.send('commit', { lsn: '0/1', xid: null, cursor: 'k2' })
    expect((await answerJoin(world.server, { client: 'c2' })).payload.client).toBe('c2')
    expect((await taken(world)).payload.mutations).toMatchObject([{ n: '1', id: second.id }])
  })

  it('renumber: a node that is crowded is asked again when it says, and nothing is lost or done twice meanwhile', async () => {
    const world = await loaded()
    const { client, server, timers, titles } = world
    const first = client.mutate([add('2', 'done, not acknowledged')])
    const second = client.mutate([add('3', 'number taken')])
    await second.saved
    server.refuse(await server.next('mutate'), 'renumber', { client: 'c2' })
    const crowded = async (retry_in: number, unsent: number) => {
      const request = await server.next('phx_join')
      server.refuse(request, 'crowded', { retry_in })
      await turn()
      expect(client.status.getSnapshot()).toMatchObject({ connection: 'connecting', unsent, error: { code: 'crowded', message: 'crowded in words' } })
      expect(titles()).toEqual(['Milk', 'done, not acknowledged', 'number taken'])
      return request.payload
    }
    expect(await crowded(1234, 2)).toMatchObject({ client: 'c1', cursor: 'k1' })
    // a join that is refused leaves the session before it as it is at the node: what it goes on to say is of no use here
    server.send('rows', { shape: 'S', put: [todo('4', 'of the old session')] })
    server.send('commit', { lsn: '0/1', xid: null, cursor: 'k-old' })
    server.heartbeat('k-old')
    await turn()
    expect([titles(), server.unread()]).toEqual([['Milk', 'done, not acknowledged', 'number taken'], []])
    timers.pass(1234)
    expect((await answerJoin(server)).payload).toMatchObject({ client: 'c1', cursor: 'k1' })
    expect(client.status.getSnapshot().error).toBeUndefined()
    server.send('shape', todosShape(world.ref))
    server.send('rows', { shape: 'S', put: [todo('2', 'done, not acknowledged')] })
    server.send('ack', { mutations: [{ n: '1', id: first.id, outcome: 'applied' }, { n: '2', id: 'of the copy', outcome: 'applied' }] })
    server.send('commit', { lsn: '0/1', xid: null, cursor: 'k2' })
    expect(await crowded(2000, 1)).toMatchObject({ client: 'c2', cursor: 'k2' })
    timers.pass(2000)
    expect((await answerJoin(server, { client: 'c2' })).payload).toMatchObject({ client: 'c2', cursor: 'k2', shapes: [{ have: true }] })
    const sent = await taken(world)
    expect(sent.payload.mutations).toMatchObject([{ n: '1', id: second.id }])
    await ack(world, sent, 'k3')
    expect(client.status.getSnapshot()).toMatchObject({ connection: 'live', unsent: 0 })
    expect((await first.outcome).outcome).toBe('applied')
  })

  it('renumber: what another copy of the profile had forgotten is for the application to decide', async () => {
    const world = await loaded()
    const first = world.client.mutate([add('2', 'done; the other copy was told')])
    const second = world.client.mutate([add('3', 'number taken')])
    await second.saved
    world.server.drop()
    await join(world.server)
    world.server.refuse(await world.server.next('mutate'), 'renumber', { client: 'c2', last: '1' })
    await answerJoin(world.server)
    world.server.send('commit', { lsn: '0/1', xid: null, cursor: 'k2' })
    await untilStatus(world.client, ({ error }) => error?.code === 'unknown_client')
    expect([world.server.unread(), world.client.status.getSnapshot().unsent]).toEqual([[], 2])
    world.client.resolveUnknown(false)
    expect([(await first.outcome).code, (await second.outcome).code]).toEqual(['unknown_client', 'unknown_client'])
    expect((await answerJoin(world.server, { client: 'c2' })).payload.client).toBe('c2')
  })

  it('gap: goes on from last + 1', async () => {
    const world = await loaded()
    for (const title of ['a', 'b', 'c']) await world.client.mutate([add(title, title)]).saved
    world.server.drop()
    await join(world.server)
    world.server.refuse(await world.server.next('mutate'), 'gap', { last: '1' })
    expect(sentNumbers(await taken(world))).toEqual(['2', '3'])
  })

  it('gap: numbers anew from last + 1 when the outbox begins later', async () => {
    const world = await loaded()
    world.client.mutate([add('2', 'a')])
    await ack(world, await taken(world), 'k2')
    world.client.mutate([add('3', 'b')])
    world.server.refuse(await world.server.next('mutate'), 'gap', { last: '0' })
    expect((await taken(world)).payload).toMatchObject({ confirmed: '0', mutations: [{ n: '1' }] })
  })

  it('gap again and again is not a circle without a pause', async () => {
    const world = await loaded()
    world.client.mutate([add('2', 'a')])
    world.server.refuse(await world.server.next('mutate'), 'gap', { last: '0' })
    world.server.refuse(await world.server.next('mutate'), 'gap', { last: '0' })
    expect(world.timers.delays()).toContain(1000)
    expect(world.server.unread()).toEqual([])
    world.timers.pass(1000)
    expect(sentNumbers(await taken(world))).toEqual(['1'])
  })

  it('unknown_client: told, kept over a reload, and sent under the new id only when told to', async () => {
    const store = memoryStore()
    const world = await loaded(store)
    world.client.mutate([add('2', 'a')])
    await ack(world, await taken(world), 'k2')
    await world.client.mutate([add('3', 'b')]).saved
    world.server.refuse(await world.server.next('mutate'), 'unknown_client', { client: 'c9' })
    await untilStatus(world.client, ({ error }) => error?.code === 'unknown_client')
    await world.client.mutate([add('4', 'c')]).saved
    await world.client.close()
    const later = openWorld(store)
    await answerJoinNow(later)
    await later.client.mutate([add('5', 'd')]).saved
    expect([later.server.unread(), later.client.status.getSnapshot().unsent]).toEqual([[], 3])
    later.client.resolveUnknown(true)
    expect((await answerJoin(later.server, { client: 'c9' })).payload.client).toBe('c9')
    expect((await later.server.next('mutate')).payload).toMatchObject({ confirmed: '0', mutations: [{ n: '1' }, { n: '2' }, { n: '3' }] })
  })

  it('unknown_client: given up when told to', async () => {
    const world = await loaded()
    world.client.mutate([add('2', 'a')])
    await ack(world, await taken(world), 'k2')
    const mutation = world.client.mutate([add('3', 'b')])
    world.server.refuse(await world.server.next('mutate'), 'unknown_client', { client: 'c9' })
    await untilStatus(world.client, ({ error }) => error?.code === 'unknown_client')
    world.client.resolveUnknown(false)
    expect((await mutation.outcome).code).toBe('unknown_client')
    expect(world.client.status.getSnapshot()).toMatchObject({ unsent: 0, refused: [{ id: mutation.id }] })
    expect((await answerJoin(world.server, { client: 'c9' })).payload.client).toBe('c9')
    world.client.mutate([add('4', 'c')])
    expect(sentNumbers(await world.server.next('mutate'))).toEqual(['1'])
  })

  it('busy: again after a pause, and no answer: likewise', async () => {
    const world = await loaded()
    world.client.mutate([add('2', 'a')])
    world.server.refuse(await world.server.next('mutate'), 'busy')
    expect(world.client.status.getSnapshot().error).toBeUndefined()
    world.timers.pass(1000)
    await world.server.next('mutate')
    world.timers.pass(15_000)
    world.timers.pass(1000)
    expect(sentNumbers(await taken(world))).toEqual(['1'])
  })

  it('malformed: found by sending one at a time, told, and the queue goes on when it is dismissed', async () => {
    const world = await loaded()
    const { client, server } = world
    const [good, bad, last] = ['a', 'b', 'c'].map((title) => client.mutate([add(title, title)]))
    await last!.saved
    server.drop()
    await join(server)
    server.refuse(await server.next('mutate'), 'malformed')
    expect(sentNumbers(await taken(world))).toEqual(['1'])
    server.refuse(await server.next('mutate'), 'malformed')
    await untilStatus(client, ({ error }) => error?.code === 'malformed')
    expect(client.status.getSnapshot()).toMatchObject({ unsent: 3, error: { mutationId: bad!.id } })
    client.dismiss(bad!.id)
    expect(await bad!.outcome).toEqual({ outcome: 'refused', code: 'malformed' })
    const again = await taken(world)
    expect(again.payload.mutations.map(({ n, id }: any) => [n, id])).toEqual([['1', good!.id], ['2', last!.id]])
    expect(client.status.getSnapshot().error).toBeUndefined()
  })
})

async function answerJoinNow(world: World): Promise<void> {
  world.server.open()
  await answerJoin(world.server)
  await untilStatus(world.client, ({ connection }) => connection === 'live')
}

it('a reload resumes, applies what came since and acknowledges what was sent before', async () => {
  const store = memoryStore()
  const world = await loaded(store)
  const mutation = world.client.mutate([add('2', 'Bread')])
  await taken(world)
  await world.client.close()
  const later = openWorld(store)
  const { ref } = later.client.subscribe({ table: 'todos' })
  const todos = later.client.query<Todo>({ table: 'todos' })
  await untilStatus(later.client, ({ unsent }) => unsent === 1)
  expect(todos.getSnapshot().map(({ title }) => title)).toEqual(['Milk', 'Bread'])
  await join(later.server)
  const message = await taken(later)
  expect(message.payload.mutations[0].id).toBe(mutation.id)
  later.server.send('shape', todosShape(ref))
  later.server.send('rows', { shape: 'S', put: [todo('2', 'Bread!')], remove: [['1']] })
  await ack(later, message, 'k5')
  expect(todos.getSnapshot().map(({ title }) => title)).toEqual(['Bread!'])
})
