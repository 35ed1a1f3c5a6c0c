/** Larger stories of the outbox: one refused among many, conditions, edit and send again, what is too large. */
import { describe, expect, it } from 'vitest'
import type { OpInput } from '../src/mutation'
import { MESSAGE_BYTES } from '../src/mutation'
import { BATCH_BYTES } from '../src/sender'
import { memoryStore } from '../src/store_memory'
import { commit, load, openWorld, type Todo, todo, untilStatus, type World } from './support/world'

const add = (id: string, title: string): OpInput => ({ op: 'insert', table: 'todos', values: { id, list_id: 'L', title, done: false } })
const rename = (id: string, title: string): OpInput => ({ op: 'update', table: 'todos', key: { id }, set: { title }, if: 'unchanged' })

async function loaded(store = memoryStore()): Promise<World & { titles: () => string[] }> {
  const world = openWorld(store)
  const { ref } = world.client.subscribe({ table: 'todos' })
  const todos = world.client.query<Todo>({ table: 'todos', orderBy: 'id' })
  await load(world, ref, [todo('1', 'Milk')])
  return { ...world, titles: () => todos.getSnapshot().map(({ title }) => title) }
}

it('the third of five is refused: it alone is taken back, those behind it are put on what the server has, and are applied', async () => {
  const world = await loaded()
  const { client, server, titles } = world
  const mutations = [
    client.mutate([add('2', 'two')]),
    client.mutate([{ op: 'update', table: 'todos', key: { id: '1' }, set: { done: true } }]),
    client.mutate([{ op: 'update', table: 'todos', key: { id: '1' }, set: { title: 'forbidden' } }, add('3', 'with it')], { name: 'rename', args: { to: 'forbidden' } }),
    client.mutate([{ op: 'update', table: 'todos', key: { id: '2' }, set: { title: 'two, again' } }]),
    client.mutate([add('5', 'five')]),
  ]
  await mutations[4]!.saved
  expect(titles()).toEqual(['forbidden', 'two, again', 'with it', 'five'])
  const sent = []
  for (let count = 0; count < 5; count += sent.at(-1)!.payload.mutations.length) {
    const message = await server.next('mutate')
    server.reply(message, {})
    sent.push(message)
  }
  const all = sent.flatMap(({ payload }) => payload.mutations)
  expect(all.map(({ n }) => n)).toEqual(['1', '2', '3', '4', '5'])
  const seen: string[][] = []
  const todos = client.query<Todo>({ table: 'todos', orderBy: 'id' })
  todos.subscribe(() => seen.push(todos.getSnapshot().map(({ title }) => title)))
  const ack = (at: number, outcome: object) => server.send('ack', { mutations: [{ n: `${at + 1}`, id: all[at].id, ...outcome }] })
  server.send('rows', { shape: 'S', put: [todo('2', 'two')] })
  ack(0, { outcome: 'applied' })
  await commit(world, 'k2')
  server.send('rows', { shape: 'S', put: [todo('1', 'Milk', true)] })
  ack(1, { outcome: 'applied' })
  await commit(world, 'k3')
  ack(2, { outcome: 'refused', code: '23514', message: 'the word is forbidden' })
  await commit(world, 'k4')
  expect(titles()).toEqual(['Milk', 'two, again', 'five'])
  server.send('rows', { shape: 'S', put: [todo('2', 'two, again'), todo('5', 'five')] })
  ack(3, { outcome: 'applied' })
  ack(4, { outcome: 'applied' })
  await commit(world, 'k5')
  // one step back, for the refused one, and no other
  expect(seen).toEqual([['Milk', 'two, again', 'five']])
  expect((await Promise.all(mutations.map(({ outcome }) => outcome))).map(({ outcome }) => outcome)).toEqual(['applied', 'applied', 'refused', 'applied', 'applied'])
  expect(client.status.getSnapshot()).toMatchObject({
    unsent: 0,
    refused: [{ id: mutations[2]!.id, name: 'rename', args: { to: 'forbidden' }, code: '23514', message: 'the word is forbidden' }],
  })
})

