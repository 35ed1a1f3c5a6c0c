// Edits made offline survive two reloads and a closed tab, and are carried out once when the network is back.
import assert from 'node:assert/strict'

export async function run(scene) {
  const old = await scene.insert('There before')
  const demo = await scene.tab('one')
  await demo.shows(old, {})
  await demo.cutNetwork()
  await demo.notLive()
  const fresh = await demo.add('Added offline')
  await demo.toggle(old)
  await demo.notLive(2)
  await demo.page.reload()
  await demo.notLive(2)
  await demo.shows(fresh, { title: 'Added offline' })
  await demo.rename(fresh, 'Added offline, renamed after a reload')
  await demo.page.reload()
  await demo.notLive(3)
  await demo.shows(old, { done: 'true' })
  await demo.shows(fresh, { title: 'Added offline, renamed after a reload' })
  assert.deepEqual([await scene.writes(old), await scene.writes(fresh)], [['insert'], []])
  await demo.page.close()
  await demo.restoreNetwork()
  const again = await scene.tab('another')
  await again.shows(fresh, { title: 'Added offline, renamed after a reload' })
  await scene.untilRow(old, { title: 'There before', done: true })
  await scene.untilRow(fresh, { title: 'Added offline, renamed after a reload', done: false })
  assert.deepEqual([await scene.writes(old), await scene.writes(fresh)], [['insert', 'update'], ['insert', 'update']])
  return 'three edits over two reloads and a closed tab, each carried out once'
}
