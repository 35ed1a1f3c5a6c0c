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

export class SimNode {
  /** the state after each commit; commit number 0 is the empty database */
  readonly history: Rows[] = [new Map()]
  /** how often each mutation was carried out */
  readonly applied = new Map<string, number>()
  private readonly accounts = new Map<string, Account>()
  private events: TransportEvents | null = null
  private line: Message[] = []
  private joined: Joined | null = null
  private isOpen = false
  private wanted = false
  private clients = 0
  private refs = 0

  /** Replaces whatever client was connected. */
  connect(): TransportFactory {
    this.cut()
    this.wanted = false
    return (events) => {
      this.events = events
      const isCurrent = () => this.events === events
      return {
        connect: () => void (isCurrent() && (this.wanted = true)),
        disconnect: () => {
          if (!isCurrent()) return
          this.wanted = false
          this.forget()
        },
        makeRef: () => `${(this.refs += 1)}`,
        send: (message) => isCurrent() && this.isOpen && this.receive(message),
      }
    }
  }

  get now(): number {
    return this.history.length - 1
  }

  open(): void {
    if (!this.wanted || this.isOpen) return
    this.isOpen = true
    this.events?.opened()
  }

  cut(): void {
    if (!this.isOpen) return
    this.forget()
    this.events?.closed(true)
  }

  /** Lets so many messages through; false when none waited. */
  deliver(count: number): boolean {
    const some = this.line.splice(0, count)
    for (const message of some) this.events?.message(JSON.parse(JSON.stringify(message)))
    return some.length > 0
  }

  /** Commits a change by anybody; `acks` are those of one client. */
  commit(change: (rows: Map<string, readonly [string, string, string]>) => void, client?: string, acks: object[] = []): void {
    const before = this.history[this.now] as Rows
    const after = new Map(before)
    change(after)
    this.history.push(after)
    const { joined } = this
    if (joined === null) return
    for (const [list] of joined.shapes) this.sendRows(list, before, after)
    if (client === joined.client && acks.length > 0) this.data('ack', { mutations: acks })
    this.sendCommit()
  }

  /** Somebody with a copy of this client's profile writes under its next number. */
  copyProfile(): void {
    const account = this.joined && this.accounts.get(this.joined.client)
    if (!account) return
    account.last += 1n
    account.outcomes.set(`${account.last}`, { n: `${account.last}`, id: 'of the copy', outcome: 'applied' })
  }

  /** Idle clients get cursors by heartbeats. */
  heartbeat(): void {
    const payload = { status: 'ok', response: { cursor: `k${this.now}` } }
    if (this.joined !== null) this.line.push({ joinRef: null, ref: '0', topic: 'phoenix', event: 'phx_reply', payload })
  }

  private forget(): void {
    this.isOpen = false
    this.joined = null
    this.line = []
  }

  private data(event: string, payload: unknown): void {
    this.line.push({ joinRef: null, ref: null, topic: 'sync', event, payload })
  }

  private sendCommit(): void {
    this.data('commit', { lsn: `${this.now}`, xid: null, cursor: `k${this.now}` })
  }

  private sendRows(list: string, before: Rows, after: Rows): void {
    const inList = (rows: Rows) => new Map([...rows].filter(([, row]) => row[1] === list))
    const [old, now] = [inList(before), inList(after)]
    const remove = [...old.keys()].filter((id) => !now.has(id)).map((id) => [id])
    const put = [...now].filter(([id, row]) => old.get(id) !== row).map(([, row]) => row)
    // each row in a frame of its own: more places to cut
    for (const key of remove) this.data('rows', { shape: `S${list}`, remove: [key] })
    for (const row of put) this.data('rows', { shape: `S${list}`, put: [row] })
  }

  private receive({ joinRef, ref, event, payload }: Message): void {
    const answer = (response: unknown, status = 'ok') =>
      this.line.push({ joinRef, ref, topic: 'sync', event: 'phx_reply', payload: { status, response } })
    const body = payload as any
    if (event === 'phx_join') {
      this.joined = { client: body.client ?? `c${(this.clients += 1)}`, shapes: new Map() }
      answer({ database: 'db', subject: '', client: this.joined.client, shapes: body.shapes.map(({ ref }: ShapeRequest) => ({ ref, ok: true })) })
      for (const shape of body.shapes) this.load(shape, body.cursor)
      const decided = [...(this.accounts.get(this.joined.client)?.outcomes.values() ?? [])]
      if (decided.length > 0) this.data('ack', { mutations: decided })
      this.sendCommit()
    } else if (event === 'subscribe') {
      answer({ shapes: body.shapes.map(({ ref }: ShapeRequest) => ({ ref, ok: true })) })
      for (const shape of body.shapes) this.load(shape, null)
      this.sendCommit()
    } else if (event === 'unsubscribe') {
      for (const [list, held] of this.joined?.shapes ?? []) if (body.refs.includes(held)) this.joined?.shapes.delete(list)
      answer({})
    } else if (event === 'mutate') {
      this.mutate(body, answer)
    }
  }

  private load(shape: ShapeRequest, cursor: string | null): void {
    const list = String(shape.scope?.['list'])
    this.joined?.shapes.set(list, shape.ref)
    const described = { ref: shape.ref, shape: `S${list}`, fingerprint: 'f', table: ['public', 't'], key: ['id'], columns: COLUMNS }
    this.data('shape', described)
    const after = this.history[this.now] as Rows
    if (shape.have && cursor !== null) return this.sendRows(list, this.history[Number(cursor.slice(1))] as Rows, after)
    this.data('rows', { shape: `S${list}`, reset: 'first' })
    this.sendRows(list, new Map(), after)
  }

  private mutate(body: any, answer: (response: unknown, status?: string) => void): void {
    const client = (this.joined as Joined).client
    const account = this.accounts.get(client) ?? { last: 0n, outcomes: new Map<string, object>() }
    this.accounts.set(client, account)
    for (const n of account.outcomes.keys()) if (BigInt(n) <= BigInt(body.confirmed)) account.outcomes.delete(n)
    const before = this.line.length
    // the reply may overtake the commits of what it answers
    const reply = (response: unknown, status?: string) => {
      answer(response, status)
      this.line.splice(before, 0, this.line.pop() as Message)
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
