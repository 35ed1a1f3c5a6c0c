// Prints what an application pays for the client: one that connects, runs a live query with a join and mutates, minified,
// in bytes and gzipped. With --check it fails where that is more than it should be.
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

/** Bytes, gzipped, without phoenix. */
const LIMIT = 20_000

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

async function sizeOf(external) {
  const { outputFiles } = await build({
    stdin: { contents: APPLICATION, resolveDir: new URL('../dist', import.meta.url).pathname },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    external,
  })
  const code = outputFiles[0].contents
  return { bytes: code.length, gzipped: gzipSync(code, { level: 9 }).length }
}

const [without, whole] = [await sizeOf(['phoenix']), await sizeOf([])]
console.log(`an application with @lockstep/client without phoenix: ${without.bytes} B minified, ${without.gzipped} B gzipped (to be at most ${LIMIT})`)
console.log(`an application with @lockstep/client and phoenix:     ${whole.bytes} B minified, ${whole.gzipped} B gzipped`)
if (process.argv.includes('--check')) process.exitCode = without.gzipped > LIMIT ? 1 : 0
