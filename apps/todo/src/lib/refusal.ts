// Words for an edit that the database would not take. The constraint's name is in PostgreSQL's
// sentence; the rules of schema.sql get a friendlier one, everything else is shown as it came.
import type { RefusedMutation } from '@lockstep/client'

const RULES: Record<string, string> = {
  todos_title_not_forbidden: 'The word “forbidden” is not allowed in a title.',
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

export function summarise({ ops }: RefusedMutation): string {
  const first = ops[0]
  if (!first) return 'An edit'
  const given: Record<string, unknown> = first.op === 'insert' ? first.values : first.op === 'update' ? first.set : {}
  const name = given['title'] ?? given['name']
  const renames = first.op === 'update' && name !== undefined
  const thing = typeof name === 'string' ? `“${name}”` : (THINGS[first.table] ?? 'a row')
  return `${renames ? 'Renaming to' : ACTIONS[first.op]} ${thing}`
}
