/** Definitions as text: two that ask the same have the same text, so that a parameter that did not change costs nothing. */

/** The text of a definition. Functions have none: they are told apart by the dependencies that come with them. */
export function definitionKey(definition: unknown): string {
  return JSON.stringify(definition, (_, value: unknown) => {
    if (typeof value === 'bigint') return { bigint: value.toString() }
    if (typeof value === 'number' && !Number.isFinite(value)) return { number: String(value) }
    return typeof value === 'function' ? { function: true } : value
  })
}
