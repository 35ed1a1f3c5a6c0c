/**
 * The engine of live queries. A query is a tree of levels, one for each relationship it follows; a level has groups, one
 * for each set of values by which rows of the level above meet its rows (the top level has one). A changed row is put
 * into the groups it concerns; then the groups that changed tell those above, from the leaves to the top.
 *
 * Nothing is computed for rows beyond a limit: only a row that is shown has groups below it.
 */
import { filterOf, type Where } from './condition'
import { inForm } from './forms'
import { isDecimal, type KnownColumn, type OrderBy, comparatorOf } from './order'
import { joinText, type Knowledge, type Relation } from './schema'
import { Sum } from './sums'
import type { TableIndex, TableIndexes } from './table_index'
import type { Row } from './values'
import type { RowChange, TableRows, ViewChanges } from './view'

/** What a level shows of its rows. */
export type Shows = { readonly rows: 'many' | 'one' } | { readonly count: true } | { readonly sum: string }

/** A level as it was asked for. */
export interface LevelSpec {
  readonly table: string
  readonly shows: Shows
  readonly where?: Where<Row> | undefined
  readonly orderBy?: OrderBy<Row> | undefined
  readonly limit?: number | undefined
  readonly below: readonly { readonly name: string; readonly relation: Relation; readonly spec: LevelSpec }[]
}

/** What levels are made over. */
export interface Ground {
  readonly knowledge: Knowledge
  readonly indexes: TableIndexes
  rows(table: string): TableRows
}

/** So many changed rows are merged into a list instead of being moved one by one. */
const MANY = 100

const NOTHING: readonly never[] = Object.freeze([])

/** A row in a list. `groups` and `output` are null while it is not shown. */
interface Entry {
  readonly key: string
  readonly row: Row
  groups: (Group | null)[] | null
  output: Row | null
  /** number of the last settling that showed it */
  shownAt: number
}

type Change = readonly [key: string, after: Row | undefined]

/** Rows that one row above shows, or all rows that a query asks for. */
abstract class Group {
  /** rows above that show this group, and the groups they are in */
  readonly above = new Map<Entry, List>()
  value: unknown

  constructor(
    protected readonly level: Level,
    readonly text: string | null,
  ) {}

  /** Takes rows that changed. */
  abstract take(changes: readonly Change[]): void
  /** Takes all rows anew; rows that are the same objects stay what they are. */
  abstract reset(rows: Iterable<readonly [string, Row]>): void
  /** Brings `value` up to date; true when it is another one. */
  abstract settle(): boolean
  /** Gives up what it holds below. */
  abstract end(): void
}

/** Counts or sums. */
class Aggregate extends Group {
  private readonly rows = new Map<string, Row>()
  private sum: Sum | null = null

  take(changes: readonly Change[]): void {
    const { sumOf, matches } = this.level
    for (const [key, after] of changes) {
      const before = this.rows.get(key)
      if (before !== undefined) {
        this.rows.delete(key)
        if (sumOf !== null) this.sum?.add(before[sumOf], -1)
      }
      if (after !== undefined && matches(after)) {
        this.rows.set(key, after)
        if (sumOf !== null) this.sum?.add(after[sumOf], 1)
      }
    }
  }

  reset(rows: Iterable<readonly [string, Row]>): void {
    this.rows.clear()
    this.sum = this.level.newSum()
    this.take([...rows])
  }

  settle(): boolean {
    const before = this.value
    this.value = this.sum === null ? this.rows.size : this.level.summed(this.sum.value)
    return !Object.is(before, this.value)
  }

  end(): void {}
}

/** Ordered rows. */
class List extends Group {
  private entries: Entry[] = []
  private readonly byKey = new Map<string, Entry>()
  private shown: Entry[] = []
  private settled = 0

  take(changes: readonly Change[]): void {
    if (changes.length > MANY) return this.merge(changes)
    for (const [key, after] of changes) {
      const before = this.byKey.get(key)
      if (before !== undefined) this.remove(before)
      if (after !== undefined && this.level.matches(after)) this.insert(this.entry(key, after))
    }
  }

  reset(rows: Iterable<readonly [string, Row]>): void {
    const before = new Map(this.byKey)
    this.byKey.clear()
    this.entries = []
    for (const [key, row] of rows) {
      if (!this.level.matches(row)) continue
      const known = before.get(key)
      const entry = known?.row === row ? known : this.entry(key, row)
      this.byKey.set(key, entry)
      this.entries.push(entry)
    }
    this.entries.sort(this.level.compare)
  }

  settle(): boolean {
    const { limit, present } = this.level
    const shown = limit === null ? this.entries : this.entries.slice(0, limit)
    const isNested = this.level.below.length > 0
    if (isNested) this.showGroups(shown)
    const rows = shown.map(isNested ? (entry) => (entry.output ??= this.outputOf(entry)) : ({ row }) => (present === null ? row : present(row)))
    const before = this.value
    if (!this.level.isMany) this.value = rows[0] ?? null
    else if (!Array.isArray(before) || rows.length !== before.length || !rows.every((row, at) => row === before[at])) {
      this.value = rows.length === 0 ? NOTHING : rows
    }
    return this.value !== before
  }

