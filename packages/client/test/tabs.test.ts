/** The pages of one profile, one situation each: who leads, who sends, what the others show. */
import { IDBFactory } from 'fake-indexeddb'
import 'fake-indexeddb/auto'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { idbStore } from '../src/store_idb'
import { PING_MS, SILENCE_MS } from '../src/tabs'
import { Browser, type Open } from './support/browser'
import { FakeServer } from './support/fake_server'
import { type FakePage, Profile } from './support/profile'
import { joined, todo, todosShape } from './support/world'

const add = (id: string, title: string) => [{ op: 'insert' as const, table: 'todos', values: { id, list_id: 'L', title, done: false } }]

beforeEach(() => {
  globalThis.indexedDB = new IDBFactory()
})

async function two(): Promise<{ browser: Browser; first: Open; second: Open }> {
  const browser = new Browser()
  const first = browser.open()
  await browser.firstVisit(first, todo('1', 'Milk'))
  const second = browser.open()
  await browser.calm()
  return { browser, first, second }
}

describe('two pages', () => {
  it('shows a first load that is not settled in the page with the connection alone; the others say how far it is', async () => {
    const browser = new Browser()
    const [first, second] = [browser.open(), browser.open()]
    await browser.calm()
    first.server.open()
    const begun = await first.server.next('phx_join')
    first.server.reply(begun, joined(begun))
    await browser.calm()
    const leader = first.server.wanted ? first : second
    const other = leader === first ? second : first
    leader.server.open()
    await browser.calm()
    const request = await leader.server.next('phx_join')
    leader.server.reply(request, joined(request))
    const [shape] = request.payload.shapes
    leader.server.send('shape', todosShape(shape.ref))
    leader.server.send('progress', { load: '1', about: 3 })
    leader.server.send('load', { load: '1', shape: 'S', reset: 'first', put: [todo('1', 'Milk')] })
    leader.server.send('provisional', { loads: ['1'] })
    await browser.calm()
    const status = { connection: 'loading', loadedRows: 1, aboutRows: 3 }
    expect([leader.titles(), leader.page.client.status.getSnapshot()]).toMatchObject([['Milk'], { ...status, isProvisional: true }])
    expect([other.titles(), other.page.client.status.getSnapshot()]).toMatchObject([[], { ...status, isProvisional: false }])
    // a page that comes now is told nothing of it either
    const third = browser.open()
    await browser.calm()
    expect([third.titles(), third.page.client.status.getSnapshot()]).toMatchObject([[], { ...status, isProvisional: false }])
    leader.server.send('loaded', { loads: ['1'] })
    leader.server.send('commit', { lsn: '0/1', xid: null, cursor: 'k1' })
    await browser.calm()
    for (const { titles, seen } of [leader, other, third]) expect([titles(), seen]).toEqual([['Milk'], [['Milk']]])
  })

  it('is in step on the first visit of a database by the first connection, and leads there', async () => {
    const browser = new Browser()
    const first = browser.open()
    await browser.calm()
    first.server.open()
    const request = await first.server.next('phx_join')
    first.server.reply(request, joined(request))
    const [shape] = request.payload.shapes
    first.server.send('shape', todosShape(shape.ref))
    first.server.send('rows', { shape: 'S', reset: 'first', put: [todo('1', 'Milk')] })
    first.server.send('commit', { lsn: '0/1', xid: null, cursor: 'k1' })
    await browser.calm()
    expect(first.titles()).toEqual(['Milk'])
    expect(first.server.unread()).toEqual([])
    expect(first.page.client.status.getSnapshot().connection).toBe('live')
    // what it writes goes out on that session, and another page follows it
    first.page.client.mutate(add('2', 'Bread'))
    expect((await first.server.next('mutate')).payload.mutations).toHaveLength(1)
    const second = browser.open()
    await browser.calm()
    expect(second.titles()).toEqual(['Milk', 'Bread'])
    expect(second.server.unread()).toEqual([])
  })

  it('finds out who leads where two pages meet a database for the first time', async () => {
    const browser = new Browser()
    const [first, second] = [browser.open(), browser.open()]
    await browser.firstVisit(first, todo('1', 'Milk'))
    expect([first.titles(), second.titles()]).toEqual([['Milk'], ['Milk']])
    expect(second.server.unread()).toEqual([])
  })

  it('have one connection, and show each commit whole, once and in order', async () => {
    const { browser, first, second } = await two()
    expect([first.server.wanted, second.server.wanted, second.titles()]).toEqual([true, false, ['Milk']])
    second.seen.length = 0
    first.server.send('rows', { shape: 'S', put: [todo('2', 'Bread')] })
    first.server.send('rows', { shape: 'S', remove: [['1']] })
    first.server.send('commit', { lsn: '0/2', xid: '7', cursor: 'k2' })
    first.server.send('rows', { shape: 'S', put: [todo('3', 'Jam')] })
    first.server.send('commit', { lsn: '0/3', xid: '8', cursor: 'k3' })
    await browser.calm()
    expect(second.seen).toEqual([['Bread'], ['Bread', 'Jam']])
    expect(second.page.client.status.getSnapshot()).toMatchObject({ connection: 'live', unsent: 0 })
  })

  it('tell each other of a commit what it changed, and no other row', async () => {
    const { browser, first, second } = await two()
    const said: string[] = []
    browser.profile.overhear = (message) => said.push(JSON.stringify(message, (_, value) => (value instanceof Map ? [...value] : value)))
    first.server.send('rows', { shape: 'S', put: [todo('2', 'Bread')] })
    first.server.send('commit', { lsn: '0/2', xid: '7', cursor: 'k2' })
    await browser.calm()
    const [change, ...more] = said.filter((text) => text.includes('"kind":"change"'))
    expect(more).toEqual([])
    expect(change).toContain('Bread')
    expect(change).not.toContain('Milk')
    expect(second.titles()).toEqual(['Milk', 'Bread'])
  })

  it('show and send what either writes, saved before it is said to be, decided in both', async () => {
    const { browser, first, second } = await two()
    const mutation = second.page.client.mutate(add('2', 'Bread'))
    expect([second.titles(), first.titles()]).toEqual([['Milk', 'Bread'], ['Milk']])
    await mutation.saved
    const disk = idbStore()
    expect((await disk.open('ws://sim/socket', '')).outbox.map(({ id }) => id)).toEqual([mutation.id])
    await disk.close()
    await browser.calm()
    expect([first.titles(), first.page.client.status.getSnapshot().unsent]).toEqual([['Milk', 'Bread'], 1])
    const message = await first.server.next('mutate')
    expect(message.payload.mutations).toMatchObject([{ n: '1', id: mutation.id }])
    first.server.reply(message, {})
    first.server.send('rows', { shape: 'S', put: [todo('2', 'BREAD')] })
    first.server.send('ack', { mutations: [{ n: '1', id: mutation.id, outcome: 'applied' }] })
    first.server.send('commit', { lsn: '0/2', xid: '7', cursor: 'k2' })
    await browser.calm()
    expect(await mutation.outcome).toEqual({ outcome: 'applied' })
    expect(second.seen.at(-1)).toEqual(['Milk', 'BREAD'])
    expect(second.page.client.status.getSnapshot().unsent).toBe(0)
  })

  it('show what the page with the connection writes, before and after it is sent', async () => {
    const { browser, first, second } = await two()
    first.page.client.mutate(add('2', 'Bread'))
    await browser.calm()
    expect([second.titles(), second.page.client.status.getSnapshot().unsent]).toEqual([['Milk', 'Bread'], 1])
  })

  it('share refusals, and either dismisses them', async () => {
    const { browser, first, second } = await two()
    const mutation = second.page.client.mutate(add('1', 'twice'))
    await browser.calm()
    first.server.reply(await first.server.next('mutate'), {})
    first.server.send('ack', { mutations: [{ n: '1', id: mutation.id, outcome: 'refused', code: '23505', message: 'twice' }] })
    first.server.send('commit', { lsn: '0/2', xid: '7', cursor: 'k2' })
    await browser.calm()
    expect((await mutation.outcome).code).toBe('23505')
    const refused = () => [first, second].map(({ page }) => page.client.status.getSnapshot().refused.length)
    expect([refused(), second.titles()]).toEqual([[1, 1], ['Milk']])
    second.page.client.dismiss(mutation.id)
    await browser.calm()
    expect(refused()).toEqual([0, 0])
  })

  it('ask the node for what either wants, and give up what neither does', async () => {
    const { browser, first, second } = await two()
    const other = second.page.client.subscribe({ table: 'lists' })
    await browser.calm()
    const asked = await first.server.next('subscribe')
    expect(asked.payload.shapes).toMatchObject([{ table: 'lists' }])
    first.server.reply(asked, { shapes: [{ ref: asked.payload.shapes[0].ref, error: { code: 'unknown_table', message: 'there is none' } }] })
    await browser.calm()
    expect(other.getSnapshot()).toMatchObject({ state: 'error', error: { code: 'unknown_table' } })
    second.page.die()
    await browser.calm()
    expect((await first.server.next('unsubscribe')).payload.refs).toEqual([asked.payload.shapes[0].ref])
  })

  it('go offline together', async () => {
    const { browser, first, second } = await two()
    second.page.client.setOnline(false)
    await browser.calm()
    expect([first.server.wanted, first, second].map((one) => (typeof one === 'boolean' ? one : one.page.client.status.getSnapshot().connection))).toEqual([false, 'offline', 'offline'])
  })
})

