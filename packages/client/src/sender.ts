/**
 * Sends the outbox: in order, one message at a time, each mutation again in every session until its `ack` came.
 * A message is answered when it was taken; what became of it arrives as an `ack` (see `apply`).
 */
import type { Reply } from './channel'
import { bytesOf, MESSAGE_BYTES } from './mutation'
import { type Outbox, type OutboxWrite, toRequest } from './outbox'
import { type ProtocolErrorBody, readError } from './protocol'
import type { StoredMutation } from './store'
import type { Timers } from './timers'

/** Mutations in one message: keeps a message of a long offline time from becoming a wall. */
export const MUTATIONS_PER_MESSAGE = 50

/** Bytes of mutations in one message: half of what it may hold. */
export const BATCH_BYTES = MESSAGE_BYTES / 2

/** The pause after `busy` and after an answer that never came, in milliseconds. */
export const BUSY_PAUSE_MS = 1000

/** What the sender needs around it. */
export interface SenderPorts {
  push(event: 'mutate', payload: unknown, done: (reply: Reply) => void): void
  /** Asks the outbox for a change, stores it and carries it out; then calls `then`. */
  store(propose: () => OutboxWrite | null, then: () => void): void
  /** Joins again: a session speaks for the client id that it was joined with. */
  rejoin(): void
  /** Tells the application. */
  report(error: SenderReport): void
}

/** What is told: the node's error, and with `malformed` the mutation that blocks the outbox. */
export type SenderReport = ProtocolErrorBody & { readonly mutationId?: string }

/** The sending side of one client. */
export class Sender {
  private session = 0
  private active = false
  private inFlight = false
  private halted: string | null = null
  private sentSeq = 0
  private perMessage = MUTATIONS_PER_MESSAGE
  private gaps = 0
  /** a client id to number the outbox anew under, once it is known what the old one carried out */
  private renumberTo: { readonly client: string; readonly last: string } | null = null
  private cancelPause: (() => void) | null = null

  constructor(
    private readonly outbox: Outbox,
    private readonly timers: Timers,
    private readonly ports: SenderPorts,
  ) {}

  /** A session began: everything undecided is sent again. */
  begin(): void {
    this.end()
    this.active = true
    this.pump()
  }

  /** The session ended; answers to what is under way no longer count. */
  end(): void {
    this.session += 1
    this.active = false
    this.inFlight = false
    this.halted = null
    this.sentSeq = 0
    this.perMessage = MUTATIONS_PER_MESSAGE
    this.gaps = 0
    this.cancelPause?.()
    this.cancelPause = null
  }

  /**
   * The session's first commit was applied, and with it every outcome that the node knows. A `renumber` waits for this:
   * earlier mutations of the same message may have been carried out, and would be again under the new id. Those that
   * were, and of which nothing is told, were confirmed and forgotten by another copy of this profile.
   */
  established(): void {
    if (this.renumberTo === null) return
    const { client, last } = this.renumberTo
    const isUnknown = this.outbox.entries.some(({ n }) => BigInt(n) <= BigInt(last))
    this.change(
      () => (isUnknown ? this.outbox.holdUnknown(client) : this.outbox.renumber(client)),
      () => {
        this.renumberTo = null
        if (!isUnknown) this.ports.rejoin()
      },
    )
    const message = 'another copy of this profile is in use; whether the server carried these mutations out is unknown'
    if (isUnknown) this.ports.report({ code: 'unknown_client', message, client })
  }

  /** The outbox is another one now. */
  forget(): void {
    this.renumberTo = null
  }

  /** Starts over within the session, after the outbox was numbered anew. */
  restart(): void {
    if (this.active) this.begin()
  }

  /** The mutation that the server cannot read and that nothing can pass; null when there is none. */
  get blockedBy(): string | null {
    return this.halted
  }

  /** Sends what is to be sent, if it may be. */
  pump(): void {
    const { outbox } = this
    const isHeld = this.renumberTo !== null || outbox.meta.unknown !== null
    const blocked = isHeld || this.inFlight || this.halted !== null || this.cancelPause !== null
    if (!this.active || blocked) return
    const batch = this.next(outbox.entries)
    const last = batch[batch.length - 1]
    if (last === undefined) return
    this.inFlight = true
    const { session } = this
    const message = { confirmed: outbox.confirmed, mutations: batch.map(toRequest) }
    this.ports.push('mutate', message, (reply) => {
      if (session !== this.session) return
      this.inFlight = false
      if (reply.status === 'ok') this.taken(last.seq)
      else if (reply.status === 'timeout') this.pause()
      else this.failed(readError(reply.response), batch.map(({ id }) => id))
    })
  }

  /** What goes into the next message: so many, and not more than it may hold. */
  private next(entries: readonly StoredMutation[]): StoredMutation[] {
    const batch: StoredMutation[] = []
    let bytes = 0
    for (const entry of entries) {
      if (entry.seq <= this.sentSeq) continue
      bytes += bytesOf(toRequest(entry)) + 1
      if (batch.length > 0 && (batch.length === this.perMessage || bytes > BATCH_BYTES)) break
      batch.push(entry)
    }
    return batch
  }

  private taken(seq: number): void {
    this.sentSeq = seq
    this.gaps = 0
    this.pump()
  }

  private failed(error: ProtocolErrorBody, sent: readonly string[]): void {
    const { code, client, last } = error
    if (code === 'renumber' && client !== undefined) {
      this.renumberTo = { client, last: last ?? '0' }
      this.ports.rejoin()
    } else if (code === 'gap' && last !== undefined && this.gaps === 0) {
      this.closeGap(last)
    } else if (code === 'unknown_client' && client !== undefined) {
      this.change(() => this.outbox.holdUnknown(client))
      this.ports.report(error)
    } else if (code === 'malformed') {
      this.malformed(error, sent)
    } else {
      // busy, and what this version does not know: nothing is lost by asking again
      if (code !== 'busy') this.ports.report(error)
      this.pause()
    }
  }

  /** A second gap without anything taken in between would be a circle; `failed` pauses then. */
  private closeGap(last: string): void {
    const after = () => {
      const next = this.outbox.entries.find(({ n }) => BigInt(n) > BigInt(last))
      this.sentSeq = next === undefined ? (this.outbox.entries.at(-1)?.seq ?? 0) : next.seq - 1
      this.gaps = 1
    }
    this.change(() => this.outbox.closeGap(last), after)
  }

  /** One at a time tells which it is; that one stays first in line, since its number must not be skipped. */
  private malformed(error: ProtocolErrorBody, sent: readonly string[]): void {
    const [id] = sent
    if (sent.length > 1 || id === undefined) {
      this.perMessage = 1
      this.pump()
      return
    }
    this.halted = id
    this.ports.report({ ...error, mutationId: id })
  }

  private change(propose: () => OutboxWrite | null, after?: () => void): void {
    const { session } = this
    this.inFlight = true
    this.ports.store(propose, () => {
      if (session !== this.session) return
      this.inFlight = false
      this.sentSeq = 0
      after?.()
      this.pump()
    })
  }

  private pause(): void {
    this.cancelPause = this.timers.after(BUSY_PAUSE_MS, () => {
      this.cancelPause = null
      this.gaps = 0
      this.pump()
    })
  }
}
