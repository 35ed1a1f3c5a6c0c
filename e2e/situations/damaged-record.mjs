// Records of rows in the local store cannot be read, and there is an unsent edit beside them.
import assert from 'node:assert/strict'

/** Spoils every record of rows there is; gives their number. */
function spoil(page) {
  return page.evaluate(async () => {
    const done = (request) => new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: () => reject(request.error) }))
    let spoilt = 0
    for (const { name } of await indexedDB.databases()) {
      if (!name.includes('["database"')) continue
      const db = await done(indexedDB.open(name))
      const rows = db.transaction('rows', 'readwrite').objectStore('rows')
      for (const key of await done(rows.getAllKeys())) {
        await done(rows.put('half of a rec', key))
        spoilt += 1
      }
      db.close()
    }
    return spoilt
  })
}

export async function run(scene) {
  const old = await scene.insert('There before')
  const demo = await scene.tab('one')
  await demo.shows(old, {})
  await demo.flipOfflineSwitch()
  await demo.offline(0)
  const id = await demo.add('Beside the damage')
  await demo.offline(1)
  assert.ok((await spoil(demo.page)) > 0)
  await demo.page.reload()
  await demo.offline(1)
  await demo.page.locator('[data-testid="trouble"][data-code="store_damaged"]').waitFor()
  await demo.flipOfflineSwitch()
  await demo.live()
  await demo.shows(old, { title: 'There before' })
  await demo.shows(id, { title: 'Beside the damage' })
  await scene.untilRow(id, { title: 'Beside the damage' })
  assert.deepEqual(await scene.writes(id), ['insert'])
  return 'told; rows were loaded anew, and the edit was sent once'
}
