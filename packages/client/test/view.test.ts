/** The view: what an outbox does to rows, and that the incremental one equals the definition. */
import { describe, expect, it } from 'vitest'
import type { HeldShape } from '../src/apply'
import type { PendingMutation } from '../src/outbox'
import type { Op } from '../src/protocol'
import { type Row, type WireRow, keyText } from '../src/values'
import { type ActiveShape, View, viewOf } from '../src/view'
import { dice } from './support/dice'

const COLUMNS = [
  { name: 'id', type: 'int8', wire: 'text' },
  { name: 'list', type: 'text', wire: 'text' },
  { name: 'title', type: 'text', wire: 'text' },
]

function shapeOf(scope: Record<string, string> | null, rows: WireRow[], names = ['id', 'list', 'title']): ActiveShape {
  const columns = names.map((name) => COLUMNS.find((column) => column.name === name)!)
  const held: HeldShape = {
    id: JSON.stringify([scope, names]),
    fingerprint: 'f',
    table: ['public', 't'],
    key: ['id'],
    columns,
    rows: new Map(rows.map((row) => [keyText([row[names.indexOf('id')]!]), row])),
  }
  return { definition: { table: 't', scope }, held }
}

const ops = (...list: Op[]): PendingMutation => ({ kind: 'ops', ops: list })
const show = (active: ActiveShape[], ...outbox: PendingMutation[]) => [...(viewOf(active, outbox).get('t')?.values() ?? [])]
const insert = (values: Record<string, string | number | null>): Op => ({ op: 'insert', table: 't', values })
const update = (id: string | number, set: Record<string, string>): Op => ({ op: 'update', table: 't', key: { id }, set })
const remove = (id: string | number): Op => ({ op: 'delete', table: 'public.t', key: { id } })

describe('the view', () => {
  it('is the union of shapes, with their columns merged by key', () => {
    const rows = show([shapeOf(null, [['1', 'one']], ['id', 'title']), shapeOf({ list: 'L' }, [['1', 'L'], ['2', 'L']], ['id', 'list'])])
    expect(rows).toEqual([{ id: '1', title: 'one', list: 'L' }, { id: '2', list: 'L' }])
  })

  it('applies operations in order', () => {
    const base = shapeOf(null, [['1', 'L', 'one'], ['2', 'L', 'two']])
    expect(show([base], ops(insert({ id: '3', title: 'three' }), update('3', { title: 'drei' }), remove('1')), ops(update('2', { title: 'zwei' })))).toEqual([
      { id: '2', list: 'L', title: 'zwei' },
      { id: '3', list: null, title: 'drei' },
    ])
    expect(show([base], ops(remove('1'), insert({ id: '1', list: 'L', title: 'again' })))[0]).toEqual({ id: '1', list: 'L', title: 'again' })
  })

  it('ignores an update or delete of a row that is not there', () => {
    const base = shapeOf(null, [['1', 'L', 'one']])
    expect(show([base], ops(update('9', { title: 'x' }), remove('8'), remove('1'), update('1', { title: 'x' })))).toEqual([])
  })

  it('meets the server\'s key although the application wrote a number', () => {
    expect(show([shapeOf(null, [['1', 'L', 'one']])], ops(update(1, { title: 'eins' }), insert({ id: 2, title: 'zwei' })))).toEqual([
      { id: '1', list: 'L', title: 'eins' },
      { id: '2', list: null, title: 'zwei' },
    ])
  })

  it('moves a row whose key is changed', () => {
    expect(show([shapeOf(null, [['1', 'L', 'one']])], ops(update('1', { id: '7' }), update('7', { title: 'seven' })))).toEqual([{ id: '7', list: 'L', title: 'seven' }])
  })

  it('hides what would not stay: rows outside every scope that was asked for', () => {
    const active = [shapeOf({ list: 'L' }, [['1', 'L', 'one']])]
    expect(show(active, ops(insert({ id: '2', list: 'M', title: 'x' })))).toHaveLength(1)
    expect(show(active, ops(update('1', { list: 'M' })))).toEqual([])
    expect(show(active, ops(update('1', { list: 'M' })), ops(update('1', { list: 'L' })))).toHaveLength(1)
    expect(show([], ops(insert({ id: '2', list: 'L' })))).toEqual([])
  })

  it('shows inserts before the table was described, and not those whose key the database gives', () => {
    const asked: ActiveShape = { definition: { table: 't', scope: { list: 'L' } }, held: null }
    expect(show([asked], ops(insert({ id: 'x', list: 'L' }), update('x', { title: 'new' })))).toEqual([{ id: 'x', list: 'L', title: 'new' }])
    expect(show([shapeOf(null, [])], ops(insert({ title: 'x' })))).toEqual([])
  })

  it('does not guess what another kind of mutation does', () => {
    expect(show([shapeOf(null, [['1', 'L', 'one']])], { kind: 'call', ops: [remove('1')] })).toHaveLength(1)
  })
})

function randomOp(roll: (sides: number) => number): Op {
  const id = `${roll(8)}`
  switch (roll(4)) {
    case 0:
      return insert({ id, list: roll(2) ? 'L' : 'M', title: `t${roll(5)}` })
    case 1:
      return remove(id)
    case 2:
      return update(id, roll(3) ? { title: `t${roll(5)}` } : { list: roll(2) ? 'L' : 'M' })
    default:
      return update(id, { id: `${roll(8)}` })
  }
}

describe('the incremental view', () => {
  it.each(Array.from({ length: 200 }, (_, seed) => seed))('equals the definition, seed %i', (seed) => {
    const roll = dice(seed)
    const view = new View()
    const shapes = [shapeOf({ list: 'L' }, []), shapeOf({ list: 'M' }, []), shapeOf(null, [], ['id', 'title'])]
    let active: ActiveShape[] = []
    let outbox: PendingMutation[] = []
    for (let step = 0; step < 30; step += 1) {
      const touched = new Set<string>()
      const before = new Map(view.rows('t'))
      switch (roll(4)) {
        case 0: {
          const { held } = shapes[roll(3)]!
          for (let change = roll(4); change > 0; change -= 1) {
            const key = keyText([`${roll(8)}`])
            const row = held!.columns.map(({ name }) => (name === 'id' ? JSON.parse(key)[0] : name === 'list' ? 'L' : `b${roll(5)}`))
            if (roll(3)) (held!.rows as Map<string, WireRow>).set(key, row)
            else (held!.rows as Map<string, WireRow>).delete(key)
            touched.add(key)
          }
          break
        }
        case 1:
          active = shapes.filter(() => roll(2))
          for (const { held } of shapes) for (const key of held!.rows.keys()) touched.add(key)
          break
        case 2:
          outbox = [...outbox, ops(randomOp(roll), randomOp(roll))]
          break
        default:
          outbox = outbox.slice(roll(outbox.length + 1))
      }
      const changes = view.update(active, outbox, new Map([['t', touched]]))
      const expected = viewOf(active, outbox).get('t') ?? new Map<string, Row>()
      expect(Object.fromEntries(view.rows('t'))).toEqual(Object.fromEntries(expected))
      for (const [key, row] of before) {
        const change = changes.get('t')?.get(key)
        if (change === undefined) expect(view.rows('t').get(key)).toBe(row)
        else expect(change.after).not.toEqual(row)
      }
    }
  })
})
