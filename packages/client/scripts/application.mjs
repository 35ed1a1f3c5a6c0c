// What an application pays for the client: one that connects, runs a live query with a join and mutates, bundled and minified.
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { SourceMapConsumer } from 'source-map-js'

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

export const gzipped = (code) => gzipSync(code, { level: 9 }).length

/** The application's code over the built package, and which stretches of it come from which module of src/. */
export async function application(external) {
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
  return { code, stretches: stretchesOf(code, JSON.parse(map)) }
}

function stretchesOf(code, map) {
  const starts = [0]
  for (let at = code.indexOf('\n'); at >= 0; at = code.indexOf('\n', at + 1)) starts.push(at + 1)
  const spans = []
  new SourceMapConsumer(map).eachMapping(({ source, generatedLine, generatedColumn }) => {
    spans.push({ module: source.match(/src\/(\w+)\.ts$/)?.[1], from: starts[generatedLine - 1] + generatedColumn })
  })
  const texts = spans.map(({ module, from }, at) => ({ module, text: code.slice(from, spans[at + 1]?.from) }))
  return [{ module: undefined, text: code.slice(0, spans[0]?.from) }, ...texts]
}
