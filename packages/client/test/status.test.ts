/** What people are told. */
import { describe, expect, it, vi } from 'vitest'
import { ASK_MS, BEHIND_MS } from '../src/freshness'
import { type ClientStatus, describeStatus } from '../src/status'
import { commit, join, load, openWorld, todo, todosShape } from './support/world'

const LIVE: ClientStatus = { connection: 'live', loadedRows: 0, aboutRows: 0, isProvisional: false, behindSeconds: 0, unsent: 0, refused: [], unknownFrames: 0 }
const REFUSED = { id: 'm', name: null, args: null, ops: [], code: '23505', message: '' }

it.each<[Partial<ClientStatus>, string]>([
  [{}, 'Live'],
  [{ connection: 'connecting', unsent: 1 }, 'Connecting, 1 unsent edit'],
  [{ connection: 'connecting', unsent: 1, error: { code: 'crowded', message: 'm', retryIn: 4200 } }, 'The server is busy, next try after 5 seconds, 1 unsent edit'],
  [{ connection: 'connecting', error: { code: 'not_ready', message: 'm', retryIn: 700 } }, 'The server is not ready, next try after 1 second'],
  [{ connection: 'connecting', error: { code: 'store_full', message: 'm' } }, 'Connecting'],
  [{ connection: 'loading' }, 'Loading'],
  [{ connection: 'loading', loadedRows: 12_000 }, 'Loading, 12,000 rows so far'],
  [{ connection: 'loading', loadedRows: 12_000, aboutRows: 20_000 }, 'Loading, 12,000 of about 20,000 rows'],
  [{ connection: 'loading', aboutRows: 20_000 }, 'Loading, 0 of about 20,000 rows'],
  [{ connection: 'loading', loadedRows: 20_100, aboutRows: 20_100 }, 'Loading, 20,100 rows so far'],
  [{ connection: 'loading', loadedRows: 20_100, aboutRows: 20_100, isProvisional: true }, 'Loading, 20,100 rows shown provisionally'],
  [{ connection: 'behind', behindSeconds: 42 }, 'Behind by 42 seconds'],
  [{ connection: 'offline', unsent: 3 }, 'Offline, 3 unsent edits'],
  [{ refused: [REFUSED] }, 'Live, 1 refused edit'],
  [{ connection: 'refused', error: { code: 'protocol_unsupported', message: 'reload this page' } }, 'Refused by the server: reload this page'],
])('%j is said as %s', (status, words) => {
  expect(describeStatus({ ...LIVE, ...status })).toBe(words)
})

