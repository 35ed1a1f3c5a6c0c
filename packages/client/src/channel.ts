/**
 * Joins, pushes and their replies on the one topic: which reply answers what, and when an answer is overdue.
 */
import { TOPIC, readHeartbeat } from './protocol'
import type { Timers } from './timers'
import type { Message, Transport } from './transport'

/** How long an answer may take, in milliseconds. */
export const REPLY_TIMEOUT_MS = 15_000

/** The answer to a push: the server's, or `timeout`. */
export type Reply =
  | { readonly status: 'ok'; readonly response: unknown }
  | { readonly status: 'error'; readonly response: unknown }
  | { readonly status: 'timeout' }

/** What arrives that is not an answer. */
export interface ChannelEvents {
  /** A data frame, or an event nobody knows. */
  frame(event: string, payload: unknown): void
  /** The server ended a join: the current one by its ref, or (`isNamed` false) it did not say which. */
  ended(isNamed: boolean): unknown
  /** A heartbeat was answered, with a cursor perhaps, and with the age of what was sent; null while none is known. */
  heartbeat(ref: string | null, cursor: string | null, age: number | null): void
}

interface Waiting {
  readonly done: (reply: Reply) => void
  readonly cancel: () => void
}

/** One topic on a transport. Replies of an earlier join never reach a later one. */
export class Channel {
  private joinRef: string | null = null
  private readonly waiting = new Map<string, Waiting>()

  constructor(
    private readonly transport: Transport,
    private readonly timers: Timers,
    private readonly events: ChannelEvents,
  ) {}

  /** Sends a join; its ref marks everything that follows. Forgets what was waiting for an earlier join. */
  join(payload: unknown, done: (reply: Reply) => void): void {
    this.leave()
    this.joinRef = this.transport.makeRef()
    this.post(this.joinRef, 'phx_join', payload, done)
  }

  /** Sends an event of the current join; without one nothing happens. */
  push(event: string, payload: unknown, done: (reply: Reply) => void): void {
    if (this.joinRef !== null) this.post(this.transport.makeRef(), event, payload, done)
  }

  /** Asks how old what was sent is; the ref of the question. Its answer carries no cursor. */
  askAge(): string {
    const ref = this.transport.makeRef()
    this.transport.send({ joinRef: null, ref, topic: 'phoenix', event: 'heartbeat', payload: { cursor: false } })
    return ref
  }

  /** Forgets the current join and everything that waits for an answer; nobody is told. */
  leave(): void {
    for (const { cancel } of this.waiting.values()) cancel()
    this.waiting.clear()
    this.joinRef = null
  }

  /** Takes one message of the transport. */
  receive(message: Message): void {
    if (message.topic === 'phoenix') {
      if (message.event !== 'phx_reply') return
      const { cursor, age } = readHeartbeat(message.payload)
      return this.events.heartbeat(message.ref, cursor, age)
    }
    if (message.topic !== TOPIC) return
    // a message that names an older join is of an older session; data frames name none
    if (message.joinRef !== null && message.joinRef !== this.joinRef) return
    switch (message.event) {
      case 'phx_reply':
        this.answer(message.ref, message.payload)
        return
      case 'phx_error':
      case 'phx_close':
        this.events.ended(message.joinRef !== null)
        return
      default:
        this.events.frame(message.event, message.payload)
    }
  }

  private post(ref: string, event: string, payload: unknown, done: (reply: Reply) => void): void {
    const cancel = this.timers.after(REPLY_TIMEOUT_MS, () => {
      this.waiting.delete(ref)
      done({ status: 'timeout' })
    })
    this.waiting.set(ref, { done, cancel })
    this.transport.send({ joinRef: this.joinRef, ref, topic: TOPIC, event, payload })
  }

  private answer(ref: string | null, payload: unknown): void {
    const waiting = this.waiting.get(ref ?? '')
    if (waiting === undefined) return
    this.waiting.delete(ref ?? '')
    waiting.cancel()
    const { status, response } = (payload ?? {}) as { status?: unknown; response?: unknown }
    waiting.done({ status: status === 'ok' ? 'ok' : 'error', response })
  }
}
