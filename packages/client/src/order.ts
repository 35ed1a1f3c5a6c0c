/**
 * Orders and comparisons of values, by the type of their column. NULLs sort as in PostgreSQL: last ascending, first
 * descending. Texts are compared by code points, as `collate "C"` does.
 */
import { compareTimes } from './times'
import { type Column, compareTexts, isNull, reader, type Row } from './values'

/** A column, columns with directions, or a comparator of rows. */
export type OrderBy<T> = string | readonly (readonly [column: string, direction: 'asc' | 'desc'])[] | ((a: T, b: T) => number)

/** Compares two values that are not null. */
export type Compare = (a: unknown, b: unknown) => number

/** What is known of a column: its type as PostgreSQL prints it, and the labels of an enum in their order. */
export interface KnownColumn {
  readonly type: Column['type']
  readonly labels?: readonly string[]
}

// as PostgreSQL prints them, with length, precision or scale; not arrays of them
const NUMBERS = /^(smallint|integer|real|double precision|oid|int[24]|float[48])$/
const DECIMALS = /^(bigint|int8|numeric|decimal)(\(.*\))?$/
const TIMES = /^(date|timestamp(tz)?(\(\d\))?( with(out)? time zone)?)$/

/** NaN is the greatest and equals itself, as in PostgreSQL. */
export function compareNumbers(a: number, b: number): number {
  if (a < b) return -1
  if (a > b) return 1
  return Number(Number.isNaN(a)) - Number(Number.isNaN(b))
}

/** Sign, digits before the point and behind it, without zeros that say nothing. */
const DECIMAL = /^([+-]?)0*(\d*)\.?(\d*?)0*$/

/** Decimal texts, exactly; `NaN` and the infinities as PostgreSQL has them. */
export function compareDecimals(a: string, b: string): number {
  const [x, y] = [Number(a), Number(b)]
  // a double tells numbers of up to fifteen digits apart
  if (a.length < 16 && b.length < 16 && Number.isFinite(x - y)) return x - y || 0
  const parts = [DECIMAL.exec(a), DECIMAL.exec(b)]
  const digits = Math.max(...parts.map((part) => part?.[3]?.length ?? 0))
  const [m, n] = parts.map((part) => part && BigInt(`${part[1]}0${part[2]}${part[3]?.padEnd(digits, '0')}`))
  if (isNull(m) || isNull(n)) return compareNumbers(x, y) || compareTexts(a, b)
  return m < n ? -1 : m > n ? 1 : 0
}

/** One text for all spellings of one number, so that they meet as keys. */
export function plainDecimal(text: string): string {
  const [, sign, whole, part] = DECIMAL.exec(text) ?? []
  if (whole === undefined) return text
  return `${sign === '-' && whole + part ? sign : ''}${whole || 0}${part && `.${part}`}`
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
  return column !== null && DECIMALS.test(column.type)
}

/** How values of a column compare. */
export function compareFor(column: KnownColumn | null): Compare {
  const { type = '', labels } = column ?? {}
  if (labels !== undefined) {
    const place = (value: unknown) => [...labels, value].indexOf(value)
    return (a, b) => place(a) - place(b) || compareTexts(asText(a), asText(b))
  }
  if (DECIMALS.test(type)) return (a, b) => compareDecimals(String(a), String(b))
  if (NUMBERS.test(type)) return (a, b) => compareNumbers(Number(a), Number(b))
  if (TIMES.test(type)) return (a, b) => compareTimes(asText(a), asText(b))
  return compareUnknown
}

/**
 * The comparator that an `orderBy` means, with ties decided by `key`, the table's key columns; it leaves only rows of
 * equal keys equal. What is known of the columns is asked once, here.
 */
export function comparatorOf(
  orderBy: OrderBy<Row> | undefined,
  column: (name: string) => KnownColumn | null,
  key: readonly string[],
): (a: Row, b: Row) => number {
  const given = typeof orderBy === 'string' ? [orderBy] : typeof orderBy === 'function' ? [] : (orderBy ?? [])
  const steps = [...given, ...key].map((one) => {
    const [name, direction] = typeof one === 'string' ? [one] : one
    return { read: reader(name), isDown: direction === 'desc', compare: compareFor(column(name)) }
  })
  const byColumns = (a: Row, b: Row) => {
    for (const { read, isDown, compare } of steps) {
      const [x, y] = [read(a), read(b)]
      if (x === y) continue
      const [noX, noY] = [isNull(x), isNull(y)]
      const order = noX || noY ? Number(noX) - Number(noY) : compare(x, y)
      if (order !== 0) return isDown ? -order : order
    }
    return 0
  }
  return typeof orderBy === 'function' ? (a, b) => orderBy(a, b) || byColumns(a, b) : byColumns
}
