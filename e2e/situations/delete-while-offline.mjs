// Rows are deleted while a page is offline: one by it, one by somebody else.
import assert from 'node:assert/strict'

export async function run(scene) {
  const [mine, theirs] = [await scene.insert('Mine to delete'), await scene.insert('Theirs to delete')]
  const demo = await scene.tab('one')
  await demo.shows(theirs, {})
  await demo.flipOfflineSwitch()
  await demo.offline(0)
  await demo.remove(mine)
  await demo.todo(mine).waitFor({ state: 'detached' })
  await scene.sql.query('delete from todos where id = $1', [theirs])
  await demo.offline(1)
  await demo.page.reload()
  await demo.offline(1)
  await demo.shows(theirs, {})
  assert.equal(await demo.todo(mine).count(), 0)
  await demo.flipOfflineSwitch()
  await demo.todo(theirs).waitFor({ state: 'detached' })
  await demo.live()
  const { rowCount } = await scene.sql.query('select from todos where id in ($1, $2)', [mine, theirs])
  assert.equal(rowCount, 0)
  return 'both are gone, here and in the table'
}
