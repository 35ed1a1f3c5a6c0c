/**
 * A node that behaves: it has a history of commits, resumes from any cursor of it, applies mutations once and says so
 * in the commit that holds their rows. Everything it sends waits in a line until `deliver`; a cut throws the line away,
 * wherever in a batch that is, and what the client sent since may be lost as well.
 */
import type { Op, ShapeRequest } from '../../src/protocol'
import type { Message, TransportEvents, TransportFactory } from '../../src/transport'

export type Rows = ReadonlyMap<string, readonly [string, string, string]>

const COLUMNS = ['id', 'list', 'title'].map((name) => ({ name, type: 'text', wire: 'text' }))

interface Joined {
  client: string
  shapes: Map<string, string>
}

interface Account {
  last: bigint
  outcomes: Map<string, object>
}

/** One connection. */
export class SimLink {
  joined: Joined | null = null
  private line: Message[] = []
  private isOpen = false
  private wanted = false
  private refs = 0
  private events: TransportEvents | null = null

  constructor(private readonly receive: (link: SimLink, message: Message) => void) {}

  readonly transport: TransportFactory = (events) => {
    this.events = events
    return {
      connect: () => void (this.wanted = true),
      disconnect: () => {
        this.wanted = false
        this.forget()
      },
      makeRef: () => `${(this.refs += 1)}`,
      send: (message) => this.events !== null && this.isOpen && this.receive(this, message),
    }
  }

  open(): void {
    if (!this.wanted || this.isOpen || this.events === null) return
    this.isOpen = true
    this.events.opened()
  }

  cut(): void {
    if (!this.isOpen) return
    this.forget()
    this.events?.closed(true)
  }

  /** Its page is gone. */
  end(): void {
    this.events = null
    this.wanted = false
    this.forget()
  }

  /** Lets so many messages through; false when none waited. */
  deliver(count: number): boolean {
    const some = this.line.splice(0, count)
    for (const message of some) this.events?.message(JSON.parse(JSON.stringify(message)))
    return some.length > 0
  }

  put(message: Message): void {
    this.line.push(message)
  }

  data(event: string, payload: unknown): void {
    this.put({ joinRef: null, ref: null, topic: 'sync', event, payload })
  }

  /** The last message overtakes those since `from`. */
  overtake(from: number): void {
    this.line.splice(from, 0, this.line.pop() as Message)
  }

  get waiting(): number {
    return this.line.length
  }

  private forget(): void {
    this.isOpen = false
    this.joined = null
    this.line = []
  }
}

export class SimNode {
  /** the state after each commit; commit number 0 is the empty database */
  readonly history: Rows[] = [new Map()]
  /** how often each mutation was carried out */
  readonly applied = new Map<string, number>()
  private readonly accounts = new Map<string, Account>()
  private readonly links = new Set<SimLink>()
  private link: SimLink | null = null
  private clients = 0
  private loads = 0

  /** `roll` decides which first loads are shown before they are settled; without it none is. */
  constructor(private readonly roll: ((sides: number) => number) | null = null) {}

  /** Replaces whatever client was connected. */
  connect(): TransportFactory {
    this.link?.cut()
    this.link?.end()
    if (this.link) this.links.delete(this.link)
    this.link = this.newLink()
    return this.link.transport
  }

  /** One connection more. */
  newLink(): SimLink {
    const link = new SimLink((from, message) => this.receive(from, message))
    this.links.add(link)
    return link
  }

  get now(): number {
    return this.history.length - 1
  }

  open(): void {
    this.link?.open()
  }

  cut(): void {
    this.link?.cut()
  }

  deliver(count: number): boolean {
    return this.link?.deliver(count) ?? false
  }

  /** Commits a change by anybody; `acks` are those of one client. */
  commit(change: (rows: Map<string, readonly [string, string, string]>) => void, client?: string, acks: object[] = []): void {
    const before = this.history[this.now] as Rows
    const after = new Map(before)
    change(after)
    this.history.push(after)
    for (const link of this.links) {
      if (link.joined === null) continue
      for (const [list] of link.joined.shapes) this.sendRows(link, list, before, after)
      if (client === link.joined.client && acks.length > 0) link.data('ack', { mutations: acks })
      this.sendCommit(link)
    }
  }

  /** Somebody with a copy of this client's profile writes under its next number. */
  copyProfile(link = this.link): void {
    const account = link?.joined && this.accounts.get(link.joined.client)
    if (!account) return
    account.last += 1n
    account.outcomes.set(`${account.last}`, { n: `${account.last}`, id: 'of the copy', outcome: 'applied' })
  }

  /** Idle clients get cursors by heartbeats. */
  heartbeat(link = this.link): void {
    const payload = { status: 'ok', response: { cursor: `k${this.now}` } }
    if (link?.joined) link.put({ joinRef: null, ref: '0', topic: 'phoenix', event: 'phx_reply', payload })
  }

  private sendCommit(link: SimLink): void {
    link.data('commit', { lsn: `${this.now}`, xid: null, cursor: `k${this.now}` })
  }

  private sendRows(link: SimLink, list: string, before: Rows, after: Rows): void {
    const inList = (rows: Rows) => new Map([...rows].filter(([, row]) => row[1] === list))
    const [old, now] = [inList(before), inList(after)]
    const remove = [...old.keys()].filter((id) => !now.has(id)).map((id) => [id])
    const put = [...now].filter(([id, row]) => old.get(id) !== row).map(([, row]) => row)
    // each row in a frame of its own: more places to cut
    for (const key of remove) link.data('rows', { shape: `S${list}`, remove: [key] })
    for (const row of put) link.data('rows', { shape: `S${list}`, put: [row] })
  }

