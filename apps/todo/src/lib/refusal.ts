// Words for an edit that the database would not take. The constraint's name is in PostgreSQL's
// sentence; the rules of schema.sql get a friendlier one, everything else is shown as it came.

export type Operation = { op: string; table: string; values?: Record<string, unknown>; set?: Record<string, unknown> }
export type RefusedEdit = { id: string; ops: readonly Operation[]; code: string; message: string }

const RULES: Record<string, string> = {
  todos_title_not_forbidden: 'The word “forbidden” is not allowed in a title.',
  todos_title_length: 'A title has 1 to 200 characters.',
  lists_name_length: 'The name of a list has 1 to 80 characters.',
  members_name_length: 'The name of a person has 1 to 40 characters.',
  todos_list_id_fkey: 'The list does not exist any more.',
  members_list_id_fkey: 'The list does not exist any more.',
  todos_assignee_fkey: 'This person does not exist any more.',
}

export function explain({ code, message }: RefusedEdit): string {
  const rule = Object.keys(RULES).find((name) => message.includes(`"${name}"`))
  return rule ? RULES[rule]! : `${message} (${code})`
}

const ACTIONS: Record<string, string> = { insert: 'Adding', update: 'Changing', delete: 'Deleting' }
const THINGS: Record<string, string> = { todos: 'a to-do', lists: 'a list', members: 'a person' }

export function summarise(operations: readonly Operation[]): string {
  const first = operations[0]
  if (!first) return 'An edit'
  const named = first.values?.['title'] ?? first.values?.['name'] ?? first.set?.['title']
  const thing = typeof named === 'string' ? `“${named}”` : (THINGS[first.table] ?? 'a row')
  const action = first.set?.['title'] !== undefined ? 'Renaming to' : (ACTIONS[first.op] ?? 'An edit of')
  return `${action} ${thing}`
}
