// Prints what an application pays for the client: one that connects, runs a live query with a join and mutates, minified,
// in bytes and gzipped, and what the parts are. All of it is loaded at the start: nothing is left for later. With --check it
// fails where that has grown.
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { SourceMapConsumer } from 'source-map-js'

/** Bytes, gzipped, without phoenix: what was aimed at, and what it must not grow beyond (docs/decisions/0032). */
const AIM = 20_000
const LIMIT = 29_500

const APPLICATION = `
import { createClient, idbStore } from './index.js'
const relations = { list: { table: 'lists', many: false, from: ['list_id'], to: ['id'] } }
const schema = { tables: { todos: { key: ['id'], columns: {}, relations }, lists: { key: ['id'], columns: {} } } }
const client = createClient({ url: 'wss://example.test/socket', store: idbStore(), schema })
client.subscribe({ table: 'todos' })
const todos = client.query({ table: 'todos', where: ['done', '=', false], orderBy: 'title', limit: 50, include: { list: true } })
todos.subscribe(() => console.log(todos.getSnapshot()))
client.mutate([{ op: 'insert', table: 'todos', values: { id: crypto.randomUUID(), title: 'Milk' } }])
`

/** What the modules are for. */
const PARTS = {
  'live queries: joins, order, conditions, sums': ['live_query', 'query_level', 'table_index', 'order', 'condition', 'sums', 'times', 'forms', 'schema'],
  'several pages': ['page_role', 'tabs', 'tab_messages', 'tab_platform'],
  'the store, and what happens when it fails': ['store', 'store_idb', 'idb', 'idb_rows', 'idb_schema', 'keeper', 'writer'],
  'protocol, connection, session, batches': ['protocol', 'connection', 'transport', 'channel', 'node_link', 'session', 'freshness', 'apply', 'network', 'timers'],
  'outbox: numbering, sending, conflicts': ['outbox', 'sender', 'mutation', 'conflicts'],
  'what is shown, subscriptions, status, the client itself': ['client', 'screen', 'view', 'subscriptions', 'shape_where', 'status', 'values', 'listeners'],
}

const gzipped = (code) => gzipSync(code, { level: 9 }).length

/** The code without what comes from these modules. */
function without(modules, { text, map }) {
  const starts = [0]
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  const spans = []
  new SourceMapConsumer(map).eachMapping(({ source, generatedLine, generatedColumn }) => {
    spans.push({ module: source.match(/src\/(\w+)\.ts$/)?.[1], from: starts[generatedLine - 1] + generatedColumn })
  })
  return spans.map(({ module, from }, at) => (modules.includes(module) ? '' : text.slice(from, spans[at + 1]?.from))).join('')
}

async function sizeOf(external) {
  const { outputFiles } = await build({
    stdin: { contents: APPLICATION, resolveDir: new URL('../dist', import.meta.url).pathname },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    sourcemap: 'external',
    outdir: 'out',
    write: false,
    external,
  })
  const [map, code] = [/\.map$/, /\.js$/].map((ending) => outputFiles.find(({ path }) => ending.test(path)).text)
  return { text: code, map: JSON.parse(map), bytes: Buffer.byteLength(code), gzipped: gzipped(code) }
}

const [bare, whole] = [await sizeOf(['phoenix']), await sizeOf([])]
console.log(`an application with @lockstep/client without phoenix: ${bare.bytes} B minified, ${bare.gzipped} B gzipped (aimed at: ${AIM})`)
console.log(`an application with @lockstep/client and phoenix:     ${whole.bytes} B minified, ${whole.gzipped} B gzipped`)
for (const [part, modules] of Object.entries(PARTS)) {
  console.log(`  of it, gzipped: ${part}: ${bare.gzipped - gzipped(without(modules, bare))} B`)
}
if (process.argv.includes('--check')) process.exitCode = bare.gzipped > LIMIT ? 1 : 0
