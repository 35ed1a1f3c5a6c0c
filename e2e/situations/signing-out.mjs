// Somebody signs out in one of two tabs, with an edit that was never sent: asked first, and then nothing is left. The demo
// has nobody who signs out, so these pages have the client alone.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const APPLICATION = `
import { createClient, describeStatus, idbStore } from '@lockstep/client'
window.open = (url, list_id) => {
  const client = (window.client = createClient({ url, store: idbStore({ name: 'signing-out' }) }))
  client.subscribe({ table: 'todos', scope: { list_id } })
  window.titles = () => client.query({ table: 'todos', orderBy: 'title' }).getSnapshot().map(({ title }) => title).join()
  window.said = () => describeStatus(client.status.getSnapshot())
}`

async function tabOf(scene, script) {
  const page = await scene.context.newPage()
  await page.route('**/alone', (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>Alone</title>' }))
  await page.goto(new URL('/alone', scene.url).href)
  await page.addScriptTag({ content: script })
  const socket = new URL(scene.url).searchParams.get('socket') ?? new URL('/socket', scene.url).href.replace(/^http/, 'ws')
  await page.evaluate(([socket, list]) => window.open(socket, list), [socket, scene.list])
  return page
}

const live = (page) => page.waitForFunction(() => window.said() === 'Live')
/** What is stored: databases, and what the directory of them has. */
const stores = (page) =>
  page.evaluate(async () => {
    const places = (await indexedDB.databases()).map(({ name }) => name).filter((name) => name.startsWith('signing-out '))
    const entries = await new Promise((resolve, reject) => {
      const opening = indexedDB.open('signing-out')
      opening.onerror = () => reject(opening.error)
      opening.onsuccess = () => {
        const keys = opening.result.transaction('databases').objectStore('databases').getAllKeys()
        keys.onerror = () => reject(keys.error)
        keys.onsuccess = () => resolve(keys.result)
        opening.result.close()
      }
    })
    return [...places, ...entries]
  })

export async function run(scene) {
  await scene.insert('Of the database')
  const { outputFiles } = await build({ stdin: { contents: APPLICATION, resolveDir: fileURLToPath(new URL('..', import.meta.url)) }, bundle: true, format: 'iife', write: false })
  const script = outputFiles[0].text
  // a page that was not served counts as one from nowhere, which may not reach this machine
  await scene.context.grantPermissions(['local-network-access'])
  const [first, second] = [await tabOf(scene, script), await tabOf(scene, script)]
  await Promise.all([live(first), live(second)])
  const id = randomUUID()
  await first.evaluate(() => window.client.setOnline(false))
  await first.evaluate(([id, list_id]) => window.client.mutate([{ op: 'insert', table: 'todos', values: { id, list_id, title: 'Never sent' } }]).saved, [id, scene.list])
  await second.waitForFunction(() => window.said() === 'Offline, 1 unsent edit')
  // without an answer, and with no for an answer, nothing happens
  assert.equal(await second.evaluate(() => window.client.signOut()), false)
  assert.deepEqual(await second.evaluate(async () => {
    const asked = []
    return [await window.client.signOut((unsent) => asked.push(unsent) < 0), asked, window.titles()]
  }), [false, [1], 'Never sent,Of the database'])
  assert.notDeepEqual(await stores(second), [])
  const told = first.waitForFunction(() => window.client.status.getSnapshot().error?.code === 'signed_out')
  assert.equal(await second.evaluate(() => window.client.signOut(() => true)), true)
  await told
  assert.deepEqual(await stores(second), [])
  // whoever comes next begins from nothing, and what was given up is never sent
  const next = await tabOf(scene, script)
  await live(next)
  assert.equal(await next.evaluate(() => window.titles()), 'Of the database')
  assert.deepEqual(await scene.writes(id), [])
  await next.evaluate(() => window.client.signOut())
  return 'asked about one unsent edit; wiped in both tabs, and the next one began from nothing'
}
