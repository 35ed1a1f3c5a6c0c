/**
 * Seeded lives of the pages of one profile, against a node that behaves.
 *
 * Faults: pages are opened, closed, frozen and thawed at any moment, whoever leads; a page takes over from a leader that is
 * merely slow; messages between pages are late, and some are lost; connections are cut; the pages' interests differ.
 * Oracle: whatever a page shows at a commit is the database as of that commit; no page goes back; each mutation that was
 * saved is carried out once; two pages never lead under one epoch; in the end all pages show the database.
 * A failure names its seed: `npx vitest run tabs_simulation -t "seed 17"`.
 */
import { IDBFactory } from 'fake-indexeddb'
import 'fake-indexeddb/auto'
import { afterAll, describe, expect, it } from 'vitest'
import type { Subscription } from '../src/subscriptions'
import { SILENCE_MS } from '../src/tabs'
import { type FakePage, Profile } from './support/profile'
import { type Rows, type SimLink, SimNode } from './support/sim_node'
import { turn } from './support/world'
import { dice } from './support/dice'

const LONGEST_MS = 15_000
const happened = { commits: 0, takeovers: 0, freezes: 0, closed: 0, lost: 0, mutations: 0 }

interface ShownRow {
  id: string
  list: string
  title: string
}

function stateOf(rows: Rows, list: string): ShownRow[] {
  const found = [...rows.values()].filter((row) => row[1] === list).map(([id, of, title]) => ({ id, list: of, title }))
  return found.sort((a, b) => (a.id < b.id ? -1 : 1))
}

interface OpenPage {
  readonly page: FakePage
  readonly link: SimLink
  readonly subs: Map<string, Subscription>
  readonly shown: (list: string) => ShownRow[]
}

class Life {
  readonly node = new SimNode()
  readonly profile = new Profile()
  readonly open: OpenPage[] = []
  readonly saved: string[] = []
  private mutations = 0

  constructor(private readonly roll: (sides: number) => number) {
    globalThis.indexedDB = new IDBFactory()
    this.openPage()
  }

  pick<T>(list: readonly T[]): T {
    return list[this.roll(list.length)] as T
  }

  openPage(): void {
    const page = this.profile.newPage()
    const link = this.node.newLink()
    const client = page.open(link.transport)
    const query = client.query<ShownRow>({ table: 't' })
    query.subscribe(() => undefined)
    const subs = new Map([['A', client.subscribe({ table: 't', scope: { list: 'A' } })]])
    if (this.roll(2)) subs.set('B', client.subscribe({ table: 't', scope: { list: 'B' }, keep: this.roll(2) ? 'sync' : 'live' }))
    const one: OpenPage = { page, link, subs, shown: (list) => query.getSnapshot().filter((row) => row.list === list) }
    this.open.push(one)
    let last = 0
    client.onCommit(({ lsn }) => {
      happened.commits += 1
      expect(Number(lsn)).toBeGreaterThanOrEqual(last)
      last = Number(lsn)
      this.check(one, last)
    })
  }

  /** What is shown must be this commit, but for what the page's own outbox puts on top. */
  check({ page, subs, shown }: OpenPage, commit: number): void {
    if (page.client.status.getSnapshot().unsent > 0) return
    for (const [list, sub] of subs) {
      if (sub.getSnapshot().state !== 'live') continue
      const rows = stateOf(this.node.history[commit] as Rows, list)
      expect({ page: page.id, commit, list, rows: shown(list) }).toEqual({ page: page.id, commit, list, rows })
    }
  }

  mutate({ page }: OpenPage): void {
    if (page.isFrozen) return
    const id = `m${(this.mutations += 1)}`
    happened.mutations += 1
    const title = this.roll(6) ? 'mine' : 'bad'
    const { id: mutationId, saved } = page.client.mutate([{ op: 'insert', table: 't', values: { id, list: 'AB'[this.roll(2)], title } }])
    void saved.then(() => this.saved.push(mutationId))
  }

  close(one: OpenPage): void {
    happened.closed += 1
    one.page.die()
    one.link.cut()
    one.link.end()
    this.open.splice(this.open.indexOf(one), 1)
  }

  async step(): Promise<void> {
    const { roll, node, profile } = this
    const id = `r${roll(12)}`
    const one = this.pick(this.open)
    switch (roll(14)) {
      case 0:
        node.commit((rows) => void rows.set(id, [id, 'AB'[roll(2)] as string, `t${roll(100)}`]))
        break
      case 1:
        node.commit((rows) => void rows.delete(id))
        break
      case 2:
        this.mutate(one)
        break
      case 3:
        if (roll(4) === 0) one.link.cut()
        break
      case 4:
        if (roll(5) === 0 && this.open.length > 1) this.close(one)
        else if (this.open.length < 4 && roll(4) === 0) this.openPage()
        break
      case 5:
        if (roll(4) === 0) (one.page.freeze(), (happened.freezes += 1))
        break
      case 6:
        if (one.page.isFrozen) one.page.thaw()
        break
      case 7:
        this.passTime(one)
        break
      case 8:
        node.heartbeat(one.link)
        break
      default:
        for (const { link } of this.open) link.open()
        if (!one.page.isFrozen) one.link.deliver(1 + roll(6))
        for (const line of profile.waiting()) {
          const isLost = roll(60) === 0
          if (isLost) happened.lost += 1
          if (roll(3)) profile.deliver(line, isLost)
        }
    }
    if (roll(2)) await turn()
  }

  /** The time of one page: another page may have answered, or not yet. */
  private passTime({ page }: OpenPage): void {
    const delays = page.delays().filter((ms) => ms < LONGEST_MS && (ms !== SILENCE_MS || this.roll(4) === 0))
    if (delays.includes(SILENCE_MS)) happened.takeovers += 1
    for (const ms of delays) page.pass(ms)
  }

  /** No more faults: everything arrives. */
  async settle(): Promise<void> {
    for (const { page } of this.open) page.thaw()
    for (let quiet = 0, round = 0; quiet < 25; round += 1) {
      let moved = false
      for (const { page, link } of this.open) {
        link.open()
        moved = link.deliver(100) || moved
        for (const ms of page.delays()) if (ms < LONGEST_MS && ms !== SILENCE_MS) page.pass(ms)
      }
      for (const line of this.profile.waiting()) this.profile.deliver(line)
      await turn()
      const pending = this.open.some(({ page }) => page.client.status.getSnapshot().unsent > 0)
      quiet = moved || (pending && round < 2000) ? 0 : quiet + 1
    }
  }
}

describe('the pages of one profile', () => {
  it.each(Array.from({ length: 24 }, (_, seed) => seed))('are in step and lose nothing, seed %i', async (seed) => {
    const life = new Life(dice(seed))
    for (let step = 0; step < 250; step += 1) await life.step()
    await life.settle()
    const { node, open } = life
    for (const one of open) {
      const { connection, unsent, error } = one.page.client.status.getSnapshot()
      expect({ page: one.page.id, connection, unsent, error }).toEqual({ page: one.page.id, connection: 'live', unsent: 0, error: undefined })
      for (const list of one.subs.keys()) expect(one.shown(list)).toEqual(stateOf(node.history[node.now] as Rows, list))
    }
    for (const id of life.saved) expect({ id, times: node.applied.get(id) }).toEqual({ id, times: 1 })
    expect([...node.applied.values()].filter((times) => times > 1)).toEqual([])
    for (const { page } of open) await page.client.close()
  }, 30_000)

  afterAll(() => {
    console.log(`tabs: ${JSON.stringify(happened)}`)
    expect(Math.min(...Object.values(happened))).toBeGreaterThan(8)
  })
})
