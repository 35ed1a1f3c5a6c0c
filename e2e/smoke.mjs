// The demo check without a Lockstep server: the built demo, the client and the naive node on a
// PostgreSQL server that is there, in a database made for this run and dropped after it.
//
//   npm run build -w apps/todo && node smoke.mjs --postgres postgres://…
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { runCheck } from './check.mjs'
import { start } from './naive/node.mjs'

const SCHEMA = new URL('../apps/todo/schema.sql', import.meta.url)

async function execute(url, statement) {
  const sql = new pg.Client({ connectionString: url })
  await sql.connect()
  try {
    await sql.query(statement)
  } finally {
    await sql.end()
  }
}

const { values } = parseArgs({ options: { postgres: { type: 'string', default: process.env.LOCKSTEP_POSTGRES } } })
if (!values.postgres) throw new Error('say --postgres URL of a server where a database may be made')

const name = `lockstep_smoke_${randomBytes(4).toString('hex')}`
const postgres = new URL(values.postgres)
postgres.pathname = `/${name}`
await execute(values.postgres, `create database ${name}`)
try {
  await execute(postgres.href, readFileSync(SCHEMA, 'utf8'))
  const node = await start({ postgres: postgres.href, port: 0 })
  const counts = await runCheck({ app: `http://127.0.0.1:${node.port}/`, postgres: postgres.href })
  await node.stop()
  console.log(`${counts.passed} passed, ${counts.failed} failed`)
  if (counts.failed > 0) process.exitCode = 1
} finally {
  await execute(values.postgres, `drop database ${name} with (force)`)
}
