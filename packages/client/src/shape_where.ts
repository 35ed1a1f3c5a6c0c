/** The `where` of a shape as data: as SQL for the node, and as a test of rows that were written here. */
import { type Condition, filterOf, isColumn, type Operator } from './condition'
import type { KnownColumn } from './order'
import type { AskedShape, Param, ShapeDefinition } from './protocol'
import { encodeValue, type Row } from './values'

type Conditions = Condition | readonly Condition[]

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`

/** As a predicate takes it. */
function paramOf(value: unknown): Param {
  // PostgreSQL's way to write an instant: a predicate takes no other
  const plain = value instanceof Date ? value.toISOString().replace('T', ' ') : (encodeValue(value) ?? null)
  if (plain !== null && typeof plain === 'object') throw new TypeError('a condition of a shape compares with texts, numbers, booleans, dates and null')
  return plain
}

function comparison(name: string, operator: Operator, value: unknown, params: Param[]): string {
  const mark = (one: unknown) => `$${params.push(paramOf(one))}`
  const column = quoted(name)
  switch (operator) {
    case 'in':
    case 'not in':
      if (!Array.isArray(value)) throw new TypeError(`${operator} takes a list`)
      return value.length === 0 ? String(operator === 'not in') : `${column} ${operator} (${value.map(mark).join(', ')})`
    case 'is':
    case 'is not':
      return value === null ? `${column} ${operator} null` : `${column} ${operator === 'is' ? 'is not' : 'is'} distinct from ${mark(value)}`
    default:
      return `${column} ${operator} ${mark(value)}`
  }
}

function sqlOf(condition: Conditions, params: Param[]): string {
  const joined = (conditions: readonly Condition[], glue: string, empty: string) =>
    conditions.length === 0 ? empty : `(${conditions.map((one) => sqlOf(one, params)).join(glue)})`
  if (isColumn(condition)) return comparison(condition[0], condition[1], condition[2], params)
  if (Array.isArray(condition)) return joined(condition, ' and ', 'true')
  if ('and' in condition) return joined(condition.and, ' and ', 'true')
  if ('or' in condition) return joined(condition.or, ' or ', 'false')
  return `not ${joined([(condition as { not: Condition }).not], '', '')}`
}

/** The definition with its `where` as SQL. Throws a TypeError for what is no condition. */
export function askedShape(definition: ShapeDefinition): AskedShape {
  const { where, ...rest } = definition
  if (where === undefined || where === null || typeof where === 'string') return { ...rest, ...(where ? { where } : {}) }
  // what is no condition is told where it is written
  filterOf(where, () => null)
  const params: Param[] = []
  return { ...rest, where: sqlOf(where, params), params, condition: where }
}

function columnsOf(condition: Conditions): string[] {
  if (isColumn(condition)) return [condition[0]]
  if (Array.isArray(condition)) return condition.flatMap(columnsOf)
  const [below] = Object.values(condition) as [Conditions]
  return columnsOf(below)
}

/**
 * Whether a row that was written here is shown in a shape. What the database may still fill in (`missing`) decides
 * nothing: until it says so, the row is shown.
 */
export function passes(condition: Conditions | undefined, row: Row, missing: ReadonlySet<string> | undefined, column: (name: string) => KnownColumn | null): boolean {
  if (condition === undefined) return true
  if (missing !== undefined && columnsOf(condition).some((name) => missing.has(name))) return true
  return filterOf(condition, column)(row)
}
