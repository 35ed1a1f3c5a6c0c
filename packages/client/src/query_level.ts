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
import { joinReader, type Knowledge, type Relation } from './schema'
import { Sum } from './sums'
import type { TableIndex, TableIndexes } from './table_index'
import { isNull, own, type Row } from './values'
import type { RowChange, TableRows, ViewChanges } from './view'

/** What a level shows of its rows: a list, one of them or null, how many there are, or the sum of a column. */
export type Shows = 'many' | 'one' | 'count' | 'sum'

/** A level as it was asked for. */
export interface LevelSpec {
  readonly table: string
  readonly shows: Shows
  /** what is summed */
  readonly column?: string | undefined
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
}

type Change = readonly [key: string, after: Row | undefined]

/** Rows that one row above shows, or all rows that a query asks for. */
abstract class Group {
  /** rows above that show this group, and the groups they are in */
  readonly above = new Map<Entry, List>()
  value: unknown

  constructor(
    protected readonly level: Level,
    private readonly text: string | null,
  ) {}

  /** A row above does not show this group any more. */
  giveUp(entry: Entry): void {
    this.above.delete(entry)
    if (this.above.size > 0) return
    this.level.groups.delete(this.text)
    this.level.dirty.delete(this)
    this.end()
  }

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
    for (const [key, after] of changes) {
      this.count(this.rows.get(key), -1)
      this.rows.delete(key)
      if (after === undefined || !this.level.matches(after)) continue
      this.count(after, 1)
      this.rows.set(key, after)
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

  private count(row: Row | undefined, by: 1 | -1): void {
    if (row !== undefined) this.sum?.add(own(row, this.level.column), by)
  }
}

/** Ordered rows. */
class List extends Group {
  private entries: Entry[] = []
  private readonly byKey = new Map<string, Entry>()
  private shown: readonly Entry[] = []

  take(changes: readonly Change[]): void {
    const { compare } = this.level
    const isFew = changes.length <= MANY
    const fresh: Entry[] = []
    for (const [key, after] of changes) {
      const before = this.byKey.get(key)
      this.byKey.delete(key)
      if (isFew && before !== undefined) this.entries.splice(this.placeOf(before), 1)
      if (after === undefined || !this.level.matches(after)) continue
      const entry = this.add(key, after)
      if (isFew) this.entries.splice(this.placeFor(entry), 0, entry)
      else fresh.push(entry)
    }
    if (isFew) return
    // moving them one by one would move all the others each time; both parts are in order, so that sorting merges them
    const kept = this.entries.filter((entry) => this.byKey.get(entry.key) === entry)
    this.entries = [...kept, ...fresh.sort(compare)].sort(compare)
  }

  reset(rows: Iterable<readonly [string, Row]>): void {
    const before = new Map(this.byKey)
    this.byKey.clear()
    for (const [key, row] of rows) {
      const known = before.get(key)
      if (this.level.matches(row)) this.add(key, row, known?.row === row ? known : undefined)
    }
    this.entries = [...this.byKey.values()].sort(this.level.compare)
  }

