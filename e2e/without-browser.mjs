// The client in Node, on a node of its own: that a row written offline is shown in a shape with a `where` exactly if
// PostgreSQL has it there afterwards. Node 20 has no WebSocket: the clients get that of the package `ws`.
//
//   node without-browser.mjs --postgres URL --program PATH
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { createClient, memoryStore } from '@lockstep/client'
import pg from 'pg'
import { WebSocket } from 'ws'
import { freePort, kill, startNode } from './node-process.mjs'

const PATIENCE_MS = 20_000

const TABLE = `create table things (
  id int primary key, batch int not null, n int, big int8, price numeric, f float8, name text collate "C", done boolean, due date, at timestamptz)`

/** Values that a row may have, each of them in one row, the others NULL or as in the row before. */
const VALUES = {
  n: [0, 1, -1, 7, null],
  big: ['9007199254740992', '9007199254740993', '-1', null],
  price: ['1', '1.00', '0.1', '-0.1', 'NaN', null],
  f: [0, 0.5, -0.5, NaN, Infinity, null],
  name: ['', 'a', 'A', 'a_b', 'aXb', '100%', 'ab\nc', 'b', 'ä', '😀', 'a\\b', null],
  done: [true, false, null],
  due: ['2026-02-28', '2026-03-01', 'infinity', null],
  at: ['2026-01-01 00:00:00.000001+00', '2026-01-01 00:00:00+00', null],
}

/** Conditions of a shape, and what they are in SQL. */
const CASES = [
  [['done', '=', true], 'done'],
  [['done', '<>', true], 'done <> true'],
  [['done', 'is', null], 'done is null'],
  [['done', 'is not', null], 'done is not null'],
  [['done', 'is not', true], 'done is distinct from true'],
  [{ not: ['done', '=', true] }, 'not done'],
  [{ not: ['done', 'is', true] }, 'not (done is not distinct from true)'],
  [['n', '>', 0], 'n > 0'],
  [['n', '<=', 0], 'n <= 0'],
  [{ not: ['n', '>', 0] }, 'not n > 0'],
  [['n', 'in', [1, null, -1]], 'n in (1, null, -1)'],
  [['n', 'not in', [1, 0]], 'n not in (1, 0)'],
  [['n', 'not in', [1, null]], 'n not in (1, null)'],
  [['n', 'in', []], 'false'],
  [{ and: [['n', '>=', -1], ['n', '<=', 0]] }, 'n between -1 and 0'],
  [{ not: { and: [['n', '>=', -1], ['n', '<=', 0]] } }, 'n not between -1 and 0'],
  [{ or: [['n', '=', 1], ['done', '=', true]] }, 'n = 1 or done'],
  [{ not: { or: [['n', '=', 1], ['name', 'like', 'a%']] } }, "not (n = 1 or name like 'a%')"],
  [[['n', '<>', 1], { not: ['done', '=', false] }], 'n <> 1 and not done = false'],
  [['big', '=', '9007199254740993'], 'big = 9007199254740993'],
  [['big', '>', 9007199254740992n], 'big > 9007199254740992'],
  [['price', '=', 1], 'price = 1'],
  [['price', '<', '0.1'], 'price < 0.1'],
  [['price', '>', '1'], 'price > 1'],
  [['f', '>', 0.25], 'f > 0.25'],
  [['f', '=', NaN], "f = 'NaN'"],
  [['name', '=', ''], "name = ''"],
  [['name', '<', 'b'], "name < 'b'"],
  [['name', '>=', 'ä'], "name >= 'ä'"],
  [['name', 'like', 'a%'], "name like 'a%'"],
  [['name', 'not like', 'a%'], "name not like 'a%'"],
  [['name', 'like', 'a\\_b'], "name like 'a\\_b'"],
  [['name', 'like', '_'], "name like '_'"],
  [['name', 'like', '%\\%'], "name like '%\\%'"],
  [['name', 'like', 'a%c'], "name like 'a%c'"],
  [['name', 'in', ['a', 'ä', 'z']], "name in ('a', 'ä', 'z')"],
  [['due', '<', '2026-03-01'], "due < '2026-03-01'"],
  [['due', '>', '2026-03-01'], "due > '2026-03-01'"],
  [['at', '>', new Date(0)], "at > '1970-01-01 00:00:00+00'"],
  [['at', '=', '2026-01-01 00:00:00.000001+00'], "at = '2026-01-01 00:00:00.000001+00'"],
]

/** One row for each value, among others' values that turn round. */
const rows = Object.entries(VALUES).flatMap(([column, values]) =>
  values.map((value, at) => {
    const row = Object.fromEntries(Object.entries(VALUES).map(([name, all], place) => [name, all[(at * 3 + place) % all.length]]))
    return { ...row, [column]: value }
  }),
)
const ROOM = 1000

/** Resolves once `live` says so. */
function until(live, holds, what) {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (!holds(live.getSnapshot())) return
      clearTimeout(late)
      stop()
      resolve()
    }
    const late = setTimeout(() => reject(new Error(`${what}: ${JSON.stringify(live.getSnapshot())}`)), PATIENCE_MS)
    const stop = live.subscribe(() => look())
    queueMicrotask(look)
  })
}

class Case {
  constructor(url, batch, [condition, sql]) {
    this.client = createClient({ url, store: memoryStore(), webSocket: WebSocket })
    const here = ['batch', '=', batch]
    this.shape = this.client.subscribe({ table: 'things', where: condition === null ? sql : [here, ...(Array.isArray(condition[0]) ? condition : [condition])] })
    this.things = this.client.query({ table: 'things' })
    Object.assign(this, { batch, sql })
  }

