// The tab with the connection is frozen with an edit on its way; another takes over; then the first one is thawed, and
// what it had sent arrives as well.
import assert from 'node:assert/strict'
import { holdSocket } from '../socket.mjs'

export async function run(scene) {
  let hold
  const first = await scene.tab('first', async (page) => void (hold = await holdSocket(page)))
  const second = await scene.tab('second')
  const { opened } = hold
  hold.up = true
  const held = hold.untilHeld()
  const id = await first.add('On its way')
  await held
  await second.shows(id, { title: 'On its way' })
  const devtools = await scene.context.newCDPSession(first.page)
  // stopped at its next statement, like a page that the browser does not let run
  await devtools.send('Debugger.enable')
  const stopped = new Promise((resolve) => devtools.once('Debugger.paused', resolve))
  await devtools.send('Debugger.pause')
  await stopped
  const begun = performance.now()
  await second.live()
  const took = Math.round(performance.now() - begun)
  await scene.untilRow(id, { title: 'On its way' })
  hold.letGo()
  await devtools.send('Debugger.resume')
  await devtools.send('Debugger.disable')
  await first.live()
  const late = await first.add('From the thawed tab')
  await scene.untilRow(late, { title: 'From the thawed tab' })
  await second.shows(late, {})
  await first.live()
  assert.deepEqual([await scene.writes(id), await scene.writes(late)], [['insert'], ['insert']])
  assert.deepEqual([await first.refusals().count(), await second.refusals().count(), hold.opened], [0, 0, opened])
  return `the other tab was live after ${took} ms; each edit was carried out once, and the thawed tab made no connection`
}
