// The rows of schema.sql as the browser sees them, and every edit the page can make.
// An edit is on the screen before the database has heard of it; a list of operations is one transaction.
import { client } from './lockstep'

export type List = { id: string; name: string; position: number }
export type Member = { id: string; list_id: string; name: string; colour: Colour }
export type Todo = {
  id: string
  list_id: string
  title: string
  done: boolean
  assignee: string | null
  created_at: string
}

export const COLOURS = ['blue', 'green', 'rose', 'violet', 'amber', 'slate'] as const
export type Colour = (typeof COLOURS)[number]

export const TITLE_LENGTH_MAX = 200
export const LIST_NAME_LENGTH_MAX = 80
export const MEMBER_NAME_LENGTH_MAX = 40

/** crypto.randomUUID needs a secure context; a demo is also opened over plain HTTP in a local network. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

/** As PostgreSQL prints it, so that a new row keeps its place when it comes back from the database. */
function timestampNow(): string {
  return new Date().toISOString().replace('T', ' ').replace(/\.?0*Z$/, '+00')
}

export function addList(name: string, last: List | undefined): string {
  const id = newId()
  const position = Math.floor(last?.position ?? 0) + 1
  client.mutate([{ op: 'insert', table: 'lists', values: { id, name, position } }])
  return id
}

export function addMember(list_id: string, name: string, taken: readonly Member[]): void {
  const free = COLOURS.find((colour) => !taken.some((member) => member.colour === colour))
  const colour = free ?? COLOURS[taken.length % COLOURS.length]!
  client.mutate([{ op: 'insert', table: 'members', values: { id: newId(), list_id, name, colour } }])
}

export function addTodo(list_id: string, title: string): void {
  const values = { id: newId(), list_id, title, done: false, assignee: null, created_at: timestampNow() }
  client.mutate([{ op: 'insert', table: 'todos', values }])
}

export function changeTodo(id: string, set: Partial<Pick<Todo, 'title' | 'done' | 'assignee'>>): void {
  client.mutate([{ op: 'update', table: 'todos', key: { id }, set }])
}

export function removeTodo(id: string): void {
  client.mutate([{ op: 'delete', table: 'todos', key: { id } }])
}
