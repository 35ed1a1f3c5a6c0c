// The demo check: two browsers and one SQL connection on a running demo.
//
//   node check.mjs --app http://127.0.0.1:4000/ --postgres postgres://…   [--socket ws://…/socket] [--console http://…/]
//
// It works in a list of its own, which it removes at the end. No sleeps: every wait is for a
// condition, and times out only as a failure.
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { parseArgs, stripVTControlCharacters } from 'node:util'
import pg from 'pg'
import { launchBrowser } from './browser.mjs'
import { DemoPage, PATIENCE_MS } from './demo-page.mjs'
import { PAIR_STEPS } from './pair-steps.mjs'
import { STEPS } from './steps.mjs'

const TABLE_POLL_MS = 10

/** One person's page on a list. */
export function addressOf({ app, socket }, list) {
  const url = new URL(app)
  const served = new URL('/socket', app)
  served.protocol = served.protocol === 'https:' ? 'wss:' : 'ws:'
  if (socket && socket !== served.href) url.searchParams.set('socket', socket)
  url.searchParams.set('person', 'ada')
  url.hash = list
  return url.href
}

/** Polls the table, the only thing here that cannot call back. */
export function untilRowIn(sql) {
  return async (id, expected) => {
    const columns = Object.keys(expected)
    const wanted = JSON.stringify(expected)
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      const { rows } = await sql.query(`select ${columns.join(', ')} from todos where id = $1`, [id])
      if (rows.length === 1 && JSON.stringify(rows[0]) === wanted) return
      if (performance.now() > deadline) throw new Error(`the table has ${JSON.stringify(rows)}, not ${wanted}`)
      await pause(TABLE_POLL_MS)
    }
  }
}

async function seed(sql) {
  const [list, member] = [randomUUID(), randomUUID()]
  await sql.query('insert into lists (id, name) values ($1, $2)', [list, `Demo check ${list.slice(0, 4)}`])
  await sql.query("insert into members (id, list_id, name, colour) values ($1, $2, 'Ada', 'blue')", [member, list])
  await sql.query("insert into todos (list_id, title, assignee) values ($1, 'Already there', $2)", [list, member])
  return { list, member }
}

async function openBoth(world, browser, target) {
  const url = addressOf(target, world.list)
  const [ann, bob] = await Promise.all(['Ann', 'Bob'].map((name) => DemoPage.open(browser, name, url)))
  Object.assign(world, { ann, bob })
  await Promise.all([ann, bob].map((demo) => demo.titled('Already there').waitFor()))
  return `two contexts on ${url}, both live`
}

/** Runs all steps and reports each; the promise is of {passed, failed}. */
export async function runCheck(target, report = console.log) {
  const counts = { passed: 0, failed: 0 }
  const sql = new pg.Client({ connectionString: target.postgres })
  await sql.connect()
  const browser = await launchBrowser()
  const world = { sql, untilRow: untilRowIn(sql), ...(await seed(sql)) }
  const step = async (letter, name, work) => {
    const start = performance.now()
    const line = (mark, text) => report(`${mark} ${letter.padEnd(1)} ${name} (${Math.round(performance.now() - start)} ms): ${text}`)
    try {
      line('ok  ', await work())
      counts.passed += 1
      return true
    } catch (error) {
      line('FAIL', stripVTControlCharacters(error.message))
      counts.failed += 1
      await Promise.all([world.ann, world.bob].map((demo) => demo?.recover()))
      // A step that failed inside a transaction has left it open.
      await sql.query('rollback')
      return false
    }
  }
  try {
    if (await step('a', 'two pages open', () => openBoth(world, browser, target))) {
      for (const [letter, name, work] of STEPS) await step(letter, name, () => work(world))
      Object.assign(world, { browser, target })
      // what only the real demo has: a console, and a list that is long
      if (target.console) for (const [letter, name, work] of PAIR_STEPS) await step(letter, name, () => work(world))
    }
  } finally {
    await browser.close()
    await sql.query('delete from lists where id = $1', [world.list])
    await sql.end()
  }
  return counts
}

async function main() {
  const { values } = parseArgs({
    options: {
      app: { type: 'string', default: process.env.LOCKSTEP_APP },
      postgres: { type: 'string', default: process.env.LOCKSTEP_POSTGRES },
      socket: { type: 'string', default: process.env.LOCKSTEP_SOCKET },
      console: { type: 'string' },
    },
  })
  if (!values.app || !values.postgres) throw new Error('say --app URL and --postgres URL')
  const { failed } = await runCheck(values)
  process.exitCode = failed > 0 ? 1 : 0
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main()
