/** Joined live queries: that they equal the naive query, what they cost, and what keeps its identity. */
import { describe, expect, it } from 'vitest'
import type { HeldShape } from '../src/apply'
import { type AggregateDefinition, LiveQueryState, type QueryDefinition, type RowsDefinition, specOf } from '../src/live_query'
import { filterOf } from '../src/condition'
import { comparatorOf } from '../src/order'
import type { PendingMutation } from '../src/outbox'
import type { Op } from '../src/protocol'
import { knowledgeOf, type SchemaModule, type TableDescription } from '../src/schema'
import type { Shows } from '../src/query_level'
import { Sum } from '../src/sums'
import { type Json, keyText, type Row, type WireRow } from '../src/values'
import { type ActiveShape, View, viewOf } from '../src/view'
import { dice } from './support/dice'

const TABLES: Record<string, TableDescription> = {
  lists: {
    key: ['id'],
    columns: { id: 'bigint', name: 'text', parent: 'bigint' },
    relations: {
      todos: { table: 'todos', many: true, from: ['id'], to: ['list_id'] },
      parentList: { table: 'lists', many: false, from: ['parent'], to: ['id'] },
    },
  },
  todos: {
    key: ['id'],
    columns: { id: 'integer', list_id: 'numeric', assignee: 'text', level: 'level', hours: 'numeric(10,2)' },
    labels: { level: ['low', 'mid', 'high'] },
    relations: {
      list: { table: 'lists', many: false, from: ['list_id'], to: ['id'] },
      person: { table: 'people', many: false, from: ['assignee'], to: ['name'] },
    },
  },
  people: {
    key: ['name'],
    columns: { name: 'text', age: 'integer' },
    relations: { todos: { table: 'todos', many: true, from: ['name'], to: ['assignee'] } },
  },
}
const WIRE: Record<string, string> = { integer: 'int' }

class Tables {
  readonly view = new View()
  readonly knowledge = knowledgeOf({ tables: TABLES } as SchemaModule, this.view)
  readonly attached = new Set<LiveQueryState<any>>()
  readonly active: ActiveShape[] = []
  outbox: PendingMutation[] = []
  private readonly touched = new Map<string, Set<string>>()

  constructor() {
    for (const table of Object.keys(TABLES)) this.show(table)
  }

  show(table: string) {
    const { key, columns } = TABLES[table] as TableDescription
    const held: HeldShape = {
      id: table,
      fingerprint: 'f',
      table: ['public', table],
      key: [...key],
      columns: Object.entries(columns).map(([name, type]) => ({ name, type, wire: WIRE[type] ?? 'text' })),
      rows: new Map(),
    }
    this.active.push({ definition: { table }, held })
  }

  rows(table: string): Map<string, WireRow> {
    return this.active.find(({ definition }) => definition.table === table)?.held?.rows as Map<string, WireRow>
  }

  put(table: string, ...rows: Json[][]) {
    for (const row of rows) {
      this.rows(table).set(keyText([row[0] as Json]), row)
      this.touch(table, keyText([row[0] as Json]))
    }
    return this
  }

  remove(table: string, key: Json) {
    this.rows(table).delete(keyText([key]))
    this.touch(table, keyText([key]))
    return this
  }

  private touch(table: string, key: string) {
    this.touched.set(table, (this.touched.get(table) ?? new Set()).add(key))
  }

  commit() {
    const changes = this.view.update(this.active, this.outbox, this.touched)
    this.touched.clear()
    const changed = [...this.attached].filter((query) => query.take(changes))
    for (const query of changed) query.notify()
  }

  query<V = readonly any[]>(definition: QueryDefinition<any>, shows?: Shows, column?: string) {
    return new LiveQueryState<V>(specOf(definition, this.knowledge, shows, column), this.view, this.knowledge, (one) => {
      this.attached.add(one)
      return () => this.attached.delete(one)
    })
  }

  /** The definition of a query: everything looked at, nothing remembered. */
  naive(definition: QueryDefinition<any>): Row[] {
    return this.naiveRows(definition.table, definition, () => true)
  }

  private naiveRows(table: string, definition: RowsDefinition<any>, isMet: (row: Row) => boolean): Row[] {
    const column = (name: string) => this.knowledge.column(table, name)
    const keep = filterOf(definition.where, column)
    const all = viewOf(this.active, this.outbox).get(table) ?? new Map<string, Row>()
    const rows = [...all.values()].filter((row) => isMet(row) && keep(row))
    rows.sort(comparatorOf(definition.orderBy, column, TABLES[table]!.key))
    return rows.slice(0, definition.limit ?? rows.length).map((row) => this.naiveJoin(table, definition, row))
  }

