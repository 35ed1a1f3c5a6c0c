/**
 * Replays a trace: the application's part to a real client, the node's part at the transport seam. When the page dies
 * it is opened again on the same disk, must find the state before or after what it was doing, and the trace goes on.
 */
import { expect } from 'vitest'
import { LockstepClient } from '../../src/client'
import { definitionId, type AskedShape } from '../../src/protocol'
import type { StoreContents } from '../../src/store'
import type { Subscription } from '../../src/subscriptions'
import type { LiveQuery } from '../../src/live_query'
import type { Timers } from '../../src/timers'
import { Died, type Disk, URL_OF_NODE } from './disk'
import { FakeServer, type Sent } from './fake_server'
import type { State, Trace, TraceEvent } from './trace'

type Row = Record<string, unknown>
type Message = [string | null, string | null, string, string, any]


/** Delays of nothing pass by themselves, the others when the replay says so. */
class ReplayTimers implements Timers {
  private readonly pending = new Map<object, { ms: number; run: () => void }>()

  chance(): number {
    return 1
  }

  after(ms: number, run: () => void): () => void {
    const timer = { ms, run }
    if (ms === 0) setImmediate(() => this.pending.delete(timer) && run())
    this.pending.set(timer, timer)
    return () => void this.pending.delete(timer)
  }

  pass(ms: number): void {
    const due = [...this.pending.values()].filter((timer) => timer.ms === ms)
    for (const timer of due) if (this.pending.delete(timer)) timer.run()
  }
}

/** Rows as sets: JSON texts with sorted names. */
function textOf(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) => {
    // the floats that JSON lacks are told by their names
    if (typeof item === 'number' && !Number.isFinite(item)) return String(item)
    if (typeof item !== 'object' || item === null || Array.isArray(item)) return item
    return Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}

function textsOf(rows: Iterable<unknown>): string[] {
  return [...rows].map(textOf).sort()
}

export class Replay {
  private comparisons = 0
  private births = 0
  private server!: FakeServer
  private client!: LockstepClient
  private timers!: ReplayTimers
  private queries = new Map<string, LiveQuery<Row>>()
  private answered = new Set<Sent>()
  /** the application's part: subscriptions by the trace's refs, and what the trace's mutations are called here */
  private readonly wanted = new Map<string, { shape: AskedShape; sub: Subscription }>()
  private readonly ids = new Map<string, string>()
  /** the node's part */
  private link: 'none' | 'joining' | 'joined' = 'none'
  private clientId = ''
  private database = ''
  /** the refs here by the trace's, once the node has answered for them; before that they wait in line */
  private refs = new Map<string, string>()
  private waiting = new Map<string, string[]>()
  private described = new Map<string, any>()
  private batch: Message[] = []
  private isEstablished = false
  private deathsInRow = 0

  constructor(
    private readonly trace: Trace,
    private readonly disk: Disk,
    /**
     * `calm`: the page lives, and its store is looked at after every event. `hurried`: frames arrive while earlier ones
     * are being stored. `deadly`: pages die, in every transaction the first before it, the next one a step later, until
     * one has done it.
     */
    private readonly mode: 'calm' | 'hurried' | 'deadly',
  ) {}

  /** Replays all of it. Gives the number of comparisons. */
  async run(): Promise<number> {
    const { events } = this.trace
    await this.untilBorn(0, true)
    for (let at = 0; at < events.length; ) {
      try {
        await this.step(at)
        at += 1
        if (this.deathsInRow > 0) this.survived()
      } catch (error) {
        if (!(error instanceof Died)) throw this.told(error as Error, at)
        this.deathsInRow += 1
        at = await this.untilBorn(at)
      }
    }
    this.compareStored(await this.disk.look(), this.before(events.length))
    await this.client.close()
    return this.comparisons
  }

  /** An event that one page died in was done by another: its next transaction is one to die in again. */
  private survived(): void {
    this.deathsInRow = 0
    if (this.mode === 'deadly') this.disk.dieAfter(0)
  }

  private told(error: Error, at: number): Error {
    const event = JSON.stringify(this.trace.events[at]).slice(0, 400)
    return new Error(`${this.trace.name}, event ${at} ${event}, page ${this.births}: ${error.message}`, { cause: error })
  }

