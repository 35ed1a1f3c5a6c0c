/**
 * What this page shows: rows as of one commit, the outbox on top, and everybody who looks at it. Memory changes here and
 * nowhere else, in one step each, and only then is anybody told.
 */
import type { Base, TouchedKeys } from './apply'
import { Listeners } from './listeners'
import { type LiveQuery, LiveQueryState, type QueryDefinition } from './live_query'
import { MutationWaits } from './mutation'
import { Outbox } from './outbox'
import { type LinkStatus, StatusBoard } from './status'
import type { StoreContents } from './store'
import { keysOf, Subscriptions } from './subscriptions'
import type { Row } from './values'
import { View } from './view'

/** What one commit was: position, transaction (null when it stands for several), rows changed and their tables. */
export interface CommitNotice {
  readonly lsn: string
  readonly xid: string | null
  readonly rows: number
  readonly tables: string[]
}

/** Memory and its lookers. */
export class Screen {
  readonly status = new StatusBoard()
  readonly outbox = new Outbox()
  readonly waits = new MutationWaits()
  readonly subscriptions = new Subscriptions()
  readonly commits = new Listeners<CommitNotice>()
  base: Base = { cursor: null, shapes: new Map() }
  private readonly view = new View()
  private readonly queries = new Set<LiveQueryState>()

  /** `link` tells how the connection is, whenever the status is looked at. */
  constructor(private readonly link: () => LinkStatus) {}

  /** A live list over one table. */
  query<T extends object>(definition: QueryDefinition<T>): LiveQuery<T> {
    const query = new LiveQueryState(definition as unknown as QueryDefinition<Row>, this.view, (attached) => {
      this.queries.add(attached)
      return () => this.queries.delete(attached)
    })
    return query as unknown as LiveQuery<T>
  }

  /** Other rows and another outbox take the place of all there was; drafts stay. */
  replace(contents: StoreContents): void {
    const active = () => this.subscriptions.all().map(({ id }) => id)
    const touched = keysOf(this.base, active())
    const shapes = contents.shapes.map((shape) => [shape.id, { ...shape, rows: contents.rows.get(shape.id) ?? new Map() }] as const)
    this.base = { cursor: contents.meta.cursor, shapes: new Map(shapes) }
    this.outbox.load(contents)
    for (const [table, keys] of keysOf(this.base, active())) {
      touched.set(table, new Set([...(touched.get(table) ?? []), ...keys]))
    }
    this.refresh(touched)
  }

  /** Brings view, queries, subscriptions and status up to date; only then calls anybody back. */
  refresh(touched: TouchedKeys, callBack?: () => void): void {
    const changes = this.view.update(this.subscriptions.active(this.base), this.outbox.pending(), touched)
    const queries = [...this.queries].filter((query) => query.take(changes))
    const entries = this.subscriptions.follow(this.base)
    const statusChanged = this.updateStatus()
    for (const query of queries) query.notify()
    for (const entry of entries) entry.listeners.call()
    if (statusChanged) this.status.notify()
    callBack?.()
  }

  /** Brings the status alone up to date. */
  showStatus(): void {
    if (this.updateStatus()) this.status.notify()
  }

  private updateStatus(): boolean {
    const link = this.link()
    const isLoading = link.state === 'joined' && this.subscriptions.isLoading(link.isEstablished)
    return this.status.update(link.state, isLoading, this.outbox.size, this.outbox.refused)
  }
}