describe('a leader', () => {
  it('that is closed with a message under way is followed at once: the mutation is sent again under its number', async () => {
    const { browser, first, second } = await two()
    const mutation = first.page.client.mutate(add('2', 'Bread'))
    await browser.calm()
    const sent = await first.server.next('mutate')
    first.page.die()
    const payload = await browser.join(second, 'k2')
    expect(payload).toMatchObject({ client: 'c1', cursor: 'k1', shapes: [{ have: true }] })
    expect((await second.server.next('mutate')).payload).toEqual(sent.payload)
    expect([second.titles(), mutation.id]).toEqual([['Milk', 'Bread'], sent.payload.mutations[0].id])
  })

  it('that takes over asks for what all pages want, and nothing leaves a screen', async () => {
    const { browser, first, second } = await two()
    const third = browser.open()
    third.page.client.subscribe({ table: 'lists' })
    await browser.calm()
    const asked = await first.server.next('subscribe')
    const [{ ref }] = asked.payload.shapes
    first.server.reply(asked, { shapes: [{ ref, ok: true }] })
    first.server.send('shape', { ref, shape: 'L', fingerprint: 'g', table: ['public', 'lists'], key: ['id'], columns: [{ name: 'id', type: 'uuid', wire: 'text' }] })
    first.server.send('rows', { shape: 'L', reset: 'first', put: [['L']] })
    first.server.send('commit', { lsn: '0/2', xid: null, cursor: 'k2' })
    await browser.calm()
    const lists = third.page.client.query({ table: 'lists' })
    const seen: number[] = []
    lists.subscribe(() => seen.push(lists.getSnapshot().length))
    first.page.die()
    const payload = await browser.join(second, 'k3')
    expect(payload.shapes).toMatchObject([{ table: 'todos', have: true }, { table: 'lists', have: true }])
    expect([lists.getSnapshot().length, seen]).toEqual([1, []])
  })

  it('that is frozen is replaced by a page that is looked at, and neither writes nor sends when it is thawed', async () => {
    const { browser, first, second } = await two()
    await first.page.client.mutate(add('2', 'before')).saved
    await browser.calm()
    first.server.reply(await first.server.next('mutate'), {})
    first.page.freeze()
    second.page.pass(PING_MS)
    await browser.calm()
    second.page.pass(SILENCE_MS)
    expect(await browser.join(second, 'k3', todo('3', 'newer'))).toMatchObject({ client: 'c1', cursor: 'k1' })
    await second.page.client.mutate(add('4', 'of the new leader')).saved
    const late = first.page.client.mutate(add('5', 'of the old leader'))
    first.page.thaw()
    // what its socket brought meanwhile
    first.server.send('rows', { shape: 'S', put: [todo('9', 'heard while frozen')] })
    first.server.send('commit', { lsn: '0/2', xid: '7', cursor: 'k-old' })
    await browser.calm()
    await late.saved
    await browser.calm()
    expect(first.server.unread()).toEqual([])
    expect(first.server.wanted).toBe(false)
    expect(first.titles()).toEqual(second.titles())
    expect(second.titles()).toEqual(['Milk', 'before', 'newer', 'of the new leader', 'of the old leader'])
    const disk = idbStore()
    expect((await disk.open('ws://sim/socket', '')).meta.cursor).toBe('k3')
    await disk.close()
    const again = await second.server.next('mutate')
    expect(again.payload.mutations.map(({ n }: { n: string }) => n)).toEqual(['1'])
    second.server.reply(again, {})
    await browser.calm()
    expect((await second.server.next('mutate')).payload.mutations.map(({ n }: { n: string }) => n)).toEqual(['2', '3'])
  })

  it('that answers is left alone, and a page that nobody looks at replaces none', async () => {
    const { browser, first, second } = await two()
    second.page.pass(PING_MS)
    await browser.calm()
    expect(second.page.delays()).not.toContain(SILENCE_MS)
    first.page.freeze()
    const hidden = browser.profile.newPage()
    hidden.isVisible = false
    hidden.open(new FakeServer().transport)
    await browser.calm()
    expect(hidden.delays()).not.toContain(SILENCE_MS)
  })

  it('that is reloaded finds its mutations sent by the page that took over', async () => {
    const { browser, first, second } = await two()
    first.page.client.setOnline(false)
    await browser.calm()
    await first.page.client.mutate(add('2', 'offline')).saved
    first.page.die()
    await browser.calm()
    const again = browser.open()
    await browser.calm()
    expect([again.titles(), second.page.client.status.getSnapshot()]).toMatchObject([['Milk', 'offline'], { unsent: 1, connection: 'offline' }])
    again.page.client.setOnline(true)
    await browser.join(second, 'k2')
    expect((await second.server.next('mutate')).payload.mutations).toMatchObject([{ n: '1' }])
  })
})

