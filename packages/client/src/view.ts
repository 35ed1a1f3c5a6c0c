/**
 * What an application sees: a pure function of the rows held and the outbox. `viewOf` is that function; `View` gives
 * the same answer and touches only rows that may have changed (test/view.test.ts holds the two together).
 */
import type { HeldShape, TouchedKeys } from './apply'
import type { PendingMutation } from './outbox'
import { KIND_CONDITIONAL, KIND_OPS } from './store'
import { type AskedShape, tableName } from './protocol'
import { passes } from './shape_where'
import { TableIndexes } from './table_index'
import { type Column, decodeValue, guessValue, type Json, keyText, own, type Row, sameRow } from './values'

/** A shape that the application asked for; `held` is null until its first commit. */
export interface ActiveShape {
  readonly definition: AskedShape
  readonly held: HeldShape | null
}

/** The rows of one table, by key text. */
export type TableRows = ReadonlyMap<string, Row>

/** A row that changed; absent on one side when it came or went. */
export interface RowChange {
  readonly before: Row | undefined
  readonly after: Row | undefined
}

/** What an update of the view changed, by table name, then key text. */
export type ViewChanges = ReadonlyMap<string, ReadonlyMap<string, RowChange>>

interface Table {
  readonly active: readonly ActiveShape[]
  readonly held: readonly HeldShape[]
  /** null until a shape of the table was described */
  readonly key: readonly string[] | null
  readonly columns: ReadonlyMap<string, Column>
}

type Tables = ReadonlyMap<string, Table>
type Overlay = Map<string, Map<string, Row | null>>

const NO_ROWS: TableRows = new Map()

function tablesOf(active: readonly ActiveShape[]): Tables {
  const grouped = new Map<string, ActiveShape[]>()
  for (const one of active) {
    const name = tableName(one.definition.table)
    grouped.set(name, [...(grouped.get(name) ?? []), one])
  }
  return new Map(
    [...grouped].map(([name, shapes]) => {
      const held = shapes.flatMap((one) => (one.held === null ? [] : [one.held]))
      const columns = new Map(held.flatMap((shape) => shape.columns.map((column) => [column.name, column] as const)))
      return [name, { active: shapes, held, key: held[0]?.key ?? null, columns }]
    }),
  )
}

/** The row under `key` in the union of the shapes; columns of several shapes are merged. */
function baseRow(table: Table | undefined, key: string): Row | undefined {
  let row: Record<string, unknown> | undefined
  for (const { rows, columns } of table?.held ?? []) {
    const values = rows.get(key)
    if (values === undefined) continue
    row ??= {}
    for (let at = 0; at < columns.length; at += 1) {
      const { name, wire } = columns[at] as Column
      const value = decodeValue(wire, values[at] ?? null)
      // assigned, it would be what the row inherits from
      if (name === '__proto__') Object.defineProperty(row, name, { value, enumerable: true })
      else row[name] = value
    }
  }
  return row
}

/** Before the table was described its key is a guess: `id`, or else all that an insert gives. */
function keyOf(table: Table, values: Readonly<Record<string, unknown>>): string | null {
  const names = table.key ?? ('id' in values ? ['id'] : Object.keys(values).sort())
  const key = names.map((name) => guessValue(table.columns.get(name), (own(values, name) ?? null) as Json))
  // a key that the database will fill in cannot be shown before it did
  return key.includes(null) ? null : keyText(key as Json[])
}

function guessRow(table: Table, values: Readonly<Record<string, Json>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, guessValue(table.columns.get(name), value)]))
}

/**
 * Whether a row lies in a shape that the application asked for: nothing else would stay after the ack. `missing`: columns
 * that were not written.
 */
function isInShape(table: Table, row: Row, missing: ReadonlySet<string> | undefined): boolean {
  return table.active.some(
    ({ definition: { scope, condition } }) =>
      Object.entries(scope ?? {}).every(([name, value]) => !Object.hasOwn(row, name) || String(row[name]) === String(value)) &&
      passes(condition, row, missing, (name) => table.columns.get(name) ?? null),
  )
}

/** The rows that the outbox changes, after all its operations in order; null where it leaves none. */
function overlayOf(tables: Tables, outbox: readonly PendingMutation[]): Overlay {
  const overlay: Overlay = new Map()
  /** of rows that were inserted here: the columns that the database fills in */
  const missing = new Map<Row, ReadonlySet<string>>()
  for (const mutation of outbox) {
    // what another kind does is not known here; it is sent all the same
    if (mutation.kind !== KIND_OPS && mutation.kind !== KIND_CONDITIONAL) continue
    for (const op of mutation.ops) {
      const name = tableName(op.table)
      const table = tables.get(name)
      if (table === undefined) continue
      const rows = overlay.get(name) ?? new Map<string, Row | null>()
      overlay.set(name, rows)
      const key = keyOf(table, op.op === 'insert' ? op.values : op.key)
      if (key === null) continue
      if (op.op === 'delete') {
        rows.set(key, null)
      } else if (op.op === 'insert') {
        const blank = Object.fromEntries([...table.columns.keys()].map((column) => [column, null]))
        const row = { ...blank, ...guessRow(table, op.values) }
        rows.set(key, row)
        missing.set(row, new Set([...table.columns.keys()].filter((column) => !Object.hasOwn(op.values, column))))
      } else {
        const before = rows.has(key) ? rows.get(key) : baseRow(table, key)
        if (!before) continue
        const after = { ...before, ...guessRow(table, op.set) }
        const newKey = keyOf(table, after) ?? key
        if (newKey !== key) rows.set(key, null)
        rows.set(newKey, after)
        const absent = missing.get(before)
        if (absent) missing.set(after, new Set([...absent].filter((column) => !Object.hasOwn(op.set, column))))
      }
    }
  }
  for (const [name, rows] of overlay) {
    const table = tables.get(name) as Table
    for (const [key, row] of rows) if (row !== null && !isInShape(table, row, missing.get(row))) rows.set(key, null)
  }
  return overlay
}