  private before(at: number): State {
    return at === 0 ? { client: null, cursor: null, outbox: [], refused: [], rows: {}, view: {} } : (this.trace.states[at - 1] as State)
  }

  /** The state that an event leads to. */
  private after(at: number): State {
    return this.trace.events[at + 1]?.do === 'expect' ? (this.trace.states[at + 1] as State) : (this.trace.states[at] as State)
  }

  /** A new page, and another one if it dies on the way. Gives the event to go on with: the one it died in, or the next. */
  private async untilBorn(at: number, isFirst = false): Promise<number> {
    let state = this.before(at)
    let isDone = isFirst ? false : null
    for (;;) {
      try {
        const found = await this.open()
        if (isDone === null) {
          // what changed nothing is done again
          isDone = this.before(at) !== this.after(at) && textOf(this.stored(found)) === textOf(wantedOf(this.after(at)))
          if (isDone) [state, this.deathsInRow] = [this.after(at), 0]
        }
        if (this.mode === 'deadly') this.disk.dieAfter(this.deathsInRow)
        if (isFirst) return 0
        this.compareStored(found, state)
        await this.resume(this.trace.events[at] as TraceEvent, state, isDone)
        return isDone ? at + 1 : at
      } catch (error) {
        if (!(error instanceof Died)) throw this.told(error as Error, at)
        this.deathsInRow += 1
      }
    }
  }

  private async open(): Promise<StoreContents> {
    this.births += 1
    this.server = new FakeServer()
    this.timers = new ReplayTimers()
    this.queries.clear()
    const store = this.disk.newPage()
    this.client = new LockstepClient({ url: URL_OF_NODE, store }, { transport: this.server.transport, timers: this.timers })
    this.subscribeAgain()
    await this.disk.quiet()
    return this.disk.found as StoreContents
  }

  /** The refs of the page before mean nothing to this one. */
  private subscribeAgain(): void {
    this.refs.clear()
    for (const line of this.waiting.values()) line.fill('dead')
    for (const [ref, one] of this.wanted) {
      one.sub = this.client.subscribe(one.shape)
      const line = this.waiting.get(ref)
      if (line?.length) line[line.length - 1] = one.sub.ref
      else this.refs.set(ref, one.sub.ref)
    }
  }

  /** Brings the connection back to where it was: a node goes on from the cursor that the client comes with. */
  private async resume(event: TraceEvent, state: State, isDone: boolean): Promise<void> {
    const isFrame = (start: string) => event.do === 'frame' && event.text.startsWith(start)
    if (event.do === 'disconnect' || (event.do === 'join' && !isDone)) this.link = 'none'
    if (isFrame('["1","j') && !isDone) this.link = 'joining'
    if (isFrame('[null,null,"sync","commit"') && isDone) this.closeBatch()
    if (this.link === 'none') return
    const join = await this.connect()
    this.compareJoin(join, state)
    if (this.link === 'joining') return void this.answered.delete(join)
    this.server.reply(join, this.joinedAs(join))
    if (this.isEstablished) this.commitAgain(join)
    await this.disk.quiet()
    for (const message of this.batch) this.data(message)
    await this.disk.quiet()
  }

  private async connect(): Promise<Sent> {
    this.server.open()
    await this.disk.quiet()
    return this.take('phx_join', true) as Sent
  }

  private compareJoin({ payload }: Sent, state: State): void {
    const held = (ref: string) => payload.shapes.some((shape: any) => shape.ref === this.wanted.get(ref)?.sub.ref && shape.have)
    const have = [...this.wanted.keys()].filter(held).sort()
    expect({ client: payload.client, cursor: payload.cursor, have }).toEqual({
      client: state.client,
      cursor: state.cursor,
      have: Object.keys(state.rows).sort(),
    })
    this.comparisons += 1
  }

  /** The answer to a join that the trace does not have. */
  private joinedAs({ payload }: Sent) {
    const shapes = payload.shapes.map(({ ref }: any) => ({ ref, ok: true }))
    return { protocol: 1, capabilities: [], database: this.database, subject: '', client: payload.client ?? this.clientId, shapes }
  }

  /** A node's first commit to a client that missed nothing. */
  private commitAgain(join: Sent): void {
    for (const shape of this.described.values()) this.data([null, null, 'sync', 'shape', shape])
    this.server.send('commit', { lsn: '0/0', xid: null, cursor: join.payload.cursor })
  }