  private receive(link: SimLink, { joinRef, ref, event, payload }: Message): void {
    const answer = (response: unknown, status = 'ok') =>
      link.put({ joinRef, ref, topic: 'sync', event: 'phx_reply', payload: { status, response } })
    const body = payload as any
    if (event === 'phx_join') {
      link.joined = { client: body.client ?? `c${(this.clients += 1)}`, shapes: new Map() }
      answer({ database: 'db', subject: '', client: link.joined.client, shapes: body.shapes.map(({ ref }: ShapeRequest) => ({ ref, ok: true })) })
      const isFirst = body.capabilities.includes('provisional') && body.shapes.every(({ have }: ShapeRequest) => !have)
      if (isFirst && body.shapes.length > 0 && this.roll?.(4)) this.loadProvisionally(link, body.shapes, this.roll)
      else for (const shape of body.shapes) this.load(link, shape, body.cursor)
      const decided = [...(this.accounts.get(link.joined.client)?.outcomes.values() ?? [])]
      if (decided.length > 0) link.data('ack', { mutations: decided })
      this.sendCommit(link)
    } else if (event === 'subscribe') {
      answer({ shapes: body.shapes.map(({ ref }: ShapeRequest) => ({ ref, ok: true })) })
      for (const shape of body.shapes) this.load(link, shape, null)
      this.sendCommit(link)
    } else if (event === 'unsubscribe') {
      for (const [list, held] of link.joined?.shapes ?? []) if (body.refs.includes(held)) link.joined?.shapes.delete(list)
      answer({})
    } else if (event === 'mutate') {
      this.mutate(link, body, answer)
    }
  }

  private load(link: SimLink, shape: ShapeRequest, cursor: string | null): void {
    const list = this.describe(link, shape)
    const after = this.history[this.now] as Rows
    if (shape.have && cursor !== null) return this.sendRows(link, list, this.history[Number(cursor.slice(1))] as Rows, after)
    link.data('rows', { shape: `S${list}`, reset: 'first' })
    this.sendRows(link, list, new Map(), after)
  }

  /** As of an earlier commit, set aside and shown; then what followed on it, or all of it anew. */
  private loadProvisionally(link: SimLink, shapes: readonly ShapeRequest[], roll: (sides: number) => number): void {
    const seen = this.history[Math.max(0, this.now - roll(3))] as Rows
    const loads: string[] = []
    for (const shape of shapes) {
      const list = this.describe(link, shape)
      const load = `${(this.loads += 1)}`
      loads.push(load)
      link.data('progress', { load, about: roll(20) })
      link.data('load', { load, shape: `S${list}`, reset: 'first' })
      for (const row of seen.values()) if (row[1] === list) link.data('load', { load, shape: `S${list}`, put: [row] })
    }
    link.data('provisional', { loads })
    const isForgotten = roll(3) === 0
    link.data(isForgotten ? 'unload' : 'loaded', { loads })
    for (const shape of shapes) {
      if (isForgotten) this.load(link, shape, null)
      else this.sendRows(link, String(shape.scope?.['list']), seen, this.history[this.now] as Rows)
    }
  }

  private describe(link: SimLink, shape: ShapeRequest): string {
    const list = String(shape.scope?.['list'])
    link.joined?.shapes.set(list, shape.ref)
    link.data('shape', { ref: shape.ref, shape: `S${list}`, fingerprint: 'f', table: ['public', 't'], key: ['id'], columns: COLUMNS })
    return list
  }

  private mutate(link: SimLink, body: any, answer: (response: unknown, status?: string) => void): void {
    const client = (link.joined as Joined).client
    const account = this.accounts.get(client) ?? { last: 0n, outcomes: new Map<string, object>() }
    this.accounts.set(client, account)
    for (const n of account.outcomes.keys()) if (BigInt(n) <= BigInt(body.confirmed)) account.outcomes.delete(n)
    const before = link.waiting
    // the reply may overtake the commits of what it answers
    const reply = (response: unknown, status?: string) => {
      answer(response, status)
      link.overtake(before)
    }
    for (const { n, id, ops } of body.mutations) {
      if (BigInt(n) <= account.last) {
        if ((account.outcomes.get(n) as { id?: string } | undefined)?.id === id) continue
        return reply({ code: 'renumber', message: 'taken', client: `c${(this.clients += 1)}` }, 'error')
      }
      if (BigInt(n) > account.last + 1n) return reply({ code: 'gap', message: 'gap', last: `${account.last}` }, 'error')
      account.last = BigInt(n)
      this.run(client, account, n, id, ops)
    }
    reply({})
  }

  private run(client: string, account: Account, n: string, id: string, ops: readonly Op[]): void {
    this.applied.set(id, (this.applied.get(id) ?? 0) + 1)
    const [op] = ops
    if (op?.op !== 'insert') throw new Error('this node only knows inserts')
    const { values } = op
    const refused = values['title'] === 'bad'
    const ack = { n, id, outcome: refused ? 'refused' : 'applied', ...(refused ? { code: '23514' } : {}) }
    account.outcomes.set(n, ack)
    this.commit((rows) => void (refused || rows.set(String(values['id']), [String(values['id']), String(values['list']), 'from the server'])), client, [ack])
  }
}
