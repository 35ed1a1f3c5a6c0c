// Two people rename the same to-do offline; the one who comes back later is asked. Then one renames what is gone.
import assert from 'node:assert/strict'

export async function run(scene) {
  const id = await scene.insert('Paint the wall')
  const [ann, bob] = [await scene.tab('Ann'), await scene.elsewhere('Bob')]
  const rename = async (mine, theirs) => {
    for (const demo of [ann, bob]) {
      await demo.flipOfflineSwitch()
      await demo.offline(0)
    }
    await ann.rename(id, mine)
    await ann.toggle(id)
    await bob.rename(id, theirs)
    await bob.flipOfflineSwitch()
    await bob.live()
    await ann.flipOfflineSwitch()
  }
  await Promise.all([ann, bob].map((demo) => demo.shows(id, { title: 'Paint the wall' })))
  await rename('Paint it red', 'Paint it blue')
  await ann.conflict('Paint the wall', 'Paint it red', 'Paint it blue')
  // the edit behind it, of another column, went through
  await ann.shows(id, { title: 'Paint it blue', done: 'true' })
  await ann.page.reload()
  await ann.conflict('Paint the wall', 'Paint it red', 'Paint it blue')
  await ann.keepMine()
  await ann.conflicts().waitFor({ state: 'detached' })
  await bob.shows(id, { title: 'Paint it red', done: 'true' })
  await rename('Paint it green', 'Paint it grey')
  await ann.conflict('Paint it red', 'Paint it green', 'Paint it grey')
  await ann.keepTheirs()
  await ann.live()
  await scene.untilRow(id, { title: 'Paint it grey', done: false })
  await ann.flipOfflineSwitch()
  await ann.offline(0)
  await ann.rename(id, 'Gone meanwhile')
  await bob.remove(id)
  await bob.live()
  await ann.flipOfflineSwitch()
  await ann.conflict('Paint it grey', 'Gone meanwhile', null)
  await ann.keepTheirs()
  await ann.todo(id).waitFor({ state: 'detached' })
  assert.equal(await ann.refusals().count(), 0)
  return 'the later one was asked with base, mine and theirs, also after a reload; mine kept, theirs kept, and let go'
}
