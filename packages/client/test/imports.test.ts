/** Every sub-path of the package is safe to import on a server, and a memory store makes a client work there. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from 'esbuild'
import { expect, it } from 'vitest'

const PACKAGE = new URL('..', import.meta.url).pathname
const { exports } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))

const SCRIPT = `
const paths = JSON.parse(process.argv[1])
const found = {}
for (const path of paths) found[path] = Object.keys(await import(path)).sort()
const { createClient, memoryStore, idbStore } = await import(paths[0])
// as in Node 20, which has none of its own
delete globalThis.WebSocket
try {
  createClient({ url: 'ws://127.0.0.1:9/socket', store: memoryStore() })
} catch ({ message }) {
  found.refusal = message
}
const webSocket = class { close() {} }
const client = createClient({ url: 'ws://127.0.0.1:9/socket', store: memoryStore(), webSocket })
client.setOnline(false)
client.subscribe({ table: 't' })
client.mutate([{ op: 'insert', table: 't', values: { id: 1 } }])
found.rows = client.query({ table: 't' }).getSnapshot()
await client.close()
// where there is no IndexedDB, a page's store fails and its client goes on in memory
const page = createClient({ url: 'ws://127.0.0.1:9/socket', store: idbStore(), webSocket })
page.subscribe({ table: 't' })
found.status = page.status.getSnapshot().connection
await page.close()
console.log(JSON.stringify(found))
`

it('imports in plain Node, with no window in sight', async () => {
  expect(Object.keys(exports)).toEqual(['.', './react', './svelte'])
  // where the package's dependencies are found
  const folder = mkdtempSync(join(PACKAGE, '../../node_modules', '.imports-'))
  try {
    const sources = Object.values(exports).map((one) => (one as { import: string }).import.replace('./dist/', 'src/').replace('.js', '.ts'))
    await build({
      entryPoints: sources.map((source) => join(PACKAGE, source)),
      bundle: true,
      packages: 'external',
      format: 'esm',
      outdir: folder,
      outExtension: { '.js': '.mjs' },
    })
    const paths = sources.map((source) => join(folder, source.replace('src/', '').replace('.ts', '.mjs')))
    const answer = JSON.parse(execFileSync(process.execPath, ['--input-type=module', '-e', SCRIPT, JSON.stringify(paths)], { encoding: 'utf8', cwd: tmpdir() }))
    expect(answer[paths[0]!]).toContain('createClient')
    expect(answer[paths[1]!]).toEqual(['useLive', 'useMutation', 'useQuery', 'useShape', 'useStatus'])
    expect(answer[paths[2]!]).toEqual(['live', 'liveQuery', 'liveStatus'])
    expect(answer.refusal).toContain('give createClient a webSocket, such as that of the package ws')
    expect(answer.rows).toEqual([{ id: 1 }])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