describe('the status', () => {
  it('says each time when a node that is crowded is asked again, and no longer once its connection is lost or it let the client in', async () => {
    const { client, server, timers } = openWorld()
    const words = () => describeStatus(client.status.getSnapshot())
    server.open()
    for (const [retry_in, when] of [[1234, '2 seconds'], [4000, '4 seconds']] as const) {
      server.refuse(await server.next('phx_join'), 'crowded', { retry_in })
      expect(words()).toBe(`The server is busy, next try after ${when}`)
      timers.pass(retry_in)
    }
    server.refuse(await server.next('phx_join'), 'crowded', { retry_in: 4000 })
    server.drop()
    expect(words()).toBe('Connecting')
    await join(server)
    expect(words()).toBe('Live')
  })

  it('counts the rows of a load as they come, and forgets them at the commit', async () => {
    const world = openWorld()
    const { client, server } = world
    const { ref } = client.subscribe({ table: 'todos' })
    await join(server)
    server.send('shape', todosShape(ref))
    server.send('rows', { shape: 'S', reset: 'first', put: [todo('1', 'a'), todo('2', 'b')] })
    expect(client.status.getSnapshot()).toMatchObject({ connection: 'loading', loadedRows: 2 })
    server.send('rows', { shape: 'S', put: [todo('3', 'c')] })
    expect(client.status.getSnapshot()).toMatchObject({ connection: 'loading', loadedRows: 3 })
    await commit(world, 'k1')
    expect(client.status.getSnapshot()).toMatchObject({ connection: 'live', loadedRows: 0 })
  })

  it('tells a share of a load of which the node said how large it is, whatever else is committed meanwhile', async () => {
    const world = openWorld()
    const { client, server } = world
    const { ref } = client.subscribe({ table: 'todos', scope: { list_id: 'L' } })
    const other = client.subscribe({ table: 'todos', scope: { list_id: 'M' } })
    await join(server)
    server.send('shape', todosShape(other.ref, 'T'))
    server.send('rows', { shape: 'T', reset: 'first', put: [] })
    server.send('shape', todosShape(ref))
    const told = () => {
      const { connection, loadedRows, aboutRows } = client.status.getSnapshot()
      return [connection, loadedRows, aboutRows]
    }
    server.send('progress', { load: '7', about: 4 })
    expect(told()).toEqual(['loading', 0, 4])
    server.send('load', { load: '7', shape: 'S', reset: 'first', put: [todo('1', 'a'), todo('2', 'b')] })
    expect(told()).toEqual(['loading', 2, 4])
    // another shape's batch in between forgets nothing of what is set aside
    server.send('rows', { shape: 'T', put: [todo('9', 'z', false, 'M')] })
    await commit(world, 'k1')
    expect(told()).toEqual(['loading', 2, 4])
    // a load of which nothing was said counts as it comes, and an estimate that was too low grows
    server.send('load', { load: '8', shape: 'T', put: [todo('8', 'y', false, 'M')] })
    expect(told()).toEqual(['loading', 3, 5])
    server.send('load', { load: '7', shape: 'S', put: [todo('3', 'c'), todo('4', 'd'), todo('5', 'e')] })
    expect(told()).toEqual(['loading', 6, 6])
    // what broke off is loaded again, under another name
    server.send('unload', { loads: ['7'] })
    server.send('progress', { load: '9', about: 5 })
    expect(told()).toEqual(['loading', 1, 6])
    // never counted as more than once, nor waited for: it has fewer rows than was said
    server.send('load', { load: '9', shape: 'S', reset: 'first', put: [todo('1', 'a')] })
    server.send('loaded', { loads: ['8', '9'] })
    expect(told()).toEqual(['loading', 2, 2])
    await commit(world, 'k2')
    expect(told()).toEqual(['live', 0, 0])
  })

  it('says for how long no newer state was proven, whatever else is heard, until one is', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    try {
      const world = openWorld()
      const { client, server, timers } = world
      const { ref } = client.subscribe({ table: 'todos' })
      await load(world, ref, [])
      const pass = (ms: number, timer: number) => {
        vi.setSystemTime(Date.now() + ms)
        timers.pass(timer)
      }
      // asked at 0 and at 2 s; the second answer says that the node itself is 1 s behind
      pass(ASK_MS, ASK_MS)
      server.answerAge(0)
      server.answerAge(1000)
      expect(client.status.getSnapshot()).toMatchObject({ connection: 'live' })
      vi.setSystemTime(Date.now() + BEHIND_MS - 1000)
      await commit(world, 'k2')
      timers.pass(BEHIND_MS - 1000)
      expect(client.status.getSnapshot()).toMatchObject({ connection: 'behind', behindSeconds: 5 })
      pass(1000, 1000)
      expect(client.status.getSnapshot()).toMatchObject({ connection: 'behind', behindSeconds: 6 })
      // the phoenix client's own heartbeat proves nothing: nobody knows when it was sent
      server.heartbeat(null)
      timers.pass(ASK_MS)
      server.answerAge(6000)
      expect(client.status.getSnapshot()).toMatchObject({ connection: 'behind', behindSeconds: 6 })
      timers.pass(ASK_MS)
      server.answerAge(20)
      expect(client.status.getSnapshot()).toMatchObject({ connection: 'live', behindSeconds: 0 })
    } finally {
      vi.useRealTimers()
    }
  })

  it('refuses a node that takes this client for somebody else, and sends it nothing', async () => {
    const world = openWorld()
    const { client, server } = world
    await client.mutate([{ op: 'insert', table: 'todos', values: { id: '1' } }]).saved
    server.open()
    const request = await server.next('phx_join')
    server.reply(request, { database: 'db1', client: 'c1', subject: 'ben', shapes: [] })
    expect(client.status.getSnapshot()).toMatchObject({ connection: 'refused', unsent: 1, error: { code: 'other_subject' } })
    expect([server.wanted, server.unread()]).toEqual([false, []])
  })
})
