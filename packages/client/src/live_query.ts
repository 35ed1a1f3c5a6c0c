/** Live queries: results over the rows of this page that follow every commit and every change of its own. */
import type { Where } from './condition'
import { Listeners } from './listeners'
import type { OrderBy } from './order'
import { tableName } from './protocol'
import { Level, type LevelSpec, type Shows } from './query_level'
import type { Knowledge } from './schema'
import type { Row } from './values'
import type { View, ViewChanges } from './view'

/** A count or a sum over a relationship. */
export type AggregateDefinition =
  | { readonly count: string; readonly where?: Where<any> }
  | { readonly sum: string; readonly column: string; readonly where?: Where<any> }

/** What is asked of the rows of a table or of a relationship. */
export interface RowsDefinition<T> {
  /** Which rows; all unless given. */
  readonly where?: Where<T>
  /** Their order; ties, and all without one, by the key. */
  readonly orderBy?: OrderBy<T>
  /** How many rows at most. */
  readonly limit?: number
  /** Relationships that the schema declares, each under its name: a list, or one row or null. */
  readonly include?: Readonly<Record<string, true | RowsDefinition<any>>>
  /** Counts and sums over relationships, under names of one's own. */
  readonly aggregate?: Readonly<Record<string, AggregateDefinition>>
}

/** What a live query asks for. */
export interface QueryDefinition<T> extends RowsDefinition<T> {
  readonly table: string
}

/** What a live count asks for. */
export interface CountDefinition<T> {
  readonly table: string
  readonly where?: Where<T>
}

/** What a live sum asks for. */
export interface SumDefinition<T> extends CountDefinition<T> {
  readonly column: string
}

/** A value that follows the rows of this page. */
export interface LiveValue<V> {
  /** The value; the same one until it changes, and rows in it that did not change keep their identity. */
  getSnapshot(): V
  /** Calls back once per commit or mutation that changed the value. */
  subscribe(callback: () => void): () => void
}

/** A list that follows the rows of this page. */
export type LiveQuery<T> = LiveValue<readonly T[]>

function levelSpec(table: string, definition: RowsDefinition<any>, shows: Shows, knowledge: Knowledge, column?: string): LevelSpec {
  const { where, orderBy, limit, include = {}, aggregate = {} } = definition
  const rows = Object.entries(include).map(([name, nested]) => {
    const relation = knowledge.relation(table, name)
    return { name, relation, spec: levelSpec(relation.table, nested === true ? {} : nested, relation.many ? 'many' : 'one', knowledge) }
  })
  const values = Object.entries(aggregate).map(([name, asked]) => {
    const [shows, of, column] = 'count' in asked ? (['count', asked.count, ''] as const) : (['sum', asked.sum, asked.column] as const)
    const relation = knowledge.relation(table, of)
    return { name, relation, spec: levelSpec(relation.table, { where: asked.where }, shows, knowledge, column) }
  })
  return { table, shows, column, where, orderBy, limit, below: [...rows, ...values] }
}

/** What `query` shows of `definition`. Throws a TypeError for what cannot be asked. */
export function specOf(definition: QueryDefinition<any>, knowledge: Knowledge, shows: Shows = 'many', column?: string): LevelSpec {
  return levelSpec(tableName(definition.table), definition, shows, knowledge, column)
}

/** No version of the view. */
const UNSEEN = -1

function tablesOf({ table, below }: LevelSpec): string[] {
  return [table, ...below.flatMap(({ spec }) => tablesOf(spec))]
}

/** The one implementation; the client feeds it the view's changes. */
export class LiveQueryState<V = readonly Row[]> implements LiveValue<V> {
  private readonly listeners = new Listeners()
  private detach: (() => void) | null = null
  private seen = UNSEEN
  private described = -1
  private description = ''
  private level: Level

  constructor(
    private readonly spec: LevelSpec,
    private readonly view: View,
    private readonly knowledge: Knowledge,
    private readonly attach: (query: LiveQueryState<V>) => () => void,
  ) {
    // here, so that a wrong definition throws where it was written
    this.level = this.newLevel()
  }

  /** Nobody is told of a value without subscribers; it is brought up to date when somebody looks. */
  getSnapshot(): V {
    this.learn()
    if (this.seen !== this.view.version) {
      this.look()
      if (this.detach === null) this.level.release()
    }
    return this.level.value as V
  }

  subscribe(callback: () => void): () => void {
    const remove = this.listeners.add(callback)
    if (this.detach === null) {
      this.getSnapshot()
      this.level.begin('')
      this.detach = this.attach(this)
    }
    return () => {
      remove()
      if (this.listeners.size > 0 || this.detach === null) return
      this.detach()
      this.detach = null
      this.level.release()
    }
  }

  /** Calls the subscribers. */
  notify(): void {
    this.listeners.call()
  }

  /** Takes the view's newest changes; true when the value is another one now. The caller then calls `notify`. */
  take(changes: ViewChanges): boolean {
    const before = this.level.value
    const { table } = this.spec
    const isMost = (changes.get(table)?.size ?? 0) * 2 > this.view.rows(table).size
    this.learn()
    if (isMost || this.seen === UNSEEN) {
      this.look()
    } else {
      this.seen = this.view.version
      this.level.take(changes)
      this.settle()
    }
    return !Object.is(before, this.level.value)
  }

  /** Where something else is known of its tables, values compare in another way: nothing seen so far counts. */
  private learn(): void {
    if (this.described === this.view.described) return
    this.described = this.view.described
    const description = JSON.stringify(tablesOf(this.spec).map((table) => this.view.description(table)))
    if (description === this.description) return
    this.description = description
    this.seen = UNSEEN
    this.level.release()
    this.level = this.newLevel()
  }

  /** From all rows; those that are the same stay the same. */
  private look(): void {
    this.seen = this.view.version
    this.level.begin('')
    this.level.reset()
    this.settle()
  }

  private settle(): void {
    for (const level of this.level.deepestFirst()) level.settle()
  }

  private newLevel(): Level {
    const { view, knowledge } = this
    return new Level(this.spec, null, { knowledge, indexes: view.indexes, rows: (table) => view.rows(table) })
  }
}
