/**
 * The connection to the node and the session on it: carries out what the connection table says, joins, reads frames into
 * batches, tells the node what is wanted. What is to be stored it hands over.
 */
import { keysOf, provisionalShapes } from './apply'
import { Channel, type ChannelEvents, type Reply } from './channel'
import { type ConnectionEffect, type ConnectionEvent, type ConnectionState, connectionStep, pauseAfter } from './connection'
import { Freshness } from './freshness'
import type { OutboxWrite } from './outbox'
import { type DataFrame, FrameError, readAnswers, readError, readFrame, readJoined, type ShapeAnswer } from './protocol'
import type { Parts } from './parts'
import { Sender, type SenderPorts, type SenderReport } from './sender'
import { joinRequest, Session } from './session'
import { LINK_UNKNOWN, type LinkStatus } from './status'
import type { Message, Transport, TransportEvents, TransportFactory } from './transport'

/** One client's link. */
export class NodeLink implements TransportEvents, ChannelEvents, SenderPorts {
  readonly sender: Sender
  session: Session | null = null
  private readonly transport: Transport
  private readonly channel: Channel
  private readonly freshness: Freshness
  private state: ConnectionState = 'offline'
  private events: ConnectionEvent[] = []
  private preparation = 0
  private failures = 0
  /** when the node wants the next join, in milliseconds from its answer */
  private retryIn: number | null = null
  private cancelPause: (() => void) | null = null
  private flushWaits = false

  constructor(
    private readonly parts: Parts,
    private readonly subject: string,
    transport: TransportFactory,
  ) {
    const { timers, screen } = parts
    this.freshness = new Freshness(timers, () => this.channel.askAge(), () => screen.showStatus())
    this.transport = transport(this)
    this.channel = new Channel(this.transport, timers, this)
    this.sender = new Sender(screen.outbox, timers, this)
  }

  opened(): void {
    this.dispatch('opened')
  }

  closed(comeBack: boolean): void {
    this.dispatch(comeBack ? 'lost' : 'sent_away')
  }

  message(message: Message): void {
    this.channel.receive(message)
  }

  ended(isNamed: boolean): void {
    // while joining, an end that names no join is that of the session before
    if (isNamed || this.state === 'joined') this.dispatch('session_ended')
  }

  heartbeat(ref: string | null, cursor: string | null, age: number | null): void {
    const { session } = this
    if (this.freshness.answered(ref, age) || cursor === null) return
    if (session === null || this.state !== 'joined' || session.collector.isOpen) return
    // the queue holds every commit that came before
    this.inSession(session, () => this.parts.writer.moveCursor(session, cursor))
  }

  push(event: 'mutate', payload: unknown, done: (reply: Reply) => void): void {
    const { session } = this
    this.parts.ifLeader(() => this.session === session && this.channel.push(event, payload, done))
  }

  rejoin(): void {
    this.dispatch('restart')
  }

  store(propose: () => OutboxWrite | null, then: () => void): void {
    this.parts.run(() => this.parts.writer.changeOutbox(propose, then))
  }

  report({ code, message, mutationId }: SenderReport): void {
    this.parts.screen.status.setError('outbox', { code, message, ...(mutationId ? { mutationId } : {}) })
  }

  /** This page leads no longer: whatever waits to be applied is dropped. */
  stop(): void {
    if (this.session !== null) this.session.discarded = true
    this.dispatch('go_offline')
  }

  /** For the status. */
  get status(): LinkStatus {
    const { state, session, freshness } = this
    const { loadedRows, aboutRows } = session?.collector.progress ?? LINK_UNKNOWN
    return { state, isEstablished: session?.isEstablished ?? false, loadedRows, aboutRows, behindSeconds: freshness.seconds }
  }

  /** Feeds the state machine; events that effects cause are taken after the effects are done. */
  dispatch(event: ConnectionEvent): void {
    this.events.push(event)
    if (this.events.length > 1) return
    for (let next = this.events[0]; next !== undefined; next = this.events[0]) {
      const step = connectionStep(this.state, next)
      this.state = step.to
      for (const effect of step.effects) this.carryOutEffect(effect)
      this.events.shift()
    }
    this.parts.screen.showStatus()
  }

