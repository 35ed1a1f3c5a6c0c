// Prints what an application pays for the client: everything it imports, minified, in bytes and gzipped.
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const { outputFiles } = await build({
  entryPoints: [new URL('../dist/index.js', import.meta.url).pathname],
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  write: false,
})
const code = outputFiles[0].contents
console.log(`@lockstep/client with idb and phoenix: ${code.length} B minified, ${gzipSync(code).length} B gzipped`)
