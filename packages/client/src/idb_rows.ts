/**
 * How rows lie in IndexedDB (docs/decisions/0030-rows-in-indexeddb.md has the figures): chunks of many rows as one JSON
 * text each, and behind them a log, one JSON text for what one commit changed in one shape. A log that has grown is
 * folded into new chunks when nothing else is to do.
 */
import { ask } from './idb'
import type { ShapeWrite, StoredShape } from './store'
import { keyReader, type WireRow } from './values'

/** Rows in one chunk: few enough that writing one does not hold up the page. */
export const CHUNK_ROWS = 2000
/** A log is folded when it has so many records, or so many rows and half as many as the shape. */
const LOG_RECORDS = 100
const LOG_ROWS = 1000

const CHUNK = 0
const LOG = 1

/** The key of a record: its shape, whether it is a chunk or of the log, and a number. */
export type RowsKey = [shape: string, kind: typeof CHUNK | typeof LOG, number: number]

/** All records of a shape. */
export function rowsOf(shape: string): IDBKeyRange {
  // arrays sort after text and numbers, so [shape, []] closes the range
  return IDBKeyRange.bound([shape], [shape, []])
}

/** How long the logs are, by shape. */
export class Logs {
  private readonly logs = new Map<string, { records: number; rows: number }>()

  /** Counts a record. */
  add(shape: string, rows: number): void {
    const log = this.logs.get(shape) ?? { records: 0, rows: 0 }
    this.logs.set(shape, { records: log.records + 1, rows: log.rows + rows })
  }

  /** A shape has no log any more. */
  forget(shape: string): void {
    this.logs.delete(shape)
  }

  /** There are no logs. */
  clear(): void {
    this.logs.clear()
  }

  /** Shapes whose log is worth folding; `size` tells how many rows a shape has. */
  long(size: (shape: string) => number): string[] {
    const isLong = ([id, { records, rows }]: [string, { records: number; rows: number }]) =>
      records >= LOG_RECORDS || (rows >= LOG_ROWS && rows * 2 > size(id))
    return [...this.logs].filter(isLong).map(([id]) => id)
  }

  /** Whether any log could be worth folding. */
  get isLong(): boolean {
    return [...this.logs.values()].some(({ records, rows }) => records >= LOG_RECORDS || rows >= LOG_ROWS)
  }
}

/** The store `rows` in a writing transaction, as far as it is used here. */
export interface RowsStore {
  put(value: string, key: RowsKey): IDBRequest<IDBValidKey>
  delete(range: IDBKeyRange): IDBRequest<undefined>
}

/** The texts of a shape's chunks. */
export function* chunksOf(rows: Iterable<WireRow>): Generator<string> {
  let chunk: WireRow[] = []
  for (const row of rows) {
    chunk.push(row)
    if (chunk.length < CHUNK_ROWS) continue
    yield JSON.stringify(chunk)
    chunk = []
  }
  if (chunk.length > 0) yield JSON.stringify(chunk)
}

/** Writes what happens to the rows of one shape. `revision` orders the log. */
export function writeRows(store: RowsStore, change: ShapeWrite, revision: number, logs: Logs): void {
  if (change.drop || change.reset) {
    store.delete(rowsOf(change.id))
    logs.forget(change.id)
  }
  if (change.drop || change.rows.size === 0) return
  if (!change.reset) {
    store.put(JSON.stringify([...change.rows]), [change.id, LOG, revision])
    logs.add(change.id, change.rows.size)
    return
  }
  let number = 0
  const kept = [...change.rows.values()].filter((row): row is WireRow => row !== null)
  for (const chunk of chunksOf(kept)) store.put(chunk, [change.id, CHUNK, number++])
}

/** Folds a shape's log. Each chunk is made while the one before is being written, so that the page is never held up. */
export async function foldRows(store: RowsStore, shape: string, rows: ReadonlyMap<string, WireRow>, logs: Logs): Promise<void> {
  await ask(store.delete(rowsOf(shape)))
  let number = 0
  for (const chunk of chunksOf(rows.values())) await ask(store.put(chunk, [shape, CHUNK, number++]))
  logs.forget(shape)
}

/** Reads one record into `rows`: a list of rows, or (in the log) of keys with the row that each has from then on. */
function readRecord(shape: StoredShape, isLog: boolean, records: readonly unknown[], rows: Map<string, WireRow>): void {
  const keyOf = keyReader(shape)
  for (const record of records as any[]) {
    const row: WireRow | null = isLog ? record[1] : record
    if (row === null) rows.delete(record[0])
    else if (!Array.isArray(row) || row.length !== shape.columns.length) throw new Error('not a row')
    else rows.set(isLog ? record[0] : keyOf(row), row)
  }
}

/** All rows, by shape. Shapes with a record that cannot be read are named and left out. */
export function readRows(shapes: readonly StoredShape[], keys: readonly RowsKey[], texts: readonly string[], logs: Logs) {
  const rows = new Map(shapes.map(({ id }) => [id, new Map<string, WireRow>()]))
  const known = new Map(shapes.map((shape) => [shape.id, shape]))
  const damaged = new Set<string>()
  logs.clear()
  // key order puts a shape's chunks before its log
  keys.forEach(([id, kind], at) => {
    const [shape, held] = [known.get(id), rows.get(id)]
    if (shape === undefined || held === undefined) return
    try {
      const records = JSON.parse(texts[at] as string)
      readRecord(shape, kind === LOG, records, held)
      if (kind === LOG) logs.add(id, records.length)
    } catch {
      damaged.add(id)
      rows.delete(id)
    }
  })
  return { rows, damaged }
}
