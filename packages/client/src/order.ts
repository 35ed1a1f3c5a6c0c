/**
 * Orders and comparisons of values, by the type of their column. NULLs sort as in PostgreSQL: last ascending, first
 * descending. Texts are compared by code points, as `collate "C"` does.
 */
import { compareTimes } from './times'
import { type Column, compareTexts, type Row } from './values'

/** A column, columns with directions, or a comparator of rows. */
export type OrderBy<T> = string | readonly (readonly [column: string, direction: 'asc' | 'desc'])[] | ((a: T, b: T) => number)

/** Compares two values that are not null. */
export type Compare = (a: unknown, b: unknown) => number

/** What is known of a column: its type as PostgreSQL prints it, and the labels of an enum in their order. */
export interface KnownColumn {
  readonly type: Column['type']
  readonly labels?: readonly string[]
}

const NUMBERS = new Set(['smallint', 'integer', 'real', 'double precision', 'oid', 'int2', 'int4', 'float4', 'float8'])
const DECIMALS = new Set(['bigint', 'int8', 'numeric', 'decimal'])
const TIMES = new Set(['date', 'timestamp with time zone', 'timestamp without time zone', 'timestamp', 'timestamptz'])

/** A type's name without length, precision and scale, which may stand inside of it: `timestamp(3) with time zone`. */
function baseType(type: string): string {
  return type.replace(/\(.*?\)/, '')
}

/** NaN is the greatest and equals itself, as in PostgreSQL. */
export function compareNumbers(a: number, b: number): number {
  if (a < b) return -1
  if (a > b) return 1
  return Number(Number.isNaN(a)) - Number(Number.isNaN(b))
}

const DECIMAL = /^([+-]?)0*(\d*)(?:\.(\d*?)0*)?$/

/** Decimal texts, exactly; `NaN` and the infinities as PostgreSQL has them. */
export function compareDecimals(a: string, b: string): number {
  if (a === b) return 0
  if (a.length < 16 && b.length < 16) {
    const [x, y] = [Number(a), Number(b)]
    if (Number.isSafeInteger(x) && Number.isSafeInteger(y)) return x - y || 0
  }
  const [x, y] = [DECIMAL.exec(a), DECIMAL.exec(b)]
  if (x === null || y === null) {
    const order = compareNumbers(Number(a), Number(b))
    return order === 0 ? compareTexts(a, b) : order
  }
  const [, signX, wholeX = '', partX = ''] = x
  const [, signY, wholeY = '', partY = ''] = y
  const [lessX, lessY] = [signX === '-' && wholeX + partX !== '', signY === '-' && wholeY + partY !== '']
  if (lessX !== lessY) return lessX ? -1 : 1
  const size = wholeX.length - wholeY.length || compareTexts(wholeX, wholeY) || compareTexts(partX, partY)
  return lessX ? 0 - size : size
}

/** One text for all spellings of one number, so that they meet as keys. */
export function plainDecimal(text: string): string {
  const match = DECIMAL.exec(text)
  if (match === null) return text
  const [, sign, whole = '', part = ''] = match
  return `${sign === '-' && whole + part !== '' ? '-' : ''}${whole || '0'}${part === '' ? '' : `.${part}`}`
}

const asText = (value: unknown): string =>
  typeof value === 'string' ? value : typeof value === 'object' ? JSON.stringify(value) : String(value)

/** Where nothing is known of the column the values themselves decide. */
function compareUnknown(a: unknown, b: unknown): number {
  if (typeof a === 'number' && typeof b === 'number') return compareNumbers(a, b)
  if (typeof a === 'boolean' && typeof b === 'boolean') return Number(a) - Number(b)
  return compareTexts(asText(a), asText(b))
}

/** Whether a column's values are numbers that travel as text. */
export function isDecimal(column: KnownColumn | null): boolean {
  return column !== null && DECIMALS.has(baseType(column.type))
}

/** How values of a column compare. */
export function compareFor(column: KnownColumn | null): Compare {
  if (column === null) return compareUnknown
  const type = baseType(column.type)
  if (column.labels !== undefined) {
    const places = new Map(column.labels.map((label, at) => [label, at]))
    const place = (value: unknown) => places.get(value as string) ?? places.size
    return (a, b) => place(a) - place(b) || compareTexts(asText(a), asText(b))
  }
  if (DECIMALS.has(type)) return (a, b) => compareDecimals(String(a), String(b))
  if (NUMBERS.has(type)) return (a, b) => compareNumbers(Number(a), Number(b))
  if (TIMES.has(type)) return (a, b) => compareTimes(asText(a), asText(b))
  return compareUnknown
}

const isNull = (value: unknown) => value === null || value === undefined

/**
 * The comparator that an `orderBy` means, with ties decided by `key`, the table's key columns; it leaves only rows of
 * equal keys equal. What is known of the columns is asked once, here.
 */
export function comparatorOf(
  orderBy: OrderBy<Row> | undefined,
  column: (name: string) => KnownColumn | null,
  key: readonly string[],
): (a: Row, b: Row) => number {
  const given = typeof orderBy === 'function' ? [] : typeof orderBy === 'string' ? [[orderBy, 'asc'] as const] : (orderBy ?? [])
  const steps = [...given, ...key.map((name) => [name, 'asc'] as const)].map(([name, direction]) => {
    return { name, isDown: direction === 'desc', compare: compareFor(column(name)) }
  })
  const byColumns = (a: Row, b: Row) => {
    for (const { name, isDown, compare } of steps) {
      const [x, y] = [a[name], b[name]]
      if (x === y) continue
      const [noX, noY] = [isNull(x), isNull(y)]
      const order = noX || noY ? Number(noX) - Number(noY) : compare(x, y)
      if (order !== 0) return isDown ? -order : order
    }
    return 0
  }
  return typeof orderBy === 'function' ? (a, b) => orderBy(a, b) || byColumns(a, b) : byColumns
}
