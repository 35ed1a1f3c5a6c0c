// The demo check, steps on the page that shows two people. Each returns what it saw, or throws.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { tabThrough, violations } from './accessibility.mjs'
import { DemoPage } from './demo-page.mjs'

const byId = (id) => `[data-testid="${id}"]`
const PHONE = { width: 390, height: 844 }

const pairOn = ({ browser, target, list }, options) => DemoPage.openPair(browser, list === null ? target.app : `${target.app}#${list}`, options)

async function close(pair) {
  const { errors } = pair.whole
  await pair.whole.context.close()
  assert.deepEqual(errors, [])
}

/** The number behind a list's name. */
const openIn = (pane, list) => pane.root.locator(`${byId('list')}[data-id="${list}"] ${byId('list-open')}`)

async function twoPeople(world) {
  const pair = await pairOn(world)
  const { ada, linus, page } = pair
  const id = await ada.add('Seen by both')
  await linus.shows(id, { title: 'Seen by both' })
  const before = await openIn(linus, world.list).innerText()
  await ada.toggle(id)
  await linus.shows(id, { done: 'true' })
  const after = String(Number(before.match(/\d+/)[0]) - 1)
  await openIn(linus, world.list).getByText(after).waitFor()
  await page.locator(`${byId('travelled')}[data-person="ada"] ${byId('round-trip')}`).getByText('last edit').waitFor()
  const { rows } = await world.sql.query('select pg_current_wal_lsn() as lsn')
  const row = page.locator(byId('commit')).first()
  const said = (await row.innerText()).replace(/\s+/g, ' ')
  assert.match(said, /^[0-9A-F]+\/[0-9A-F]+ transaction \d+ 1 todos [\d.]+ k?B [\d.]+ ms [\d.]+ ms$/)
  await close(pair)
  return `ticked in one pane, counted in the other; travelled “${said}”; the database is at ${rows[0].lsn}`
}

async function mended(world) {
  const pair = await pairOn(world)
  const { ada, linus } = pair
  await ada.write('A forbidden start')
  await ada.refusals().first().waitFor()
  await ada.titled('A forbidden start').waitFor({ state: 'detached' })
  await ada.resend('An allowed start')
  await ada.refusals().first().waitFor({ state: 'detached' })
  await linus.titled('An allowed start').waitFor()
  await close(pair)
  return 'refused, mended, sent again, and in the other pane'
}

async function guided(world) {
  const pair = await pairOn({ ...world, list: null })
  const { page, ada, linus } = pair
  const attempt = (step) => page.locator(`${byId('try')}[data-name="${step}"]`).click()
  await attempt('In step')
  await attempt('A refused edit')
  await ada.refusals().first().waitFor()
  await ada.dismiss()
  await attempt('In a tunnel')
  await ada.offline(1)
  await page.reload()
  await ada.offline(1)
  await ada.titled('Written in a tunnel').first().waitFor()
  await ada.flipOfflineSwitch()
  await linus.titled('Written in a tunnel').first().waitFor()
  await world.sql.query("delete from todos where title = 'Written in a tunnel'")
  await close(pair)
  return 'ticked, refused, offline over a reload and back, by the buttons of the guide'
}

async function conflicting(world) {
  const pair = await pairOn(world)
  const { page, ada, linus } = pair
  const id = await linus.add('Paint the wall')
  await ada.shows(id, {})
  await ada.live()
  await page.locator(`${byId('try')}[data-name="Two edits at once"]`).click()
  const said = ['Paint the wall', 'Paint the wall, says Ada', 'Paint the wall, says Linus']
  await ada.conflict(...said)
  await ada.keepMine()
  await linus.shows(id, { title: 'Paint the wall, says Ada' })
  await close(pair)
  return `asked by ${said.join(' / ')}; Ada's was kept`
}

