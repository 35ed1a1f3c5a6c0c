// PostgreSQL stops sending its stream: a browser that has nothing is shown what was read, marked, until that is settled.
import assert from 'node:assert/strict'
import { addressOf } from '../check.mjs'
import { DemoPage, PATIENCE_MS } from '../demo-page.mjs'
import { freePort, kill, startNode } from '../node-process.mjs'

/** It starts a node. */
export const needsProgram = true

const WALSENDERS = "select pid from pg_stat_activity where backend_type = 'walsender'"

async function walsenders(sql) {
  const { rows } = await sql.query(WALSENDERS)
  return rows.map(({ pid }) => pid)
}

/** The process that sends a node its stream; waits until there is one. */
async function newWalsender(sql, others) {
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end; ) {
    const [pid] = (await walsenders(sql)).filter((one) => !others.includes(one))
    if (pid !== undefined) return pid
  }
  throw new Error('the node has no stream')
}

export async function run(scene) {
  const port = await freePort()
  const others = await walsenders(scene.sql)
  const node = startNode(scene.target, port)
  let stopped = null
  try {
    scene.url = addressOf({ ...scene.target, socket: `ws://127.0.0.1:${port}/socket` }, scene.list)
    const walsender = await newWalsender(scene.sql, others)
    // a first page tells that the stream is there
    const early = await scene.elsewhere('early')
    process.kill((stopped = walsender), 'SIGSTOP')
    await scene.insert('What the stream is about to tell')
    const demo = await DemoPage.load(scene.context, 'first', scene.url)
    scene.demos.push(demo)
    const status = demo.root.locator('[data-testid="status-text"]')
    await status.getByText(/^Loading, \d+ rows? shown provisionally$/).waitFor()
    const words = await status.innerText()
    const list = demo.root.locator(`[data-testid="list"][data-id="${scene.list}"]`)
    await list.waitFor()
    // of another tab nothing is seen, and a reload finds nothing
    const other = await DemoPage.load(scene.context, 'second', scene.url)
    scene.demos.push(other)
    await other.root.locator('[data-testid="status"][data-connection="loading"]').waitFor({ state: 'attached' })
    assert.equal(await other.root.locator('[data-testid="list"]').count(), 0)
    await demo.flipOfflineSwitch()
    await demo.offline(0)
    await list.waitFor({ state: 'detached' })
    await demo.flipOfflineSwitch()
    await list.waitFor()
    process.kill(walsender, 'SIGCONT')
    stopped = null
    await Promise.all([demo.live(), other.live(), early.live()])
    await demo.titled('What the stream is about to tell').waitFor()
    await other.titled('What the stream is about to tell').waitFor()
    return `it said “${words}”; gone offline, back again, and settled when the stream went on`
  } finally {
    if (stopped !== null) process.kill(stopped, 'SIGCONT')
    await kill(node)
  }
}
