/**
 * The client: what an application calls, and the one queue in which everything happens that touches the store: opening,
 * drafts becoming durable, commits, cursors. Memory changes right after its write, in one step.
 */
import { keysOf } from './apply'
import type { Conflict } from './conflicts'
import { Keeper } from './keeper'
import type { CountDefinition, LiveQuery, LiveValue, QueryDefinition, SumDefinition } from './live_query'
import { type Mutation, type MutationOptions, newMutation, type OpInput } from './mutation'
import { onNetworkChange } from './network'
import { NodeLink } from './node_link'
import { PageRole, UNSTORED } from './page_role'
import type { Parts } from './parts'
import type { Joined, ShapeDefinition } from './protocol'
import type { SchemaModule } from './schema'
import { type CommitNotice, Screen } from './screen'
import type { Session } from './session'
import { askedShape } from './shape_where'
import type { ClientStatus } from './status'
import { DeposedError, MovedError, type RefusedMutation, type Store, type StoreEvent } from './store'
import type { Subscription } from './subscriptions'
import type { Command } from './tab_messages'
import { browserTabs, type TabPlatform } from './tab_platform'
import { platformTimers, type Timers } from './timers'
import { phoenixTransport, type TransportFactory, type WebSocketClass } from './transport'
import type { SchemaTypes, TypedClient } from './typed'
import type { Row } from './values'
import { Writer } from './writer'

/** How a client is made. */
export interface ClientOptions {
  /** The node's socket without `/websocket`, `ws:` or `wss:`. */
  readonly url: string
  /** Where rows and unsent changes are kept. */
  readonly store: Store
  /** Whose data this is; empty until there are tokens. */
  readonly subject?: string
  /** The WebSocket class, where there is none (Node before 22), or to use another one. */
  readonly webSocket?: WebSocketClass
  /** Passed to phoenix's Socket. */
  readonly socketOptions?: Record<string, unknown>
  /** The module that `lockstep types` wrote: it types the client, and live queries follow its relationships. */
  readonly schema?: SchemaModule<any> | undefined
}

/** The seams that tests replace. */
export interface ClientSeams {
  readonly transport?: TransportFactory
  readonly timers?: Timers
  readonly tabs?: TabPlatform | null
}

/** A client. Everything it shows is the database as of one commit, with the changes of this client on top. */
export interface Client {
  /** Asks for a shape; may be called at any time. */
  subscribe(definition: ShapeDefinition): Subscription
  /**
   * Writes: shown at once, durable when `saved` resolves, decided when `outcome` does. Throws a TypeError for what is no
   * operation, a RangeError for what is too large to be sent.
   */
  mutate(ops: readonly OpInput[], options?: MutationOptions): Mutation
  /** A live list of a table's rows, with the rows that its relationships lead to. */
  query<T extends object = Row>(definition: QueryDefinition<T>): LiveQuery<T>
  /** How many rows there are. */
  count<T extends object = Row>(definition: CountDefinition<T>): LiveValue<number>
  /** The sum of a column; decimal text where its values are, null without values. */
  sum<T extends object = Row>(definition: SumDefinition<T>): LiveValue<number | string | null>
  /** Without a schema, tables and columns are any text. */
  readonly schema: undefined
  readonly status: { getSnapshot(): ClientStatus; subscribe(callback: () => void): () => void }
  /** Calls back once per commit, after every query shows it. */
  onCommit(callback: (commit: CommitNotice) => void): () => void
  /**
   * Calls back in the commit that refuses a mutation because a row that it had an `if` for has changed. `conflictOf`
   * tells the same of a refusal in the list, such as one that is found after a reload.
   */
  onConflict(callback: (conflict: Conflict) => void): () => void
  conflictOf(refused: RefusedMutation): Conflict | null
  /** Writes a refused mutation anew, with other operations if there are any, and takes it out of the list once that is durable. */
  resend(mutationId: string, ops?: readonly OpInput[]): Mutation
  /** Takes a refused mutation out of the list, or the `malformed` one that blocks the outbox out of the outbox. */
  dismiss(mutationId: string): void
  /**
   * Answers the error `unknown_client` (whether earlier mutations were carried out is unknown): true sends all of the
   * outbox again under a new client id, false gives it up into the list of refused mutations.
   */
  resolveUnknown(send: boolean): void
  /** Connects or disconnects, for all pages of the profile; a client starts online. */
  setOnline(online: boolean): void
  /**
   * Deletes everything of this subject from this browser, for all its pages. Changes that were not sent would be lost:
   * then `confirm` is asked, and without its yes nothing happens. The client is closed afterwards. Resolves to whether.
   */
  signOut(confirm?: (unsent: number) => boolean | Promise<boolean>): Promise<boolean>
  /** Ends the connection and closes the store once everything received and written is in it. */
  close(): Promise<void>
}

