// Words for an edit that the database would not take. The constraint's name is in PostgreSQL's sentence; the rules of
// schema.sql get a friendlier one, everything else is shown as it came.
import type { Op, RefusedMutation } from '@lockstep/client'

const RULES: Record<string, string> = {
  todos_title_not_forbidden: 'The word “forbidden” is not allowed in a title: a constraint of the database says so.',
  todos_title_length: 'A title has 1 to 200 characters.',
  lists_name_length: 'The name of a list has 1 to 80 characters.',
  members_name_length: 'The name of a person has 1 to 40 characters.',
  todos_list_id_fkey: 'The list does not exist any more.',
  members_list_id_fkey: 'The list does not exist any more.',
  todos_assignee_fkey: 'This person does not exist any more.',
}

export function explain({ code, message }: RefusedMutation): string {
  const rule = Object.keys(RULES).find((name) => message.includes(`"${name}"`))
  return rule ? RULES[rule]! : `${message} (${code})`
}

const ACTIONS = { insert: 'Adding', update: 'Changing', delete: 'Deleting' }
const THINGS: Record<string, string> = { todos: 'a to-do', lists: 'a list', members: 'a person' }

const given = (op: Op): Readonly<Record<string, unknown>> => (op.op === 'insert' ? op.values : op.op === 'update' ? op.set : {})

/** The words that the edit wrote; null where it wrote none. */
export function wordsOf({ ops }: RefusedMutation): string | null {
  const values = ops[0] ? given(ops[0]) : {}
  const words = values['title'] ?? values['name']
  return typeof words === 'string' ? words : null
}

/** The same operations with other words. */
export function reworded({ ops }: RefusedMutation, words: string): Op[] {
  return ops.map((op, at) => {
    if (at > 0 || op.op === 'delete') return op
    const name = 'title' in given(op) ? 'title' : 'name'
    return op.op === 'insert' ? { ...op, values: { ...op.values, [name]: words } } : { ...op, set: { ...op.set, [name]: words } }
  })
}

export function summarise(refused: RefusedMutation): string {
  const [first] = refused.ops
  if (!first) return 'An edit'
  const words = wordsOf(refused)
  const thing = words === null ? (THINGS[first.table] ?? 'a row') : `“${words}”`
  return `${words !== null && first.op === 'update' ? 'Renaming to' : ACTIONS[first.op]} ${thing}`
}
