/**
 * `vectors/values.json`: what PostgreSQL prints for values of every built-in type, as it travels. The server's tests keep
 * it true; here the client must see the same value in it, and send it back so that it is the same.
 */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { decodeValue, encodeValue, type Json } from '../src/values'

interface Vector {
  type: string
  wire: string
  travels: string
}

const vectors = JSON.parse(readFileSync(new URL('../../../vectors/values.json', import.meta.url), 'utf8')) as Vector[]

it('has every wire and more than seventy types', () => {
  expect(new Set(vectors.map((v) => v.wire))).toEqual(new Set(['bool', 'int', 'float', 'json', 'text']))
  expect(new Set(vectors.map((v) => v.type)).size).toBeGreaterThan(70)
})

it.each(vectors)('$type, $wire: $travels', ({ wire, travels }) => {
  const json = JSON.parse(travels) as Json
  const value = decodeValue(wire, json)
  switch (wire) {
    case 'bool':
      expect(String(value)).toBe(travels)
      break
    case 'int':
      // every digit of it: a double holds all of int2, int4 and oid
      expect(String(value)).toBe(travels)
      break
    case 'float':
      expect(typeof value).toBe('number')
      expect(value).toBe(Number(typeof json === 'string' ? json : travels))
      break
    case 'json':
      expect(value).toEqual(JSON.parse(json as string))
      break
    default:
      // the text itself, never read as anything
      expect(value).toBe(json)
      expect(typeof value).toBe('string')
  }
  if (wire === 'json') return
  const sent = JSON.parse(JSON.stringify(encodeValue(value))) as Json
  if (wire === 'float') expect(Number(sent)).toBe(value)
  else expect(sent).toBe(json)
})