  shown() {
    return this.things.getSnapshot().map(({ id }) => id - this.batch * ROOM).sort((a, b) => a - b)
  }

  /** Away from the network: rows are written anew and changed. Gives what is shown then. */
  async writeOffline() {
    await this.shape.ready
    const before = this.shown()
    this.client.setOnline(false)
    await until(this.client.status, ({ connection }) => connection === 'offline', 'never offline')
    const inserts = rows.map((row, at) => ({ op: 'insert', table: 'things', values: { id: this.batch * ROOM + 500 + at, batch: this.batch, ...row } }))
    // each row that is held becomes another one
    const updates = before.map((id) => ({ op: 'update', table: 'things', key: { id: this.batch * ROOM + id }, set: rows[(id * 7 + 5) % rows.length] }))
    this.mutations = [inserts, updates].filter((ops) => ops.length > 0).map((ops) => this.client.mutate(ops))
    this.written = inserts.length + updates.length
    return this.shown()
  }

  async backOnline() {
    this.client.setOnline(true)
    for (const { outcome, message } of await Promise.all(this.mutations.map((one) => one.outcome))) assert.equal(outcome, 'applied', message)
    return this.shown()
  }
}

const inSql = async (sql, batch, where) => {
  const found = await sql.query(`select id - ${batch * ROOM} as id from things where batch = ${batch} and (${where}) order by id`)
  return found.rows.map(({ id }) => id)
}

async function fill(sql, batches) {
  const columns = Object.keys(VALUES)
  for (let batch = 0; batch < batches; batch += 1) {
    for (const [at, row] of rows.entries()) {
      const values = [batch * ROOM + at, batch, ...columns.map((name) => (Number.isNaN(row[name]) ? 'NaN' : row[name]))]
      await sql.query(`insert into things (id, batch, ${columns}) values (${values.map((_, place) => `$${place + 1}`)})`, values)
    }
  }
}

/** What is shown offline is what PostgreSQL decides, and what is shown once it did. */
async function conditions(url, sql) {
  const cases = CASES.map((one, batch) => new Case(url, batch, one))
  let [written, hidden] = [0, 0]
  try {
    const offline = await Promise.all(cases.map((one) => one.writeOffline()))
    const online = await Promise.all(cases.map((one) => one.backOnline()))
    for (const [at, one] of cases.entries()) {
      const decided = await inSql(sql, one.batch, one.sql)
      assert.deepEqual(offline[at], decided, `offline, ${one.sql}`)
      assert.deepEqual(online[at], decided, `online, ${one.sql}`)
      written += one.written
      hidden += rows.length - decided.filter((id) => id >= 500).length
    }
  } finally {
    await Promise.all(cases.map(({ client }) => client.close()))
  }
  assert.ok(hidden > 0 && hidden < written)
  return `${CASES.length} conditions, ${written} rows written offline, ${hidden} of them never shown: as PostgreSQL decides, before and after`
}

/** What a shape's SQL says of a row is not known here: it is shown until the node says so, and then as PostgreSQL decides. */
async function asSql(url, sql) {
  const batch = CASES.length
  const one = new Case(url, batch, [null, `batch = ${batch} and n between 0 and 1`])
  try {
    const offline = await one.writeOffline()
    assert.equal(offline.filter((id) => id >= 500).length, rows.length)
    const online = await one.backOnline()
    assert.deepEqual(online, await inSql(sql, batch, 'n between 0 and 1'))
    return `${rows.length} rows shown until the node said which of them are in the shape`
  } finally {
    await one.client.close()
  }
}

/** Runs it on a database and a node of its own; the promise is of {passed, failed}. */
export async function runWithoutBrowser(target, report = console.log) {
  const counts = { passed: 0, failed: 0 }
  const name = `without_browser_${process.pid}`
  const postgres = new URL(target.postgres)
  postgres.pathname = `/${name}`
  const admin = new pg.Client({ connectionString: target.postgres })
  await admin.connect()
  await admin.query(`create database ${name} encoding 'UTF8' template template0`)
  const sql = new pg.Client({ connectionString: postgres.href })
  await sql.connect()
  let node = null
  try {
    await sql.query(TABLE)
    await fill(sql, CASES.length + 1)
    for (const command of [['install'], ['track', 'things']]) {
      const { status, stderr } = spawnSync(target.program, command, { env: { ...process.env, LOCKSTEP_DATABASE_URL: postgres.href }, encoding: 'utf8' })
      assert.equal(status, 0, stderr)
    }
    const port = await freePort()
    node = startNode({ program: target.program, postgres: postgres.href }, port)
    for (const [what, work] of [['conditions decide as PostgreSQL does', conditions], ['a shape given as SQL', asSql]]) {
      const begun = performance.now()
      const line = (mark, text) => report(`${mark} in Node ${process.versions.node}, ${what} (${Math.round(performance.now() - begun)} ms): ${text}`)
      try {
        line('ok  ', await work(`ws://127.0.0.1:${port}/socket`, sql))
        counts.passed += 1
      } catch (error) {
        line('FAIL', error.stack)
        counts.failed += 1
      }
    }
  } finally {
    if (node !== null) await kill(node)
    await sql.end()
    await admin.query(`drop database ${name} with (force)`)
    await admin.end()
  }
  return counts
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { postgres: { type: 'string' }, program: { type: 'string' } } })
  if (!values.postgres || !values.program) throw new Error('say --postgres URL and --program PATH')
  const { failed } = await runWithoutBrowser(values)
  process.exitCode = failed > 0 ? 1 : 0
}