  /** The oldest message of a kind that was not answered. */
  private take(event: string, needed = false): Sent | undefined {
    const message = this.server.unread().find((one) => one.event === event && !this.answered.has(one))
    if (message !== undefined) this.answered.add(message)
    else if (needed) throw new Error(`the client sent no ${event}`)
    return message
  }

  private async step(at: number): Promise<void> {
    const event = this.trace.events[at] as TraceEvent
    switch (event.do) {
      case 'subscribe':
        if (!this.wanted.has(event.ref)) {
          const sub = this.client.subscribe(event.shape)
          this.wanted.set(event.ref, { shape: event.shape, sub })
          this.waiting.set(event.ref, [...(this.waiting.get(event.ref) ?? []), sub.ref])
        }
        break
      case 'unsubscribe':
        this.wanted.get(event.ref)?.sub.unsubscribe()
        this.wanted.delete(event.ref)
        break
      case 'mutate':
        this.ids.set(event.id, this.client.mutate(event.ops).id)
        break
      case 'join':
        await this.join(event)
        break
      case 'frame':
        await this.frame(at, JSON.parse(event.text))
        break
      case 'disconnect':
        this.link = 'none'
        this.server.drop()
        break
      case 'expect':
        if (this.isHurried(at + 1)) return
        await this.disk.quiet()
        return this.compare(this.trace.states[at] as State)
    }
    if (!this.isHurried(at)) await this.disk.quiet()
  }

  /** Whether nothing is waited for before the event: answers are taken at once, and what is stored is stored later. */
  private isHurried(at: number): boolean {
    const event = this.trace.events[at]
    const isData = event?.do === 'frame' && event.text.startsWith('[null,null,"sync"')
    return this.mode === 'hurried' && (isData || event?.do === 'disconnect' || (event?.do === 'expect' && this.isHurried(at + 1)))
  }

  private async join(event: TraceEvent & { do: 'join' }): Promise<void> {
    this.described.clear()
    this.batch = []
    this.isEstablished = false
    this.link = 'joining'
    const join = await this.connect()
    this.answered.delete(join)
    const { client, cursor, shapes } = event
    const here = (ref: string) => this.wanted.get(ref)?.sub.ref
    const sent = join.payload.shapes.map(({ ref, have, fingerprint }: any) => ({ ref, have, fingerprint }))
    const asked = shapes.map((shape) => ({ ...shape, ref: here(shape.ref) }))
    expect({ client: join.payload.client, cursor: join.payload.cursor, shapes: textsOf(sent) }).toEqual({ client, cursor, shapes: textsOf(asked) })
    this.comparisons += 1
  }

  private async frame(at: number, message: Message): Promise<void> {
    const [, , , event, payload] = message
    if (event === 'phx_reply') return this.reply(at, message[1] ?? '', payload.status, payload.response)
    this.data(message)
    if (event !== 'commit') return void this.batch.push(message)
    if (this.mode !== 'hurried') await this.disk.quiet()
    this.closeBatch()
  }

  /** Its frames were stored: a node that goes on from here only describes. */
  private closeBatch(): void {
    for (const [, , , kind, one] of this.batch) {
      if (kind === 'shape') this.described.set(one.ref, one)
      if (kind === 'withdraw') for (const [ref, { shape }] of this.described) if (shape === one.shape) this.described.delete(ref)
    }
    this.batch = []
    this.isEstablished = true
  }

  private data([, , , event, payload]: Message): void {
    const here = { ...payload }
    if (event === 'shape') here.ref = this.refs.get(payload.ref) ?? 'dead'
    if (event === 'ack') here.mutations = payload.mutations.map((one: any) => ({ ...one, id: this.ids.get(one.id) ?? one.id }))
    this.server.send(event, payload === null ? null : here)
  }

  private async reply(at: number, to: string, status: string, response: any): Promise<void> {
    switch (to[0]) {
      case 'j':
        return this.replyToJoin(status, response)
      case 's':
        for (const { ref } of response.shapes) this.name(ref)
        return this.answer('subscribe', status, { shapes: response.shapes.map((one: any) => ({ ...one, ref: this.refs.get(one.ref) ?? 'dead' })) })
      case 'u':
        return this.answer('unsubscribe', status, response)
      case 'h':
        return this.server.heartbeat(response.cursor)
      default:
        return this.replyToMutate(at, status, response)
    }
  }

