/** Batches: order within `rows`, membership per shape, what leaves with the cursor. */
import { beforeEach, describe, expect, it } from 'vitest'
import { type Base, BatchCollector, carryOut, newSessionShapes, planBatch, type Plan, planCursor, provisionalShapes, type SessionShapes, shapeWrites } from '../src/apply'
import { FrameError, readFrame } from '../src/protocol'

const COLUMNS = [
  { name: 'id', type: 'int4', wire: 'int' },
  { name: 'a', type: 'text', wire: 'text' },
  { name: 'b', type: 'text', wire: 'text' },
]

let base: Base
let session: SessionShapes

/** shapes whose rows are to be stored */
const KEPT = new Set(['one', 'two'])

function shape(ref: string, name: string, more: Record<string, unknown> = {}): [string, unknown] {
  return ['shape', { ref, shape: name, fingerprint: 'f', table: ['public', 't'], key: ['id'], columns: COLUMNS, ...more }]
}

function plan(...events: [string, unknown][]) {
  const collector = new BatchCollector()
  for (const [event, payload] of events) collector.take(readFrame(event, payload)!)
  return planBatch(base, session, collector.take(readFrame('commit', { lsn: '0/1', xid: null, cursor: 'k' })!)!)
}

function writesOf(made: Plan) {
  return shapeWrites(base, made, KEPT, new Set(base.shapes.keys()))
}

function apply(...events: [string, unknown][]) {
  const made = plan(...events)
  const writes = writesOf(made)
  return { writes, touched: carryOut(base, made), plan: made }
}

const held = (id: string) => [...(base.shapes.get(id)?.rows.values() ?? [])]

beforeEach(() => {
  base = { cursor: null, shapes: new Map() }
  session = newSessionShapes()
  session.refs.set('s1', 'one')
  session.refs.set('s2', 'two')
})

