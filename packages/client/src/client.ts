/**
 * The client: what an application calls, and the one queue in which everything happens that touches the store: opening,
 * drafts becoming durable, commits, cursors. Memory changes right after its write, in one step.
 */
import { type Batch, carryOut, planBatch, planCursor, type Plan, shapeWrites } from './apply'
import { Keeper } from './keeper'
import type { LiveQuery, QueryDefinition } from './live_query'
import { type Mutation, type MutationOptions, newMutation, type OpInput } from './mutation'
import { onNetworkChange } from './network'
import { NodeLink } from './node_link'
import type { OutboxWrite } from './outbox'
import type { Joined, ShapeDefinition } from './protocol'
import { type CommitNotice, Screen } from './screen'
import type { Session } from './session'
import type { ClientStatus } from './status'
import type { Store, StoreContents } from './store'
import { keysOf, type Subscription } from './subscriptions'
import { platformTimers, type Timers } from './timers'
import { phoenixTransport, type TransportFactory } from './transport'
import type { Row } from './values'

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
  private readonly screen: Screen = new Screen(() => this.link.status)
  readonly status = this.screen.status
  private readonly subject: string
  private readonly keeper: Keeper
  private readonly link: NodeLink
  private queue: Promise<void> = Promise.resolve()
  private readonly stopListening: () => void

  constructor(options: ClientOptions, seams: ClientSeams = {}) {
    this.subject = options.subject ?? ''
    this.keeper = new Keeper(options.store, (message) => this.status.setError('store', { code: 'store_failed', message }))
    const transport = seams.transport ?? phoenixTransport(options.url, options.socketOptions)
    this.link = new NodeLink(this.subject, () => this.screen, seams.timers ?? platformTimers, this.linkPorts(), transport)
    this.run(async () => this.replaceContents(await this.keeper.open(options.url, this.subject)))
    this.link.dispatch('go_online')
    this.stopListening = onNetworkChange(() => this.link.dispatch('network_changed'))
  }

  subscribe(definition: ShapeDefinition): Subscription {
    const { subscriptions, base } = this.screen
    const { entry, isNew } = subscriptions.add(definition)
    if (isNew) {
      subscriptions.follow(base)
      this.screen.refresh(keysOf(base, [entry.id]))
      this.link.flushSoon()
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
        if (entry.count === 0) this.link.flushSoon()
      },
    }
  }

  mutate(ops: readonly OpInput[], options: MutationOptions = {}): Mutation {
    const draft = newMutation(ops, options)
    const { saved, outcome } = this.screen.waits.add(draft.id)
    this.screen.outbox.add(draft)
    this.screen.refresh(new Map())
    this.run(() => this.saveDrafts())
    return { id: draft.id, saved, outcome }
  }

  query<T extends object = Row>(definition: QueryDefinition<T>): LiveQuery<T> {
    return this.screen.query(definition)
  }

  onCommit(callback: (commit: CommitNotice) => void): () => void {
    return this.screen.commits.add(callback)
  }

  dismiss(mutationId: string): void {
    const { outbox, status, waits } = this.screen
    this.run(async () => {
      await this.changeOutbox(() => outbox.dismiss(mutationId))
      // nothing passes a mutation that the node cannot read; without it the queue goes on
      if (this.link.sender.blockedBy !== mutationId) return
      await this.changeOutbox(() => outbox.giveUp(mutationId))
      waits.decide(mutationId, { outcome: 'refused', code: 'malformed' })
      status.setError('outbox', null)
      this.link.sender.restart()
    })
  }

  resolveUnknown(send: boolean): void {
    const decided = () => {
      this.status.setError('outbox', null)
      this.link.dispatch('restart')
    }
    this.run(() => this.changeOutbox(() => this.screen.outbox.resolveUnknown(send), decided))
  }

  setOnline(online: boolean): void {
    this.link.dispatch(online ? 'go_online' : 'go_offline')
  }

  async close(): Promise<void> {
    this.stopListening()
    this.link.dispatch('close')
    this.run(() => this.keeper.close())
    await this.queue
  }

  private linkPorts() {
    return {
      run: (job: () => Promise<void>) => this.run(job),
      takeJoined: (session: Session, joined: Joined) => this.takeJoined(session, joined),
      applyBatch: (session: Session, batch: Batch) => this.applyBatch(session, batch),
      moveCursor: (session: Session, cursor: string) => this.moveCursor(session, cursor),
      changeOutbox: (propose: () => OutboxWrite | null, then: () => void) => this.changeOutbox(propose, then),
    }
  }

  /** Puts a job that touches the store at the end of the queue. */
  private run(job: () => Promise<void>): void {
    // nothing in the queue is expected to throw; a defect must not stop what comes after it
    this.queue = this.queue.then(job).catch((error: unknown) => this.link.distrust(this.link.session, error))
  }

  private async takeJoined(session: Session, { database, client }: Joined): Promise<void> {
    // what was written so far was meant for the database that was shown
    await this.saveDrafts()
    const adopted = await this.keeper.adopt(database)
    if (adopted !== null) {
      const { contents, moved } = adopted
      this.replaceContents(contents)
      const isFresh = contents.meta.client === null && contents.meta.cursor === null
      // the join told what another store holds
      if (!moved || !isFresh) return this.link.discard(session)
    }
    await this.changeOutbox(() => this.screen.outbox.takeClient(client))
    if (this.link.session === session) this.link.sender.begin()
  }

  private async applyBatch(session: Session, batch: Batch): Promise<void> {
    let plan: Plan
    try {
      plan = planBatch(this.screen.base, session.shapes, batch)
    } catch (error) {
      return this.link.distrust(session, error)
    }
    await this.store(plan, session, batch)
  }

  private async moveCursor(session: Session, cursor: string): Promise<void> {
    const { base } = this.screen
    if (cursor !== base.cursor) await this.store(planCursor(base, session.shapes, cursor), session)
  }

  /** One transaction, then one step in memory, then one notification. */
  private async store(plan: Plan, session: Session, batch?: Batch): Promise<void> {
    const { screen } = this
    const decided = screen.outbox.decide(plan.acks)
    const failure = await this.keeper.write({
      // once the server was told that an outcome is stored it forgets it: that must survive a power failure
      durability: decided.gone.length > 0 ? 'strict' : 'relaxed',
      meta: { ...decided.meta, cursor: plan.cursor },
      shapes: shapeWrites(plan),
      outboxRemove: decided.gone.map(({ seq }) => seq),
      refusedPut: decided.refused,
    })
    const touched = carryOut(screen.base, plan)
    screen.outbox.carryOut(decided, plan.cursor, failure === null)
    const notice = batch && {
      lsn: batch.commit.lsn,
      xid: batch.commit.xid,
      rows: [...plan.changes.values()].reduce((sum, change) => sum + change.rows.size, 0),
      tables: [...touched.keys()],
    }
    const isFirst = notice !== undefined && !session.isEstablished
    if (isFirst) session.isEstablished = true
    screen.refresh(touched, () => {
      for (const { n: _, id, ...outcome } of decided.decisions) screen.waits.decide(id, outcome)
      if (notice) screen.commits.call(notice)
    })
    this.link.applied(session, batch !== undefined, isFirst)
  }

  private async saveDrafts(): Promise<void> {
    const { outbox, waits } = this.screen
    const numbered = outbox.numberDrafts()
    if (numbered.length === 0) return
    const failure = await this.keeper.write({ durability: 'strict', outboxPut: numbered })
    outbox.settle(numbered)
    for (const { id } of numbered) waits.save(id, failure)
    this.link.sender.pump()
  }

  private async changeOutbox(propose: () => OutboxWrite | null, then?: () => void): Promise<void> {
    const { screen } = this
    const write = propose()
    if (write !== null) {
      const failure = await this.keeper.write({ durability: 'strict', ...write })
      screen.outbox.carryOutWrite(write, failure === null)
      screen.refresh(new Map(), () => {
        for (const { id, code, message } of write.refusedPut ?? []) screen.waits.decide(id, { outcome: 'refused', code, message })
      })
    }
    then?.()
  }

  private replaceContents(contents: StoreContents): void {
    this.screen.replace(contents)
    this.link.sender.forget()
  }
}
