/** See the script. */
export function privateNames(): string[]
