/** Live lists: order, identity, and that they equal filter, sort and slice. */
import { describe, expect, it } from 'vitest'
import { LiveQueryState, type QueryDefinition, specOf } from '../src/live_query'
import { comparatorOf } from '../src/order'
import { knowledgeOf } from '../src/schema'
import { keyText, type Row, type WireRow } from '../src/values'
import { type ActiveShape, View } from '../src/view'

const COLUMNS = [
  { name: 'id', type: 'int4', wire: 'int' },
  { name: 'n', type: 'int8', wire: 'text' },
  { name: 'tag', type: 'text', wire: 'text' },
]

function world(definition: Partial<QueryDefinition<any>> = {}) {
  const rows = new Map<string, WireRow>()
  const held = { id: 't', fingerprint: 'f', table: ['public', 't'] as const, key: ['id'], columns: COLUMNS, rows }
  const active: ActiveShape[] = [{ definition: { table: 't' }, held }]
  const view = new View()
  const attached = new Set<LiveQueryState>()
  const knowledge = knowledgeOf(undefined, view)
  const query = new LiveQueryState<readonly Row[]>(specOf({ table: 't', ...definition }, knowledge), view, knowledge, (one) => {
    attached.add(one)
    return () => attached.delete(one)
  })
  const change = (puts: WireRow[], removes: number[] = []) => {
    for (const row of puts) rows.set(keyText([row[0]!]), row)
    for (const id of removes) rows.delete(keyText([id]))
    const touched = new Set([...puts.map((row) => keyText([row[0]!])), ...removes.map((id) => keyText([id]))])
    const changes = view.update(active, [], new Map([['t', touched]]))
    for (const one of attached) if (one.take(changes)) one.notify()
  }
  return { query, change, attached, view }
}

const ids = (query: { getSnapshot(): readonly Row[] }) => query.getSnapshot().map((row) => row['id'])

describe('a live query', () => {
  it('filters, orders by the key unless told otherwise, and cuts', () => {
    const { query, change } = world({ where: (row: any) => row.tag !== 'x', limit: 2 })
    change([[10, '1', 'a'], [9, '2', 'a'], [2, '3', 'x'], [30, '4', 'a']])
    expect(ids(query)).toEqual([9, 10])
  })

  it('is the same array until a row that it shows changes, and keeps the other rows', () => {
    const { query, change } = world({ orderBy: 'id', where: (row: any) => row.tag === 'a' })
    query.subscribe(() => undefined)
    change(Array.from({ length: 40 }, (_, id) => [id, '0', id < 20 ? 'a' : 'b']))
    const before = query.getSnapshot()
    change([[30, '9', 'b']])
    expect(query.getSnapshot()).toBe(before)
    change([[5, '9', 'a']])
    const after = query.getSnapshot()
    expect(after).not.toBe(before)
    expect(after.filter((row, at) => row !== before[at]).map((row) => row['id'])).toEqual([5])
  })

  it('calls back once per update that changed it', () => {
    const { query, change } = world({ where: (row: any) => row.tag === 'a' })
    let calls = 0
    query.subscribe(() => (calls += 1))
    change([[1, '0', 'a'], [2, '0', 'a'], [3, '0', 'b']])
    expect(calls).toBe(1)
    change([[3, '1', 'b']])
    expect(calls).toBe(1)
    change([[3, '1', 'a'], [1, '1', 'b']])
    expect([calls, ids(query)]).toEqual([2, [2, 3]])
  })

  it('is followed only while somebody subscribes, and right whenever somebody looks', () => {
    const { query, change, attached } = world()
    change([[1, '0', 'a']])
    expect([ids(query), attached.size]).toEqual([[1], 0])
    const [first, second] = [query.subscribe(() => undefined), query.subscribe(() => undefined)]
    expect(attached.size).toBe(1)
    change([[2, '0', 'a']])
    first()
    expect([ids(query), attached.size]).toEqual([[1, 2], 1])
    second()
    change([[3, '0', 'a']])
    expect([ids(query), attached.size]).toEqual([[1, 2, 3], 0])
  })

  it('moves only what changed: a row of a large list is not filtered again when another changes', () => {
    let filtered = 0
    const { query, change } = world({ where: () => (filtered += 1) > 0, orderBy: 'n' })
    query.subscribe(() => undefined)
    change(Array.from({ length: 10_000 }, (_, id) => [id, `${id * 2}`, 'a']))
    filtered = 0
    change([[77, '12345', 'a']])
    expect(filtered).toBeLessThanOrEqual(2)
    const shown = query.getSnapshot()
    expect([shown.length, shown.findIndex((row) => row['id'] === 77)]).toEqual([10_000, 6172])
  })

  it('equals filter, sort and slice after many changes', () => {
    const orderBy = [['tag', 'desc'], ['n', 'asc']] as const
    const { query, change, view } = world({ where: (row: any) => row.tag !== 'c', orderBy, limit: 30 })
    query.subscribe(() => undefined)
    let seed = 7
    const roll = (sides: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % sides
    change(Array.from({ length: 60 }, (_, id) => [id, `${roll(200)}`, 'abcd'[roll(4)]!]))
    for (let step = 0; step < 300; step += 1) {
      if (roll(3)) change([[roll(80), `${roll(200)}`, 'abcd'[roll(4)]!]])
      else change([], [roll(80)])
      const rows = [...view.rows('t').values()].filter((row) => row['tag'] !== 'c')
      rows.sort(comparatorOf(orderBy, (name) => view.column('t', name), ['id']))
      expect(query.getSnapshot()).toEqual(rows.slice(0, 30))
    }
  })
})