async function firstLoad(world) {
  const pair = await pairOn({ ...world, list: null })
  const { page, linus } = pair
  // every step that the page shows, however short
  await page.evaluate(() => {
    window.loadingSaid = []
    const look = () => {
      const text = document.querySelector('[data-testid="loading"]')?.textContent
      if (text && window.loadingSaid.at(-1) !== text) window.loadingSaid.push(text)
    }
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true })
  })
  const begun = performance.now()
  await page.locator(`${byId('try')}[data-name="A first load"]`).click()
  await linus.root.locator(byId('open-count')).getByText('4,000 of 20,000 open').waitFor()
  const took = Math.round(performance.now() - begun)
  const said = await page.evaluate(() => window.loadingSaid)
  assert.ok(said.length > 0, 'no progress was shown')
  await linus.root.locator(byId('search')).fill('lamps, part 27')
  const { rows } = await world.sql.query("select count(*)::int from todos t join lists l on l.id = t.list_id where l.archived and title like '%lamps, part 27%'")
  await linus.root.getByText(`${rows[0].count} found`).waitFor()
  assert.equal(await linus.root.locator(byId('todo')).count(), rows[0].count)
  await close(pair)
  return `20,000 to-dos after ${took} ms, told ${said.length} times, at last “${said.at(-1)}”; a search among them finds what SQL does`
}

async function runSql(page, sql) {
  await page.locator(byId('sql')).fill(sql)
  await page.locator(byId('sql')).press('Control+Enter')
}

async function sqlConsole(world) {
  const pair = await pairOn(world)
  const { page, ada, linus } = pair
  const id = randomUUID()
  await runSql(page, `insert into todos (id, list_id, title) values ('${id}', '${world.list}', 'From the console')`)
  await page.locator(byId('sql-done')).getByText('1 row written').waitFor()
  await Promise.all([ada, linus].map((pane) => pane.shows(id, { title: 'From the console' })))
  await runSql(page, `select title, assignee from todos where id = '${id}'`)
  const result = page.getByRole('region', { name: 'Result 1' })
  await result.getByRole('cell', { name: 'From the console' }).waitFor()
  await result.getByRole('cell', { name: 'null' }).waitFor()
  await runSql(page, "insert into todos (list_id, title) values (gen_random_uuid(), 'x')")
  await page.locator(byId('sql-error')).getByText('23503').waitFor()
  // whoever reaches the console cannot leave the tables
  for (const sql of ["copy (select 1) to program 'true'", 'drop table todos', "select pg_read_file('PG_VERSION')"]) {
    await runSql(page, sql)
    await page.locator(byId('sql-error')).getByText('42501').waitFor()
    await page.locator(byId('sql')).fill('')
  }
  await close(pair)
  return 'rows from the console in both panes, results and errors shown, nothing but rows within reach'
}

async function strangers({ target, sql, list }) {
  const title = randomUUID()
  const body = JSON.stringify({ sql: `insert into todos (list_id, title) values ('${list}', '${title}')` })
  for (const headers of [{}, { origin: 'https://example.com' }, { origin: 'http://127.0.0.1:1' }, { origin: 'null' }]) {
    for (const method of ['POST', 'OPTIONS']) {
      const answer = await fetch(target.console, { method, headers: { 'content-type': 'application/json', ...headers }, ...(method === 'POST' ? { body } : {}) })
      assert.deepEqual([answer.status, answer.headers.get('access-control-allow-origin')], [403, null])
    }
  }
  const { rowCount } = await sql.query('select from todos where title = $1', [title])
  assert.equal(rowCount, 0)
  return 'pages of other origins get nothing'
}