  private naiveJoin(table: string, { include = {}, aggregate = {} }: RowsDefinition<any>, row: Row): Row {
    const joined: Record<string, unknown> = { ...row }
    const meets = (name: string) => {
      const { from, to } = this.knowledge.relation(table, name)
      return (other: Row) => from.every((column, at) => row[column] != null && other[to[at]!] != null && sameNumber(row[column], other[to[at]!]))
    }
    for (const [name, nested] of Object.entries(include)) {
      const { table: other, many } = this.knowledge.relation(table, name)
      const { limit, ...rest }: RowsDefinition<any> = nested === true ? {} : nested
      // at the end of a relationship to one row a limit means nothing
      const rows = this.naiveRows(other, many && limit !== undefined ? { ...rest, limit } : rest, meets(name))
      joined[name] = many ? rows : (rows[0] ?? null)
    }
    for (const [name, asked] of Object.entries(aggregate)) joined[name] = this.naiveAggregate(table, asked, meets)
    return joined
  }

  private naiveAggregate(table: string, asked: AggregateDefinition, meets: (name: string) => (row: Row) => boolean): unknown {
    const name = 'count' in asked ? asked.count : asked.sum
    const rows = this.naiveRows(this.knowledge.relation(table, name).table, asked.where ? { where: asked.where } : {}, meets(name))
    if ('count' in asked) return rows.length
    const sum = new Sum(asked.column !== 'age')
    for (const row of rows) sum.add(row[asked.column], 1)
    return sum.value
  }
}

const sameNumber = (a: unknown, b: unknown) => String(a) === String(b) || (Number(a) === Number(b) && String(a) !== '' && String(b) !== '')

const pick = <T>(roll: (sides: number) => number, ...from: T[]) => from[roll(from.length)] as T

function randomRow(roll: (sides: number) => number, table: string): Json[] {
  if (table === 'lists') return [`${roll(6)}`, pick(roll, 'x', 'y', '😀', '\uffee'), pick(roll, null, `${roll(6)}`)]
  // an empty text is a value like any other, and meets its like
  if (table === 'people') return [pick(roll, 'ann', 'bob', 'cid', ''), pick(roll, null, roll(90))]
  const hours = pick(roll, null, `${roll(9)}.50`, `-${roll(9)}.25`)
  return [roll(20), pick(roll, null, `${roll(6)}`, `${roll(6)}.0`), pick(roll, null, 'ann', 'bob', 'dan', ''), pick(roll, null, 'low', 'mid', 'high'), hours]
}

function randomOp(roll: (sides: number) => number): Op {
  const table = pick(roll, 'lists', 'todos', 'people')
  const names = Object.keys(TABLES[table]!.columns)
  const values = Object.fromEntries(randomRow(roll, table).map((value, at) => [names[at]!, value]))
  const [first = ''] = names
  const key = { [first]: values[first]! }
  const op = pick(roll, 'insert', 'update', 'delete')
  if (op === 'insert') return { op, table, values }
  if (op === 'delete') return { op, table, key }
  return { op, table, key, set: { [names[1]!]: values[names[1]!]!, ...(roll(4) ? {} : values) } }
}

function randomDefinition(roll: (sides: number) => number, table: string, depth: number): RowsDefinition<any> {
  const names = Object.keys(TABLES[table]!.columns)
  const where = { todos: pick<any>(roll, ['level', '>=', 'mid'], ['hours', 'is not', null], (row: Row) => row['assignee'] !== 'bob'), lists: ['id', '<', 4n], people: ['age', '>', 18] }
  const definition: any = {
    ...(roll(2) ? { where: where[table as 'todos'] } : {}),
    ...(roll(3) ? { orderBy: [[pick(roll, ...names), pick(roll, 'asc', 'desc')], [pick(roll, ...names), 'asc']] } : {}),
    ...(roll(2) ? { limit: roll(5) } : {}),
  }
  const relations = Object.entries(TABLES[table]!.relations ?? {})
  if (depth > 0) {
    const chosen = relations.filter(() => roll(3) > 0)
    definition.include = Object.fromEntries(chosen.map(([name, { table }]) => [name, roll(4) ? randomDefinition(roll, table, depth - 1) : true]))
    const [name, { table: other }] = pick(roll, ...relations)
    const sum = { people: 'age', todos: 'hours', lists: 'id' }[other]!
    definition.aggregate = { total: roll(2) ? { count: name, where: where[other as 'todos'] } : { sum: name, column: sum } }
  }
  return definition
}

