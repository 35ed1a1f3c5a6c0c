// What the Svelte adapter is tested with.
import { start } from './node'

export const { client, test } = start()
