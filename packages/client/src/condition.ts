/** Conditions as data: what SQL says of a row, three-valued logic included. */
import { compareFor, type KnownColumn } from './order'
import { encodeValue, isNull, own, reader, type Row } from './values'

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

const ORDERS: Partial<Record<Operator, (order: number) => boolean>> = {
  '=': (order) => order === 0,
  '<': (order) => order < 0,
  '<=': (order) => order <= 0,
  '>': (order) => order > 0,
  '>=': (order) => order >= 0,
}

/** Operators that say the opposite of another one; unknown stays unknown. */
const OPPOSITES: Partial<Record<Operator, Operator>> = { '<>': '=', 'is not': 'is', 'not in': 'in', 'not like': 'like' }

/** `%` any text, `_` any character, `\` takes the next one as it is. */
function patternOf(like: string): RegExp {
  const source = like.replace(/\\?[^]/gu, (found) => {
    if (found === '%' || found === '_') return found === '%' ? '.*' : '.'
    return found.replace(/^\\(?=.)/s, '').replace(/[.*+?^${}()|[\]\\]/, '\\$&')
  })
  return new RegExp(`^${source}$`, 'su')
}

function not(truth: Truth): Truth {
  return truth === null ? null : !truth
}

/** What the comparison of one column says of a value of it. */
function comparison(operator: Operator, given: unknown, column: KnownColumn | null): (value: unknown) => Truth {
  const opposite = own(OPPOSITES, operator)
  if (opposite !== undefined) {
    const test = comparison(opposite, given, column)
    return (value) => not(test(value))
  }
  const compare = compareFor(column)
  const wanted = Array.isArray(given) ? given.map(encodeValue) : encodeValue(given)
  const known = (test: (value: unknown) => Truth) => (value: unknown) => (isNull(value) || isNull(wanted) ? null : test(value))
  const holds = own(ORDERS, operator)
  if (holds !== undefined) return known((value) => holds(compare(value, wanted)))
  if (operator === 'is') return (value) => (isNull(value) || isNull(wanted) ? isNull(value) === isNull(wanted) : compare(value, wanted) === 0)
  if (operator === 'like') {
    const pattern = patternOf(String(wanted))
    return known((value) => pattern.test(String(value)))
  }
  if (operator !== 'in') throw new TypeError(`${String(operator)} is no operator`)
  if (!Array.isArray(wanted)) throw new TypeError(`${operator} takes a list`)
  return joined(wanted.map((one) => (value) => (isNull(value) || isNull(one) ? null : compare(value, one) === 0)), true)
}

/** A list of tests, of which the first that decides wins: `decisive` is false for `and`, true for `or`. */
function joined<T>(tests: readonly ((tested: T) => Truth)[], decisive: boolean): (tested: T) => Truth {
  return (tested) => {
    let truth: Truth = !decisive
    for (const test of tests) {
      const one = test(tested)
      if (one === decisive) return decisive
      if (one === null) truth = null
    }
    return truth
  }
}

/** What is made of the parts of a condition. */
interface Making<T> {
  compare(column: string, operator: Operator, value: unknown): T
  join(parts: readonly T[], isOr: boolean): T
  not(part: T): T
}

/** Goes through a condition, or several that must all hold. Throws a TypeError for what is none. */
export function fold<T>(condition: Condition | readonly Condition[], making: Making<T>): T {
  const all = (conditions: readonly Condition[]) => conditions.map((one) => fold(one, making))
  if (Array.isArray(condition)) return typeof condition[0] === 'string' ? making.compare(condition[0], condition[1], condition[2]) : making.join(all(condition), false)
  if ('and' in condition) return making.join(all(condition.and), false)
  if ('or' in condition) return making.join(all(condition.or), true)
  if ('not' in condition) return making.not(fold(condition.not, making))
  throw new TypeError('a condition is [column, operator, value], { and }, { or } or { not }')
}

/** What a `where` means for a row. Throws a TypeError for what is no condition. */
export function filterOf(where: Where<Row> | undefined, columns: Columns): (row: Row) => boolean {
  if (where === undefined) return () => true
  if (typeof where === 'function') return where
  const test = fold<Test>(where, {
    compare: (name, operator, value) => {
      const [read, holds] = [reader(name), comparison(operator, value, columns(name))]
      return (row) => holds(read(row))
    },
    join: joined,
    not: (part) => (row) => not(part(row)),
  })
  return (row) => test(row) === true
}
