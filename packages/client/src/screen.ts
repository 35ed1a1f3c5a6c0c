/**
 * What this page shows: rows as of one commit, the outbox on top, and everybody who looks at it. Memory changes here and
 * nowhere else, in one step each, and only then is anybody told.
 */
import { type Base, carryOut, type HeldShape, keysOf, type Reload, type TouchedKeys } from './apply'
import { CONFLICT, type Conflict, conflictOf } from './conflicts'
import { Listeners } from './listeners'
import { LiveQueryState, type LiveValue, type QueryDefinition, specOf } from './live_query'
import { MutationWaits } from './mutation'
import { Outbox } from './outbox'
import { tableName } from './protocol'
import type { Shows } from './query_level'
import { type Knowledge, knowledgeOf, type SchemaModule } from './schema'
import { type LinkStatus, StatusBoard } from './status'
import type { RefusedMutation, StoreContents } from './store'
import { Subscriptions } from './subscriptions'
import type { Change, Welcome } from './tab_messages'
import { encodeValue, type Json, type Row } from './values'
import { View } from './view'

/**
 * What one commit was: position, transaction (null when it stands for several), rows changed and their tables.
 * `reloaded`: tables of which a shape that was held was loaded anew, and why (`schema_changed`, `rewritten`, `horizon`, …:
 * docs/protocol.md, Reset reasons).
 */
export interface CommitNotice {
  readonly lsn: string
  readonly xid: string | null
  readonly rows: number
  readonly tables: string[]
  readonly reloaded: readonly Reload[]
}

/** Memory and its lookers. */
export class Screen {
  readonly status = new StatusBoard()
  readonly outbox = new Outbox()
  readonly waits = new MutationWaits()
  readonly subscriptions = new Subscriptions()
  readonly commits = new Listeners<CommitNotice>()
  readonly conflicts = new Listeners<Conflict>()
  base: Base = { cursor: null, shapes: new Map() }
  private readonly view = new View()
  private readonly queries = new Set<LiveQueryState<any>>()
  private readonly knowledge: Knowledge

  /** `link` tells how the connection is, whenever the status is looked at. */
  constructor(
    private readonly link: () => LinkStatus,
    schema?: SchemaModule,
  ) {
    this.knowledge = knowledgeOf(schema, this.view)
  }

  /** A live list, or what else it shows. */
  query<V>(definition: QueryDefinition<any>, shows?: Shows, column?: string): LiveValue<V> {
    return new LiveQueryState<V>(specOf(definition, this.knowledge, shows, column), this.view, this.knowledge, (attached) => {
      this.queries.add(attached)
      return () => this.queries.delete(attached)
    })
  }

  /** A row as it is shown; the key in any order. */
  row(table: string, key: Readonly<Record<string, Json>>): Row | undefined {
    const name = tableName(table)
    const text = this.view.keyOf(name, key)
    return text === null ? undefined : this.view.rows(name).get(text)
  }

  /** The same as it travels. */
  seen(table: string, key: Readonly<Record<string, Json>>): Record<string, Json> | undefined {
    const row = this.row(table, key)
    if (row === undefined) return undefined
    const wire = (name: string, value: unknown) =>
      this.view.column(tableName(table), name)?.wire === 'json' && value !== null ? JSON.stringify(value) : (encodeValue(value) ?? null)
    return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, wire(name, value)]))
  }

  /** Other rows and another outbox take the place of all there was; drafts stay. */
  replace(contents: StoreContents): void {
    const shapes = contents.shapes.map((shape) => [shape.id, { ...shape, rows: contents.rows.get(shape.id) ?? new Map() }] as const)
    this.outbox.load(contents)
    this.replaceRows({ cursor: contents.meta.cursor, shapes: new Map(shapes) })
  }

  /** The outbox alone is another one; drafts stay. */
  replaceOutbox(contents: StoreContents): void {
    this.outbox.load(contents)
    this.refresh(new Map())
  }

  /** What the page that leads shows; `also` are mutations of this page that it has not heard of. */
  welcome({ cursor, isWhole, shapes, outbox, status }: Welcome, also: Parameters<Outbox['take']>[0]): void {
    this.outbox.takeContents(outbox)
    this.outbox.take(also)
    this.subscriptions.takeRefusals(status.refusals)
    if (!isWhole && shapes.size === 0) this.refresh(new Map())
    else this.replaceRows({ cursor, shapes: new Map([...(isWhole ? [] : this.base.shapes), ...shapes]) })
  }

  /** One change, in one step, with one notification. `isStored`: a restart would not take it back. */
  carryOut(change: Change, isStored: boolean): void {
    const { plan, taken, outbox, decisions, notice } = change
    const touched = plan === null ? new Map() : carryOut(this.base, plan)
    this.outbox.take(taken)
    if (outbox !== null) this.outbox.carryOut(outbox, isStored)
    this.refresh(touched, () => {
      for (const { n: _, id, ...outcome } of decisions) this.waits.decide(id, outcome)
      for (const { id, code } of decisions) if (code === CONFLICT) this.tellConflict(id)
      if (notice !== null) this.commits.call(notice)
    })
  }

  private tellConflict(id: string): void {
    const refused = this.outbox.refused.find((one) => one.id === id)
    const conflict = refused && this.conflictOf(refused)
    if (conflict) this.conflicts.call(conflict)
  }

  /** What a refusal is a conflict of; null for another refusal. */
  conflictOf(refused: RefusedMutation): Conflict | null {
    return conflictOf(refused, (table, key) => this.row(table, key), this.knowledge.present)
  }

  /**
   * Shows a first load before it is settled, or none any more. Not beside rows that are held: they are of another state.
   * An edit made on such a row may have it as its `if`: the database compares, and a state that was not settled can
   * only make it a conflict.
   */
  showProvisional(shapes?: ReadonlyMap<string, HeldShape>): void {
    const isHeld = () => this.subscriptions.shown().some(({ id }) => this.base.shapes.has(id))
    if (shapes === this.base.provisional || (shapes && isHeld())) return
    this.replaceRows({ ...this.base, provisional: shapes })
  }

  private replaceRows(base: Base): void {
    const shown = this.subscriptions.shown().map(({ id }) => id)
    const touched = keysOf(this.base, shown)
    this.base = base
    this.refresh(keysOf(base, shown, touched))
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
    return this.status.update(link, isLoading, isLoading && !!this.base.provisional, this.outbox.size, this.outbox.refused)
  }
}
