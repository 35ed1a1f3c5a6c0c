import { describe, expect, it } from 'vitest'
import { definitionId, FrameError, readError, readFrame, readHeartbeat, readJoined, tableName, tableNameOf } from '../src/protocol'

const SHAPE = { ref: 's1', shape: 'S', fingerprint: 'f', table: ['public', 't'], key: ['id'], columns: [{ name: 'id', type: 'int8', wire: 'text' }] }

describe('data frames', () => {
  it('are read as docs/protocol.md writes them', () => {
    expect(readFrame('shape', SHAPE)).toEqual({ event: 'shape', ...SHAPE, fill: {} })
    expect(readFrame('rows', { shape: 'S' })).toEqual({ event: 'rows', shape: 'S', reset: null, remove: [], put: [], patch: [] })
    expect(readFrame('rows', { shape: 'S', reset: 'first', remove: [['1']], put: [['2']], patch: [[['3'], [0]]] })).toEqual({
      event: 'rows',
      shape: 'S',
      reset: 'first',
      remove: [['1']],
      put: [['2']],
      patch: [[['3'], [0]]],
    })
    expect(readFrame('progress', { load: '1', about: 20_000 })).toEqual({ event: 'progress', load: '1', about: 20_000 })
    // what need not be heeded is nothing to end a session for
    for (const odd of [{ of: 1 }, { loads: [1] }, null]) expect(readFrame('provisional', odd)).toBeNull()
    for (const odd of [{ load: '1', about: 'many' }, { about: 1 }, { of: 1 }]) expect(readFrame('progress', odd)).toBeNull()
    expect(readFrame('provisional', { loads: ['1', '2'] })).toEqual({ event: 'provisional', loads: ['1', '2'] })
    expect(readFrame('withdraw', { shape: 'S' })).toEqual({ event: 'withdraw', shape: 'S' })
    expect(readFrame('ack', { mutations: [{ n: '1', id: 'a', outcome: 'refused', code: '23505', message: 'm' }] })).toEqual({
      event: 'ack',
      mutations: [{ n: '1', id: 'a', outcome: 'refused', code: '23505', message: 'm' }],
    })
    expect(readFrame('commit', { lsn: '0/1', xid: null, cursor: '1~x' })).toEqual({ event: 'commit', lsn: '0/1', xid: null, cursor: '1~x' })
  })

  it('of events that are reserved or unknown are not read', () => {
    for (const event of ['remove_digest', 'tomorrow']) expect(readFrame(event, null)).toBeNull()
  })

  it.each([
    ['shape', null],
    ['shape', { ...SHAPE, key: [] }],
    ['shape', { ...SHAPE, key: ['other'] }],
    ['shape', { ...SHAPE, table: ['t'] }],
    ['shape', { ...SHAPE, columns: [{ name: 'id' }] }],
    ['rows', {}],
    ['rows', { shape: 'S', put: [{}] }],
    ['rows', { shape: 'S', reset: 1 }],
    ['rows', { shape: 'S', patch: [[['1'], ['id']]] }],
    ['withdraw', {}],
    ['ack', { mutations: [{ n: '1', id: 'a', outcome: 'perhaps' }] }],
    ['ack', { mutations: [{ n: 1, id: 'a', outcome: 'applied' }] }],
    ['commit', { lsn: '0/1', xid: 7, cursor: 'k' }],
    ['commit', { lsn: '0/1', xid: null }],
  ])('that are not what they should be are refused: %s %j', (event, payload) => {
    expect(() => readFrame(event, payload)).toThrow(FrameError)
  })
})

describe('answers', () => {
  it('JOINED', () => {
    const shapes = [{ ref: 's1', ok: true }, { ref: 's2', error: { code: 'unknown_table', message: 'no' } }]
    expect(readJoined({ protocol: 1, capabilities: [], database: 'd', subject: '', client: 'c', shapes })).toEqual({
      database: 'd',
      subject: '',
      client: 'c',
      shapes: [
        { ref: 's1', error: null },
        { ref: 's2', error: { code: 'unknown_table', message: 'no' } },
      ],
    })
    expect(() => readJoined({ client: 'c' })).toThrow(FrameError)
  })

  it('an error without a reason is still one', () => {
    expect(readError(undefined).code).toBe('unknown_error')
    expect(readError({ code: 'crowded', message: 'm', retry_in: 700 })).toEqual({ code: 'crowded', message: 'm', retry_in: 700 })
    for (const retry_in of [-1, '700', null]) expect(readError({ code: 'crowded', retry_in }).retry_in).toBeUndefined()
    expect(readError({ code: 'gap', message: 'm', last: '4', client: 'c' })).toEqual({ code: 'gap', message: 'm', last: '4', client: 'c' })
  })

  it('a heartbeat may carry a cursor', () => {
    expect(readHeartbeat({ status: 'ok', response: { cursor: '1~x', age: 12 } })).toEqual({ cursor: '1~x', age: 12 })
    expect(readHeartbeat({ status: 'ok', response: { cursor: null, age: null } })).toEqual({ cursor: null, age: null })
    expect(readHeartbeat(null)).toEqual({ cursor: null, age: null })
  })
})

describe('names', () => {
  it('public is left out', () => {
    expect([tableName('public.todos'), tableName('todos'), tableName('crm.todos')]).toEqual(['todos', 'todos', 'crm.todos'])
    expect([tableNameOf(['public', 'todos']), tableNameOf(['crm', 'todos'])]).toEqual(['todos', 'crm.todos'])
  })

  it('definitions are the same in any order, and differ by table, columns, scope and the type of a scope value', () => {
    const id = definitionId({ table: 'todos', columns: ['id', 'title'], scope: { a: 1, b: 'x' } })
    expect(definitionId({ table: 'public.todos', columns: ['title', 'id', 'id'], scope: { b: 'x', a: 1 } })).toBe(id)
    const others = [
      { table: 'lists', columns: ['id', 'title'], scope: { a: 1, b: 'x' } },
      { table: 'todos', scope: { a: 1, b: 'x' } },
      { table: 'todos', columns: ['id', 'title'] },
      { table: 'todos', columns: ['id', 'title'], scope: { a: '1', b: 'x' } },
    ].map(definitionId)
    expect(new Set([id, ...others]).size).toBe(5)
  })
})
