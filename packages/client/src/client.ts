/**
 * The client: carries out what the pure parts decide. Everything that touches the store runs in one queue, in order:
 * opening, drafts becoming durable, commits, cursors. Memory changes right after its write, in one step.
 */
import { type Batch, type Base, carryOut, planBatch, planCursor, type Plan, shapeWrites, type TouchedKeys } from './apply'
import { Channel, type Reply } from './channel'
import { CONNECTION_TABLE, type ConnectionEffect, type ConnectionEvent, type ConnectionState, pauseBeforeJoin } from './connection'
import { Keeper } from './keeper'
import { Listeners } from './listeners'
import { type LiveQuery, LiveQueryState, type QueryDefinition } from './live_query'
import { type Mutation, type MutationOptions, MutationWaits, newMutation, type OpInput } from './mutation'
import { onNetworkChange } from './network'
import { Outbox, type OutboxWrite } from './outbox'
import { FrameError, readAnswers, readError, readFrame, readJoined, type ShapeAnswer, type ShapeDefinition } from './protocol'
import { Sender } from './sender'
import { joinRequest, Session } from './session'
import { type ClientStatus, StatusBoard } from './status'
import type { Store, StoreContents } from './store'
import { keysOf, type Subscription, Subscriptions } from './subscriptions'
import { platformTimers, type Timers } from './timers'
import { phoenixTransport, type TransportFactory } from './transport'
import type { Row } from './values'
import { View } from './view'

/** How a client is made. */
export interface ClientOptions {
  /** The node's socket without `/websocket`, `ws:` or `wss:`. */
  readonly url: string
  /** Where rows and unsent changes are kept. */
  readonly store: Store
  /** Whose data this is; empty until there are tokens. */
  readonly subject?: string
  /** Passed to phoenix's Socket. */
  readonly socketOptions?: Record<string, unknown>
}

/** The seams that tests replace. */
export interface ClientSeams {
  readonly transport?: TransportFactory
  readonly timers?: Timers
}

/** What one commit was: position, transaction (null when it stands for several), rows changed and their tables. */
export interface CommitNotice {
  readonly lsn: string
  readonly xid: string | null
  readonly rows: number
  readonly tables: string[]
}

/** A client. Everything it shows is the database as of one commit, with the changes of this client on top. */
export interface Client {
  /** Asks for a shape; may be called at any time. */
  subscribe(definition: ShapeDefinition): Subscription
  /** Writes: shown at once, durable when `saved` resolves, decided when `outcome` does. Throws a TypeError for what is no operation. */
  mutate(ops: readonly OpInput[], options?: MutationOptions): Mutation
  /** A live list over one table. */
  query<T extends object = Row>(definition: QueryDefinition<T>): LiveQuery<T>
  readonly status: { getSnapshot(): ClientStatus; subscribe(callback: () => void): () => void }
  /** Calls back once per commit, after every query shows it. */
  onCommit(callback: (commit: CommitNotice) => void): () => void
  /** Takes a refused mutation out of the list, or the `malformed` one that blocks the outbox out of the outbox. */
  dismiss(mutationId: string): void
  /**
   * Answers the error `unknown_client` (whether earlier mutations were carried out is unknown): true sends all of the
   * outbox again under a new client id, false gives it up into the list of refused mutations.
   */
  resolveUnknown(send: boolean): void
  /** Connects or disconnects; a client starts online. */
  setOnline(online: boolean): void
  /** Ends the connection and closes the store once everything received and written is in it. */
  close(): Promise<void>
}

/** Makes a client and connects it. */
export function createClient(options: ClientOptions): Client {
  return new LockstepClient(options)
}

/** The one implementation of Client. */
export class LockstepClient implements Client {
  readonly status = new StatusBoard()
  private readonly subject: string
  private readonly timers: Timers
  private readonly keeper: Keeper
  private readonly transport
  private readonly channel: Channel
  private readonly sender: Sender
  private readonly outbox = new Outbox()
  private readonly waits = new MutationWaits()
  private readonly subscriptions = new Subscriptions()
  private readonly view = new View()
  private readonly queries = new Set<LiveQueryState>()
  private readonly commits = new Listeners<CommitNotice>()
  private base: Base = { cursor: null, shapes: new Map() }
  private queue: Promise<void> = Promise.resolve()
  private state: ConnectionState = 'offline'
  private events: ConnectionEvent[] = []
  private session: Session | null = null
  private preparation = 0
  private failures = 0
  private cancelPause: (() => void) | null = null
  private flushWaits = false
  private readonly stopListening: () => void

