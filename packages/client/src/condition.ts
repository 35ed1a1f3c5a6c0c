/** Conditions as data: what SQL says of a row, three-valued logic included. */
import { compareFor, type KnownColumn } from './order'
import { encodeValue, type Row } from './values'

/** An operator of two values. `is` and `is not` are SQL's `is [not] distinct from`, and take null. */
export type Operator = '=' | '<>' | '<' | '<=' | '>' | '>=' | 'in' | 'not in' | 'is' | 'is not' | 'like' | 'not like'

/** One condition: a column compared, or several joined. */
export type Condition =
  | readonly [column: string, operator: Operator, value: unknown]
  | { readonly and: readonly Condition[] }
  | { readonly or: readonly Condition[] }
  | { readonly not: Condition }

/** What chooses rows: a condition, several that must all hold, or a function of the row. */
export type Where<T> = Condition | readonly Condition[] | ((row: T) => boolean)

/** True, false, or null for unknown. */
type Truth = boolean | null
type Test = (row: Row) => Truth
type Columns = (name: string) => KnownColumn | null

const isNull = (value: unknown) => value === null || value === undefined

const ORDERS: Partial<Record<Operator, (order: number) => boolean>> = {
  '=': (order) => order === 0,
  '<>': (order) => order !== 0,
  '<': (order) => order < 0,
  '<=': (order) => order <= 0,
  '>': (order) => order > 0,
  '>=': (order) => order >= 0,
}

/** `%` any text, `_` any character, `\` takes the next one as it is. */
function patternOf(like: string): RegExp {
  const source = like.replace(/\\([\s\S])|[%_]|[.*+?^${}()|[\]\\/]/g, (found, escaped?: string) => {
    if (escaped !== undefined) return /[.*+?^${}()|[\]\\/]/.test(escaped) ? `\\${escaped}` : escaped
    return found === '%' ? '.*' : found === '_' ? '.' : `\\${found}`
  })
  return new RegExp(`^${source}$`, 'su')
}

function not(truth: Truth): Truth {
  return truth === null ? null : !truth
}

function comparison(name: string, operator: Operator, given: unknown, column: KnownColumn | null): Test {
  const compare = compareFor(column)
  const value = Array.isArray(given) ? given.map(encodeValue) : encodeValue(given)
  const holds = ORDERS[operator]
  if (holds !== undefined) {
    return (row) => (isNull(row[name]) || isNull(value) ? null : holds(compare(row[name], value)))
  }
  switch (operator) {
    case 'is':
    case 'is not': {
      const same = (other: unknown) => (isNull(other) || isNull(value) ? isNull(other) === isNull(value) : compare(other, value) === 0)
      return operator === 'is' ? (row) => same(row[name]) : (row) => !same(row[name])
    }
    case 'in':
    case 'not in': {
      if (!Array.isArray(value)) throw new TypeError(`${operator} takes a list`)
      const isIn = (other: unknown): Truth => {
        if (value.length === 0) return false
        if (isNull(other)) return null
        if (value.some((one) => !isNull(one) && compare(other, one) === 0)) return true
        return value.some(isNull) ? null : false
      }
      return operator === 'in' ? (row) => isIn(row[name]) : (row) => not(isIn(row[name]))
    }
    case 'like':
    case 'not like': {
      if (isNull(value)) return () => null
      const pattern = patternOf(String(value))
      const isLike = (other: unknown): Truth => (isNull(other) ? null : pattern.test(String(other)))
      return operator === 'like' ? (row) => isLike(row[name]) : (row) => not(isLike(row[name]))
    }
    default:
      throw new TypeError(`${String(operator)} is no operator`)
  }
}

/** A list of conditions, of which the first that decides wins: `decisive` is false for `and`, true for `or`. */
function joined(tests: readonly Test[], decisive: boolean): Test {
  return (row) => {
    let truth: Truth = !decisive
    for (const test of tests) {
      const one = test(row)
      if (one === decisive) return decisive
      if (one === null) truth = null
    }
    return truth
  }
}

/** Whether it compares one column. */
export function isColumn(condition: Condition | readonly Condition[]): condition is readonly [string, Operator, unknown] {
  return Array.isArray(condition) && typeof condition[0] === 'string'
}

function testOf(condition: Condition | readonly Condition[], columns: Columns): Test {
  if (isColumn(condition)) {
    const [name, operator, value] = condition
    return comparison(name, operator, value, columns(name))
  }
  if (Array.isArray(condition)) return joined(condition.map((one: Condition) => testOf(one, columns)), false)
  if ('and' in condition) return joined(condition.and.map((one) => testOf(one, columns)), false)
  if ('or' in condition) return joined(condition.or.map((one) => testOf(one, columns)), true)
  if ('not' in condition) {
    const test = testOf(condition.not, columns)
    return (row) => not(test(row))
  }
  throw new TypeError('a condition is [column, operator, value], { and }, { or } or { not }')
}

/** What a `where` means for a row. Throws a TypeError for what is no condition. */
export function filterOf(where: Where<Row> | undefined, columns: Columns): (row: Row) => boolean {
  if (where === undefined) return () => true
  if (typeof where === 'function') return where
  const test = testOf(where, columns)
  return (row) => test(row) === true
}
