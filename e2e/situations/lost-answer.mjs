// The node has carried an edit out; its answer, the acknowledgement and the rows are lost with the connection.
import assert from 'node:assert/strict'
import { holdSocket } from '../socket.mjs'

export async function run(scene) {
  let hold
  const demo = await scene.tab('one', async (page) => void (hold = await holdSocket(page)))
  hold.down = true
  const id = await demo.add('Carried out, not acknowledged')
  await scene.untilWritten(id)
  await hold.cut()
  await demo.live()
  await demo.shows(id, { title: 'Carried out, not acknowledged' })
  assert.deepEqual([await scene.writes(id), await demo.refusals().count()], [['insert'], 0])
  return 'sent again on the next connection, carried out once'
}