describe('a batch', () => {
  it('is nothing until its commit', () => {
    const collector = new BatchCollector()
    expect(collector.isOpen).toBe(false)
    expect(collector.take(readFrame(...shape('s1', 'S'))!)).toBeNull()
    expect(collector.isOpen).toBe(true)
    expect(collector.take(readFrame('commit', { lsn: '0/1', xid: null, cursor: 'k' })!)?.frames).toHaveLength(1)
    expect(collector.isOpen).toBe(false)
  })

  it('that changes rows is planned without the others, and leaves the description the same object also where the plan is a copy', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'x', 'y'], [2, 'x', 'y']] }])
    const { columns } = base.shapes.get('one')!
    const made = plan(['rows', { shape: 'S', put: [[3, 'z', 'z']] }])
    expect(Object.keys(made.changes.get('one')!.shape).sort()).toEqual(['columns', 'fingerprint', 'id', 'key', 'table'])
    carryOut(base, structuredClone(made))
    expect(base.shapes.get('one')!.columns).toBe(columns)
    expect(held('one')).toEqual([[1, 'x', 'y'], [2, 'x', 'y'], [3, 'z', 'z']])
  })

  it('is not begun by looking at what was set aside: the names of the session stay what they are', () => {
    const collector = new BatchCollector()
    for (const [event, payload] of [shape('s1', 'S'), ['load', { load: '1', shape: 'S', reset: 'first', put: [[1, 'x', 'y']] }]] as [string, unknown][]) {
      collector.take(readFrame(event, payload)!)
    }
    const before = structuredClone(session)
    const shown = provisionalShapes(base, session, collector.provisional(['1']))
    expect([...(shown.get('one')?.rows.values() ?? [])]).toEqual([[1, 'x', 'y']])
    expect(session).toEqual(before)
    expect(base).toEqual({ cursor: null, shapes: new Map() })
  })

  it('takes what was set aside where it is told to, and not before', () => {
    const collector = new BatchCollector()
    const take = (event: string, payload: unknown) => collector.take(readFrame(event, payload)!)
    const load = (name: string, more: object) => take('load', { load: name, shape: 'S', ...more })
    take(...shape('s1', 'S'))
    expect(take('commit', { lsn: '0/1', xid: null, cursor: 'k' })?.frames).toHaveLength(1)
    load('1.0', { reset: 'first', put: [[1, 'a', 'b']] })
    load('2.0', { reset: 'first', put: [[7, 'of a reading', 'that broke off']] })
    load('1.0', { put: [[2, 'a', 'b']] })
    expect(collector.isOpen).toBe(false)
    // a batch of another shape in between
    take('rows', { shape: 'T', put: [[5, 'x', 'y']] })
    expect(take('commit', { lsn: '0/2', xid: null, cursor: 'k' })?.frames).toHaveLength(1)
    take('unload', { loads: ['2.0'] })
    load('3.0', { remove: [[1]] })
    take(...shape('s1', 'S'))
    take('loaded', { loads: ['1.0', '3.0'] })
    const batch = take('commit', { lsn: '0/3', xid: null, cursor: 'k' })!
    carryOut(base, planBatch(base, session, batch))
    expect(held('one')).toEqual([[2, 'a', 'b']])
    expect(() => take('loaded', { loads: ['1.0'] })).toThrow(FrameError)
    expect(() => take('unload', { loads: ['2.0'] })).toThrow(FrameError)
  })

  it('applies reset, remove, put, patch in this order, whatever the order in the frame', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b'], [9, 'old', 'old']] }])
    apply([
      'rows',
      {
        patch: [[[2, 'patched', null], [2]]],
        put: [[1, 'put', 'after remove'], [2, 'x', 'kept']],
        remove: [[1], [2]],
        reset: 'horizon',
        shape: 'S',
      },
    ])
    expect(held('one')).toEqual([[1, 'put', 'after remove'], [2, 'patched', 'kept']])
  })

  it('patches what an earlier frame or an earlier commit put', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'big']] }])
    apply(['rows', { shape: 'S', patch: [[[1, 'a2', null], [2]]] }], ['rows', { shape: 'S', patch: [[[1, 'a3', null], [2]]] }])
    expect(held('one')).toEqual([[1, 'a3', 'big']])
  })

  it('keeps membership per shape: leaving one does not touch the other', () => {
    const rows = { reset: 'first', put: [[1, 'a', 'b'], [2, 'a', 'b']] }
    apply(shape('s1', 'S'), shape('s2', 'T'), ['rows', { shape: 'S', ...rows }], ['rows', { shape: 'T', ...rows }])
    apply(['rows', { shape: 'S', remove: [[1]] }])
    expect(held('one').map(([id]) => id)).toEqual([2])
    expect(held('two').map(([id]) => id)).toEqual([1, 2])
  })

  it('reaches every definition that the server holds to be one shape', () => {
    apply(shape('s1', 'S'), shape('s2', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }])
    expect([held('one'), held('two')]).toEqual([[[1, 'a', 'b']], [[1, 'a', 'b']]])
  })

  it('tells which rows it touched, those that a reset dropped included', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }])
    const { touched } = apply(['rows', { shape: 'S', reset: 'truncated', put: [[2, 'a', 'b']] }])
    expect(touched).toEqual(new Map([['t', new Set(['[1]', '[2]'])]]))
  })

  it('drops the rows of a withdrawn shape, unless it comes back in the same batch', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }])
    const { writes } = apply(['withdraw', { shape: 'S' }])
    expect(writes).toEqual([{ id: 'one', drop: true }])
    expect(base.shapes.has('one')).toBe(false)
    apply(['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }])
    apply(['withdraw', { shape: 'S' }], ['rows', { shape: 'S', reset: 'first', put: [[2, 'a', 'b']] }])
    expect(held('one')).toEqual([[2, 'a', 'b']])
  })

  it('moves values when a shape is described anew without a reset', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }])
    const columns = [COLUMNS[0], COLUMNS[2], { name: 'c', type: 'text', wire: 'text' }]
    const { writes } = apply(shape('s1', 'S', { columns, fingerprint: 'f2' }), ['rows', { shape: 'S', put: [[2, 'b2', 'c2']] }])
    expect(held('one')).toEqual([[1, 'b', null], [2, 'b2', 'c2']])
    expect(writes).toMatchObject([{ id: 'one', reset: true, shape: { fingerprint: 'f2', columns } }])
  })

  it('fills added columns of the rows that it keeps, and leaves NULLs of earlier ones alone', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', null], [2, 'a', 'b']] }])
    const columns = [...COLUMNS, { name: 'n', type: 'int4', wire: 'int' }, { name: 'm', type: 'text', wire: 'text' }]
    const fill = { n: 7, [COLUMNS[2]!.name]: 'never' }
    apply(shape('s1', 'S', { columns, fill, fingerprint: 'f2' }), ['rows', { shape: 'S', put: [[2, 'a', 'b', 8, 'x']] }])
    expect(held('one')).toEqual([[1, 'a', null, 7, null], [2, 'a', 'b', 8, 'x']])
  })

  it('writes no description and no reset for ordinary changes', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }])
    const { writes } = apply(['rows', { shape: 'S', put: [[2, 'a', 'b']], remove: [[1]] }])
    expect(writes).toEqual([{ id: 'one', drop: false, shape: null, reset: false, rows: new Map<string, unknown>([['[1]', null], ['[2]', [2, 'a', 'b']]]) }])
  })

  it('passes over what was given up while it was on its way', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }])
    session.refs.delete('s1')
    session.covered.delete('one')
    const { writes } = apply(shape('s1', 'S'), ['rows', { shape: 'S', put: [[2, 'a', 'b']] }])
    expect(writes).toEqual([{ id: 'one', drop: true }])
  })

  it.each<[string, [string, unknown][]]>([
    ['rows of a shape that was never described', [['rows', { shape: 'N', reset: 'first', put: [[1, 'a', 'b']] }]]],
    ['a row with too few values', [shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1]] }]]],
    ['a patch of a row that is not held', [shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', patch: [[[1, 'a', null], [2]]] }]]],
  ])('is refused whole: %s', (_, events) => {
    session.named.set('N', new Set(['s2']))
    expect(() => plan(...events)).toThrow(FrameError)
    expect(base).toEqual({ cursor: null, shapes: new Map() })
  })
})

describe('a cursor', () => {
  it('takes with it every shape that the session does not cover', () => {
    apply(shape('s1', 'S'), shape('s2', 'T'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }], ['rows', { shape: 'T', reset: 'first' }])
    session = newSessionShapes()
    session.refs.set('s9', 'two')
    session.covered.add('two')
    const made = planCursor(base, session, 'k2')
    expect(writesOf(made)).toEqual([{ id: 'one', drop: true }])
    expect(carryOut(base, made)).toEqual(new Map([['t', new Set(['[1]'])]]))
    expect([base.cursor, [...base.shapes.keys()]]).toEqual(['k2', ['two']])
  })

  it('does not keep a shape that was asked for anew and is not loaded yet', () => {
    apply(shape('s1', 'S'), ['rows', { shape: 'S', reset: 'first', put: [[1, 'a', 'b']] }])
    session = newSessionShapes()
    session.refs.set('s3', 'one')
    expect(apply(shape('s3', 'S')).writes).toEqual([{ id: 'one', drop: true }])
    const loaded = apply(['rows', { shape: 'S', reset: 'first', put: [[5, 'a', 'b']] }])
    expect(loaded.writes).toMatchObject([{ id: 'one', drop: false, reset: true }])
    expect(held('one')).toEqual([[5, 'a', 'b']])
  })
})
