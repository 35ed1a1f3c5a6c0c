// The tab with the connection has sent an edit and is closed before it hears what became of it.
import assert from 'node:assert/strict'
import { holdSocket } from '../socket.mjs'

export async function run(scene) {
  let hold
  const first = await scene.tab('first', async (page) => void (hold = await holdSocket(page)))
  const second = await scene.tab('second')
  hold.down = true
  const id = await first.add('Sent, and never answered')
  await scene.untilWritten(id)
  await first.page.close()
  const begun = performance.now()
  await second.live()
  const took = Math.round(performance.now() - begun)
  await second.shows(id, { title: 'Sent, and never answered' })
  await scene.untilRow(id, { title: 'Sent, and never answered' })
  assert.deepEqual(await scene.writes(id), ['insert'])
  assert.equal(await second.refusals().count(), 0)
  await second.toggle(id)
  await scene.untilRow(id, { done: true })
  return `the other tab was live after ${took} ms; the edit was carried out once`
}