  constructor(options: ClientOptions, seams: ClientSeams = {}) {
    this.subject = options.subject ?? ''
    this.timers = seams.timers ?? platformTimers
    this.keeper = new Keeper(options.store, (message) => this.status.setError('store', { code: 'store_failed', message }))
    const factory = seams.transport ?? phoenixTransport(options.url, options.socketOptions)
    this.transport = factory({
      opened: () => this.dispatch('opened'),
      closed: (comeBack) => this.dispatch(comeBack ? 'lost' : 'sent_away'),
      message: (message) => this.channel.receive(message),
    })
    this.channel = new Channel(this.transport, this.timers, {
      frame: (event, payload) => this.receive(event, payload),
      // while joining, an end that names no join is that of the session before
      ended: (isNamed) => (isNamed || this.state === 'joined') && this.dispatch('session_ended'),
      heartbeat: (cursor) => this.heartbeat(cursor),
    })
    this.sender = new Sender(this.outbox, this.timers, {
      push: (event, payload, done) => this.channel.push(event, payload, done),
      rejoin: () => this.dispatch('restart'),
      store: (propose, then) => this.run(() => this.changeOutbox(propose, then)),
      report: ({ code, message, mutationId }) => this.status.setError('outbox', { code, message, ...(mutationId ? { mutationId } : {}) }),
    })
    this.run(async () => this.replaceContents(await this.keeper.open(options.url, this.subject)))
    this.dispatch('go_online')
    this.stopListening = onNetworkChange(() => this.dispatch('network_changed'))
  }

  subscribe(definition: ShapeDefinition): Subscription {
    const { entry, isNew } = this.subscriptions.add(definition)
    if (isNew) {
      this.subscriptions.follow(this.base)
      this.refresh(keysOf(this.base, [entry.id]))
      this.flushSoon()
    }
    let wanted = true
    return {
      ref: entry.ref,
      ready: entry.ready,
      getSnapshot: () => entry.snapshot,
      subscribe: (callback) => entry.listeners.add(callback),
      unsubscribe: () => {
        if (!wanted) return
        wanted = false
        entry.count -= 1
        if (entry.count === 0) this.flushSoon()
      },
    }
  }

  mutate(ops: readonly OpInput[], options: MutationOptions = {}): Mutation {
    const draft = newMutation(ops, options)
    const { saved, outcome } = this.waits.add(draft.id)
    this.outbox.add(draft)
    this.refresh(new Map())
    this.run(() => this.saveDrafts())
    return { id: draft.id, saved, outcome }
  }

  query<T extends object = Row>(definition: QueryDefinition<T>): LiveQuery<T> {
    const query = new LiveQueryState(definition as unknown as QueryDefinition<Row>, this.view, (attached) => {
      this.queries.add(attached)
      return () => this.queries.delete(attached)
    })
    return query as unknown as LiveQuery<T>
  }

  onCommit(callback: (commit: CommitNotice) => void): () => void {
    return this.commits.add(callback)
  }

  dismiss(mutationId: string): void {
    this.run(async () => {
      await this.changeOutbox(() => this.outbox.dismiss(mutationId))
      // nothing passes a mutation that the node cannot read; without it the queue goes on
      if (this.sender.blockedBy !== mutationId) return
      await this.changeOutbox(() => this.outbox.giveUp(mutationId))
      this.waits.decide(mutationId, { outcome: 'refused', code: 'malformed' })
      this.status.setError('outbox', null)
      this.sender.restart()
    })
  }

  resolveUnknown(send: boolean): void {
    this.run(() =>
      this.changeOutbox(
        () => this.outbox.resolveUnknown(send),
        () => {
          this.status.setError('outbox', null)
          this.dispatch('restart')
        },
      ),
    )
  }

  setOnline(online: boolean): void {
    this.dispatch(online ? 'go_online' : 'go_offline')
  }

  async close(): Promise<void> {
    this.stopListening()
    this.dispatch('close')
    this.run(() => this.keeper.close())
    await this.queue
  }

  /** Puts a job that touches the store at the end of the queue. */
  private run(job: () => Promise<void>): void {
    this.queue = this.queue.then(job).catch((error: unknown) => {
      // nothing in the queue is expected to throw; a defect must not stop what comes after it
      const message = error instanceof Error ? error.message : String(error)
      this.status.setError('session', { code: 'defect', message })
      if (this.session) this.session.discarded = true
      this.dispatch('session_ended')
    })
  }

