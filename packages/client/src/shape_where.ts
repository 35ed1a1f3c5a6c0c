/** The `where` of a shape as data: as SQL for the node, and as a test of rows that were written here. */
import { type Condition, filterOf, fold } from './condition'
import type { KnownColumn } from './order'
import type { AskedShape, Param, ShapeDefinition } from './protocol'
import { encodeValue, type Row } from './values'

type Conditions = Condition | readonly Condition[]

/** As a predicate takes it. */
function paramOf(value: unknown): Param {
  // PostgreSQL's way to write an instant: a predicate takes no other
  const plain = value instanceof Date ? value.toISOString().replace('T', ' ') : (encodeValue(value) ?? null)
  if (plain !== null && typeof plain === 'object') throw new TypeError('a condition of a shape compares with texts, numbers, booleans, dates and null')
  return plain
}

function sqlOf(condition: Conditions, params: Param[]): string {
  const mark = (value: unknown) => `$${params.push(paramOf(value))}`
  return fold(condition, {
    compare: (name, operator, value) => {
      const column = `"${name.replaceAll('"', '""')}"`
      if (operator === 'in' || operator === 'not in') {
        const marks = (value as unknown[]).map(mark)
        return marks.length === 0 ? String(operator === 'not in') : `${column} ${operator} (${marks.join(', ')})`
      }
      if (operator !== 'is' && operator !== 'is not') return `${column} ${operator} ${mark(value)}`
      return value === null ? `${column} ${operator} null` : `${column} ${operator === 'is' ? 'is not' : 'is'} distinct from ${mark(value)}`
    },
    join: (parts, isOr) => (parts.length === 0 ? String(!isOr) : `(${parts.join(isOr ? ' or ' : ' and ')})`),
    not: (part) => `not (${part})`,
  })
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

function columnsOf(condition: Conditions): readonly string[] {
  return fold<readonly string[]>(condition, { compare: (name) => [name], join: (parts) => parts.flat(), not: (part) => part })
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
