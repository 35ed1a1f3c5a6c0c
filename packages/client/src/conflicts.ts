/** Conditional mutations that lost: what the row was when it was edited, what the edit made of it, what it is now. */
import { tableName } from './protocol'
import type { RefusedMutation } from './store'
import type { Json, Row } from './values'

/** The code of a mutation whose condition did not hold any more. */
export const CONFLICT = 'conflict'

/** One row of a conflict. */
export interface ConflictRow {
  readonly table: string
  readonly key: Row
  /** the values that the edit was made on */
  readonly base: Row
  /** the values that it sets; null for a delete */
  readonly mine: Row | null
  /** the row as it is now; null when it is gone, or not among the rows held */
  readonly theirs: Row | null
}

/** A mutation that was refused because a row had changed. */
export interface Conflict {
  readonly mutation: RefusedMutation
  readonly rows: readonly ConflictRow[]
}

/** The conflict that a refusal is; null for another one. `rowOf` looks a row up, `present` shows one as the application wants it. */
export function conflictOf(
  mutation: RefusedMutation,
  rowOf: (table: string, key: Readonly<Record<string, Json>>) => Row | undefined,
  present: (table: string) => (row: Row) => Row,
): Conflict | null {
  if (mutation.code !== CONFLICT) return null
  const rows = mutation.ops.flatMap((op): ConflictRow[] => {
    if (op.op === 'insert' || op.if === undefined) return []
    const [table, theirs] = [tableName(op.table), rowOf(op.table, op.key)]
    const shown = present(table)
    return [{ table, key: op.key, base: shown(op.if), mine: op.op === 'update' ? shown(op.set) : null, theirs: theirs ? shown(theirs) : null }]
  })
  return { mutation, rows }
}
