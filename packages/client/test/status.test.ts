/** What people are told. */
import { describe, expect, it, vi } from 'vitest'
import { ASK_MS, BEHIND_MS } from '../src/freshness'
import { type ClientStatus, describeStatus } from '../src/status'
import { commit, join, load, openWorld, todo, todosShape } from './support/world'

const LIVE: ClientStatus = { connection: 'live', loadedRows: 0, behindSeconds: 0, unsent: 0, refused: [], unknownFrames: 0 }
const REFUSED = { id: 'm', name: null, args: null, ops: [], code: '23505', message: '' }

it.each<[Partial<ClientStatus>, string]>([
  [{}, 'Live'],
  [{ connection: 'connecting', unsent: 1 }, 'Connecting, 1 unsent edit'],
  [{ connection: 'loading' }, 'Loading'],
  [{ connection: 'loading', loadedRows: 12_000 }, 'Loading, 12,000 rows so far'],
  [{ connection: 'behind', behindSeconds: 42 }, 'Behind by 42 seconds'],
  [{ connection: 'offline', unsent: 3 }, 'Offline, 3 unsent edits'],
  [{ refused: [REFUSED] }, 'Live, 1 refused edit'],
  [{ connection: 'refused', error: { code: 'protocol_unsupported', message: 'reload this page' } }, 'Refused by the server: reload this page'],
])('%j is said as %s', (status, words) => {
  expect(describeStatus({ ...LIVE, ...status })).toBe(words)
})

describe('the status', () => {
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