/** Wide and narrow, light and dark; at rest, with a refused edit, offline, with a result and an error. */
async function accessible(world) {
  const found = []
  let looked = 0
  for (const viewport of [{ width: 1280, height: 800 }, PHONE]) {
    for (const colorScheme of ['light', 'dark']) {
      const pair = await pairOn(world, { viewport, colorScheme, reducedMotion: 'reduce' })
      const look = async (state) => {
        looked += 1
        for (const one of await violations(pair.page)) found.push(`${viewport.width} ${colorScheme} ${state}: ${one}`)
      }
      await look('at rest')
      await pair.ada.write('A forbidden sight')
      await pair.ada.refusals().first().waitFor()
      await runSql(pair.page, 'select * from todos limit 3; select * from members limit 2')
      await pair.page.getByRole('region', { name: 'Result 2' }).waitFor()
      await look('with a refused edit and results')
      await pair.ada.flipOfflineSwitch()
      await pair.ada.offline(0)
      await runSql(pair.page, 'select nothing')
      await pair.page.locator(byId('sql-error')).waitFor()
      await look('offline, with an error')
      const width = await pair.page.evaluate(() => document.documentElement.scrollWidth)
      if (width > viewport.width) found.push(`${viewport.width}: the page is ${width} wide`)
      await close(pair)
    }
  }
  assert.deepEqual(found, [])
  return `the checker finds nothing in ${looked} states, and what is wrong on purpose in ${await seesWrong(world)} places`
}

/** What has no name, no contrast, or a role that is none is found: a checker that finds nothing might not look. */
async function seesWrong({ browser }) {
  const page = await browser.newPage()
  await page.setContent('<html lang="en"><title>x</title><main><h1>x</h1><img src="x.png"><input><p style="color:#ccc;background:#fff">x</p><div role="nonsense">x</div></main></html>')
  const found = await violations(page)
  await page.close()
  for (const rule of ['img_alt_valid', 'input_label_exists', 'text_contrast_sufficient', 'aria_role_allowed']) {
    assert.ok(found.some((one) => one.startsWith(rule)), `${rule} is not among ${found.join('; ')}`)
  }
  return found.length
}

async function byKeyboard(world) {
  const pair = await pairOn(world)
  const { page, ada } = pair
  // what scrolls is a stop, and then alone
  for (const title of 'abcdefgh') await world.sql.query('insert into todos (list_id, title) values ($1, $2)', [world.list, title])
  await page.locator(`${byId('commits')}[tabindex="0"]`).waitFor()
  await ada.root.locator(byId('todo')).first().waitFor()
  const stops = await tabThrough(page)
  const wanted = ['try', 'ada offline-switch', 'ada list', 'ada new-todo', 'ada toggle', 'ada edit', 'ada delete', 'ada assignee', 'linus offline-switch', 'sql', 'commits']
  const places = wanted.map((name) => stops.indexOf(name))
  assert.deepEqual(places, [...places].sort((a, b) => a - b), `the order is ${stops.join(', ')}`)
  assert.ok(places.every((place) => place >= 0), `not reached: ${wanted.filter((_, at) => places[at] < 0)}`)
  // a to-do's life by the keyboard alone
  await ada.root.locator(byId('new-todo')).focus()
  await page.keyboard.type('Typed')
  await page.keyboard.press('Enter')
  const id = await ada.titled('Typed').getAttribute('data-id')
  await ada.todo(id).locator(byId('edit')).focus()
  await page.keyboard.press('Enter')
  await page.keyboard.type('Retyped')
  await page.keyboard.press('Enter')
  await ada.shows(id, { title: 'Retyped' })
  await ada.todo(id).locator(byId('edit')).and(page.locator(':focus')).waitFor()
  await page.keyboard.press('Tab')
  await page.keyboard.press('Space')
  await ada.todo(id).waitFor({ state: 'detached' })
  await close(pair)
  return `${stops.length} stops from top to bottom, each seen; added, renamed and deleted without a pointer`
}

export const PAIR_STEPS = [
  ['g', 'two people side by side', twoPeople],
  ['h', 'a refused edit is mended and sent again', mended],
  ['i', 'the guide shows it', guided],
  ['i', 'the guide shows a conflict', conflicting],
  ['j', 'the first load of 20,000 to-dos', firstLoad],
  ['k', 'the SQL console', sqlConsole],
  ['k', 'the SQL console and strangers', strangers],
  ['l', 'for a screen reader, wide and narrow, light and dark', accessible],
  ['m', 'by keyboard', byKeyboard],
]
