/** Reading what comes from outside, from a node or from a disk, by a description of what it should be. */

/** A message that is not what docs/protocol.md describes. The text never holds row values. */
export class FrameError extends Error {
  override name = 'FrameError'
  constructor(what: string) {
    super(`${what}: not as the protocol has it`)
  }
}

/** Reads a value: what it is taken for, or undefined for what it must not be. */
export type Read = (value: unknown) => unknown

/** A text. */
export const text: Read = (value) => (typeof value === 'string' ? value : undefined)
/** A list of anything. */
export const list: Read = (value) => (Array.isArray(value) ? value : undefined)
/** An object with any fields. */
export const object: Read = (value) => (typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined)

/** `read`, or `other` where there is nothing. */
export const or = (other: unknown, read: Read): Read => (value) => (value === undefined || value === null ? other : read(value))

/** A value for which `holds`. */
export const that = (holds: (value: any) => unknown): Read => (value) => (holds(value) ? value : undefined)

/** A list whose items are all read by `read`. */
export const listOf = (read: Read): Read => (value) => {
  const items = Array.isArray(value) ? value.map(read) : [undefined]
  return items.includes(undefined) ? undefined : items
}

/** What an object is made of. */
export type Fields = Readonly<Record<string, Read>>

/**
 * The fields of an object that are named here; others are passed over, and one with a `?` is left out where it is not
 * what it should be. Throws a FrameError that names the first field that is wrong.
 */
export function fieldsOf<T>(fields: Fields, value: unknown, what: string): T {
  if (object(value) === undefined) throw new FrameError(what)
  const found = Object.entries(fields).flatMap(([key, read]) => {
    const name = key.replace('?', '')
    const field = read((value as Record<string, unknown>)[name])
    if (field === undefined && name === key) throw new FrameError(`${what}: ${name}`)
    return field === undefined ? [] : [[name, field]]
  })
  return Object.fromEntries(found)
}

/** An object with these fields. */
export const record = (fields: Fields): Read => (value) => {
  try {
    return fieldsOf(fields, value, '')
  } catch {
    return undefined
  }
}
