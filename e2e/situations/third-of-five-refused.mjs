// Five edits made offline, of which the database refuses the third.
import assert from 'node:assert/strict'

export async function run(scene) {
  const old = await scene.insert('There before')
  const demo = await scene.tab('one')
  await demo.shows(old, {})
  await demo.flipOfflineSwitch()
  await demo.offline(0)
  const first = await demo.add('First')
  await demo.toggle(old)
  await demo.rename(old, 'A forbidden word')
  const fourth = await demo.add('Fourth')
  await demo.toggle(fourth)
  await demo.offline(5)
  await demo.flipOfflineSwitch()
  await demo.refusals().first().waitFor()
  await demo.live()
  await demo.shows(old, { title: 'There before', done: 'true' })
  await demo.shows(first, {})
  await demo.shows(fourth, { done: 'true' })
  await scene.untilRow(old, { title: 'There before', done: true })
  await scene.untilRow(fourth, { title: 'Fourth', done: true })
  assert.equal(await demo.refusals().count(), 1)
  assert.deepEqual([await scene.writes(first), await scene.writes(fourth)], [['insert'], ['insert', 'update']])
  return 'it alone was undone and told; the four others were carried out once each'
}
