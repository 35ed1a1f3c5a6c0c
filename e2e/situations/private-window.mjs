// A browser whose IndexedDB throws, as some do in private windows: everything works, and the page says what is not kept.
import assert from 'node:assert/strict'

export async function run(scene) {
  const old = await scene.insert('There before')
  const demo = await scene.tab('one', (page) =>
    page.addInitScript(() => {
      IDBFactory.prototype.open = () => {
        throw new DOMException('not in a private window', 'SecurityError')
      }
    }),
  )
  await demo.page.locator('[data-testid="trouble"][data-code="store_failed"]').waitFor()
  await demo.shows(old, { title: 'There before' })
  const id = await demo.add('Kept by the database alone')
  await demo.live()
  await scene.untilRow(id, { title: 'Kept by the database alone' })
  await demo.page.reload()
  await demo.live()
  await demo.shows(id, { title: 'Kept by the database alone' })
  assert.deepEqual(await scene.writes(id), ['insert'])
  return 'told; edits are sent, and rows come from the node after a reload'
}