  settle(): boolean {
    const { limit, shows, below } = this.level
    const shown = limit === null ? this.entries : this.entries.slice(0, limit)
    if (below.length > 0) this.showGroups(shown)
    const rows = shown.map((entry) => (entry.output ??= this.outputOf(entry)))
    const before = this.value
    if (shows === 'one') this.value = rows[0] ?? null
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

  private add(key: string, row: Row, entry: Entry = { key, row, groups: null, output: null }): Entry {
    this.byKey.set(key, entry)
    return entry
  }

  /** Takes groups into use before any is given up, so that one that goes from row to row stays. */
  private showGroups(shown: readonly Entry[]): void {
    const hidden = new Set(this.shown)
    for (const entry of shown) {
      hidden.delete(entry)
      entry.groups ??= this.level.below.map(({ level }) => level.useFor(entry, this))
    }
    for (const entry of hidden) this.hide(entry)
    this.shown = shown.slice()
  }

  private hide(entry: Entry): void {
    entry.groups?.forEach((group) => group?.giveUp(entry))
    entry.groups = entry.output = null
  }

  private outputOf({ row, groups }: Entry): Row {
    const { below, present } = this.level
    const shown = present(row)
    if (below.length === 0) return shown
    const values = below.map(({ name, level }, at) => [name, (groups?.[at] ?? level.nothing).value])
    return { ...shown, ...Object.fromEntries(values) }
  }

  /** The first place whose entry is not before `entry`. */
  private placeFor(entry: Entry): number {
    let [low, high] = [0, this.entries.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.level.compare(this.entries[middle] as Entry, entry) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  private placeOf(entry: Entry): number {
    const at = this.placeFor(entry)
    // `orderBy` may be the application's function: if it changed its mind, the entry is elsewhere
    return this.entries[at] === entry ? at : this.entries.indexOf(entry)
  }
}

/** A level that the rows of another one lead to. */
interface Below {
  readonly name: string
  readonly level: Level
}

/** One level of a query. */
export class Level {
  matches!: (row: Row) => boolean
  compare!: (a: Entry, b: Entry) => number
  readonly below: readonly Below[]
  readonly dirty = new Set<Group>()
  readonly groups = new Map<string | null, Group>()
  readonly shows: Shows
  readonly limit: number | null
  readonly column: string
  /** rows as the application wants them */
  readonly present: (row: Row) => Row
  /** what is shown where no row leads to any group */
  readonly nothing: { readonly value: unknown }
  private index: TableIndex | null = null
  /** the text by which a row above leads here */
  private textAbove: (row: Row) => string | null = () => null

  constructor(
    private readonly spec: LevelSpec,
    private readonly relation: Relation | null,
    private readonly ground: Ground,
  ) {
    const { table, shows, column = '', limit } = spec
    if (limit !== undefined && !(Number.isInteger(limit) && limit >= 0)) throw new TypeError('limit is a number of rows')
    this.shows = shows
    this.column = column
    this.limit = shows === 'one' ? 1 : (limit ?? null)
    this.nothing = { value: shows === 'many' ? NOTHING : shows === 'count' ? 0 : null }
    this.present = ground.knowledge.present(table)
    this.below = spec.below.map(({ name, relation, spec }) => ({ name, level: new Level(spec, relation, ground) }))
    this.prepare('')
  }

  /** A sum of this level's kind, null where nothing is summed. */
  newSum(): Sum | null {
    return this.shows === 'sum' ? new Sum(isDecimal(this.known(this.column))) : null
  }

  /** A sum in its column's form. */
  summed(value: unknown): unknown {
    return inForm(this.ground.knowledge.form(this.spec.table, this.column), value)
  }

  /** This level and all below, the deepest first. */
  deepestFirst(): Level[] {
    return [...this.below.flatMap(({ level }) => level.deepestFirst()), this]
  }

  /** Takes what is known of the columns now; indexes are in use from here until `release`. */
  begin(above: string): void {
    this.release()
    this.prepare(above)
    const { table } = this.spec
    if (this.relation !== null) this.index = this.ground.indexes.use(table, this.relation.to, (name) => this.known(name))
    for (const { level } of this.below) level.begin(table)
  }

  /** Gives the indexes back. */
  release(): void {
    if (this.index !== null) this.index.users -= 1
    this.index = null
    for (const { level } of this.below) level.release()
  }

  /** Rows as they are now, in every group; `settle` must follow. */
  reset(): void {
    if (this.relation === null && !this.groups.has(null)) this.groups.set(null, this.newGroup(null))
    for (const [text, group] of this.groups) {
      group.reset(this.rowsOf(text))
      this.dirty.add(group)
    }
    for (const { level } of this.below) level.reset()
  }

  /** Puts changed rows into the groups they concern; `settle` must follow. */
  take(changes: ViewChanges): void {
    const grouped = new Map<Group, Change[]>()
    const add = (text: string | null, change: Change) => {
      const group = this.groups.get(text)
      if (group === undefined) return
      const list = grouped.get(group)
      if (list === undefined) grouped.set(group, [change])
      else list.push(change)
    }
    for (const [key, change] of changes.get(this.spec.table) ?? []) this.spread(key, change, add)
    for (const [group, list] of grouped) {
      group.take(list)
      this.dirty.add(group)
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
  useFor(entry: Entry, list: List): Group | null {
    const text = this.textAbove(entry.row)
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

  private spread(key: string, { before, after }: RowChange, add: (text: string | null, change: Change) => void): void {
    if (this.index === null) return add(null, [key, after])
    const [was, is] = [before, after].map((row) => row && this.index?.text(row))
    // an empty text is one under which rows meet; null is none
    if (!isNull(was) && was !== is) add(was, [key, undefined])
    if (!isNull(is)) add(is, [key, after])
  }

  private rowsOf(text: string | null): Iterable<readonly [string, Row]> {
    return text === null ? this.ground.rows(this.spec.table) : (this.index?.find(text) ?? NOTHING)
  }

  private newGroup(text: string | null): Group {
    return this.shows === 'many' || this.shows === 'one' ? new List(this, text) : new Aggregate(this, text)
  }

  private known(name: string): KnownColumn | null {
    return this.ground.knowledge.column(this.spec.table, name)
  }

  private prepare(above: string): void {
    const { knowledge } = this.ground
    const { present } = this
    const { table, where, orderBy } = this.spec
    const column = (name: string) => this.known(name)
    // an application's function sees what the application sees
    const order = typeof orderBy === 'function' ? (a: Row, b: Row) => orderBy(present(a), present(b)) : orderBy
    const byRow = comparatorOf(order, column, knowledge.key(table) ?? [])
    this.compare = (a, b) => byRow(a.row, b.row) || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
    this.matches = filterOf(typeof where === 'function' ? (row) => where(present(row)) : where, column)
    if (this.relation !== null) this.textAbove = joinReader(this.relation.from, (name) => knowledge.column(above, name))
  }
}