function visibleRow(table: Table | undefined, overlay: ReadonlyMap<string, Row | null> | undefined, key: string): Row | undefined {
  return overlay?.has(key) ? (overlay.get(key) ?? undefined) : baseRow(table, key)
}

/** The view, from nothing: the definition that `View` is held to. */
export function viewOf(active: readonly ActiveShape[], outbox: readonly PendingMutation[]): Map<string, Map<string, Row>> {
  const tables = tablesOf(active)
  const overlay = overlayOf(tables, outbox)
  const view = new Map<string, Map<string, Row>>()
  for (const [name, table] of tables) {
    const keys = new Set([...table.held.flatMap((shape) => [...shape.rows.keys()]), ...(overlay.get(name)?.keys() ?? [])])
    const rows = new Map<string, Row>()
    for (const key of keys) {
      const row = visibleRow(table, overlay.get(name), key)
      if (row !== undefined) rows.set(key, row)
    }
    view.set(name, rows)
  }
  return view
}

/** The view kept up to date row by row. */
export class View {
  /** Counts the updates that changed something. */
  version = 0
  /** Counts the updates after which something else is known of columns or keys. */
  described = 0
  readonly indexes = new TableIndexes((table) => this.rows(table))
  private describing: readonly HeldShape['columns'][] = []
  private descriptions = new Map<string, string>()
  private tables: Tables = new Map()
  private overlay: Overlay = new Map()
  private readonly visible = new Map<string, Map<string, Row>>()

  /** The visible rows of a table; the map changes with the next update. */
  rows(table: string): TableRows {
    return this.visible.get(table) ?? NO_ROWS
  }

  /** The key text of a row of this table; null when these values are not its key. */
  keyOf(table: string, values: Readonly<Record<string, Json>>): string | null {
    const known = this.tables.get(table)
    return known === undefined ? null : keyOf(known, values)
  }

  /** What is known of a column: null until a shape with it was described. */
  column(table: string, name: string): Column | null {
    return this.tables.get(table)?.columns.get(name) ?? null
  }

  /** All that is known of a table's columns and key, to tell whether it is something else now. */
  description(table: string): string {
    return this.descriptions.get(table) ?? ''
  }

  /** The key columns of a table, null until it was described. */
  key(table: string): readonly string[] | null {
    return this.tables.get(table)?.key ?? null
  }

  /**
   * Brings the view up to date. `touched` names the rows whose base may have changed; shapes that became active or
   * inactive must have all their keys in it.
   */
  update(active: readonly ActiveShape[], outbox: readonly PendingMutation[], touched: TouchedKeys): ViewChanges {
    const before = this.overlay
    this.tables = tablesOf(active)
    this.describe(active)
    this.overlay = overlayOf(this.tables, outbox)
    const dirty: Map<string, ReadonlySet<string>> = new Map(touched)
    for (const overlay of [before, this.overlay]) {
      for (const [name, rows] of overlay) {
        if (rows.size > 0) dirty.set(name, new Set([...(dirty.get(name) ?? []), ...rows.keys()]))
      }
    }
    const changes = new Map<string, Map<string, RowChange>>()
    for (const [name, keys] of dirty) {
      const changed = this.updateTable(name, keys)
      if (changed.size > 0) changes.set(name, changed)
    }
    if (changes.size > 0) this.version += 1
    this.indexes.update(changes)
    return changes
  }

  /** A shape that is described anew has another list of columns, and so another object; it may say the same. */
  private describe(active: readonly ActiveShape[]): void {
    const held = active.flatMap((one) => (one.held === null ? [] : [one.held]))
    const before = this.describing
    if (held.length === before.length && held.every(({ columns }, at) => columns === before[at])) return
    this.describing = held.map(({ columns }) => columns)
    this.descriptions = new Map()
    for (const [name, { key, columns }] of this.tables) this.descriptions.set(name, JSON.stringify([key, [...columns.values()]]))
    this.described += 1
  }

  private updateTable(name: string, keys: ReadonlySet<string>): Map<string, RowChange> {
    const visible = this.visible.get(name) ?? new Map<string, Row>()
    this.visible.set(name, visible)
    const [table, overlay] = [this.tables.get(name), this.overlay.get(name)]
    const changed = new Map<string, RowChange>()
    for (const key of keys) {
      const before = visible.get(key)
      const after = visibleRow(table, overlay, key)
      // an equal row keeps its identity, so that nothing that shows it is drawn again
      if (before === after || (before !== undefined && after !== undefined && sameRow(before, after))) continue
      if (after === undefined) visible.delete(key)
      else visible.set(key, after)
      changed.set(key, { before, after })
    }
    return changed
  }
}
