/**
 * Values: what travels (JSON by a column's `wire`) and what an application sees.
 */

/** Any JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json }

/** A row as it travels and as it is stored: JSON values in the order of its shape's columns. */
export type WireRow = readonly Json[]

/** A row as an application sees it, by column name. Never changed in place. */
export type Row = Readonly<Record<string, unknown>>

/** One column of a shape: its name, PostgreSQL's type name, and how its values travel. */
export interface Column {
  readonly name: string
  readonly type: string
  readonly wire: string
}

/** Whether a value is NULL, or not there. */
export function isNull(value: unknown): value is null | undefined {
  return value === null || value === undefined
}

/** What an object says under a name that others chose. Every object also inherits some, `constructor` for one. */
export function own<T>(of: Readonly<Record<string, T>> | undefined, name: string): T | undefined {
  return of !== undefined && Object.hasOwn(of, name) ? of[name] : undefined
}

/** Reads a column of rows, many times: only a name that every object knows costs a closer look. */
export function reader(name: string): (row: Row) => unknown {
  return name in {} ? (row) => own(row, name) : (row) => row[name]
}

/** The text that names a row within its table: its key values as JSON. */
export function keyText(values: readonly Json[]): string {
  return JSON.stringify(values)
}

/** Reads the key text of a shape's rows. */
export function keyReader({ key, columns }: { readonly key: readonly string[]; readonly columns: readonly Column[] }): (row: WireRow) => string {
  const places = key.map((name) => columns.findIndex((column) => column.name === name))
  return (row) => keyText(places.map((place) => row[place] as Json))
}

/**
 * Turns a travelling value into what the application sees: `json` is parsed, the three floats that JSON lacks become
 * numbers, everything else is as it came (int8 and numeric stay strings, a number would lose digits).
 */
export function decodeValue(wire: string, value: Json): unknown {
  if (typeof value !== 'string') return value
  return wire === 'json' ? JSON.parse(value) : wire === 'float' ? Number(value) : value
}

/**
 * Turns an application's value into JSON for an operation. bigint becomes decimal text, a Date ISO text, the floats
 * that JSON lacks their names; `undefined` gives `undefined` and is left out by the caller.
 * Throws a TypeError for what no column could hold.
 */
export function encodeValue(value: unknown): Json | undefined {
  switch (typeof value) {
    case 'undefined':
      return undefined
    case 'boolean':
    case 'string':
      return value
    case 'bigint':
      return value.toString()
    case 'number':
      // JSON text of -0 is 0
      if (Object.is(value, -0)) return '-0'
      return Number.isFinite(value) ? value : String(value)
    case 'object':
      break
    default:
      throw new TypeError(`a ${typeof value} is not a value of a column`)
  }
  if (value === null) return null
  if (value instanceof Date) return value.toISOString()
  if (Array.isArray(value)) return value.map((item) => encodeValue(item) ?? null)
  return encodeRecord(value as Record<string, unknown>)
}

/** Encodes every value of a record; names whose value is `undefined` are left out. */
export function encodeRecord(record: Readonly<Record<string, unknown>>): Record<string, Json> {
  const encoded = Object.entries(record).map(([name, value]) => [name, encodeValue(value)] as const)
  return Object.fromEntries(encoded.filter((one): one is [string, Json] => one[1] !== undefined))
}

/**
 * What an operation's value will look like once the server sent it back, as well as can be told without asking:
 * a number for a `text` column (int8, numeric) becomes text, digits for an `int` column a number, so that keys and
 * comparisons agree with the server's rows.
 */
export function guessValue(column: Column | undefined, value: Json): unknown {
  if (column === undefined || value === null) return value
  if (column.wire === 'text' && (typeof value === 'number' || typeof value === 'boolean')) return String(value)
  const isNumber = column.wire === 'float' || (column.wire === 'int' && /^-?\d+$/.test(value as string))
  return isNumber && typeof value === 'string' ? Number(value) : value
}

/** Whether two application values are the same: by identity, or by content for parsed JSON. */
export function sameValue(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  return JSON.stringify(a) === JSON.stringify(b)
}

/** Whether two rows have the same columns with the same values. */
export function sameRow(a: Row, b: Row): boolean {
  const names = Object.keys(a)
  if (names.length !== Object.keys(b).length) return false
  return names.every((name) => name in b && sameValue(a[name], b[name]))
}

/** By code points: UTF-16 has those above U+FFFF before U+E000. */
export function compareTexts(a: string, b: string): number {
  if (a === b) return 0
  const length = Math.min(a.length, b.length)
  for (let at = 0; at < length; at += 1) {
    const [x, y] = [a.charCodeAt(at), b.charCodeAt(at)]
    if (x === y) continue
    const [highX, highY] = [x >= 0xd800 && x < 0xe000, y >= 0xd800 && y < 0xe000]
    return highX === highY ? x - y : highX ? 1 : -1
  }
  return a.length - b.length
}
