// The browser deletes the site's data while the page is open and has an unsent edit.
import assert from 'node:assert/strict'

/** The ids of what the store holds unsent, as text; empty while there is no store. */
function stored(page) {
  return page.evaluate(async () => {
    const texts = []
    for (const { name } of await indexedDB.databases()) {
      if (!name.includes(' ')) continue
      const db = await new Promise((resolve) => {
        const opening = indexedDB.open(name)
        opening.onsuccess = () => resolve(opening.result)
        opening.onerror = () => resolve(null)
        // not there after all: it must not be made by looking
        opening.onupgradeneeded = () => opening.transaction.abort()
      })
      if (db === null) continue
      texts.push(await new Promise((resolve) => {
        try {
          const all = db.transaction('outbox').objectStore('outbox').getAll()
          all.onsuccess = () => resolve(JSON.stringify(all.result))
          all.onerror = () => resolve('')
        } catch {
          resolve('')
        }
      }))
      db.close()
    }
    return texts.join()
  })
}

/** The browser deletes in several steps, and may take away what was stored anew in between. */
async function untilStored(page, id) {
  for (let [seen, looks] = [0, 0]; seen < 20; looks += 1) {
    seen = (await stored(page)).includes(id) ? seen + 1 : 0
    if (looks > 2000) throw new Error('the edit was not stored again')
  }
}

export async function run(scene) {
  const demo = await scene.tab('one')
  await demo.flipOfflineSwitch()
  await demo.offline(0)
  const id = await demo.add('Unsent when the data went')
  await demo.offline(1)
  const devtools = await scene.context.newCDPSession(demo.page)
  const told = demo.page.locator('[data-testid="trouble"][data-code="store_lost"]').waitFor()
  await devtools.send('Storage.clearDataForOrigin', { origin: new URL(scene.url).origin, storageTypes: 'indexeddb' })
  await told
  await untilStored(demo.page, id)
  await demo.page.reload()
  await demo.offline(1)
  await demo.shows(id, { title: 'Unsent when the data went' })
  await demo.flipOfflineSwitch()
  await demo.live()
  await scene.untilRow(id, { title: 'Unsent when the data went' })
  assert.deepEqual(await scene.writes(id), ['insert'])
  return 'told, stored anew, and sent after a reload'
}