/** Makes a client and connects it. With a `schema`, whatever names a table or a column is checked by the compiler. */
export function createClient<S extends SchemaTypes>(options: ClientOptions & { readonly schema: SchemaModule<S> }): TypedClient<S>
export function createClient(options: ClientOptions & { readonly schema?: undefined }): Client
export function createClient(options: ClientOptions): Client | TypedClient<SchemaTypes> {
  return new LockstepClient(options)
}

/** So long, in milliseconds, a page that takes over waits for the others to say what they want. */
const HELLO_MS = 50
/** A page that was frozen for so long, in milliseconds, may have been deposed meanwhile. */
const FROZEN_MS = 1000
const ATTEMPTS = 5

/** The one implementation of Client. */
export class LockstepClient implements Client, Parts {
  readonly screen: Screen
  readonly status: Screen['status']
  /** What types a client is not there at run time. */
  readonly schema = undefined
  private readonly url: string
  private readonly subject: string
  readonly timers: Timers
  readonly keeper: Keeper
  readonly role: PageRole
  readonly link: NodeLink
  readonly writer: Writer
  private readonly platform: TabPlatform | null
  online = true
  private isClosed = false
  private queue: Promise<void> = Promise.resolve()
  private readonly stopListening: () => void

  constructor(options: ClientOptions, seams: ClientSeams = {}) {
    this.screen = new Screen(() => this.role.linkStatus, options.schema)
    this.status = this.screen.status
    this.url = options.url
    this.subject = options.subject ?? ''
    this.timers = seams.timers ?? platformTimers
    this.platform = seams.tabs === undefined ? browserTabs() : seams.tabs
    const report = (error: { code: string; message: string } | null) => this.status.setError('store', error)
    this.keeper = new Keeper(options.store, report, (event) => this.storeEvent(event))
    const transport = seams.transport ?? phoenixTransport(options.url, options.webSocket, options.socketOptions)
    this.role = new PageRole(this, this.platform)
    this.link = new NodeLink(this, this.subject, transport)
    this.writer = new Writer(this)
    this.run(() => this.open())
    // where no other page can lead, connecting need not wait for the store
    if (this.platform === null) this.link.dispatch('go_online')
    this.stopListening = onNetworkChange(() => this.link.dispatch('network_changed'))
  }

  subscribe(definition: ShapeDefinition): Subscription {
    const { subscriptions, base } = this.screen
    const keep = definition.keep ?? 'sync'
    const { entry, isNew } = subscriptions.add(askedShape(definition))
    if (isNew) {
      subscriptions.follow(base)
      this.screen.refresh(keysOf(base, [entry.id]))
    }
    if (isNew || entry.counts[keep] === 1) this.link.flushSoon()
    let wanted = true
    return {
      ref: entry.ref,
      ready: entry.ready,
      getSnapshot: () => entry.snapshot,
      subscribe: (callback) => entry.listeners.add(callback),
      unsubscribe: () => {
        if (!wanted) return
        wanted = false
        entry.counts[keep] -= 1
        if (entry.counts[keep] === 0) this.link.flushSoon()
      },
    }
  }

  mutate(ops: readonly OpInput[], options: MutationOptions = {}): Mutation {
    const draft = newMutation(ops, options, (table, key) => this.screen.seen(table, key))
    const { saved, outcome } = this.screen.waits.add(draft.id)
    this.screen.outbox.add(draft)
    this.screen.refresh(new Map())
    this.run(() => this.writer.saveDrafts())
    return { id: draft.id, saved, outcome }
  }

  query<T extends object = Row>(definition: QueryDefinition<T>): LiveQuery<T> {
    return this.screen.query(definition)
  }

  count<T extends object = Row>(definition: CountDefinition<T>): LiveValue<number> {
    return this.screen.query(definition, 'count')
  }

