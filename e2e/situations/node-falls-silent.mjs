// The node is stopped without a word: its socket stays open and carries nothing, as behind a wire that went dead.
import assert from 'node:assert/strict'
import { addressOf } from '../check.mjs'
import { freePort, kill, startNode } from '../node-process.mjs'

/** It starts a node. */
export const needsProgram = true

/** What the status may take, in milliseconds. */
const TOLD_WITHIN = 5000

export async function run(scene) {
  const port = await freePort()
  const node = startNode(scene.target, port)
  try {
    scene.url = addressOf({ ...scene.target, socket: `ws://127.0.0.1:${port}/socket` }, scene.list)
    const [first, second] = [await scene.tab('first'), await scene.tab('second')]
    const told = [first, second].map((demo) => demo.root.locator('[data-testid="status"][data-connection="behind"]').waitFor())
    const begun = performance.now()
    node.kill('SIGSTOP')
    // one of them has the connection, the other hears of it
    await Promise.all(told)
    const took = Math.round(performance.now() - begun)
    assert.ok(took <= TOLD_WITHIN, `told after ${took} ms`)
    const words = await first.root.locator('[data-testid="status-text"]').innerText()
    const seconds = Number(/^Behind by (\d+) seconds$/.exec(words)?.[1])
    assert.ok(seconds >= 4 && seconds <= 6, `it says “${words}”`)
    await first.root.getByText(`Behind by ${seconds + 2} seconds`).waitFor()
    const id = await first.add('While nothing was heard')
    const other = await scene.insert('Of somebody else')
    node.kill('SIGCONT')
    await Promise.all([first.live(), second.live()])
    await second.shows(other, {})
    await scene.untilRow(id, { title: 'While nothing was heard' })
    assert.deepEqual(await scene.writes(id), ['insert'])
    return `both tabs said “${words}” after ${took} ms, and were live again by themselves`
  } finally {
    await kill(node)
  }
}
