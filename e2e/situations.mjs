// The situations: each file of situations/ is one, on a running demo, with a list and a browser context of its own.
//
//   node situations.mjs --app URL --postgres URL [--program PATH] [--only NAME]
import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { parseArgs, stripVTControlCharacters } from 'node:util'
import pg from 'pg'
import { launchBrowser } from './browser.mjs'
import { addressOf, untilRowIn } from './check.mjs'
import { DemoPage, PATIENCE_MS } from './demo-page.mjs'

/** What a situation has to work with. */
class Scene {
  constructor(sql, context, target, list) {
    Object.assign(this, { sql, context, target, list, untilRow: untilRowIn(sql), url: addressOf(target, list), demos: [] })
  }

  /** The scene in a browser of its own, such as that of another person. */
  async elsewhere(name) {
    const context = await this.context.browser().newContext({ viewport: { width: 1280, height: 800 } })
    context.setDefaultTimeout(PATIENCE_MS)
    const demo = await DemoPage.openIn(context, name, this.url)
    this.demos.push(demo)
    return demo
  }

  /** A tab on the list, live. */
  async tab(name, prepare) {
    const demo = await DemoPage.openIn(this.context, name, this.url, prepare)
    this.demos.push(demo)
    return demo
  }

  async insert(title) {
    const id = randomUUID()
    await this.sql.query('insert into todos (id, list_id, title) values ($1, $2, $3)', [id, this.list, title])
    return id
  }

  /** How often each statement was carried out on a to-do: what was done twice is seen even if nothing came of it. */
  async writes(id) {
    const { rows } = await this.sql.query('select op from e2e_writes where id = $1 order by at', [id])
    return rows.map(({ op }) => op)
  }

  /** Waits until a statement was carried out on a to-do. */
  async untilWritten(id) {
    for (const end = performance.now() + PATIENCE_MS; (await this.writes(id)).length === 0; ) {
      if (performance.now() > end) throw new Error('nothing was written')
    }
  }
}

/** SQL that connects again after its server was restarted. */
class Sql {
  constructor(url) {
    Object.assign(this, { url, client: null })
  }

  async query(...asked) {
    for (const end = performance.now() + PATIENCE_MS; ; ) {
      try {
        this.client ??= await this.connect()
        return await this.client.query(...asked)
      } catch (error) {
        // an error of the statement has a severity below; without one the connection is gone
        const isGone = error.severity === undefined || error.severity === 'FATAL'
        if (!isGone || performance.now() > end) throw error
        this.client = null
      }
    }
  }

  async connect() {
    const client = new pg.Client({ connectionString: this.url })
    client.on('error', () => (this.client = null))
    await client.connect()
    return client
  }

  async end() {
    await this.client?.end()
  }
}

const AUDIT = `
  create table if not exists e2e_writes (at bigserial primary key, id uuid not null, op text not null);
  create or replace function e2e_note() returns trigger language plpgsql as
    $$ begin insert into e2e_writes (id, op) values (coalesce(new.id, old.id), lower(tg_op)); return null; end $$;
  create or replace trigger e2e_note after insert or update or delete on todos for each row execute function e2e_note();`
const NO_AUDIT = 'drop trigger if exists e2e_note on todos; drop function if exists e2e_note(); drop table if exists e2e_writes'

async function runOne(situation, sql, browser, target) {
  const list = randomUUID()
  await sql.query('insert into lists (id, name) values ($1, $2)', [list, `Situation ${list.slice(0, 4)}`])
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } })
  context.setDefaultTimeout(PATIENCE_MS)
  const scene = new Scene(sql, context, target, list)
  try {
    const said = await situation.run(scene)
    const errors = scene.demos.flatMap((demo) => demo.errors)
    if (errors.length > 0) throw new Error(`the pages reported ${errors.join('; ')}`)
    return said
  } finally {
    for (const demo of scene.demos) await demo.context.close()
    await context.close()
    await sql.query('delete from lists where id = $1', [list])
  }
}

/** Runs the situations and reports each; the promise is of {passed, failed}. */
export async function runSituations(target, report = console.log, only = null) {
  const counts = { passed: 0, failed: 0 }
  const sql = new Sql(target.postgres)
  await sql.query(AUDIT)
  const browser = await launchBrowser()
  try {
    for (const file of readdirSync(new URL('situations/', import.meta.url)).sort()) {
      const name = file.replace('.mjs', '').replaceAll('-', ' ')
      if (only !== null && !name.includes(only)) continue
      const situation = await import(`./situations/${file}`)
      if (situation.needsProgram && !target.program) continue
      const begun = performance.now()
      const line = (mark, text) => report(`${mark} ${name} (${Math.round(performance.now() - begun)} ms): ${text}`)
      try {
        line('ok  ', await runOne(situation, sql, browser, target))
        counts.passed += 1
      } catch (error) {
        line('FAIL', stripVTControlCharacters(error.stack ?? String(error)))
        counts.failed += 1
      }
    }
  } finally {
    await browser.close()
    await sql.query(NO_AUDIT)
    await sql.end()
  }
  return counts
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { app: { type: 'string' }, postgres: { type: 'string' }, socket: { type: 'string' }, program: { type: 'string' }, only: { type: 'string' } } })
  if (!values.app || !values.postgres) throw new Error('say --app URL and --postgres URL')
  const { passed, failed } = await runSituations(values, console.log, values.only ?? null)
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed > 0 ? 1 : 0
}