  sum<T extends object = Row>(definition: SumDefinition<T>): LiveValue<number | string | null> {
    return this.screen.query(definition, 'sum', definition.column)
  }

  onCommit(callback: (commit: CommitNotice) => void): () => void {
    return this.screen.commits.add(callback)
  }

  onConflict(callback: (conflict: Conflict) => void): () => void {
    return this.screen.conflicts.add(callback)
  }

  conflictOf(refused: RefusedMutation): Conflict | null {
    return this.screen.conflictOf(refused)
  }

  resend(mutationId: string, ops?: readonly OpInput[]): Mutation {
    const refused = this.screen.outbox.refused.find(({ id }) => id === mutationId)
    if (refused === undefined) throw new TypeError('there is no refused mutation of this id')
    const { name, args } = refused
    const mutation = this.mutate(ops ?? refused.ops, { ...(name === null ? {} : { name }), args })
    // the refusal stays where the new one could not be kept
    mutation.saved.then(
      () => this.dismiss(mutationId),
      () => undefined,
    )
    return mutation
  }

  dismiss(mutationId: string): void {
    this.command({ name: 'dismiss', id: mutationId })
  }

  resolveUnknown(send: boolean): void {
    this.command({ name: 'resolveUnknown', send })
  }

  setOnline(online: boolean): void {
    this.goOnline(online)
    if (this.role.hasOthers) this.role.say({ kind: 'command', command: { name: 'setOnline', online } })
  }

  async signOut(confirm?: (unsent: number) => boolean | Promise<boolean>): Promise<boolean> {
    await this.queue
    const unsent = this.screen.outbox.size
    if (unsent > 0 && !(await confirm?.(unsent))) return false
    this.role.say({ kind: 'signed_out' })
    this.end()
    this.run(() => this.keeper.wipe())
    await this.queue
    return true
  }

  async close(): Promise<void> {
    this.end()
    this.run(() => this.keeper.close())
    await this.queue
  }

  /** Puts a job that touches the store at the end of the queue. */
  readonly run = (job: () => Promise<void>): void => {
    this.queue = this.queue.then(job).catch((error: unknown) => {
      if (error instanceof DeposedError) this.deposed()
      else if (error instanceof MovedError) this.timers.after(50, () => this.run(() => this.open()))
      // nothing else is expected to throw; a defect must not stop what comes after it
      else this.link.distrust(this.link.session, error)
    })
  }

  private deposed(): void {
    if (this.role.hasOthers) return this.role.stepDown()
    this.link.stop()
    this.status.setError('store', { code: 'other_page', message: 'another page took the local store over; reload this one to go on here' })
  }

  async open(): Promise<void> {
    if (this.isClosed) return
    // not at first: the connection is made while the store opens
    if (this.role.role !== 'opening') this.link.stop()
    const contents = await this.keeper.open(this.url, this.subject)
    this.screen.replace(contents)
    this.link.sender.forget()
    this.role.revision = this.keeper.place === null ? UNSTORED : contents.revision
    // in this job: a session must not begin before
    if (this.role.enter(this.keeper.place)) await this.takeOver()
    this.run(() => this.writer.saveDrafts())
  }

  /** From here on this page writes and speaks to the node. */
  async takeOver(): Promise<void> {
    if (this.isClosed) return
    const { role, keeper } = this
    const contents = await keeper.lead(role.revision, this.screen.outbox.lastSeq)
    if (keeper.keepsRows) {
      if (contents.revision === role.revision) this.screen.replaceOutbox(contents)
      else this.screen.replace(contents)
      this.writer.stored = new Set(contents.shapes.map(({ id }) => id))
      role.revision = contents.revision
    }
    this.link.sender.forget()
    const isHeir = role.leads(keeper.epoch)
    this.screen.showStatus()
    const connect = () => this.online && this.role.isLeading && this.link.dispatch('go_online')
    // a join names all that is wanted, also by pages that have yet to say so: what it leaves out is dropped
    if (isHeir) this.timers.after(HELLO_MS, connect)
    else connect()
  }

  private storeEvent(event: StoreEvent): void {
    switch (event) {
      case 'blocked':
        return this.status.setError('store', {
          code: 'store_blocked',
          message: 'an older version of this application is open in another tab and holds the local store: close that tab',
        })
      case 'unblocked':
        return this.status.setError('store', null)
      case 'replaced':
        this.link.stop()
        return this.keeper.giveUp({
          code: 'store_replaced',
          message: 'a newer version of this application is open in another tab: reload this one; changes made here are not kept any more',
        })
      case 'wiped':
        return this.signedOut()
      case 'lost':
        return this.run(() => this.restore())
    }
  }

