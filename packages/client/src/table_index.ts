/** Which rows of a table have these values: kept for the relationships that live queries follow, shared by them. */
import type { KnownColumn } from './order'
import { joinReader } from './schema'
import type { Row } from './values'
import type { RowChange, TableRows } from './view'

/** The rows of one table by the values of some columns. One key alone is kept without a set around it. */
export class TableIndex {
  users = 0
  private readonly keys = new Map<string, string | Set<string>>()

  /** `text` gives the text under which a row is found. */
  constructor(
    private readonly rows: () => TableRows,
    readonly text: (row: Row) => string | null,
  ) {
    for (const [key, row] of rows()) this.add(key, row)
  }

  /** The rows found under `text`. */
  *find(text: string): Iterable<readonly [key: string, row: Row]> {
    const found = this.keys.get(text)
    if (found === undefined) return
    const rows = this.rows()
    for (const key of typeof found === 'string' ? [found] : found) {
      const row = rows.get(key)
      if (row !== undefined) yield [key, row]
    }
  }

  /** Takes the changes of its table. */
  take(changes: ReadonlyMap<string, RowChange>): void {
    for (const [key, { before, after }] of changes) {
      if (before !== undefined) this.remove(key, before)
      if (after !== undefined) this.add(key, after)
    }
  }

  private add(key: string, row: Row): void {
    const text = this.text(row)
    if (text === null) return
    const found = this.keys.get(text)
    if (found === undefined) this.keys.set(text, key)
    else if (typeof found !== 'string') found.add(key)
    else if (found !== key) this.keys.set(text, new Set([found, key]))
  }

  private remove(key: string, row: Row): void {
    const text = this.text(row)
    if (text === null) return
    const found = this.keys.get(text)
    if (found === key) this.keys.delete(text)
    else if (typeof found === 'object' && found.delete(key) && found.size === 0) this.keys.delete(text)
  }
}

/** The indexes of one view. One that nobody uses is kept until rows change, so that looking twice builds it once. */
export class TableIndexes {
  private readonly indexes = new Map<string, { readonly table: string; readonly index: TableIndex }>()

  /** `rows` gives a table's rows, `column` what is known of a column. */
  constructor(private readonly rows: (table: string) => TableRows) {}

  /** Takes an index into use; `release` gives it back. */
  use(table: string, names: readonly string[], column: (name: string) => KnownColumn | null): TableIndex {
    const id = JSON.stringify([table, names, names.map(column)])
    const found = this.indexes.get(id) ?? { table, index: new TableIndex(() => this.rows(table), joinReader(names, column)) }
    this.indexes.set(id, found)
    found.index.users += 1
    return found.index
  }

  /** Takes what an update of the view changed. */
  update(changes: ReadonlyMap<string, ReadonlyMap<string, RowChange>>): void {
    for (const [id, { table, index }] of this.indexes) {
      const rows = changes.get(table)
      if (index.users === 0) this.indexes.delete(id)
      else if (rows !== undefined) index.take(rows)
    }
  }
}