describe('a refused mutation', () => {
  it('is edited and sent again, and leaves the list once the new one is durable', async () => {
    const world = await loaded()
    const { client, server } = world
    const first = client.mutate([add('2', 'forbidden')], { name: 'add', args: { list: 'L' } })
    const message = await server.next('mutate')
    server.reply(message, {})
    server.send('ack', { mutations: [{ n: '1', id: first.id, outcome: 'refused', code: '23514', message: 'no' }] })
    await commit(world, 'k2')
    const again = client.resend(first.id, [add('2', 'allowed')])
    await again.saved
    await untilStatus(client, ({ refused }) => refused.length === 0)
    expect((await server.next('mutate')).payload.mutations).toMatchObject([{ n: '2', id: again.id, name: 'add', args: { list: 'L' } }])
    expect(() => client.resend(first.id)).toThrow(TypeError)
  })
})

describe('a conditional mutation', () => {
  it('names the values that were seen, under a kind that an older node refuses by name', async () => {
    const world = await loaded()
    const { client, server } = world
    client.mutate([rename('1', 'Oat milk')])
    const [first] = (await server.next('mutate')).payload.mutations
    expect(first).toMatchObject({ kind: 'ops_if', ops: [{ op: 'update', key: { id: '1' }, set: { title: 'Oat milk' }, if: { title: 'Milk' } }] })
    expect(world.titles()).toEqual(['Oat milk'])
    expect(() => client.mutate([rename('none', 'x')])).toThrow('not shown')
  })

  it('that lost is told with base, mine and theirs, in the commit that refuses it and after a reload', async () => {
    const store = memoryStore()
    const world = await loaded(store)
    const { client, server } = world
    const told: unknown[] = []
    client.onConflict((conflict) => told.push(conflict))
    const mutation = client.mutate([rename('1', 'mine')], { name: 'rename' })
    server.reply(await server.next('mutate'), {})
    server.send('rows', { shape: 'S', put: [todo('1', 'theirs', true)] })
    await commit(world, 'k2')
    expect([world.titles(), told]).toEqual([['mine'], []])
    server.send('ack', { mutations: [{ n: '1', id: mutation.id, outcome: 'refused', code: 'conflict', message: 'the row has changed' }] })
    await commit(world, 'k3')
    const rows = [{ table: 'todos', key: { id: '1' }, base: { title: 'Milk' }, mine: { title: 'mine' }, theirs: { id: '1', list_id: 'L', title: 'theirs', done: true } }]
    expect(told).toMatchObject([{ mutation: { id: mutation.id, name: 'rename' }, rows }])
    expect(world.titles()).toEqual(['theirs'])
    await client.close()
    const later = openWorld(store)
    await later.client.subscribe({ table: 'todos' }).ready
    const [refused] = later.client.status.getSnapshot().refused
    expect(later.client.conflictOf(refused!)).toMatchObject({ rows })
    expect(later.client.conflictOf({ ...refused!, code: '23505' })).toBeNull()
  })
})

describe('the limit of a message', () => {
  it('refuses a mutation that none could hold before it is shown or stored', async () => {
    const { client, titles } = await loaded()
    expect(() => client.mutate([add('2', 'ä'.repeat(MESSAGE_BYTES / 2))])).toThrow(RangeError)
    expect(() => client.mutate([add('2', 'ä'.repeat(MESSAGE_BYTES / 2))])).toThrow('1 MiB')
    expect([titles(), client.status.getSnapshot().unsent]).toEqual([['Milk'], 0])
  })

  it('is kept to by messages of many mutations, and one that fills a message goes alone', async () => {
    const world = await loaded()
    const { client, server } = world
    server.drop()
    const sizes = [BATCH_BYTES / 2, BATCH_BYTES / 3, BATCH_BYTES / 2, MESSAGE_BYTES - 2000, 10]
    for (const [at, size] of sizes.entries()) await client.mutate([add(`${at}`, 'x'.repeat(Math.round(size)))]).saved
    server.open()
    const request = await server.next('phx_join')
    server.reply(request, { database: 'db1', subject: '', client: 'c1', shapes: [] })
    const counts: number[] = []
    while (counts.reduce((sum, count) => sum + count, 0) < sizes.length) {
      const message = await server.next('mutate')
      expect(JSON.stringify([message.joinRef, message.ref, 'sync', 'mutate', message.payload]).length).toBeLessThan(MESSAGE_BYTES)
      counts.push(message.payload.mutations.length)
      server.reply(message, {})
    }
    expect(counts).toEqual([2, 1, 1, 1])
  })
})