describe('a live shape', () => {
  it('is shown in both pages and is in no store', async () => {
    const browser = new Browser()
    const first = browser.open('live')
    await browser.firstVisit(first, todo('1', 'Milk'))
    const second = browser.open('live')
    await browser.calm()
    expect([first.titles(), second.titles()]).toEqual([['Milk'], ['Milk']])
    const disk = idbStore()
    const contents = await disk.open('ws://sim/socket', '')
    expect([contents.meta.cursor, contents.shapes]).toEqual(['k1', []])
    await disk.close()
    first.server.drop()
    expect((await browser.join(first, 'k2')).shapes).toMatchObject([{ have: true }])
    first.page.die()
    second.page.die()
    const later = browser.open('live')
    await browser.calm()
    expect(later.titles()).toEqual([])
    expect(await browser.join(later, 'k3', todo('1', 'Milk'))).toMatchObject({ cursor: 'k2', shapes: [{ have: false }] })
  })

  it('is stored from the next commit on when another page wants it kept', async () => {
    const browser = new Browser()
    const first = browser.open('live')
    await browser.firstVisit(first, todo('1', 'Milk'))
    const second = browser.open('sync')
    await browser.calm()
    first.server.send('rows', { shape: 'S', put: [todo('2', 'Bread')] })
    first.server.send('commit', { lsn: '0/2', xid: '7', cursor: 'k2' })
    await browser.calm()
    const look = async () => {
      const disk = idbStore()
      const { rows } = await disk.open('ws://sim/socket', '')
      await disk.close()
      return [...rows.values()].map((held) => held.size)
    }
    expect([await look(), second.titles()]).toEqual([[2], ['Milk', 'Bread']])
    second.page.die()
    await browser.calm()
    first.server.send('commit', { lsn: '0/3', xid: '8', cursor: 'k3' })
    await browser.calm()
    expect([await look(), first.titles()]).toEqual([[], ['Milk', 'Bread']])
  })
})

