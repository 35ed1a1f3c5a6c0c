// The browser gives the site no more room: rows are not kept any more, and what is unsent is. A real quota cannot be set
// here (DevTools' override has no effect on this Chromium), so IndexedDB fails as it would.
import assert from 'node:assert/strict'

export async function run(scene) {
  const demo = await scene.tab('one')
  const told = demo.page.locator('[data-testid="trouble"][data-code="store_full"]').waitFor()
  await demo.page.evaluate(() => {
    const { put } = IDBObjectStore.prototype
    IDBObjectStore.prototype.put = function (value, key) {
      if (this.name === 'rows') throw new DOMException('no room', 'QuotaExceededError')
      return put.call(this, ...(key === undefined ? [value] : [value, key]))
    }
  })
  await scene.sql.query('insert into todos (list_id, title) select $1, md5(n::text) from generate_series(1, 50) n', [scene.list])
  await told
  await demo.flipOfflineSwitch()
  const id = await demo.add('Kept all the same')
  await demo.offline(1)
  await demo.page.reload()
  await demo.offline(1)
  await demo.flipOfflineSwitch()
  await demo.live()
  await scene.untilRow(id, { title: 'Kept all the same' })
  assert.deepEqual(await scene.writes(id), ['insert'])
  return 'told; an edit made afterwards survived a reload and was sent'
}
