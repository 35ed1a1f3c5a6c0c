/** A shape's conditions: what the node is asked, and which rows written here are shown. */
import { describe, expect, it } from 'vitest'
import type { Condition } from '../src/condition'
import type { PendingMutation } from '../src/outbox'
import type { Op } from '../src/protocol'
import { definitionId } from '../src/protocol'
import { askedShape } from '../src/shape_where'
import { keyText } from '../src/values'
import { type ActiveShape, viewOf } from '../src/view'

const asked = (where: Condition | readonly Condition[]) => {
  const { where: sql, params } = askedShape({ table: 't', where })
  return [sql, ...(params ?? [])]
}

describe('as SQL', () => {
  it('is a predicate with a parameter for each value', () => {
    expect(asked(['done', '=', false])).toEqual(['"done" = $1', false])
    expect(asked([['a', '<', 3n], ['b"c', 'like', 'x%']])).toEqual(['("a" < $1 and "b""c" like $2)', '3', 'x%'])
    expect(asked({ or: [['a', 'in', [1, 2]], { not: ['b', 'is', null] }] })).toEqual(['("a" in ($1, $2) or not ("b" is null))', 1, 2])
    expect(asked([['a', 'is', 1], ['a', 'is not', 2], ['a', 'is not', null]])).toEqual(['("a" is not distinct from $1 and "a" is distinct from $2 and "a" is not null)', 1, 2])
    expect(asked({ and: [['a', 'in', []], ['a', 'not in', []]] })).toEqual(['(false and true)'])
    expect(asked({ or: [] })).toEqual(['false'])
    expect(asked(['due', '<', new Date('2026-12-24T18:00:00Z')])).toEqual(['"due" < $1', '2026-12-24 18:00:00.000Z'])
  })

  it('is the same shape when it says the same', () => {
    const id = (where: Condition) => definitionId(askedShape({ table: 't', where }))
    expect(id(['a', '=', 1])).toBe(id(['a', '=', 1]))
    expect(id(['a', '=', 1])).not.toBe(id(['a', '=', 2]))
    expect(askedShape({ table: 't', where: 'a = $1', params: [1] })).toEqual({ table: 't', where: 'a = $1', params: [1] })
  })

  it('is refused where it is written, if it is none', () => {
    for (const where of [['a', '==', 1], { xor: [] }, ['a', 'in', 1], ['a', '=', { b: 1 }]]) expect(() => askedShape({ table: 't', where: where as never })).toThrow(TypeError)
  })
})

const column = (name: string, wire: string, type: string) => ({ name, wire, type })
const COLUMNS = [column('id', 'int', 'int4'), column('title', 'text', 'text'), column('done', 'bool', 'bool'), column('hours', 'text', 'numeric')]

function shown(where: Condition | string | undefined, rows: readonly (readonly [number, string, boolean | null, string | null])[], ops: readonly Op[]): unknown[] {
  const definition = askedShape({ table: 't', ...(where === undefined ? {} : { where }) })
  const held = { id: 's', fingerprint: 'f', table: ['public', 't'] as const, key: ['id'], columns: COLUMNS, rows: new Map(rows.map((row) => [keyText([row[0]]), row])) }
  const outbox = [{ id: 'm', kind: 'ops', name: null, args: null, ops }] as unknown as PendingMutation[]
  return [...(viewOf([{ definition, held } as unknown as ActiveShape], outbox).get('t')?.values() ?? [])].map((row) => row['id'])
}

describe('rows written here', () => {
  const open: Condition = ['done', '=', false]
  const update = (set: Record<string, unknown>): Op[] => [{ op: 'update', table: 't', key: { id: 1 }, set: set as never }]

  it('leave when they do not pass any more, at once', () => {
    const row = [1, 'a', false, '1.5'] as const
    expect(shown(open, [row], update({ done: true }))).toEqual([])
    expect(shown(open, [row], update({ title: 'b' }))).toEqual([1])
    // unknown is not in the shape, as in SQL
    expect(shown(open, [row], update({ done: null }))).toEqual([])
    expect(shown(open, [row], [...update({ done: true }), ...update({ done: false })])).toEqual([1])
    // by the column's type, not by its text
    expect(shown(['hours', '<', 10], [row], update({ hours: '9.5' }))).toEqual([1])
    expect(shown(['hours', '<', 10], [row], update({ hours: '12' }))).toEqual([])
  })

  it('come when they pass; what the database fills in decides nothing', () => {
    const insert = (values: Record<string, unknown>): Op[] => [{ op: 'insert', table: 't', values: values as never }]
    expect(shown(open, [], insert({ id: 1, title: 'a', done: false }))).toEqual([1])
    expect(shown(open, [], insert({ id: 1, title: 'a', done: true }))).toEqual([])
    expect(shown(open, [], insert({ id: 1, title: 'a' }))).toEqual([1])
    expect(shown(open, [], insert({ id: 1, title: 'a', done: null }))).toEqual([])
    expect(shown(open, [], [...insert({ id: 1, title: 'a' }), ...update({ title: 'b' })])).toEqual([1])
    expect(shown(open, [], [...insert({ id: 1, title: 'a' }), ...update({ done: true })])).toEqual([])
  })

  it('are shown until the node says otherwise where the condition is SQL', () => {
    expect(shown('done = false', [[1, 'a', false, null]], update({ done: true }))).toEqual([1])
  })
})
