/**
 * A node at the transport seam: a test reads what the client sent and writes frames, in the JSON arrays' fields of
 * docs/protocol.md. Nothing is answered by itself.
 */
import type { Timers } from '../../src/timers'
import type { Message, TransportEvents, TransportFactory } from '../../src/transport'

export type Sent = Message & { payload: any }

export class FakeServer {
  readonly sent: Sent[] = []
  /** heartbeats that were not answered yet: the client asks how old its state is */
  private questions: string[] = []
  /** what the client wants: connected or not */
  wanted = false
  private events!: TransportEvents
  private joinRef: string | null = null
  private refs = 0
  private read = 0
  private waiting: (() => void)[] = []

  readonly transport: TransportFactory = (events) => {
    this.events = events
    return {
      connect: () => this.want(true),
      disconnect: () => this.want(false),
      makeRef: () => `${(this.refs += 1)}`,
      send: (message) => {
        if (message.event === 'heartbeat') return void this.questions.push(message.ref as string)
        this.sent.push(message as Sent)
        this.wake()
      },
    }
  }

  /** The next message that was not read yet; waits for it. */
  async next(event: string): Promise<Sent> {
    while (this.sent.length <= this.read) await new Promise<void>((resolve) => this.waiting.push(resolve))
    const message = this.sent[this.read++] as Sent
    if (message.event !== event) throw new Error(`expected ${event}, the client sent ${JSON.stringify(message)}`)
    if (event === 'phx_join') this.joinRef = message.joinRef
    return message
  }

  /** What was sent and not read. */
  unread(): Sent[] {
    return this.sent.slice(this.read)
  }

  /** Waits until the client wants to be connected, or not. */
  async untilWanted(wanted: boolean): Promise<void> {
    while (this.wanted !== wanted) await new Promise<void>((resolve) => this.waiting.push(resolve))
  }

  open(): void {
    this.events.opened()
  }

  /** The connection is gone, and with it what was sent and not read. */
  drop(): void {
    this.read = this.sent.length
    this.events.closed(true)
  }

  /** What the client says it will wait before it tries again. */
  pause(): number {
    return this.events.pause()
  }

  sendAway(): void {
    this.events.closed(false)
  }

  reply(to: Sent, response: unknown, status = 'ok'): void {
    this.message(to.joinRef, to.ref, 'phx_reply', { status, response })
  }

  refuse(to: Sent, code: string, more: Record<string, unknown> = {}): void {
    this.reply(to, { code, message: `${code} in words`, ...more }, 'error')
  }

  /** A data frame. */
  send(event: string, payload: unknown): void {
    this.message(null, null, event, payload)
  }

  /** Ends the current join. */
  close(event: 'phx_close' | 'phx_error' = 'phx_close'): void {
    this.message(this.joinRef, null, event, {})
  }

  /** As an answer to a heartbeat of the phoenix client's own. */
  heartbeat(cursor: string | null): void {
    this.answerHeartbeat(`${(this.refs += 1)}`, { cursor })
  }

  /** Answers the oldest question. */
  answerAge(age: number | null): void {
    const ref = this.questions.shift()
    if (ref === undefined) throw new Error('nobody asked')
    this.answerHeartbeat(ref, { age })
  }

  private answerHeartbeat(ref: string, response: unknown): void {
    this.events.message({ joinRef: null, ref, topic: 'phoenix', event: 'phx_reply', payload: { status: 'ok', response } })
  }

  message(joinRef: string | null, ref: string | null, event: string, payload: unknown): void {
    this.events.message(JSON.parse(JSON.stringify({ joinRef, ref, topic: 'sync', event, payload })))
  }

  private want(wanted: boolean): void {
    this.wanted = wanted
    this.wake()
  }

  private wake(): void {
    const waiting = this.waiting
    this.waiting = []
    for (const resolve of waiting) resolve()
  }
}

/** Time that passes when a test says so; a delay of nothing is one turn of the event loop. */
export class ManualTimers implements Timers {
  private readonly pending = new Map<number, { ms: number; run: () => void }>()
  private ids = 0
  /** the longest pause there can be, so that tests know it */
  chance = () => 1

  after(ms: number, run: () => void): () => void {
    const id = (this.ids += 1)
    if (ms === 0) {
      let wanted = true
      setTimeout(() => wanted && run(), 0)
      return () => void (wanted = false)
    }
    this.pending.set(id, { ms, run })
    return () => void this.pending.delete(id)
  }

  /** Delays that are being waited for, in milliseconds. */
  delays(): number[] {
    return [...this.pending.values()].map(({ ms }) => ms)
  }

  /** Lets every delay of `ms` pass; throws when there is none. */
  pass(ms: number): void {
    const due = [...this.pending].filter(([, timer]) => timer.ms === ms)
    if (due.length === 0) throw new Error(`nothing waits ${ms} ms, but ${this.delays().join(', ')}`)
    for (const [id, { run }] of due) {
      this.pending.delete(id)
      run()
    }
  }
}