  /** Feeds the state machine; events that effects cause are taken after the effects are done. */
  private dispatch(event: ConnectionEvent): void {
    this.events.push(event)
    if (this.events.length > 1) return
    for (let next = this.events[0]; next !== undefined; next = this.events[0]) {
      const step = CONNECTION_TABLE[this.state][next]
      this.state = step.to
      for (const effect of step.effects) this.carryOutEffect(effect)
      this.events.shift()
    }
    this.showStatus()
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
        return this.flushSoon()
      case 'end_session':
        return this.endSession()
      case 'start_pause':
        this.failures += 1
        this.cancelPause = this.timers.after(pauseBeforeJoin(this.failures), () => this.dispatch('retry_due'))
        return
      case 'cancel_pause':
        this.cancelPause?.()
    }
  }

  /** Everything received earlier is stored first; then one turn for components that subscribe while they mount. */
  private prepare(): void {
    const preparation = (this.preparation += 1)
    this.run(async () => {
      this.timers.after(0, () => {
        if (preparation === this.preparation) this.dispatch('prepared')
      })
    })
  }

  private sendJoin(): void {
    this.sweep()
    const session = new Session()
    this.session = session
    const request = joinRequest(session, this.subject, this.base, this.outbox, this.subscriptions.all())
    this.channel.join(request, (reply) => {
      if (this.session === session) this.joinAnswered(session, reply)
    })
  }

  private joinAnswered(session: Session, reply: Reply): void {
    if (reply.status === 'timeout') return this.dispatch('join_failed')
    if (reply.status === 'error') {
      const error = readError(reply.response)
      this.status.setError('session', { code: error.code, message: error.message })
      const never = ['protocol_unsupported', 'capability_unsupported', 'malformed'].includes(error.code)
      return this.dispatch(never ? 'join_refused' : 'join_failed')
    }
    try {
      const joined = readJoined(reply.response)
      this.status.setError('session', null)
      this.dispatch('join_ok')
      this.run(() => this.takeJoined(session, joined.database, joined.client))
      this.takeAnswers(session, joined.shapes)
    } catch (error) {
      this.distrust(session, error)
    }
  }

  private async takeJoined(session: Session, database: string, client: string): Promise<void> {
    if (session.discarded) return
    // what was written so far was meant for the database that was shown
    await this.saveDrafts()
    const adopted = await this.keeper.adopt(database)
    if (adopted !== null) {
      const { contents, moved } = adopted
      this.replaceContents(contents)
      const isFresh = contents.meta.client === null && contents.meta.cursor === null
      if (!moved || !isFresh) {
        // the join told what another store holds
        session.discarded = true
        if (this.session === session) this.dispatch('restart')
        return
      }
    }
    await this.changeOutbox(() => this.outbox.takeClient(client))
    if (this.session === session) this.sender.begin()
  }

  private takeAnswers(session: Session, answers: readonly ShapeAnswer[]): void {
    for (const { ref, error } of answers) {
      if (error === null) continue
      const id = session.shapes.refs.get(ref)
      if (id !== undefined) session.shapes.covered.delete(id)
      if (this.subscriptions.refuse(ref, error)) this.subscriptions.byRef(ref)?.listeners.call()
    }
    this.showStatus()
  }

  private endSession(): void {
    this.channel.leave()
    this.sender.end()
    this.session = null
  }

  /** Frames cannot be applied as the protocol says: start over from the stored cursor. */
  private distrust(session: Session, error: unknown): void {
    session.discarded = true
    const message = error instanceof Error ? error.message : String(error)
    this.status.setError('session', { code: error instanceof FrameError ? 'bad_frame' : 'defect', message })
    if (this.session === session) this.dispatch('session_ended')
  }

  private receive(event: string, payload: unknown): void {
    const { session } = this
    // before the answer to a join, whatever arrives is of an older session on the same connection
    if (session === null || session.discarded || this.state !== 'joined') return
    try {
      const frame = readFrame(event, payload)
      if (frame === null) return this.status.countUnknownFrame()
      const batch = session.collector.take(frame)
      if (batch !== null) this.run(() => this.applyBatch(session, batch))
    } catch (error) {
      this.distrust(session, error)
    }
  }

  private heartbeat(cursor: string): void {
    const { session } = this
    if (session === null || this.state !== 'joined' || session.collector.isOpen) return
    // the queue holds every commit that came before
    this.run(async () => {
      if (session.discarded || cursor === this.base.cursor) return
      await this.store(planCursor(this.base, session.shapes, cursor), session)
    })
  }

  private async applyBatch(session: Session, batch: Batch): Promise<void> {
    if (session.discarded) return
    let plan: Plan
    try {
      plan = planBatch(this.base, session.shapes, batch)
    } catch (error) {
      return this.distrust(session, error)
    }
    this.failures = 0
    await this.store(plan, session, batch)
  }

  /** One transaction, then one step in memory, then one notification. */
  private async store(plan: Plan, session: Session, batch?: Batch): Promise<void> {
    const decided = this.outbox.decide(plan.acks)
    const failure = await this.keeper.write({
      // once the server was told that an outcome is stored it forgets it: that must survive a power failure
      durability: decided.gone.length > 0 ? 'strict' : 'relaxed',
      meta: { ...decided.meta, cursor: plan.cursor },
      shapes: shapeWrites(plan),
      outboxRemove: decided.gone.map(({ seq }) => seq),
      refusedPut: decided.refused,
    })
    const touched = carryOut(this.base, plan)
    const isFirst = batch !== undefined && !session.isEstablished
    if (isFirst) session.isEstablished = true
    this.outbox.carryOut(decided, plan.cursor, failure === null)
    const notice = batch && {
      lsn: batch.commit.lsn,
      xid: batch.commit.xid,
      rows: [...plan.changes.values()].reduce((sum, change) => sum + change.rows.size, 0),
      tables: [...touched.keys()],
    }
    this.refresh(touched, () => {
      for (const { n: _, id, ...outcome } of decided.decisions) this.waits.decide(id, outcome)
      if (notice) this.commits.call(notice)
    })
    if (this.session !== session) return
    if (isFirst) this.sender.established()
    this.sender.pump()
  }

  private async saveDrafts(): Promise<void> {
    const numbered = this.outbox.numberDrafts()
    if (numbered.length === 0) return
    const failure = await this.keeper.write({ durability: 'strict', outboxPut: numbered })
    this.outbox.settle(numbered)
    for (const { id } of numbered) this.waits.save(id, failure)
    this.sender.pump()
  }

  private async changeOutbox(propose: () => OutboxWrite | null, then?: () => void): Promise<void> {
    const write = propose()
    if (write !== null) {
      const failure = await this.keeper.write({ durability: 'strict', ...write })
      this.outbox.carryOutWrite(write, failure === null)
      this.refresh(new Map(), () => {
        for (const { id, code, message } of write.refusedPut ?? []) this.waits.decide(id, { outcome: 'refused', code, message })
      })
    }
    then?.()
  }

  private replaceContents(contents: StoreContents): void {
    const active = () => this.subscriptions.all().map(({ id }) => id)
    const touched = keysOf(this.base, active())
    const shapes = contents.shapes.map((shape) => [shape.id, { ...shape, rows: contents.rows.get(shape.id) ?? new Map() }] as const)
    this.base = { cursor: contents.meta.cursor, shapes: new Map(shapes) }
    this.outbox.load(contents)
    this.sender.forget()
    for (const [table, keys] of keysOf(this.base, active())) {
      touched.set(table, new Set([...(touched.get(table) ?? []), ...keys]))
    }
    this.refresh(touched)
  }

  /** Brings view, queries, subscriptions and status up to date; only then calls anybody back. */
  private refresh(touched: TouchedKeys, callBack?: () => void): void {
    const changes = this.view.update(this.subscriptions.active(this.base), this.outbox.pending(), touched)
    const queries = [...this.queries].filter((query) => query.take(changes))
    const entries = this.subscriptions.follow(this.base)
    const statusChanged = this.updateStatus()
    for (const query of queries) query.notify()
    for (const entry of entries) entry.listeners.call()
    if (statusChanged) this.status.notify()
    callBack?.()
  }

  private updateStatus(): boolean {
    const { session } = this
    const isLoading = this.state === 'joined' && session !== null && this.subscriptions.isLoading(session.isEstablished)
    return this.status.update(this.state, isLoading, this.outbox.size, this.outbox.refused)
  }

  private showStatus(): void {
    if (this.updateStatus()) this.status.notify()
  }

  /** Subscriptions made and given up in one turn cancel out and travel in one message. */
  private flushSoon(): void {
    if (this.flushWaits) return
    this.flushWaits = true
    this.timers.after(0, () => {
      this.flushWaits = false
      this.sweep()
      this.tellInterests()
    })
  }

  private sweep(): void {
    const gone = this.subscriptions.sweep()
    if (gone.length === 0) return
    for (const entry of gone) this.session?.giveUp(entry)
    this.refresh(keysOf(this.base, gone.map(({ id }) => id)))
  }

  private tellInterests(): void {
    const { session } = this
    if (session === null || this.state !== 'joined') return
    if (session.givenUp.length > 0) this.channel.push('unsubscribe', { refs: session.givenUp }, () => undefined)
    session.givenUp = []
    const fresh = this.subscriptions.all().filter(({ ref }) => !session.shapes.refs.has(ref))
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