/** Objects of `before` that have an equal in `after` at the same key must be the same objects. */
function expectIdentity(before: any, after: any) {
  if (Array.isArray(before) && Array.isArray(after)) {
    const known = new Map(before.map((row) => [JSON.stringify(row), row]))
    for (const row of after) if (known.has(JSON.stringify(row))) expect(row).toBe(known.get(JSON.stringify(row)))
    if (JSON.stringify(before) === JSON.stringify(after)) expect(after).toBe(before)
  }
}

describe('a joined live query', () => {
  it.each(Array.from({ length: 150 }, (_, seed) => seed))('equals the naive query after every commit, seed %i', (seed) => {
    const roll = dice(seed)
    const tables = new Tables()
    const definitions = Array.from({ length: 3 }, () => {
      const table = pick(roll, 'lists', 'todos', 'people')
      return { table, ...randomDefinition(roll, table, roll(4)) }
    })
    const queries = definitions.map((definition) => tables.query(definition))
    const calls = queries.map(() => 0)
    const offs = queries.map((query, at) => (roll(5) ? query.subscribe(() => (calls[at]! += 1)) : null))
    for (let step = 0; step < 25; step += 1) {
      const before = queries.map((query) => query.getSnapshot())
      const heard = [...calls]
      for (let change = pick(roll, 0, 1, 1, 3, 30); change > 0; change -= 1) {
        const table = pick(roll, 'lists', 'todos', 'todos', 'people')
        const row = randomRow(roll, table)
        if (roll(3)) tables.put(table, row)
        else tables.remove(table, row[0]!)
      }
      if (roll(3) === 0) tables.outbox = [...tables.outbox, { kind: 'ops', ops: [randomOp(roll), randomOp(roll)] }]
      else if (roll(3) === 0) tables.outbox = tables.outbox.slice(roll(tables.outbox.length + 1))
      tables.commit()
      for (const [at, query] of queries.entries()) {
        const after = query.getSnapshot()
        expect(after).toEqual(tables.naive(definitions[at]!))
        expect(query.getSnapshot()).toBe(after)
        expectIdentity(before[at], after)
        if (offs[at]) expect(calls[at]! - heard[at]!).toBe(after === before[at] ? 0 : 1)
        if (roll(20) === 0 && offs[at]) {
          offs[at]!()
          offs[at] = query.subscribe(() => (calls[at]! += 1))
        }
      }
    }
    for (const off of offs) off?.()
    expect(tables.attached.size).toBe(0)
  })

  it('joins empty texts: what meets by them comes, goes and moves as everything else', () => {
    const tables = new Tables()
    const people = tables.query({ table: 'people', orderBy: 'name', include: { todos: true } })
    people.subscribe(() => undefined)
    const met = () => people.getSnapshot().map(({ name, todos }) => [name, todos.map(({ id }: Row) => id)])
    tables.put('people', ['', 1], ['ann', 2]).commit()
    tables.put('todos', [1, null, '', null, null]).commit()
    expect(met()).toEqual([['', [1]], ['ann', []]])
    tables.put('todos', [1, null, 'ann', null, null]).commit()
    expect(met()).toEqual([['', []], ['ann', [1]]])
    tables.put('todos', [1, null, '', null, null]).commit()
    expect(met()).toEqual([['', [1]], ['ann', []]])
    tables.remove('todos', 1).commit()
    expect(met()).toEqual([['', []], ['ann', []]])
  })

  it('counts and sums incrementally at the top', () => {
    const tables = new Tables()
    let looked = 0
    const where = () => (looked += 1) > 0
    const count = tables.query<number>({ table: 'todos', where }, 'count')
    const sum = tables.query<string | null>({ table: 'todos' }, 'sum', 'hours')
    expect([count.getSnapshot(), sum.getSnapshot()]).toEqual([0, null])
    let calls = 0
    count.subscribe(() => (calls += 1))
    sum.subscribe(() => undefined)
    tables.put('todos', ...Array.from({ length: 1000 }, (_, id) => [id, '1', null, null, '0.10'])).commit()
    expect([count.getSnapshot(), sum.getSnapshot(), calls]).toEqual([1000, '100.00', 1])
    looked = 0
    tables.put('todos', [5, '1', null, null, '7']).commit()
    expect([count.getSnapshot(), sum.getSnapshot(), calls, looked]).toEqual([1000, '106.90', 1, 1])
    tables.remove('todos', 5).commit()
    expect([count.getSnapshot(), sum.getSnapshot(), calls]).toEqual([999, '99.90', 2])
  })

  it('costs what a change touches, at every level', () => {
    const tables = new Tables()
    const evaluations = { todos: 0, lists: 0 }
    const query = tables.query({
      table: 'lists',
      orderBy: 'name',
      limit: 10,
      where: () => (evaluations.lists += 1) > 0,
      include: { todos: { where: () => (evaluations.todos += 1) > 0, orderBy: [['hours', 'desc']] } },
    })
    query.subscribe(() => undefined)
    tables.put('lists', ...Array.from({ length: 2000 }, (_, id) => [`${id}`, `${id}`.padStart(4, '0'), null]))
    tables.put('todos', ...Array.from({ length: 20_000 }, (_, id) => [id, `${id % 2000}`, null, null, `${id}`])).commit()
    // only lists that are shown have to-dos
    expect(evaluations).toEqual({ lists: 2000, todos: 100 })
    const before = query.getSnapshot()
    Object.assign(evaluations, { todos: 0, lists: 0 })
    tables.put('todos', [2001, '1', null, null, '-5']).commit()
    expect(evaluations).toEqual({ lists: 0, todos: 1 })
    const after = query.getSnapshot()
    expect(after.filter((row, at) => row !== before[at]).map((row) => row.id)).toEqual(['1'])
    expect(after[1].todos.at(-1)).toMatchObject({ id: 2001, hours: '-5' })
    expect(after[1].todos.filter((todo: Row) => !before[1].todos.includes(todo)).length).toBe(1)
    // of a list that is not shown
    tables.put('todos', [2100, '100', null, null, '-5']).commit()
    expect([query.getSnapshot() === after, evaluations.todos]).toEqual([true, 1])
    // another list enters, and only its to-dos are looked at
    tables.remove('lists', '0').commit()
    expect([query.getSnapshot().at(-1).id, evaluations.todos, evaluations.lists]).toEqual(['10', 11, 0])
  })

  it('keeps results when a session describes the same columns again or another table appears', () => {
    const tables = new Tables()
    tables.put('lists', ['1', 'x', null]).commit()
    const query = tables.query({ table: 'lists', include: { todos: true } })
    query.subscribe(() => undefined)
    const before = query.getSnapshot()
    Object.assign(tables.active[0]!, { held: { ...tables.active[0]!.held, columns: [...tables.active[0]!.held!.columns] } })
    tables.active.push({ definition: { table: 'other' }, held: { ...tables.active[2]!.held!, id: 'o', table: ['public', 'other'] } })
    tables.commit()
    expect(query.getSnapshot()).toBe(before)
  })

  it('sorts anew when a column turns out to be a number', () => {
    const view = new View()
    const knowledge = knowledgeOf(undefined, view)
    const query = new LiveQueryState(specOf({ table: 't', orderBy: 'n' }, knowledge), view, knowledge, () => () => undefined)
    query.subscribe(() => undefined)
    const insert = (n: string): PendingMutation => ({ kind: 'ops', ops: [{ op: 'insert', table: 't', values: { id: n, n } }] })
    const outbox = ['10', '9'].map(insert)
    query.take(view.update([{ definition: { table: 't' }, held: null }], outbox, new Map()))
    expect(query.getSnapshot().map((row) => row['n'])).toEqual(['10', '9'])
    const columns = ['id', 'n'].map((name) => ({ name, type: 'numeric(9,2)', wire: 'text' }))
    const held: HeldShape = { id: 't', fingerprint: 'f', table: ['public', 't'], key: ['id'], columns, rows: new Map() }
    expect(query.take(view.update([{ definition: { table: 't' }, held }], outbox, new Map()))).toBe(true)
    expect(query.getSnapshot().map((row) => row['n'])).toEqual(['9', '10'])
  })

  it('refuses a relationship that nobody declared, and a limit that is none', () => {
    const tables = new Tables()
    expect(() => tables.query({ table: 'lists', include: { nothing: true } })).toThrow('declares no relationship nothing of lists')
    expect(() => tables.query({ table: 'lists', limit: -1 })).toThrow(TypeError)
  })
})