  /** Nothing of this session may be applied any more: start over from what is stored. */
  discard(session: Session | null): void {
    if (session === null) return
    session.discarded = true
    if (this.session === session) this.dispatch('restart')
  }

  /** Frames cannot be applied as the protocol says, or a defect: start over from the stored cursor, after a pause. */
  distrust(session: Session | null, error: unknown): void {
    if (session !== null) session.discarded = true
    const message = error instanceof Error ? error.message : String(error)
    this.parts.screen.status.setError('session', { code: error instanceof FrameError ? 'bad_frame' : 'defect', message })
    if (session === null || this.session === session) this.dispatch('session_ended')
  }

  /** A batch, or a cursor alone, was stored and shown. `isFirst`: the session's first batch. */
  applied(session: Session, isBatch: boolean, isFirst: boolean): void {
    if (isBatch) this.failures = 0
    if (this.session !== session) return
    if (isFirst) this.sender.established()
    this.sender.pump()
  }

  /** Subscriptions made and given up in one turn cancel out and travel in one message. */
  flushSoon(): void {
    if (this.flushWaits) return
    this.flushWaits = true
    this.parts.timers.after(0, () => {
      this.flushWaits = false
      this.sweep()
      this.parts.role.wantsChanged()
      this.tellInterests()
    })
  }

  private carryOutEffect(effect: ConnectionEffect): void {
    switch (effect) {
      case 'connect':
        return this.transport.connect()
      case 'disconnect':
        return this.transport.disconnect()
      case 'prepare':
        return this.prepare()
      case 'send_join':
        return this.sendJoin()
      case 'begin_session':
        this.freshness.begin()
        return this.flushSoon()
      case 'end_session':
        return this.endSession()
      case 'start_pause':
        this.cancelPause = this.parts.timers.after(this.joinPause(), () => this.dispatch('retry_due'))
        this.retryIn = null
        return
      case 'cancel_pause':
        this.cancelPause?.()
        // what the node said of when holds no longer
        if (this.parts.screen.status.getSnapshot().error?.retryIn !== undefined) this.parts.screen.status.setError('session', null)
    }
  }

  /** Counted until a batch arrives: a connection that opens and brings nothing is a failure too. */
  pause(): number {
    return pauseAfter((this.failures += 1), this.parts.timers.chance())
  }

  /** What the node says counts, but a node that is at fault is not asked again at the speed of its answers. */
  private joinPause(): number {
    return this.retryIn === null ? this.pause() : Math.max(this.retryIn, pauseAfter(1, this.parts.timers.chance()))
  }

  /** Everything received earlier is stored first; then one turn for components that subscribe while they mount. */
  private prepare(): void {
    const preparation = (this.preparation += 1)
    this.parts.run(async () => {
      this.parts.timers.after(0, () => {
        if (preparation === this.preparation) this.parts.ifLeader(() => preparation === this.preparation && this.dispatch('prepared'))
      })
    })
  }

  private sendJoin(): void {
    this.sweep()
    const session = new Session()
    this.session = session
    const { base, outbox, subscriptions } = this.parts.screen
    const request = joinRequest(session, this.subject, base, outbox, subscriptions.all())
    this.channel.join(request, (reply) => {
      if (this.session === session) this.joinAnswered(session, reply)
    })
  }

  private joinAnswered(session: Session, reply: Reply): void {
    if (reply.status === 'timeout') return this.dispatch('join_failed')
    const { status } = this.parts.screen
    if (reply.status === 'error') {
      const error = readError(reply.response)
      status.setError('session', { code: error.code, message: error.message, ...(error.retry_in === undefined ? {} : { retryIn: error.retry_in }) })
      this.retryIn = error.retry_in ?? null
      const never = ['protocol_unsupported', 'capability_unsupported', 'malformed'].includes(error.code)
      return this.dispatch(never ? 'join_refused' : 'join_failed')
    }
    try {
      const joined = readJoined(reply.response)
      // nothing of this store may be sent for somebody else
      if (joined.subject !== this.subject) {
        const message = `the node takes this client for ${JSON.stringify(joined.subject)}, its data is of ${JSON.stringify(this.subject)}: sign in anew`
        status.setError('session', { code: 'other_subject', message })
        return this.dispatch('join_refused')
      }
      status.setError('session', null)
      this.dispatch('join_ok')
      this.inSession(session, () => this.parts.takeJoined(session, joined))
      this.takeAnswers(session, joined.shapes)
    } catch (error) {
      this.distrust(session, error)
    }
  }

