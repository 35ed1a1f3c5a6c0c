import { describe, expect, it } from 'vitest'
import { decodeValue, encodeRecord, encodeValue, guessValue, keyText, sameRow } from '../src/values'

describe('values', () => {
  it('decodes each wire; 64-bit values stay text', () => {
    expect(decodeValue('bool', true)).toBe(true)
    expect(decodeValue('int', -3)).toBe(-3)
    expect(decodeValue('float', 0.5)).toBe(0.5)
    expect(decodeValue('float', 'NaN')).toBeNaN()
    expect(decodeValue('float', '-Infinity')).toBe(Number.NEGATIVE_INFINITY)
    expect(decodeValue('json', '{"a": [1, null]}')).toEqual({ a: [1, null] })
    expect(decodeValue('json', 'null')).toBeNull()
    expect(decodeValue('text', '9007199254740993')).toBe('9007199254740993')
    expect(decodeValue('a later one', 'x')).toBe('x')
    for (const wire of ['bool', 'int', 'float', 'json', 'text']) expect(decodeValue(wire, null)).toBeNull()
  })

  it('encodes what an application writes', () => {
    expect(encodeValue(9007199254740993n)).toBe('9007199254740993')
    expect(encodeValue(new Date(0))).toBe('1970-01-01T00:00:00.000Z')
    expect(encodeValue(Number.NaN)).toBe('NaN')
    expect(encodeValue({ a: [1n, undefined], b: undefined })).toEqual({ a: ['1', null] })
    expect(encodeRecord({ id: 'x', gone: undefined, none: null })).toEqual({ id: 'x', none: null })
    expect(() => encodeValue(() => 1)).toThrow(TypeError)
  })

  it('guesses a written value as the server will send it back', () => {
    expect(guessValue({ name: 'n', type: 'int8', wire: 'text' }, 5)).toBe('5')
    expect(guessValue({ name: 'n', type: 'int4', wire: 'int' }, 5)).toBe(5)
    expect(guessValue({ name: 'n', type: 'int4', wire: 'int' }, '-5')).toBe(-5)
    expect(guessValue({ name: 'n', type: 'int4', wire: 'int' }, 'five')).toBe('five')
    expect(guessValue({ name: 'n', type: 'jsonb', wire: 'json' }, { a: 1 })).toEqual({ a: 1 })
    expect(guessValue({ name: 'n', type: 'float8', wire: 'float' }, 'Infinity')).toBe(Number.POSITIVE_INFINITY)
    expect(guessValue({ name: 'n', type: 'int8', wire: 'text' }, null)).toBeNull()
  })

  it('names rows by their key values, text and number apart', () => {
    expect(keyText([1, 'a'])).toBe('[1,"a"]')
    expect(keyText(['1'])).not.toBe(keyText([1]))
  })

  it('compares rows by content', () => {
    expect(sameRow({ a: 1, j: { x: [1] } }, { a: 1, j: { x: [1] } })).toBe(true)
    expect(sameRow({ a: 1 }, { a: 1, b: null })).toBe(false)
    expect(sameRow({ a: 1, b: null }, { a: 1, c: null })).toBe(false)
    expect(sameRow({ j: { x: 1 } }, { j: { x: 2 } })).toBe(false)
    expect(sameRow({ f: Number.NaN }, { f: Number.NaN })).toBe(true)
  })
})
