import { defineConfig } from 'tsup'
import { inOrder } from './scripts/module-order.mjs'
import { privateNames } from './scripts/private-names.mjs'

// `phoenix` stays an import: an application that uses it too gets one copy. So do React and Svelte.
export default defineConfig({
  entry: ['src/index.ts', 'src/react.ts', 'src/svelte.ts'],
  format: ['esm'],
  target: 'es2022',
  dts: true,
  clean: true,
  sourcemap: true,
  esbuildPlugins: [inOrder],
  // a bundler cannot know which names nobody outside sees
  esbuildOptions(options) {
    options.mangleProps = new RegExp(`^(${privateNames().join('|')})$`)
  },
})
