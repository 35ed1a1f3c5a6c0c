/** Columns, tables and whatever else is named by others may have the names that every JavaScript object knows. */
import { describe, expect, it } from 'vitest'
import { newSessionShapes, planBatch } from '../src/apply'
import { filterOf } from '../src/condition'
import { inForm, presenter } from '../src/forms'
import { newMutation } from '../src/mutation'
import { comparatorOf, compareFor } from '../src/order'
import { type ShapeFrame, readFrame } from '../src/protocol'
import { joinReader, knowledgeOf } from '../src/schema'
import { Screen } from '../src/screen'
import { LINK_UNKNOWN } from '../src/status'
import { encodeRecord, type Row } from '../src/values'
import { viewOf } from '../src/view'

/** what an object has that has nothing */
const INHERITED = ['constructor', 'valueOf', 'toString', 'hasOwnProperty', '__proto__']
const unknown = () => null

describe.each(INHERITED)('a column %s', (name) => {
  const row = (value: unknown): Row => Object.fromEntries([['id', 1], [name, value]])
  const described = { column: unknown, key: unknown }
  const without = { key: ['id'], columns: { id: 'integer' }, forms: { id: 'number' as const }, labels: { id: ['x'] }, relations: {} }

  it('is shown as it is where others have a form, and not like an enum', () => {
    expect(presenter({ id: 'number' })(row('x'))).toEqual(row('x'))
    const knowledge = knowledgeOf({ tables: { t: without } } as never, described)
    expect([knowledge.form('t', name), knowledge.column('t', name)]).toEqual([undefined, null])
    expect(inForm(knowledge.form('t', name), 'x')).toBe('x')
    const typed = knowledgeOf({ tables: { t: { ...without, columns: Object.fromEntries([[name, 'text']]) } } } as never, described)
    expect(typed.column('t', name)).toEqual({ type: 'text' })
    expect(() => knowledge.relation('t', name)).toThrow('declares no relationship')
  })

  it('is NULL where a row lacks it: in conditions, orders, joins, keys and what was seen of it', () => {
    const lacking: Row = { id: 2 }
    expect([row('x'), lacking].map(filterOf([name, 'is', null], unknown))).toEqual([false, true])
    expect([row('x'), lacking].map(filterOf([name, '<>', 'y'], unknown))).toEqual([true, false])
    expect([lacking, row('zzz'), row('')].sort(comparatorOf(name, unknown, []))).toEqual([row(''), row('zzz'), lacking])
    expect([row('x'), lacking].map(joinReader([name], unknown))).toEqual(['x', null])
    const set = Object.fromEntries([[name, 'new']])
    const edit = newMutation([{ op: 'update', table: 't', key: { id: 2 }, set, if: 'unchanged' }], {}, () => ({ id: 2 }))
    expect(JSON.stringify(edit.ops)).toBe(`[{"op":"update","table":"t","key":{"id":2},"set":{"${name}":"new"},"if":{"${name}":null}}]`)
  })

  it('travels and is summed', () => {
    expect(JSON.stringify(encodeRecord(row('x')))).toBe(`{"id":1,"${name}":"x"}`)
    const screen = new Screen(() => LINK_UNKNOWN)
    screen.subscriptions.add({ table: 't' })
    screen.outbox.add({ id: 'm', name: null, args: null, ops: [{ op: 'insert', table: 't', values: { id: 1 } }] })
    screen.refresh(new Map())
    expect(screen.query({ table: 't' }, 'sum', name).getSnapshot()).toBe(null)
    screen.outbox.add({ id: 'n', name: null, args: null, ops: [{ op: 'insert', table: 't', values: { ...row(2), id: 2 } as never }] })
    screen.refresh(new Map())
    expect(screen.query({ table: 't' }, 'sum', name).getSnapshot()).toBe(2)
  })

  it('is in the rows that the node sends, and filled with NULL where it is new and nothing else is said', () => {
    const columns = ['id', name].map((name) => ({ name, type: 'text', wire: 'text' }))
    const shape = (columns: unknown) => readFrame('shape', JSON.parse(JSON.stringify({ ref: 's1', shape: 'S', fingerprint: 'f', table: ['public', 't'], key: ['id'], columns }))) as ShapeFrame
    const session = newSessionShapes()
    session.refs.set('s1', 'one')
    session.covered.add('one')
    const { ref: _, shape: __, event: ___, fill: ____, ...before } = shape(columns.slice(0, 1))
    const base = { cursor: 'k', shapes: new Map([['one', { ...before, id: 'one', rows: new Map([['["1"]', ['1']]]) }]]) }
    const commit = { event: 'commit', lsn: '0/1', xid: null, cursor: 'k' } as const
    const rows = planBatch(base, session, { frames: [shape(columns)], commit }).changes.get('one')?.rows
    expect([...(rows?.values() ?? [])]).toEqual([['1', null]])
    const held = { ...before, id: 'one', columns, rows: new Map([['["1"]', ['1', 'x']]]) }
    const view = viewOf([{ definition: { table: 't' }, held }], [])
    expect(JSON.stringify([...(view.get('t')?.values() ?? [])])).toBe(`[{"id":"1","${name}":"x"}]`)
  })

  it('decides of a row written here like any other: scope, condition and key', () => {
    const scope = Object.fromEntries([[name, 'L']])
    const shown = (definition: object, values: object, key: string[] = ['id']) => {
      const columns = ['id', name].map((name) => ({ name, type: 'text', wire: 'text' }))
      const held = { id: 'one', fingerprint: 'f', table: ['public', 't'] as const, key, columns, rows: new Map() }
      const ops = [{ op: 'insert', table: 't', values: values as never }] as const
      return viewOf([{ definition: { table: 't', ...definition }, held }], [{ kind: 'ops', ops }]).get('t')?.size
    }
    // the database fills in what was not written: until it says so, the row is shown
    expect(shown({ condition: [name, '=', 'x'] }, { id: 1 })).toBe(1)
    expect(shown({ condition: [name, '=', 'x'] }, row('y'))).toBe(0)
    expect([shown({ scope }, row('L')), shown({ scope }, row('M'))]).toEqual([1, 0])
    // a key that the database will give
    expect(shown({}, { id: 1 }, [name])).toBe(0)
    const ops = [{ op: 'insert', table: 't', values: { id: 1 } }] as const
    expect(viewOf([{ definition: { table: 't', scope }, held: null }], [{ kind: 'ops', ops }]).get('t')?.size).toBe(1)
  })
})

it.each(INHERITED)('a table %s of which nothing is known, an operator, a time and an event', (name) => {
  const knowledge = knowledgeOf({ tables: { t: { key: ['id'], columns: {} } } } as never, { column: unknown, key: unknown })
  expect([knowledge.column(name, 'id'), knowledge.key(name), knowledge.form(name, 'id')]).toEqual([null, null, undefined])
  expect(() => knowledge.relation(name, 'list')).toThrow('declares no relationship')
  expect(() => filterOf(['id', name as never, 1], unknown)).toThrow('is no operator')
  const compare = compareFor({ type: 'date' })
  expect([Math.sign(compare(name, '~')), Math.sign(compare('~', name)), compare(name, name)]).toEqual([-1, 1, 0])
  expect(readFrame(name, {})).toBe(null)
})
