/**
 * What compiles and what does not. `tsc` judges this file (`npm run typecheck`): a line under `@ts-expect-error` that
 * compiles is an error itself. The schema is the one that `lockstep types` wrote of a real database.
 */
import { describe, expect, expectTypeOf, it } from 'vitest'
import { type Client, createClient, type Json, memoryStore, type TypedClient } from '../src/index'
import { useMutation, useQuery, useShape } from '../src/react'
import { liveQuery } from '../src/svelte'
import { type AppBillsOf2026Row, type Level, type MembersRow, schema, type Schema, type TodosRow } from './schema'
import type { Schema as Chosen } from './schema_chosen'

declare const client: TypedClient<Schema>
declare const untyped: Client

/** Never run: its types are looked at. */
export function typed() {
  const lists = client.query({
    table: 'lists',
    where: [['name', 'like', 'a%'], { not: ['parent', 'is', null] }],
    orderBy: [['name', 'desc']],
    limit: 5,
    include: { todos: { where: ['done', '=', false], include: { assignee_row: true } }, members: true },
    aggregate: { open: { count: 'todos', where: ['level', '>=', 'mid'] }, hours: { sum: 'todos', column: 'hours' }, heavy: { sum: 'todos', column: 'weight' } },
  }).getSnapshot()
  expectTypeOf(lists[0]!.open).toEqualTypeOf<number>()
  expectTypeOf(lists[0]!.hours).toEqualTypeOf<string | null>()
  expectTypeOf(lists[0]!.heavy).toEqualTypeOf<number | null>()
  expectTypeOf(lists[0]!.todos[0]!.assignee_row!.name).toEqualTypeOf<string>()
  expectTypeOf(lists[0]!.members).toEqualTypeOf<readonly { readonly [K in keyof MembersRow]: MembersRow[K] }[]>()

  const todos = client.query({ table: 'todos', include: { list: { include: { members: true } }, author_row: true, ['Bills of 2026']: true } })
  const [todo] = todos.getSnapshot()
  expectTypeOf(todo!.list!.members[0]!.name).toEqualTypeOf<string>()
  expectTypeOf(todo!.author_row!.born).toEqualTypeOf<string | null>()
  expectTypeOf(todo!['Bills of 2026']!.level).toEqualTypeOf<Level>()
  expectTypeOf(todo!.extra).toEqualTypeOf<Json | null>()
  expectTypeOf<TodosRow['position']>().toEqualTypeOf<string>()
  expectTypeOf<AppBillsOf2026Row['id']>().toEqualTypeOf<string>()
  expectTypeOf(lists[0]!.rated).toEqualTypeOf<number>()
  // @ts-expect-error a list that was not asked for
  todo!.list!.todos

  client.query({ table: 'todos', where: (row) => row.title.length > 3 && row.done })
  client.query({ table: 'todos', where: { or: [['position', '>', 10n], ['due', '<', new Date()], ['level', 'in', ['low', 'high']]] } })
  client.subscribe({ table: 'todos', scope: { list_id: 'x' }, where: 'done is not true and due < $1', params: ['2026-12-24'] })
  client.mutate([
    { op: 'insert', table: 'todos', values: { list_id: 'x', title: 'Milk', position: 7n, due: new Date(), extra: { a: [1] } } },
    { op: 'update', table: 'app.Bills of 2026', key: { id: 7 }, set: { level: 'high' }, if: 'unchanged' },
    { op: 'delete', table: 'members', key: { id: 3 } },
  ])
  expectTypeOf(client.sum({ table: 'todos', column: 'position' }).getSnapshot()).toEqualTypeOf<string | null>()
}

/** The same tables with other choices: `--int8 bigint --numeric number --dates date --json unknown`. */
export function chosen(client: TypedClient<Chosen>) {
  const [todo] = client.query({ table: 'todos', where: [['position', '>', 10n], ['due', '<', new Date()], ['hours', '<=', 2.5]] }).getSnapshot()
  expectTypeOf(todo!.position).toEqualTypeOf<bigint>()
  expectTypeOf(todo!.hours).toEqualTypeOf<number | null>()
  expectTypeOf(todo!.due).toEqualTypeOf<Date | null>()
  expectTypeOf(todo!.extra).toEqualTypeOf<unknown>()
  expectTypeOf(client.sum({ table: 'todos', column: 'position' }).getSnapshot()).toEqualTypeOf<bigint | null>()
  expectTypeOf(client.sum({ table: 'todos', column: 'hours' }).getSnapshot()).toEqualTypeOf<number | null>()
  client.query({ table: 'todos', where: (row) => row.position > 3n && (row.due?.getTime() ?? 0) > 0 })
  client.mutate([{ op: 'insert', table: 'todos', values: { list_id: 'x', title: 'Milk', position: '7', due: '2026-12-24', hours: 1 } }])
  // @ts-expect-error a bigint has no letters
  todo!.position.length
  // @ts-expect-error a date is no text
  todo!.due!.slice(0, 10)
  // @ts-expect-error JSON is not compared, and not known
  client.query({ table: 'todos', where: ['extra', '=', 'x'] })
  // @ts-expect-error what is unknown has to be looked at first
  todo!.extra.title
  // @ts-expect-error a date is not summed
  client.sum({ table: 'todos', column: 'due' })
}

