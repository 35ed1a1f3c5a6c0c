/** Several pages and the numbers of their changes, where the place that they share becomes another one. */
import { IDBFactory } from 'fake-indexeddb'
import 'fake-indexeddb/auto'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Browser, type Open } from './support/browser'
import { watchStores } from './support/throw_away'
import { joined, todo, todosShape } from './support/world'

const add = (id: string, title: string) => [{ op: 'insert' as const, table: 'todos', values: { id, list_id: 'L', title, done: false } }]

beforeEach(() => {
  globalThis.indexedDB = new IDBFactory()
})
afterEach(() => void vi.restoreAllMocks())

const unsent = ({ page }: Open) => page.client.status.getSnapshot().unsent

/** Two pages, of which the first leads, and has written `count` to-dos that are decided. */
async function two(count: number): Promise<{ browser: Browser; first: Open; second: Open }> {
  const browser = new Browser()
  const first = browser.open()
  await browser.firstVisit(first, todo('1', 'Milk'))
  const second = browser.open()
  await browser.calm()
  for (let at = 1; at <= count; at += 1) {
    first.page.client.mutate(add(`w${at}`, `w${at}`))
    await browser.calm()
    const message = await first.server.next('mutate')
    first.server.reply(message, {})
    first.server.send('ack', { mutations: message.payload.mutations.map(({ n, id }: any) => ({ n, id, outcome: 'applied' })) })
    first.server.send('commit', { lsn: '0/2', xid: '7', cursor: `w${at}` })
    await browser.calm()
  }
  expect([unsent(first), unsent(second)]).toEqual([0, 0])
  return { browser, first, second }
}

/** The node is another database now; gives the page that leads there, and the other one. */
async function otherDatabase(browser: Browser, first: Open, second: Open): Promise<[leader: Open, other: Open]> {
  first.server.drop()
  first.server.open()
  await browser.calm()
  const request = await first.server.next('phx_join')
  first.server.reply(request, joined(request, 'db2', 'c9'))
  await browser.calm()
  const [leader, other] = first.server.wanted ? [first, second] : [second, first]
  leader.server.open()
  await browser.calm()
  const again = await leader.server.next('phx_join')
  expect(again.payload).toMatchObject({ cursor: null, client: null })
  leader.server.reply(again, joined(again, 'db2', 'c9'))
  leader.server.send('shape', todosShape(again.payload.shapes[0].ref))
  leader.server.send('rows', { shape: 'S', reset: 'first', put: [todo('9', 'Jam')] })
  leader.server.send('commit', { lsn: '0/1', xid: null, cursor: 'd1' })
  await browser.calm()
  return [leader, other]
}

/** What the leader sends next, and that both pages show it. */
async function expectSent(browser: Browser, leader: Open, other: Open, n: string, id: string) {
  await browser.calm()
  expect(leader.server.unread()).toHaveLength(1)
  const message = await leader.server.next('mutate')
  expect(message.payload.mutations).toMatchObject([{ n, id }])
  leader.server.reply(message, {})
  await browser.calm()
  expect(leader.titles()).toEqual(other.titles())
  expect(unsent(leader)).toBe(unsent(other))
}

it('of another database: what either page writes there is sent, in order, and stays on both screens', async () => {
  const { browser, first, second } = await two(3)
  const [leader, other] = await otherDatabase(browser, first, second)
  await expectSent(browser, leader, other, '1', other.page.client.mutate(add('2', 'of the one that follows')).id)
  await expectSent(browser, leader, other, '2', leader.page.client.mutate(add('3', 'of the one that leads')).id)
  await expectSent(browser, leader, other, '3', other.page.client.mutate(add('4', 'and again')).id)
  // a page that asks for everything anew is told nothing else
  other.page.freeze()
  leader.page.pass(50)
  other.page.thaw()
  const third = browser.open()
  await browser.calm()
  for (const { titles } of [leader, other, third]) expect(titles()).toEqual(['of the one that follows', 'of the one that leads', 'and again', 'Jam'])
})

it('of another database: what was written for the one before stays there, also where the page that leads had not heard of it', async () => {
  const { browser, first, second } = await two(1)
  const late = second.page.client.mutate(add('2', 'for the first database'))
  await late.saved
  for (const line of browser.profile.waiting()) browser.profile.deliver(line, true)
  const [leader, other] = await otherDatabase(browser, first, second)
  expect([leader.titles(), other.titles(), unsent(leader), unsent(other)]).toEqual([['Jam'], ['Jam'], 0, 0])
  await expectSent(browser, leader, other, '1', other.page.client.mutate(add('3', 'for the second')).id)
})

it('after the browser threw the store away: what a page writes that is opened then is sent', async () => {
  const throwAway = watchStores()
  const { browser, first } = await two(3)
  throwAway()
  await browser.calm()
  expect(first.page.client.status.getSnapshot().error?.code).toBe('store_lost')
  const third = browser.open()
  await browser.calm()
  expect([third.titles(), third.server.wanted]).toEqual([['Milk'], false])
  await expectSent(browser, first, third, '4', third.page.client.mutate(add('2', 'of the new page')).id)
  await expectSent(browser, first, third, '5', first.page.client.mutate(add('3', 'of the one that leads')).id)
  expect(third.titles()).toEqual(['Milk', 'of the new page', 'of the one that leads'])
})