describe('signing out', () => {
  it('asks when something is unsent, wipes the store and ends every page', async () => {
    const { browser, first, second } = await two()
    first.page.client.setOnline(false)
    await browser.calm()
    await first.page.client.mutate(add('2', 'unsent')).saved
    await browser.calm()
    expect(await second.page.client.signOut()).toBe(false)
    const asked: number[] = []
    expect(await second.page.client.signOut((unsent) => asked.push(unsent) < 0)).toBe(false)
    expect([asked, second.titles()]).toEqual([[1], ['Milk', 'unsent']])
    const gone = second.page.client.signOut(() => true)
    await browser.calm()
    expect(await gone).toBe(true)
    expect(first.page.client.status.getSnapshot().error?.code).toBe('signed_out')
    const names = (await indexedDB.databases()).map(({ name }) => name)
    expect(names).toEqual(['lockstep'])
    const later = browser.open()
    await browser.calm()
    expect(later.titles()).toEqual([])
  })
})

it('a page of another subject shares nothing', async () => {
  const browser = new Browser()
  const first = browser.open()
  await browser.firstVisit(first, todo('1', 'Milk'))
  first.page.client.setOnline(false)
  await first.page.client.mutate(add('2', 'of the first')).saved
  const page = browser.profile.newPage()
  const server = new FakeServer()
  page.open(server.transport, 'ws://sim/socket', 'ben')
  await browser.calm()
  server.open()
  const request = await server.next('phx_join')
  server.reply(request, { ...joined(request), subject: 'ben' })
  await browser.calm()
  server.open()
  await browser.calm()
  const again = await server.next('phx_join')
  server.reply(again, { ...joined(again), subject: 'ben' })
  server.send('commit', { lsn: '0/1', xid: null, cursor: 'k1' })
  await browser.calm()
  expect([server.unread(), page.client.status.getSnapshot().unsent]).toEqual([[], 0])
})

it('without a channel between pages the last one that was opened leads, and the other says so', async () => {
  const [before, after] = [new FakeServer(), new FakeServer()]
  const profile = new Profile()
  const [one, two] = [profile.newPage(), profile.newPage()]
  const open = async (page: FakePage, server: FakeServer) => {
    const { LockstepClient } = await import('../src/client')
    return new LockstepClient({ url: 'ws://sim/socket', store: idbStore() }, { transport: server.transport, timers: page, tabs: null })
  }
  const first = await open(one, before)
  await vi.waitFor(() => expect(before.wanted).toBe(true))
  before.open()
  const request = await before.next('phx_join')
  const second = await open(two, after)
  await vi.waitFor(() => expect(after.wanted).toBe(true))
  after.open()
  await after.next('phx_join')
  before.reply(request, joined(request))
  before.send('commit', { lsn: '0/1', xid: null, cursor: 'k1' })
  await vi.waitFor(() => expect(first.status.getSnapshot().error?.code).toBe('other_page'))
  expect(before.wanted).toBe(false)
  await first.close()
  await second.close()
})