  private async restore(): Promise<void> {
    if (this.isClosed) return
    if (!this.role.isLeading) return this.keeper.giveUp({ code: 'store_lost', message: 'the browser deleted the local data of this site' })
    await this.writer.restore(this.url, this.subject)
  }

  private command(command: Command): void {
    this.run(async () => {
      if (this.role.isLeading) this.obey(command)
      else this.role.say({ kind: 'command', command })
    })
  }

  obey(command: Command): void {
    if (command.name === 'setOnline') this.goOnline(command.online)
    else if (this.role.isLeading) this.run(() => (command.name === 'dismiss' ? this.dismissNow(command.id) : this.resolveNow(command.send)))
  }

  private goOnline(online: boolean): void {
    this.online = online
    this.screen.showStatus()
    if (this.role.isLeading || this.platform === null) this.link.dispatch(online ? 'go_online' : 'go_offline')
  }

  private async dismissNow(mutationId: string): Promise<void> {
    const { outbox, status, waits } = this.screen
    await this.writer.changeOutbox(() => outbox.dismiss(mutationId))
    // nothing passes a mutation that the node cannot read; without it the queue goes on
    if (this.link.sender.blockedBy !== mutationId) return
    await this.writer.changeOutbox(() => outbox.giveUp(mutationId))
    waits.decide(mutationId, { outcome: 'refused', code: 'malformed' })
    status.setError('outbox', null)
    this.link.sender.restart()
  }

  private async resolveNow(send: boolean): Promise<void> {
    await this.writer.changeOutbox(() => this.screen.outbox.resolveUnknown(send))
    this.status.setError('outbox', null)
    this.link.dispatch('restart')
  }

  signedOut(): void {
    if (this.isClosed) return
    this.end()
    this.status.setError('store', { code: 'signed_out', message: 'another page signed out' })
    this.run(() => this.keeper.close())
  }

  /** Nothing is shown, sent or connected any more. */
  private end(): void {
    this.isClosed = true
    this.stopListening()
    this.writer.end()
    this.link.dispatch('close')
    this.role.close()
  }

  /** Before anything is sent: a page that was frozen may not know yet that another one leads. */
  ifLeader(act: () => void): void {
    if (!this.role.hasOthers) return act()
    this.run(async () => {
      let asked: number
      // frozen between question and answer: ask again. A store that is slow is not asked for ever
      let attempts = 0
      do {
        asked = performance.now()
        if (!(await this.keeper.isLeader())) throw new DeposedError('another page leads')
        attempts += 1
      } while (performance.now() - asked > FROZEN_MS && attempts < ATTEMPTS)
      act()
    })
  }

  async takeJoined(session: Session, { database, client }: Joined): Promise<void> {
    // what was written so far was meant for the database that was shown
    await this.writer.saveDrafts()
    const adopted = await this.keeper.adopt(database)
    if (adopted !== null) {
      const { contents, moved } = adopted
      this.role.moved()
      this.screen.replace(contents)
      this.link.sender.forget()
      this.role.revision = contents.revision
      const isFresh = contents.meta.client === null && contents.meta.cursor === null
      // among several pages it has to be found out who leads there; the session stays if it is this one
      if (this.role.hasOthers) {
        const isFirst = moved && isFresh && (await this.role.enterFirst(this.keeper.place))
        if (!isFirst) {
          this.link.discard(session)
          this.link.stop()
          if (!moved || !isFresh) this.role.enter(this.keeper.place)
          return
        }
        if (this.isClosed) return
      }
      await this.keeper.lead(contents.revision, this.screen.outbox.lastSeq)
      this.writer.stored = new Set(contents.shapes.map(({ id }) => id))
      this.role.leads(this.keeper.epoch)
      // the join told what another store holds
      if (!moved || !isFresh) return this.link.discard(session)
      // deposed in between, and leading all the same
      if (session.discarded && this.online) return this.link.dispatch('go_online')
    }
    await this.writer.changeOutbox(() => this.screen.outbox.takeClient(client))
    if (this.link.session === session) this.link.sender.begin()
  }
}
