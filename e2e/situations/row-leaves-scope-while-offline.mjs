// A row moves to another list while a page is offline and comes back from its cursor.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'

export async function run(scene) {
  const id = await scene.insert('Moves away')
  const stays = await scene.insert('Stays')
  const demo = await scene.tab('one')
  await demo.shows(id, {})
  await demo.flipOfflineSwitch()
  await demo.offline(0)
  const other = randomUUID()
  await scene.sql.query('insert into lists (id, name) values ($1, $2)', [other, 'Elsewhere'])
  try {
    await scene.sql.query('update todos set list_id = $1, assignee = null where id = $2', [other, id])
    await demo.shows(id, {})
    await demo.flipOfflineSwitch()
    await demo.todo(id).waitFor({ state: 'detached' })
    await demo.live()
    assert.equal(await demo.todo(stays).count(), 1)
  } finally {
    await scene.sql.query('delete from lists where id = $1', [other])
  }
  return 'it left the page, and nothing else did'
}
