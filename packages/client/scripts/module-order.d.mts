import type { Plugin } from 'esbuild'

/** See the script. */
export const inOrder: Plugin