  private answer(event: string, status: string, response: unknown): void {
    const message = this.take(event)
    if (message !== undefined) this.server.reply(message, response, status)
  }

  private name(ref: string): void {
    const here = this.waiting.get(ref)?.shift()
    if (here !== undefined) this.refs.set(ref, here)
  }

  private replyToJoin(status: string, response: any): void {
    const join = this.take('phx_join', true) as Sent
    if (status !== 'ok') return this.server.reply(join, response, status)
    this.link = 'joined'
    this.clientId = response.client
    this.database = response.database
    for (const [ref, { sub }] of this.wanted) this.refs.set(ref, sub.ref)
    this.waiting.clear()
    const shapes = response.shapes.map((one: any) => ({ ...one, ref: this.refs.get(one.ref) ?? one.ref }))
    this.server.reply(join, { ...response, shapes })
  }

  private async replyToMutate(at: number, status: string, response: any): Promise<void> {
    // the reference client sends all of its outbox each time, this one what is new: an error must find a message
    if (status === 'ok' && this.failsLater(at)) return
    const message = this.take('mutate', ['gap', 'renumber'].includes(response.code))
    // a page that died between hearing of an unknown client and the application's word has stored the former
    if (message !== undefined) this.server.reply(message, response, status)
    await this.disk.quiet()
    switch (response.code) {
      case 'busy':
        this.timers.pass(1000)
        return
      case 'unknown_client':
        return this.client.resolveUnknown(true)
      case 'renumber':
        return this.renumber()
    }
  }

  private failsLater(at: number): boolean {
    for (const event of this.trace.events.slice(at + 1)) {
      if (event.do === 'disconnect') return false
      if (event.do === 'frame' && /^\["1","m\d+","sync","phx_reply",.*"status":"error"/.test(event.text) && !event.text.includes('"busy"')) return true
    }
    return false
  }

  /** This client first asks, in another session, what became of the mutations under the old id; the trace's does not. */
  private async renumber(): Promise<void> {
    const join = this.take('phx_join', true) as Sent
    this.server.reply(join, this.joinedAs(join))
    this.commitAgain(join)
    await this.disk.quiet()
  }

  /** What is shown, and now and then what is stored. */
  private async compare(state: State): Promise<void> {
    const live = [...this.wanted].filter(([, { sub }]) => sub.getSnapshot().state === 'live').map(([ref]) => ref)
    expect(live.sort()).toEqual(Object.keys(state.rows).sort())
    const tables = new Set([...Object.keys(state.view), ...this.queries.keys()])
    for (const table of tables) {
      const query = this.queries.get(table) ?? this.client.query<Row>({ table })
      if (!this.queries.has(table)) query.subscribe(() => undefined)
      this.queries.set(table, query)
      expect({ table, rows: textsOf(query.getSnapshot()) }).toEqual({ table, rows: textsOf(Object.values(state.view[table] ?? {})) })
    }
    this.comparisons += 1
    if (this.mode === 'calm') this.compareStored(await this.disk.look(), state)
  }

  private compareStored(contents: StoreContents, state: State): void {
    expect(this.stored(contents)).toEqual(wantedOf(state))
    this.comparisons += 1
  }

  private stored(contents: StoreContents) {
    const names = new Map([...this.ids].map(([id, here]) => [here, id]))
    const rows: Record<string, unknown> = {}
    for (const [ref, { shape }] of this.wanted) {
      const held = contents.shapes.find(({ id }) => id === definitionId(shape))
      if (held === undefined) continue
      rows[ref] = { columns: held.columns.map(({ name }) => name), rows: Object.fromEntries(contents.rows.get(held.id) ?? []) }
    }
    return {
      client: contents.meta.client,
      cursor: contents.meta.cursor,
      outbox: contents.outbox.map(({ n, id }) => [n, names.get(id) ?? id]),
      refused: contents.refused.map(({ id, code }) => [names.get(id) ?? id, code]).sort(),
      rows,
    }
  }
}

/** A state as it is stored. */
function wantedOf({ client, cursor, outbox, refused, rows }: State) {
  return { client, cursor, outbox, refused: [...refused].sort(), rows }
}
