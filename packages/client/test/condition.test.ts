/** Conditions: what SQL says of a row. */
import { describe, expect, it } from 'vitest'
import { filterOf, type Where } from '../src/condition'
import type { Row } from '../src/values'

const TYPES: Record<string, string> = { n: 'bigint', p: 'integer', t: 'text', at: 'timestamp with time zone', b: 'boolean' }
const passes = (where: Where<Row>, row: Row) => filterOf(where, (name) => ({ type: TYPES[name] as string }))(row)

describe('a condition', () => {
  it.each<[Where<Row>, Row, boolean]>([
    [['n', '=', 7n], { n: '7' }, true],
    [['n', '>', 9], { n: '10' }, true],
    [['n', '<', '10'], { n: '9' }, true],
    [['p', '>=', 3], { p: 3 }, true],
    [['p', '<>', 3], { p: 3 }, false],
    [['at', '=', new Date('2026-11-22T10:11:12Z')], { at: '2026-11-22 10:11:12+00' }, true],
    [['at', '<', new Date('2026-11-22T10:11:12.5Z')], { at: '2026-11-22 10:11:12.4999+00' }, true],
    [['t', 'in', ['a', 'b']], { t: 'b' }, true],
    [['t', 'not in', ['a', 'b']], { t: 'b' }, false],
    [['p', 'in', []], { p: null }, false],
    [['p', 'not in', []], { p: null }, true],
    [['b', '=', true], { b: true }, true],
  ])('case %#', (where, row, expected) => expect(passes(where, row)).toBe(expected))

  it('is unknown where a NULL is compared, and unknown is not shown, negated or not', () => {
    for (const where of [['p', '=', 1], ['p', '<>', 1], ['p', 'in', [1]], ['p', 'not in', [1]], ['t', 'like', '%']] as const) {
      expect([passes(where, { p: null, t: null }), passes({ not: where }, { p: null, t: null })]).toEqual([false, false])
    }
    expect(passes(['p', 'not in', [2, null]], { p: 1 })).toBe(false)
    expect(passes(['p', 'in', [1, null]], { p: 1 })).toBe(true)
    expect(passes({ or: [['p', '=', 1], ['t', '=', 'a']] }, { p: null, t: 'a' })).toBe(true)
    expect(passes({ not: { and: [['p', '=', 1], ['t', '=', 'a']] } }, { p: null, t: 'b' })).toBe(true)
    expect(passes({ not: { and: [['p', '=', 1], ['t', '=', 'a']] } }, { p: null, t: 'a' })).toBe(false)
  })

  it('has `is` for NULLs', () => {
    expect([passes(['p', 'is', null], { p: null }), passes(['p', 'is not', null], { p: null })]).toEqual([true, false])
    expect([passes(['p', 'is', 1], { p: null }), passes(['p', 'is not', 1], { p: null })]).toEqual([false, true])
    expect(passes(['n', 'is', '1.0'], { n: '1' })).toBe(true)
  })

  it('joins a list with and', () => {
    expect(passes([['p', '>', 1], ['p', '<', 3]], { p: 2 })).toBe(true)
    expect(passes([['p', '>', 1], ['p', '<', 3]], { p: 3 })).toBe(false)
    expect(passes([], { p: 3 })).toBe(true)
  })

  it.each([
    ['a%', 'abc', true], ['a_c', 'abc', true], ['a_c', 'a😀c', true], ['a\\%', 'a%', true], ['a\\%', 'ab', false],
    ['a.c', 'abc', false], ['%\n%', 'a\nb', true], ['(', '(', true], ['\\a[', 'a[', true], ['%', '', true], ['A', 'a', false],
  ])('like %j of %j is %s', (pattern, text, expected) => expect(passes(['t', 'like', pattern], { t: text })).toBe(expected))

  it('throws where it is written for what is no condition', () => {
    expect(() => passes(['p', '==' as '=', 1], {})).toThrow('no operator')
    expect(() => passes(['p', 'in', 1], {})).toThrow('list')
    expect(() => passes({} as any, {})).toThrow('a condition is')
  })
})
