/** Orders: each type compares as PostgreSQL compares it. */
import { describe, expect, it } from 'vitest'
import { comparatorOf, compareDecimals, compareFor } from '../src/order'
import { compareTimes } from '../src/times'
import { compareTexts, type Row } from '../src/values'

const sorted = (orderBy: any, rows: Row[], type = 'text') =>
  [...rows].sort(comparatorOf(orderBy, () => ({ type }), [])).map((row) => row['v'])
const shuffled = <T>(values: readonly T[]) => [...values].map((value, at) => ({ value, at: (at * 7919) % 31 })).sort((a, b) => a.at - b.at).map(({ value }) => value)
const ascending = (type: string, values: unknown[]) => {
  expect(shuffled(values).sort(compareFor({ type }))).toEqual(values)
}

describe('an order', () => {
  it('compares int8 and numeric as numbers, to the last digit, whatever precision they have', () => {
    ascending('bigint', ['-9223372036854775808', '-10', '-9', '0', '9', '10', '9007199254740992', '9007199254740993'])
    ascending('numeric(20,2)', ['-Infinity', '-1.50', '-1.25', '0.5', '1.25', '1.5', '10', '123456789012345678901.1', '123456789012345678901.12', 'Infinity', 'NaN'])
    expect([compareDecimals('1.0', '1.000'), compareDecimals('-0', '0.00'), compareDecimals('007', '7')]).toEqual([0, 0, 0])
    expect(sorted('v', [{ v: '9' }, { v: '10' }])).toEqual(['10', '9'])
  })

  it('compares texts by code points, where UTF-16 has them otherwise', () => {
    const texts = ['', 'Z', 'a', 'ab', 'é', '\ufb01', '\uffee', '😀', '😀a', '\u{10ffff}']
    ascending('text', texts)
    expect([...texts].sort()).not.toEqual(texts)
    const bytes = (text: string) => [...new TextEncoder().encode(text)].map((byte) => String.fromCharCode(byte)).join('')
    for (const a of texts) for (const b of texts) expect(Math.sign(compareTexts(a, b))).toBe(bytes(a) < bytes(b) ? -1 : bytes(a) > bytes(b) ? 1 : 0)
  })

  it('compares times by the instant, as printed and as written', () => {
    ascending('timestamp(3) with time zone', [
      '-infinity',
      '4713-01-01 00:00:00+00 BC',
      '0044-03-15 00:00:00+00 BC',
      '0001-01-01 00:00:00+00',
      '1999-12-31 23:59:59.999999+00',
      '2026-11-22 10:11:12+00',
      '2026-11-22T10:11:12.050Z',
      '2026-11-22 10:11:12.1+00',
      '2026-11-22T12:11:12.2+02:00',
      '12026-01-01 00:00:00+00',
      'infinity',
    ])
    ascending('date', ['0044-03-15 BC', '2026-02-28', '2026-03-01', '10000-01-01'])
    expect(compareTimes('2026-11-22T10:11:12.000Z', '2026-11-22 10:11:12+00')).toBe(0)
  })

  it('has NaN last, booleans false first and enums by their labels', () => {
    ascending('double precision', [-Infinity, -1, 0, 1.5, Infinity, NaN])
    ascending('boolean', [false, true])
    expect(['high', 'low', 'mid'].sort(compareFor({ type: 'level', labels: ['low', 'mid', 'high'] }))).toEqual(['low', 'mid', 'high'])
  })

  it('puts NULLs last ascending and first descending, as PostgreSQL does', () => {
    const rows = [{ v: null }, { v: 'b' }, { v: 'a' }]
    expect(sorted([['v', 'asc']], rows)).toEqual(['a', 'b', null])
    expect(sorted([['v', 'desc']], rows)).toEqual([null, 'b', 'a'])
  })

  it('takes several columns, comparators, and the key for ties', () => {
    const rows = [{ g: 1, v: 'a' }, { g: 2, v: 'b' }, { g: 2, v: 'a2' }]
    expect(sorted([['g', 'desc'], ['v', 'asc']], rows)).toEqual(['a2', 'b', 'a'])
    expect(sorted((a: Row, b: Row) => Number(b['g']) - Number(a['g']), rows)[2]).toBe('a')
    const ties = ['10', '9', '-1'].map((v) => ({ g: 1, v }))
    const byKey = comparatorOf('g', (name) => (name === 'v' ? { type: 'bigint' } : null), ['v'])
    expect(ties.sort(byKey).map(({ v }) => v)).toEqual(['-1', '9', '10'])
  })
})
