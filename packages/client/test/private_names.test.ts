/** Names that are shortened in what is published are seen by nobody outside. */
import { build } from 'esbuild'
import { expect, it } from 'vitest'
import { privateNames } from '../scripts/private-names.mjs'

// reads all sources with the compiler
const NAMES = privateNames()

it('shortens no name that travels, is stored, or that an application or a platform knows', () => {
  const names = new Set(NAMES)
  expect(names.size).toBeGreaterThan(150)
  const seen = [
    // frames, joins, mutations
    'protocol', 'capabilities', 'shapes', 'cursor', 'client', 'fingerprint', 'columns', 'wire', 'reset', 'remove', 'put', 'patch', 'mutations', 'outcome', 'n', 'id', 'kind', 'ops', 'confirmed', 'refs', 'have', 'params',
    // records
    'epoch', 'revision', 'lastSeq', 'moved', 'seq', 'unknown', 'key', 'table',
    // between pages
    'taken', 'decisions', 'plan', 'notice', 'held', 'wants', 'unsaved', 'isWhole', 'link', 'refusals', 'drops', 'changes', 'from', 'body', 'at', 'behindSeconds', 'isEstablished', 'loadedRows', 'retryIn',
    // applications
    'subscribe', 'unsubscribe', 'getSnapshot', 'mutate', 'query', 'conflictOf', 'onConflict', 'signOut', 'resolveUnknown', 'theirs', 'saved', 'ready', 'orderBy', 'include', 'webSocket', 'store', 'onEvent', 'isScattered', 'isLeader', 'outboxAfter',
    // platforms
    'onmessage', 'addEventListener', 'onMessage', 'makeRef', 'isConnected', 'join_ref',
  ]
  expect(seen.filter((name) => names.has(name))).toEqual([])
})

it('leaves what is published working: a mutation goes through store and view', async () => {
  const mangleProps = new RegExp(`^(${NAMES.join('|')})$`)
  const contents = `
    import { createClient, memoryStore } from './src/index.ts'
    const client = createClient({ url: 'ws://127.0.0.1:9/socket', store: memoryStore(), webSocket: class { close() {} } })
    client.setOnline(false)
    client.subscribe({ table: 't' })
    const { saved } = client.mutate([{ op: 'insert', table: 't', values: { id: 1, n: 2 } }])
    const query = client.query({ table: 't', where: ['n', '>', 1], orderBy: 'id' })
    let calls = 0
    query.subscribe(() => (calls += 1))
    client.mutate([{ op: 'update', table: 't', key: { id: 1 }, set: { n: 3 } }])
    await saved
    export const seen = { rows: query.getSnapshot(), calls, unsent: client.status.getSnapshot().unsent, sum: client.sum({ table: 't', column: 'n' }).getSnapshot() }
    await client.close()`
  const { outputFiles } = await build({ stdin: { contents, resolveDir: new URL('..', import.meta.url).pathname }, bundle: true, format: 'esm', write: false, mangleProps })
  const text = outputFiles[0]!.text
  const { seen } = await import(`data:text/javascript,${encodeURIComponent(text)}`)
  expect(seen).toEqual({ rows: [{ id: 1, n: 3 }], calls: 1, unsent: 2, sum: 3 })
})