  private takeAnswers(session: Session, answers: readonly ShapeAnswer[]): void {
    const { subscriptions } = this.parts.screen
    for (const { ref, error } of answers) {
      if (error === null) continue
      const id = session.shapes.refs.get(ref)
      if (id !== undefined) session.shapes.covered.delete(id)
      if (subscriptions.refuse(ref, error)) subscriptions.byRef(ref)?.listeners.call()
    }
    this.parts.screen.showStatus()
  }

  /** A job that is for this session: of one that must not be applied any more nothing is. */
  private inSession(session: Session, job: () => Promise<void>): void {
    this.parts.run(async () => {
      if (!session.discarded) await job()
    })
  }

  private endSession(): void {
    this.channel.leave()
    this.sender.end()
    this.freshness.end()
    this.session = null
    this.parts.screen.showProvisional()
  }

  frame(event: string, payload: unknown): void {
    const { session } = this
    // before the answer to a join, whatever arrives is of an older session on the same connection
    if (session === null || session.discarded || this.state !== 'joined') return
    try {
      const frame = readFrame(event, payload)
      if (frame === null) return this.parts.screen.status.countUnknownFrame()
      const batch = session.collector.take(frame)
      if (batch !== null) {
        session.provisional = []
        return this.inSession(session, () => this.parts.writer.applyBatch(session, batch))
      }
      this.takeProvisional(session, frame)
      this.parts.screen.showStatus()
    } catch (error) {
      this.distrust(session, error)
    }
  }

  /** In the queue as batches are: what was set aside is shown until the next commit, or until it is forgotten. */
  private takeProvisional(session: Session, frame: DataFrame): void {
    if (frame.event === 'provisional') {
      session.provisional = session.collector.provisional(frame.loads)
      this.inSession(session, async () => this.showProvisional(session))
    } else if (frame.event === 'unload') {
      const kept = session.provisional.filter((one) => one.event !== 'rows' || !frame.loads.includes(one.load as string))
      const isLess = kept.length < session.provisional.length
      session.provisional = kept
      // what is not shown yet is about to be, without what was forgotten
      if (isLess && this.parts.screen.base.provisional) this.showProvisional(session)
    }
  }

  private showProvisional(session: Session): void {
    // once the commit has come, what is shown stays until it is applied
    if (this.session !== session || session.provisional.length === 0) return
    const { screen } = this.parts
    const shapes = provisionalShapes(screen.base, session.shapes, session.provisional)
    screen.showProvisional(shapes.size > 0 ? shapes : undefined)
  }

  private sweep(): void {
    const screen = this.parts.screen
    const { hidden, gone } = screen.subscriptions.sweep()
    for (const entry of gone) this.session?.giveUp(entry)
    if (hidden.length > 0) screen.refresh(keysOf(screen.base, hidden.map(({ id }) => id)))
  }

  private tellInterests(): void {
    const { session } = this
    if (session === null || this.state !== 'joined') return
    if (session.givenUp.length > 0) this.channel.push('unsubscribe', { refs: session.givenUp }, () => undefined)
    session.givenUp = []
    const fresh = this.parts.screen.subscriptions.all().filter(({ ref }) => !session.shapes.refs.has(ref))
    if (fresh.length === 0) return
    // without a cursor of its own a subscribe cannot resume; rows held from before show until the next commit
    const shapes = fresh.map((entry) => session.ask(entry, null))
    this.channel.push('subscribe', { shapes }, (reply) => {
      if (this.session !== session) return
      try {
        if (reply.status !== 'ok') throw new FrameError(`subscribe: ${readError(reply.status === 'error' ? reply.response : null).message}`)
        this.takeAnswers(session, readAnswers(reply.response))
      } catch (error) {
        this.distrust(session, error)
      }
    })
  }
}
