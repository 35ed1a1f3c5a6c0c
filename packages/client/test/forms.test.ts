/** Values in the form that an application chose: in rows, joins, functions, sums and conflicts. */
import { describe, expect, it } from 'vitest'
import { type Client, createClient, memoryStore } from '../src/index'
import { conflictOf } from '../src/conflicts'
import { inForm, presenter } from '../src/forms'
import { Screen } from '../src/screen'
import { LINK_UNKNOWN } from '../src/status'
import type { RefusedMutation } from '../src/store'

const schema = {
  tables: {
    lists: { key: ['id'], columns: { id: 'bigint' }, forms: { id: 'bigint' as const }, relations: { todos: { table: 'todos', many: true, from: ['id'], to: ['list_id'] } } },
    todos: {
      key: ['id'],
      columns: { id: 'integer', list_id: 'bigint', hours: 'numeric(10,2)', due: 'timestamp with time zone' },
      forms: { list_id: 'bigint' as const, hours: 'number' as const, due: 'Date' as const },
    },
  },
}

function offline(): Client {
  const client = createClient({ url: 'ws://127.0.0.1:9/socket', store: memoryStore(), schema: schema as never, webSocket: class { close() {} } }) as unknown as Client
  client.setOnline(false)
  for (const table of ['lists', 'todos']) client.subscribe({ table })
  return client
}

const BIG = 9007199254740993n

describe('values', () => {
  it('are what was chosen', () => {
    expect(inForm('bigint', '9007199254740993')).toBe(BIG)
    expect(inForm('number', '1.50')).toBe(1.5)
    expect(inForm('number', 'NaN')).toBeNaN()
    expect(inForm('Date', '2026-12-24 18:00:00.123456+00')).toEqual(new Date('2026-12-24T18:00:00.123Z'))
    expect(inForm('Date', '2026-12-24')).toEqual(new Date('2026-12-24T00:00:00Z'))
    expect(inForm('Date', '0044-03-15 BC')).toEqual(new Date(Date.UTC(-43, 2, 15)))
    expect((inForm('Date', 'infinity') as Date).getTime()).toBeNaN()
    for (const form of ['bigint', 'number', 'Date', undefined] as const) expect(inForm(form, null)).toBe(null)
    // a guess that the database will refuse throws nothing here
    expect(inForm('bigint', 'seven')).toBe('seven')
  })

  it('keep their row the same object as long as it is the same', () => {
    const present = presenter({ n: 'bigint' })
    const row = { n: '1', other: 'x' }
    expect(present(row)).toEqual({ n: 1n, other: 'x' })
    expect(present(row)).toBe(present(row))
    expect(present({ other: 'x' })).toEqual({ other: 'x' })
  })
})

describe('live queries', () => {
  it('show them, and compare what travels', async () => {
    const client = offline()
    client.mutate([
      { op: 'insert', table: 'lists', values: { id: BIG } },
      { op: 'insert', table: 'todos', values: { id: 1, list_id: BIG, hours: '10.50', due: new Date('2026-12-24T18:00:00Z') } },
      { op: 'insert', table: 'todos', values: { id: 2, list_id: BIG, hours: 9, due: null } },
      { op: 'insert', table: 'todos', values: { id: 3, list_id: 1n, hours: 100, due: '2027-01-01 00:00:00+00' } },
    ])
    const first = { id: 1, list_id: BIG, hours: 10.5, due: new Date('2026-12-24T18:00:00Z') }
    const second = { id: 2, list_id: BIG, hours: 9, due: null }
    const todos = client.query({ table: 'todos', where: ['list_id', '=', BIG], orderBy: 'hours' })
    expect(todos.getSnapshot()).toEqual([second, first])
    expect(todos.getSnapshot()[0]).toBe(todos.getSnapshot()[0])
    expect(client.query({ table: 'lists', include: { todos: { orderBy: 'id' } } }).getSnapshot()).toEqual([{ id: BIG, todos: [first, second] }])
    // functions see what the application sees
    const late = (row: { due?: Date | null }) => row.due instanceof Date && row.due.getTime() > Date.UTC(2026, 11, 31)
    expect(client.query({ table: 'todos', where: late as never }).getSnapshot().map(({ id }) => id)).toEqual([3])
    const byHours = (a: { hours?: number }, b: { hours?: number }) => (b.hours ?? 0) - (a.hours ?? 0)
    expect(client.query({ table: 'todos', orderBy: byHours as never }).getSnapshot().map(({ id }) => id)).toEqual([3, 1, 2])
    expect(client.sum({ table: 'todos', column: 'hours' }).getSnapshot()).toBe(119.5)
    expect(client.sum({ table: 'todos', column: 'list_id' }).getSnapshot()).toBe(2n * BIG + 1n)
    expect(client.sum({ table: 'todos', column: 'hours', where: ['id', '=', 9] }).getSnapshot()).toBe(null)
    await client.close()
  })

  it('tell a row that did not change by its identity', async () => {
    const client = offline()
    client.mutate([1, 2].map((id) => ({ op: 'insert' as const, table: 'todos', values: { id, list_id: '1', hours: '1', due: null } })))
    const todos = client.query({ table: 'todos' })
    todos.subscribe(() => undefined)
    const before = todos.getSnapshot()
    client.mutate([{ op: 'update', table: 'todos', key: { id: 2 }, set: { hours: '2' } }])
    const after = todos.getSnapshot()
    expect(after).toEqual([before[0], { ...before[1], hours: 2 }])
    expect(after[0]).toBe(before[0])
    await client.close()
  })
})

describe('conflicts', () => {
  const refused: RefusedMutation = {
    id: 'm', name: null, args: null, code: 'conflict', message: '',
    ops: [{ op: 'update', table: 'todos', key: { id: 1 }, set: { list_id: '2' }, if: { list_id: '1' } }],
  }

  it('show them', () => {
    const [row] = new Screen(() => LINK_UNKNOWN, schema as never).conflictOf(refused)!.rows
    expect(row).toMatchObject({ base: { list_id: 1n }, mine: { list_id: 2n }, theirs: null })
    // without forms they are what travels
    expect(conflictOf(refused, () => undefined, () => (row) => row)!.rows[0]).toMatchObject({ base: { list_id: '1' } })
  })
})
