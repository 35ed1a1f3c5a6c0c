// A list of 20,000 to-dos is loaded, and the connection is cut in the middle of it.
import assert from 'node:assert/strict'
import { holdSocket } from '../socket.mjs'

const COUNT = 20_000

export async function run(scene) {
  await scene.sql.query('insert into todos (list_id, title, done) select $1, $2 || n, n % 4 = 0 from generate_series(1, $3) as n', [scene.list, 'To-do ', COUNT])
  let hold
  const states = []
  const demo = await scene.tab('one', async (page) => {
    hold = await holdSocket(page)
    hold.cutAfter = 300_000
    await page.exposeFunction('sayState', (state) => states.push(state))
    await page.addInitScript(() => {
      const look = () => {
        const text = (id) => document.querySelector(`[data-testid="${id}"]`)?.textContent ?? ''
        const state = JSON.stringify([text('open-count'), text('loading')])
        if (state !== window.lastState) window.sayState((window.lastState = state))
      }
      new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true })
    })
  })
  await demo.page.getByText('15,000 of 20,000 open').waitFor()
  // on a first visit too one connection is enough, but for the one that was cut
  assert.deepEqual([hold.cutAfter, hold.opened], [null, 2])
  const seen = states.map((state) => JSON.parse(state))
  const progress = seen.map(([, loading]) => Number(loading.match(/[\d,]+/)?.[0].replaceAll(',', '') ?? 0)).filter((rows) => rows > 0)
  assert.ok(progress.length > 1, 'no progress was told')
  const counts = new Set(seen.map(([open]) => open))
  assert.deepEqual([...counts].sort(), ['', '15,000 of 20,000 open'], 'a part of it was shown')
  await demo.page.locator('[data-testid="search"]').fill('To-do 1999')
  await demo.page.getByText('11 found').waitFor()
  await demo.flipOfflineSwitch()
  await demo.offline(0)
  await demo.page.reload()
  await demo.page.getByText('15,000 of 20,000 open').waitFor()
  return `cut once, loaded whole, nothing shown in part, progress told ${progress.length} times; there after a reload offline`
}
