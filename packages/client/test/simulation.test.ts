/**
 * Seeded histories against a node that behaves and a network that does not.
 *
 * Faults: the connection is cut between any two messages, in both directions; the page dies at any moment, with a store
 * write done or not, and comes back on the same store; subscriptions come and go; replies overtake
 * commits; first loads are shown before they are settled, and forgotten or caught up; a copy of the profile takes the next number; pauses are cut short.
 * Oracle: whatever is shown without unsent changes is the database as of the commit that was told, for every shape held;
 * what is shown before it is settled is one state that was, in all shapes; commits never go back; each mutation is carried out once; in the end client and database are the same.
 * A failure names its seed: `npx vitest run simulation -t "seed 17"`.
 */
import { afterAll, describe, expect, it } from 'vitest'
import { LockstepClient } from '../src/client'
import type { Store } from '../src/store'
import { memoryStore } from '../src/store_memory'
import type { Subscription } from '../src/subscriptions'
import { ManualTimers } from './support/fake_server'
import { type Rows, SimNode } from './support/sim_node'
import { turn } from './support/world'
import { dice } from './support/dice'

/** A store whose page can die: what was begun is done, nothing is ever answered again. */
function mortal(store: Store): { store: Store; die: () => void } {
  let isDead = false
  const guard =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      if (isDead) return new Promise<R>(() => undefined)
      const result = await call(...args)
      return isDead ? new Promise<R>(() => undefined) : result
    }
  return {
    store: {
      ...{ place: null, isScattered: false, epoch: 1, onEvent: () => undefined },
      open: guard((url, subject) => store.open(url, subject)),
      lead: guard((revision) => store.lead(revision)),
      isLeader: guard(() => store.isLeader()),
      adopt: guard((database) => store.adopt(database)),
      append: guard((drafts) => store.append(drafts)),
      outboxAfter: guard((seq) => store.outboxAfter(seq)),
      change: guard((seq, propose) => store.change(seq, propose)),
      write: guard((write) => store.write(write)),
      compact: guard((rows) => store.compact(rows)),
      wipe: guard(() => store.wipe()),
      close: guard(() => store.close()),
    },
    die: () => void (isDead = true),
  }
}

interface ShownRow {
  id: string
  list: string
  title: string
}

class Run {
  readonly node: SimNode
  readonly disk = memoryStore()
  readonly made: string[] = []
  readonly subs = new Map<string, Subscription>()
  timers!: ManualTimers
  client!: LockstepClient
  commits = 0
  private shown!: () => readonly ShownRow[]
  private die!: () => void
  private lastCommit = 0

  provisional = 0

  constructor(private readonly roll: (sides: number) => number) {
    this.node = new SimNode(roll)
    // what there is before the first visit
    for (const id of ['r0', 'r1', 'r2']) this.node.commit((rows) => void rows.set(id, [id, 'AB'[roll(2)] as string, 'first']))
    this.start()
  }

  start(): void {
    const { store, die } = mortal(this.disk)
    this.die = die
    this.timers = new ManualTimers()
    this.client = new LockstepClient({ url: 'ws://sim/socket', store }, { transport: this.node.connect(), timers: this.timers })
    this.subs.clear()
    this.interest('A', true)
    this.interest('B', this.roll(3) > 0)
    const query = this.client.query<ShownRow>({ table: 't' })
    this.shown = () => query.getSnapshot()
    query.subscribe(() => this.checkProvisional())
    this.client.onCommit(({ lsn }) => this.check(Number(lsn)))
  }

  reload(): void {
    this.die()
    this.start()
  }

  interest(list: string, wanted: boolean): void {
    const sub = this.subs.get(list)
    if (wanted && sub === undefined) this.subs.set(list, this.client.subscribe({ table: 't', scope: { list } }))
    if (wanted || sub === undefined) return
    sub.unsubscribe()
    this.subs.delete(list)
  }

  mutate(): void {
    const id = `m${this.made.length}`
    const list = 'AB'[this.roll(2)] as string
    this.made.push(id)
    const { id: mutationId, saved } = this.client.mutate([{ op: 'insert', table: 't', values: { id, list, title: this.roll(5) ? 'mine' : 'bad' } }])
    void saved.then(() => this.durable.push(mutationId))
  }

