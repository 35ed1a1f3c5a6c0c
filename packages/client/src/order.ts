/** Orders of a live query. NULLs sort as in PostgreSQL: last ascending, first descending. */
import type { Column, Row } from './values'

/** A column, columns with directions, or a comparator of rows. */
export type OrderBy<T> = string | readonly (readonly [column: string, direction: 'asc' | 'desc'])[] | ((a: T, b: T) => number)

/** PostgreSQL types whose travelling text must be compared as numbers. */
const NUMBER_TEXT = new Set(['int8', 'bigint', 'numeric'])

function compareNumberText(a: string, b: string): number {
  if (/^-?\d+$/.test(a) && /^-?\d+$/.test(b)) {
    const [x, y] = [BigInt(a), BigInt(b)]
    return x < y ? -1 : x > y ? 1 : 0
  }
  return Number(a) - Number(b)
}

function compareValues(a: unknown, b: unknown, column: Column | null): number {
  if (a === b) return 0
  if (typeof a === 'string' && typeof b === 'string') {
    if (column !== null && NUMBER_TEXT.has(column.type)) return compareNumberText(a, b)
    return a < b ? -1 : 1
  }
  if (typeof a === 'number' && typeof b === 'number') return a - b
  if (typeof a === 'boolean' && typeof b === 'boolean') return Number(a) - Number(b)
  const [x, y] = [String(a), String(b)]
  return x < y ? -1 : x > y ? 1 : 0
}

function compareColumn(a: unknown, b: unknown, column: Column | null, descending: boolean): number {
  const [noA, noB] = [a === null || a === undefined, b === null || b === undefined]
  const ascending = noA || noB ? Number(noA) - Number(noB) : compareValues(a, b, column)
  return descending ? -ascending : ascending
}

/**
 * The comparator that an `orderBy` means. `column` tells what is known of a column when two rows are compared;
 * `key` the table's key columns, the order when none is given.
 */
export function comparatorOf(
  orderBy: OrderBy<Row> | undefined,
  column: (name: string) => Column | null,
  key: () => readonly string[] | null,
): (a: Row, b: Row) => number {
  if (typeof orderBy === 'function') return orderBy
  const given = typeof orderBy === 'string' ? [[orderBy, 'asc'] as const] : orderBy
  return (a, b) => {
    for (const [name, direction] of given ?? (key() ?? []).map((name) => [name, 'asc'] as const)) {
      const order = compareColumn(a[name], b[name], column(name), direction === 'desc')
      if (order !== 0) return order
    }
    return 0
  }
}
