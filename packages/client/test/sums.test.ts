/** Sums are exact, whatever came and went before. */
import { describe, expect, it } from 'vitest'
import { Sum } from '../src/sums'

const sumOf = (values: unknown[], isDecimal = false, gone: unknown[] = []) => {
  const sum = new Sum(isDecimal)
  for (const value of [...gone, ...values]) sum.add(value, 1)
  for (const value of gone) sum.add(value, -1)
  return sum.value
}

describe('a sum', () => {
  it('is null without values', () => {
    expect([sumOf([]), sumOf([null, undefined]), sumOf([], true, ['1.5'])]).toEqual([null, null, null])
  })

  it('of decimals has every digit, and as many after the point as PostgreSQL gives', () => {
    expect(sumOf(['9223372036854775807', '1'], true)).toBe('9223372036854775808')
    expect(sumOf(['1.10', '2.2', '-0.05'], true)).toBe('3.25')
    expect(sumOf(['1.50', '0.5'], true)).toBe('2.00')
    expect(sumOf(['1.5'], true, ['0.00001'])).toBe('1.5')
    expect(sumOf(['-0.25', '0.05'], true)).toBe('-0.20')
    expect([sumOf(['1', 'NaN'], true), sumOf(['1', '-Infinity'], true), sumOf(['Infinity', '-Infinity'], true)]).toEqual(['NaN', '-Infinity', 'NaN'])
  })

  it('of doubles is rounded once, in any order, and forgets what went', () => {
    expect(sumOf([0.1, 0.2, 0.3])).toBe(0.6)
    expect(sumOf([1e308, 1e308, -1e308])).toBe(1e308)
    expect(sumOf([1e308, 1e308])).toBe(Infinity)
    expect(sumOf([1, 1e100, 1, -1e100])).toBe(2)
    expect(sumOf([5e-324, 5e-324, -2.5e-310])).toBe(-2.5e-310 + 1e-323)
    expect(sumOf([1, 2], false, [1e300, NaN, Infinity])).toBe(3)
    expect(sumOf([9007199254740992, 1, 1])).toBe(9007199254740994)
    expect([sumOf([Infinity, -Infinity]), sumOf([1, -Infinity])]).toEqual([NaN, -Infinity])
  })

  it('of any two doubles is what the machine adds', () => {
    for (let a = -30; a < 30; a += 1) for (let b = -30; b < 30; b += 7) {
      const [x, y] = [1.1 * 3 ** (a * 9), -1.7 * 5 ** (b * 3)]
      expect(sumOf([x, y])).toBe(x + y)
    }
  })
})