  end(): void {
    for (const entry of this.shown) this.hide(entry)
  }

  /** A row below `entry` changed. */
  spoil(entry: Entry): void {
    entry.output = null
    this.level.dirty.add(this)
  }

  private entry(key: string, row: Row): Entry {
    return { key, row, groups: null, output: null, shownAt: 0 }
  }

  /** Takes groups into use before any is given up, so that one that goes from row to row stays. */
  private showGroups(shown: readonly Entry[]): void {
    this.settled += 1
    for (const entry of shown) {
      entry.shownAt = this.settled
      entry.groups ??= this.level.below.map((below) => below.level.useFor(below.textOf(entry.row), entry, this))
    }
    for (const entry of this.shown) if (entry.shownAt !== this.settled) this.hide(entry)
    this.shown = [...shown]
  }

  private hide(entry: Entry): void {
    if (entry.groups === null) return
    for (const [at, group] of entry.groups.entries()) if (group !== null) this.level.below[at]?.level.giveUp(group, entry)
    entry.groups = null
    entry.output = null
  }

  private outputOf(entry: Entry): Row {
    const { present } = this.level
    const output: Record<string, unknown> = { ...(present === null ? entry.row : present(entry.row)) }
    for (const [at, { name, level }] of this.level.below.entries()) {
      const group = entry.groups?.[at] ?? null
      output[name] = group === null ? level.nothing : group.value
    }
    return output
  }

  /** Many rows at once: moving them one by one would move all the others each time. */
  private merge(changes: readonly Change[]): void {
    const fresh: Entry[] = []
    const gone = new Set<Entry>()
    for (const [key, after] of changes) {
      const before = this.byKey.get(key)
      if (before !== undefined) {
        gone.add(before)
        this.byKey.delete(key)
      }
      if (after === undefined || !this.level.matches(after)) continue
      const entry = this.entry(key, after)
      fresh.push(entry)
      this.byKey.set(key, entry)
    }
    fresh.sort(this.level.compare)
    const merged: Entry[] = []
    let at = 0
    for (const entry of this.entries) {
      if (gone.has(entry)) continue
      for (let next = fresh[at]; next !== undefined && this.level.compare(next, entry) < 0; next = fresh[at]) {
        merged.push(next)
        at += 1
      }
      merged.push(entry)
    }
    this.entries = merged.concat(fresh.slice(at))
  }