/** Never run, and none of it compiles. */
export function mistyped() {
  // @ts-expect-error a table that is not there
  client.query({ table: 'todo' })
  // @ts-expect-error a table that is not tracked
  client.subscribe({ table: 'untracked' })
  // @ts-expect-error a column that is not there
  client.query({ table: 'todos', where: ['titel', '=', 'x'] })
  // @ts-expect-error a generated column, which does not travel
  client.query({ table: 'todos', where: ['lower', '=', 'x'] })
  // @ts-expect-error an operator that is none
  client.query({ table: 'todos', where: ['title', '==', 'x'] })
  // @ts-expect-error like is for texts
  client.query({ table: 'todos', where: ['weight', 'like', '1%'] })
  // @ts-expect-error like is not for int8 either
  client.query({ table: 'todos', where: ['position', 'like', '1%'] })
  // @ts-expect-error a value of another type
  client.query({ table: 'todos', where: ['done', '=', 'yes'] })
  // @ts-expect-error a label that the enum does not have
  client.query({ table: 'todos', where: ['level', '=', 'middle'] })
  // @ts-expect-error nothing equals NULL
  client.query({ table: 'todos', where: ['assignee', '=', null] })
  // @ts-expect-error JSON is not compared
  client.query({ table: 'todos', where: ['extra', '=', 'x'] })
  // @ts-expect-error a list is compared with in
  client.query({ table: 'todos', where: ['level', '=', ['low']] })
  // @ts-expect-error deep inside
  client.query({ table: 'todos', where: { and: [{ not: ['titel', '=', 'x'] }] } })
  // @ts-expect-error an order by a column that is not there
  client.query({ table: 'todos', orderBy: 'titel' })
  // @ts-expect-error a direction that is none
  client.query({ table: 'todos', orderBy: [['title', 'up']] })
  // @ts-expect-error a word that is not known
  client.query({ table: 'todos', wher: ['title', '=', 'x'] })
  // @ts-expect-error a relationship that is not declared
  client.query({ table: 'todos', include: { tags: true } })
  // @ts-expect-error beside one that is
  client.query({ table: 'todos', include: { list: true, tags: true } })
  // @ts-expect-error a column of another table, below a relationship
  client.query({ table: 'todos', include: { list: { orderBy: 'title' } } })
  // @ts-expect-error a relationship that is not declared, below one that is
  client.query({ table: 'todos', include: { list: { include: { members: true, tags: true } } } })
  // @ts-expect-error a count of what is one row
  client.query({ table: 'todos', aggregate: { n: { count: 'list' } } })
  // @ts-expect-error a sum of texts
  client.query({ table: 'lists', aggregate: { n: { sum: 'todos', column: 'title' } } })
  // @ts-expect-error a sum of JSON
  client.sum({ table: 'todos', column: 'extra' })
  // @ts-expect-error an insert without a column that has no default
  client.mutate([{ op: 'insert', table: 'todos', values: { title: 'Milk' } }])
  // @ts-expect-error a column that the database gives
  client.mutate([{ op: 'insert', table: 'members', values: { id: 7, list_id: 'x', name: 'Ann' } }])
  // @ts-expect-error a NULL where there is none
  client.mutate([{ op: 'update', table: 'todos', key: { id: 'x' }, set: { title: null } }])
  // @ts-expect-error a condition on a column that is not there
  client.mutate([{ op: 'update', table: 'todos', key: { id: 'x' }, set: { title: 'y' }, if: { titel: 'x' } }])
  // @ts-expect-error in what is written anew as well
  client.resend('m', [{ op: 'delete', table: 'todo', key: { id: 'x' } }])
  // @ts-expect-error a column that is no key
  client.mutate([{ op: 'delete', table: 'todos', key: { title: 'x' } }])
  // @ts-expect-error a scope by a column that is not there
  client.subscribe({ table: 'todos', scope: { list: 'x' } })
  // @ts-expect-error columns that are not there
  client.subscribe({ table: 'todos', columns: ['id', 'titel'] })
}

/** Never run: the adapters know as much. */
export function Adapters() {
  expectTypeOf(useQuery(client, { table: 'todos', include: { list: true } })[0]!.list!.name).toEqualTypeOf<string>()
  expectTypeOf(useQuery<{ id: string }>(untyped, { table: 'todos' })).toEqualTypeOf<readonly { id: string }[]>()
  // @ts-expect-error a column that is not there
  useQuery(client, { table: 'todos', where: ['titel', '=', 'x'] })
  // @ts-expect-error a table that is not there
  useShape(client, { table: 'todo' })
  const [mutate] = useMutation(client)
  // @ts-expect-error a column that is not there
  mutate([{ op: 'update', table: 'todos', key: { id: 'x' }, set: { titel: 'x' } }])
  expectTypeOf(liveQuery(client, () => ({ table: 'todos', include: { list: true } })).current[0]!.list!.name).toEqualTypeOf<string>()
  // @ts-expect-error a column that is not there
  liveQuery(client, () => ({ table: 'todos', where: ['titel', '=', 'x'] }))
}

describe('a schema module', () => {
  it('gives a client its relationships and types at run time', async () => {
    const client = createClient({ url: 'ws://127.0.0.1:9/socket', store: memoryStore(), schema, webSocket: class { close() {} } })
    client.setOnline(false)
    client.subscribe({ table: 'lists' })
    client.subscribe({ table: 'todos' })
    const list = { op: 'insert', table: 'lists', values: { id: 'l', name: 'Home' } } as const
    const todo = (id: string, position: bigint) => ({ op: 'insert', table: 'todos', values: { id, list_id: 'l', title: id, position } }) as const
    client.mutate([list, todo('a', 10n), todo('b', 9n)])
    const lists = client.query({ table: 'lists', include: { todos: { orderBy: 'position', include: { list: true } } }, aggregate: { n: { sum: 'todos', column: 'position' } } })
    const [home] = lists.getSnapshot()
    expect(home?.todos.map(({ title, list }) => [title, list?.name])).toEqual([['b', 'Home'], ['a', 'Home']])
    expect([home?.n, client.count({ table: 'todos', where: ['position', '<', 10] }).getSnapshot()]).toEqual(['19', 1])
    await client.close()
  })
})
