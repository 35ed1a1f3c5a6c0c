import { defineConfig } from 'tsup'

// `idb` and `phoenix` stay imports: an application that uses them too gets one copy.
export default defineConfig({
  entry: ['src/index.ts'],
  format: ['esm'],
  target: 'es2022',
  dts: true,
  clean: true,
  sourcemap: true,
})
