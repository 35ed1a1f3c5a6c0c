/** Live queries: a filtered, ordered list over the view that moves only the rows that changed. */
import { Listeners } from './listeners'
import { comparatorOf, type OrderBy } from './order'
import { tableName } from './protocol'
import type { Row } from './values'
import type { RowChange, View, ViewChanges } from './view'

/** What a live query asks for. `limit` counts rows. */
export interface QueryDefinition<T> {
  readonly table: string
  readonly where?: (row: T) => boolean
  readonly orderBy?: OrderBy<T>
  readonly limit?: number
}

/** A list that follows the view. */
export interface LiveQuery<T> {
  /** The rows; the same array until one of them changes, and rows that did not change keep their identity. */
  getSnapshot(): readonly T[]
  /** Calls back once per commit or mutation that changed the list. */
  subscribe(callback: () => void): () => void
}

/** So many changed rows are merged into the list instead of being moved one by one. */
const MANY = 100

interface Entry {
  readonly key: string
  readonly row: Row
}

/** The one implementation; the client feeds it the view's changes. */
export class LiveQueryState implements LiveQuery<Row> {
  private readonly listeners = new Listeners()
  private detach: (() => void) | null = null
  private seen = -1
  private entries: Entry[] = []
  private snapshot: readonly Row[] = []
  private readonly table: string
  private readonly compare: (a: Entry, b: Entry) => number

  constructor(
    private readonly definition: QueryDefinition<Row>,
    private readonly view: View,
    private readonly attach: (query: LiveQueryState) => () => void,
  ) {
    this.table = tableName(definition.table)
    const byRow = comparatorOf(
      definition.orderBy,
      (name) => view.column(this.table, name),
      () => view.key(this.table),
    )
    this.compare = (a, b) => byRow(a.row, b.row) || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
  }

  /** Nobody is told of a list without subscribers; it is built anew when somebody looks. */
  getSnapshot(): readonly Row[] {
    if (this.seen !== this.view.version) this.rebuild()
    return this.snapshot
  }

  subscribe(callback: () => void): () => void {
    const remove = this.listeners.add(callback)
    if (this.detach === null) {
      this.getSnapshot()
      this.detach = this.attach(this)
    }
    return () => {
      remove()
      if (this.listeners.size > 0) return
      this.detach?.()
      this.detach = null
    }
  }

  /** Calls the subscribers. */
  notify(): void {
    this.listeners.call()
  }

  /** Takes the view's newest changes; true when the list is another one now. The caller then calls `notify`. */
  take(changes: ViewChanges): boolean {
    this.seen = this.view.version
    const rows = changes.get(this.table)
    if (rows === undefined) return false
    if (rows.size * 2 > this.view.rows(this.table).size) return this.rebuild()
    if (rows.size > MANY) return this.merge(rows)
    for (const [key, { before, after }] of rows) {
      if (before !== undefined && this.matches(before)) this.remove({ key, row: before })
      if (after !== undefined && this.matches(after)) this.insert({ key, row: after })
    }
    return this.show()
  }

  /** Many rows at once: moving them one by one would move all the others each time. */
  private merge(rows: ReadonlyMap<string, RowChange>): boolean {
    const fresh: Entry[] = []
    for (const [key, { after }] of rows) if (after !== undefined && this.matches(after)) fresh.push({ key, row: after })
    fresh.sort(this.compare)
    const merged: Entry[] = []
    let at = 0
    for (const entry of this.entries) {
      if (rows.has(entry.key)) continue
      for (let next = fresh[at]; next !== undefined && this.compare(next, entry) < 0; next = fresh[at]) {
        merged.push(next)
        at += 1
      }
      merged.push(entry)
    }
    for (; at < fresh.length; at += 1) merged.push(fresh[at] as Entry)
    this.entries = merged
    return this.show()
  }

  private matches(row: Row): boolean {
    return this.definition.where?.(row) ?? true
  }

  private rebuild(): boolean {
    this.seen = this.view.version
    this.entries = []
    for (const [key, row] of this.view.rows(this.table)) if (this.matches(row)) this.entries.push({ key, row })
    this.entries.sort(this.compare)
    return this.show()
  }

  /** The first place whose entry is not before `entry`. */
  private place(entry: Entry): number {
    let [low, high] = [0, this.entries.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.compare(this.entries[middle] as Entry, entry) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  private insert(entry: Entry): void {
    this.entries.splice(this.place(entry), 0, entry)
  }

  private remove(entry: Entry): void {
    let at = this.place(entry)
    // `where` and `orderBy` are the application's: if they changed their mind, the entry is elsewhere
    if (this.entries[at]?.key !== entry.key) at = this.entries.findIndex(({ key }) => key === entry.key)
    if (at >= 0) this.entries.splice(at, 1)
  }

  private show(): boolean {
    const { limit } = this.definition
    const shown = limit === undefined ? this.entries : this.entries.slice(0, limit)
    const before = this.snapshot
    if (shown.length === before.length && shown.every(({ row }, at) => row === before[at])) return false
    this.snapshot = shown.map(({ row }) => row)
    return true
  }
}