  /** The first place whose entry is not before `entry`. */
  private place(entry: Entry): number {
    let [low, high] = [0, this.entries.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.level.compare(this.entries[middle] as Entry, entry) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  private insert(entry: Entry): void {
    this.byKey.set(entry.key, entry)
    this.entries.splice(this.place(entry), 0, entry)
  }

  private remove(entry: Entry): void {
    this.byKey.delete(entry.key)
    let at = this.place(entry)
    // `orderBy` may be the application's function: if it changed its mind, the entry is elsewhere
    if (this.entries[at] !== entry) at = this.entries.indexOf(entry)
    this.entries.splice(at, 1)
  }
}

/** A level that the rows of another one lead to. */
interface Below {
  readonly name: string
  readonly level: Level
  textOf(row: Row): string | null
}

/** One level of a query. */
export class Level {
  matches!: (row: Row) => boolean
  compare!: (a: Entry, b: Entry) => number
  readonly below: readonly Below[]
  readonly dirty = new Set<Group>()
  readonly isMany: boolean
  readonly limit: number | null
  readonly sumOf: string | null
  /** rows as the application wants them, where that is not as they travel */
  readonly present: ((row: Row) => Row) | null
  private readonly groups = new Map<string | null, Group>()
  private index: TableIndex | null = null
  private columnsAbove: readonly (KnownColumn | null)[] = []

  constructor(
    private readonly spec: LevelSpec,
    private readonly relation: Relation | null,
    private readonly ground: Ground,
  ) {
    const { shows, limit } = spec
    if (limit !== undefined && !(Number.isInteger(limit) && limit >= 0)) throw new TypeError('limit is a number of rows')
    this.isMany = 'rows' in shows && shows.rows === 'many'
    this.limit = 'rows' in shows && shows.rows === 'one' ? 1 : (limit ?? null)
    this.sumOf = 'sum' in shows ? shows.sum : null
    this.present = ground.knowledge.present(spec.table)
    this.below = spec.below.map(({ name, relation, spec }) => {
      const level = new Level(spec, relation, ground)
      return { name, level, textOf: (row) => joinText(row, relation.from, level.columnsAbove) }
    })
    this.prepare('')
  }

  /** The value where no row leads to any group. */
  get nothing(): unknown {
    const { shows } = this.spec
    return this.isMany ? NOTHING : 'count' in shows ? 0 : null
  }

  /** A sum of this level's kind, null where nothing is summed. */
  newSum(): Sum | null {
    return this.sumOf === null ? null : new Sum(isDecimal(this.column(this.sumOf)))
  }

  /** A sum in its column's form. */
  summed(value: unknown): unknown {
    return this.sumOf === null ? value : inForm(this.ground.knowledge.form(this.spec.table, this.sumOf), value)
  }

  /** This level and all below, the deepest first. */
  deepestFirst(): Level[] {
    return [...this.below.flatMap(({ level }) => level.deepestFirst()), this]
  }

  /** Takes what is known of the columns now; indexes are in use from here until `release`. */
  begin(above: string): void {
    this.release()
    this.prepare(above)
    if (this.relation !== null) this.index = this.ground.indexes.use(this.spec.table, this.relation.to, (name) => this.column(name))
    for (const { level } of this.below) level.begin(this.spec.table)
  }

  /** Gives the indexes back. */
  release(): void {
    if (this.index !== null) this.index.users -= 1
    this.index = null
    for (const { level } of this.below) level.release()
  }

  /** Rows as they are now, in every group; `settle` must follow. */
  reset(): void {
    if (this.relation === null) this.groups.set(null, this.groups.get(null) ?? this.newGroup(null))
    for (const [text, group] of this.groups) {
      group.reset(this.rowsOf(text))
      this.dirty.add(group)
    }
    for (const { level } of this.below) level.reset()
  }

  /** Puts changed rows into the groups they concern; `settle` must follow. */
  take(changes: ViewChanges): void {
    const rows = changes.get(this.spec.table)
    if (rows !== undefined) {
      const grouped = new Map<Group, Change[]>()
      const add = (group: Group | undefined, change: Change) => {
        if (group === undefined) return
        const list = grouped.get(group)
        if (list === undefined) grouped.set(group, [change])
        else list.push(change)
      }
      for (const [key, change] of rows) this.spread(key, change, add)
      for (const [group, list] of grouped) {
        group.take(list)
        this.dirty.add(group)
      }
    }
    for (const { level } of this.below) level.take(changes)
  }

  /** Brings the groups up to date that changed; the levels below must be. */
  settle(): void {
    for (const group of this.dirty) {
      if (!group.settle()) continue
      for (const [entry, list] of group.above) list.spoil(entry)
    }
    this.dirty.clear()
  }

  /** What the query shows. */
  get value(): unknown {
    return this.groups.get(null)?.value
  }

  /** The group that a row above leads to, taken into use; null where a NULL leads nowhere. */
  useFor(text: string | null, entry: Entry, list: List): Group | null {
    if (text === null) return null
    let group = this.groups.get(text)
    if (group === undefined) {
      group = this.newGroup(text)
      group.reset(this.rowsOf(text))
      group.settle()
      this.groups.set(text, group)
    }
    group.above.set(entry, list)
    return group
  }

  /** A row above does not show this group any more. */
  giveUp(group: Group, entry: Entry): void {
    group.above.delete(entry)
    if (group.above.size > 0) return
    this.groups.delete(group.text)
    this.dirty.delete(group)
    group.end()
  }

  private spread(key: string, { before, after }: RowChange, add: (group: Group | undefined, change: Change) => void): void {
    if (this.index === null) return add(this.groups.get(null), [key, after])
    const was = before === undefined ? null : this.index.text(before)
    const is = after === undefined ? null : this.index.text(after)
    if (was !== null && was !== is) add(this.groups.get(was), [key, undefined])
    if (is !== null) add(this.groups.get(is), [key, after])
  }

  private rowsOf(text: string | null): Iterable<readonly [string, Row]> {
    return text === null ? this.ground.rows(this.spec.table) : (this.index?.find(text) ?? NOTHING)
  }

  private newGroup(text: string | null): Group {
    return 'rows' in this.spec.shows ? new List(this, text) : new Aggregate(this, text)
  }

  private column(name: string): KnownColumn | null {
    return this.ground.knowledge.column(this.spec.table, name)
  }

  private prepare(above: string): void {
    const { knowledge } = this.ground
    const { present } = this
    const { where, orderBy } = this.spec
    // an application's function sees what the application sees
    const order = typeof orderBy === 'function' && present !== null ? (a: Row, b: Row) => orderBy(present(a), present(b)) : orderBy
    const filter = typeof where === 'function' && present !== null ? (row: Row) => where(present(row)) : where
    const byRow = comparatorOf(order, (name) => this.column(name), knowledge.key(this.spec.table) ?? [])
    this.compare = (a, b) => byRow(a.row, b.row) || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
    this.matches = filterOf(filter, (name) => this.column(name))
    this.columnsAbove = this.relation?.from.map((name) => knowledge.column(above, name)) ?? []
  }
}