  readonly durable: string[] = []

  /** What is shown must be this commit for the lists whose rows are held. */
  check(commit: number): void {
    this.commits += 1
    expect(commit).toBeGreaterThanOrEqual(this.lastCommit)
    this.lastCommit = commit
    if (this.client.status.getSnapshot().unsent > 0) return
    for (const [list, sub] of this.subs) {
      if (sub.getSnapshot().state !== 'live') continue
      expect({ commit, list, rows: this.shownOf(list) }).toEqual({ commit, list, rows: stateOf(this.node.history[commit] as Rows, list) })
    }
  }

  /** What is shown before it is settled must be some state that was, the same for all lists; edits of this client's own are on top. */
  checkProvisional(): void {
    if (!this.client.status.getSnapshot().isProvisional) return
    this.provisional += 1
    const lists = [...this.subs].flatMap(([list, sub]) => (sub.getSnapshot().state === 'provisional' ? [list] : []))
    const textOf = (rowsOf: (list: string) => ShownRow[]) => JSON.stringify(lists.map((list) => rowsOf(list).filter(({ id }) => id.startsWith('r'))))
    expect(this.node.history.map((rows) => textOf((list) => stateOf(rows, list)))).toContain(textOf((list) => this.shownOf(list)))
  }

  shownOf(list: string): ShownRow[] {
    return this.shown().filter((row) => row.list === list)
  }

  async step(): Promise<void> {
    const { roll, node } = this
    const id = `r${roll(12)}`
    switch (roll(12)) {
      case 0:
      case 1:
        node.commit((rows) => void rows.set(id, [id, 'AB'[roll(2)] as string, `t${roll(100)}`]))
        break
      case 2:
        node.commit((rows) => void rows.delete(id))
        break
      case 3:
        this.mutate()
        break
      case 4:
        if (roll(3) === 0) node.cut()
        break
      case 5:
        if (roll(4) === 0) this.reload()
        break
      case 6:
        this.interest('B', roll(2) === 0)
        break
      case 7:
        for (const ms of new Set(this.timers.delays())) if (ms < 15_000) this.timers.pass(ms)
        break
      case 8:
        if (roll(2)) node.heartbeat()
        else if (roll(4) === 0) node.copyProfile()
        break
      default:
        node.open()
        node.deliver(1 + roll(6))
    }
    if (roll(2)) await turn()
  }

  /** No more faults: everything arrives. */
  async settle(): Promise<void> {
    this.interest('B', true)
    let quiet = 0
    while (quiet < 4) {
      this.node.open()
      const moved = this.node.deliver(100)
      for (const ms of new Set(this.timers.delays())) if (ms < 15_000) this.timers.pass(ms)
      await turn()
      quiet = moved ? 0 : quiet + 1
    }
  }
}

function stateOf(rows: Rows, list: string): ShownRow[] {
  const found = [...rows.values()].filter((row) => row[1] === list).map(([id, of, title]) => ({ id, list: of, title }))
  return found.sort((a, b) => (a.id < b.id ? -1 : 1))
}

describe('a client on a bad network', () => {
  let provisional = 0
  // a check that never has anything to look at checks nothing
  afterAll(() => expect(provisional).toBeGreaterThan(30))

  it.each(Array.from({ length: 60 }, (_, seed) => seed))('shows only what was committed, seed %i', async (seed) => {
    const run = new Run(dice(seed))
    for (let step = 0; step < 150; step += 1) await run.step()
    await run.settle()
    const { client, node } = run
    expect(client.status.getSnapshot()).toMatchObject({ connection: 'live', unsent: 0, unknownFrames: 0 })
    expect(client.status.getSnapshot().error).toBeUndefined()
    for (const list of ['A', 'B']) expect(run.shownOf(list)).toEqual(stateOf(node.history[node.now] as Rows, list))
    for (const id of run.durable) expect({ id, times: node.applied.get(id) }).toEqual({ id, times: 1 })
    expect([...node.applied.values()].filter((times) => times > 1)).toEqual([])
    expect(run.commits).toBeGreaterThan(3)
    provisional += run.provisional
    await client.close()
  })
})
