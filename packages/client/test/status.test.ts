/** What people are told. */
import { describe, expect, it, vi } from 'vitest'
import { SILENT_MS } from '../src/silence'
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

  it('says for how long nothing was heard, until something is', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    try {
      const world = openWorld()
      const { client, server, timers } = world
      const { ref } = client.subscribe({ table: 'todos' })
      await load(world, ref, [])
      vi.setSystemTime(Date.now() + SILENT_MS)
      timers.pass(SILENT_MS)
      expect(client.status.getSnapshot()).toMatchObject({ connection: 'behind', behindSeconds: 40 })
      vi.setSystemTime(Date.now() + 1000)
      timers.pass(1000)
      expect(client.status.getSnapshot()).toMatchObject({ connection: 'behind', behindSeconds: 41 })
      server.heartbeat(null)
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
