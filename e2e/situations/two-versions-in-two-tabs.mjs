// Two versions of the application in two tabs: an older one holds the local store and does not let go; later a newer one
// takes the store over. Both are imitated by pages that open the same database under another version.
import assert from 'node:assert/strict'

const trouble = (demo, code) => demo.page.locator(`[data-testid="trouble"][data-code="${code}"]`)

/** An empty page of this origin. */
async function stranger(scene) {
  const page = await scene.context.newPage()
  await page.route('**/empty', (route) => route.fulfill({ contentType: 'text/html', body: '' }))
  await page.goto(new URL('/empty', scene.url).href)
  return page
}

export async function run(scene) {
  const older = await stranger(scene)
  const socket = new URL(scene.url).searchParams.get('socket') ?? new URL('/socket', scene.url).href.replace(/^http/, 'ws')
  await older.evaluate(
    (name) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open(name, 1)
        opening.onupgradeneeded = () => {
          for (const [store, keyPath] of Object.entries({ meta: null, shapes: 'id', rows: null, outbox: 'seq', refused: 'id' })) opening.result.createObjectStore(store, { keyPath })
        }
        // kept open, and deaf to whoever wants it
        opening.onsuccess = () => resolve((window.held = opening.result) && undefined)
        opening.onerror = () => reject(opening.error)
      }),
    `todo-ada ${JSON.stringify(['url', socket, ''])}`,
  )
  const opened = scene.tab('one')
  opened.catch(() => undefined)
  const page = await scene.context.waitForEvent('page')
  await page.locator('[data-testid="trouble"][data-code="store_blocked"]').waitFor()
  await older.close()
  const demo = await opened
  await trouble(demo, 'store_blocked').waitFor({ state: 'detached' })
  const id = await demo.add('After the older one was closed')
  await demo.live()
  await scene.untilRow(id, { title: 'After the older one was closed' })

  const newer = await stranger(scene)
  const versions = await newer.evaluate(async () => {
    const found = (await indexedDB.databases()).filter(({ name }) => name.includes('["database"'))
    const open = ({ name, version }) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open(name, version + 1)
        opening.onsuccess = () => resolve(opening.result.close())
        opening.onerror = () => reject(opening.error)
      })
    await Promise.all(found.map(open))
    return found.length
  })
  assert.equal(versions, 1)
  await trouble(demo, 'store_replaced').waitFor()
  await newer.close()
  // the page that is left behind works in memory when it is loaded again, and says so
  await demo.page.reload()
  await trouble(demo, 'store_newer').waitFor()
  await demo.shows(id, { title: 'After the older one was closed' })
  assert.deepEqual(await scene.writes(id), ['insert'])
  return 'told to close the older tab, and went on by itself; told that a newer one took over, and that it is too old'
}
