// In which order the modules stand in what is published. gzip finds again only what stood within the last 32 kB, and the
// minified package is twice as long as that: like should stand beside like. What a module imports stands before it in any
// case; among the orders that leaves, this one was found by trying many. `node scripts/module-order.mjs` tries again, over
// the built package, and prints the best that it found. A module that is not named here stands before the first that imports it.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { application, gzipped } from './application.mjs'

const SOURCES = fileURLToPath(new URL('../src/', import.meta.url))
const ORDER = `
  connection values reading protocol apply conflicts mutation channel timers store outbox session listeners
  freshness sender node_link tabs sums tab_platform times order transport forms condition schema shape_where
  network status keeper subscriptions page_role writer idb query_level live_query table_index idb_rows view
  idb_schema store_idb screen client
`
  .trim()
  .split(/\s+/)

/** An esbuild plugin: the package's first module imports all others in this order. */
export const inOrder = {
  name: 'module-order',
  setup({ onLoad, onResolve }) {
    onLoad({ filter: /src[\\/]index\.ts$/ }, ({ path }) => {
      const imports = ORDER.map((module) => `import '#order/${module}'\n`)
      return { contents: imports.join('') + readFileSync(path, 'utf8'), loader: 'ts' }
    })
    // or else it would be left out, since nothing is taken from it
    onResolve({ filter: /^#order\// }, ({ path }) => ({ path: `${SOURCES}${path.slice('#order/'.length)}.ts`, sideEffects: true }))
  },
}

/** Some seconds for each thousand. */
const TRIES = 5000

/** What each module imports. */
async function imports() {
  const { metafile } = await build({ entryPoints: [`${SOURCES}index.ts`], bundle: true, packages: 'external', format: 'esm', metafile: true, write: false })
  const nameOf = (path) => path.match(/(\w+)\.ts$/)?.[1]
  return new Map(Object.entries(metafile.inputs).map(([path, { imports }]) => [nameOf(path), new Set(imports.flatMap(({ path }) => nameOf(path) ?? []))]))
}

async function search() {
  const [{ code, stretches }, needs] = [await application(['phoenix']), await imports()]
  const texts = new Map()
  for (const { module = '', text } of stretches) texts.set(module, (texts.get(module) ?? '') + text)
  let order = [...texts.keys()].filter((module) => module !== '')
  const sizeOf = (modules) => gzipped(modules.map((module) => texts.get(module)).join('') + texts.get(''))
  let size = sizeOf(order)
  console.log(`as it is: ${gzipped(code)} B`)
  for (let seed = 1, tried = 0; tried < TRIES; tried += 1) {
    seed = (seed * 48_271) % 2_147_483_647
    const module = order[seed % order.length]
    const rest = order.filter((one) => one !== module)
    const first = 1 + Math.max(-1, ...[...(needs.get(module) ?? [])].map((one) => rest.indexOf(one)))
    const last = rest.findIndex((one) => needs.get(one)?.has(module))
    seed = (seed * 48_271) % 2_147_483_647
    const at = first + (seed % ((last < 0 ? rest.length : last) - first + 1))
    const tryThis = rest.toSpliced(at, 0, module)
    const now = sizeOf(tryThis)
    if (now > size) continue
    order = tryThis
    size = now
  }
  console.log(`about ${size} B:\n${order.join(' ')}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await search()
