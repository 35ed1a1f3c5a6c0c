// The node is killed and started again, then PostgreSQL is; edits are made while each is away.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import pg from 'pg'
import { addressOf } from '../check.mjs'
import { PATIENCE_MS } from '../demo-page.mjs'
import { freePort, kill, startNode } from '../node-process.mjs'

/** It starts a node. */
export const needsProgram = true

/** As after a crash: the death of one of its processes makes PostgreSQL end all others and recover. */
async function crashPostgres(url) {
  const victim = new pg.Client({ connectionString: url })
  const gone = once(victim, 'error')
  await victim.connect()
  const { rows } = await victim.query('select pg_backend_pid() as pid')
  process.kill(rows[0].pid, 'SIGKILL')
  await gone
}

async function startedAt(sql) {
  // restarted processes of its own: their ages, not the server's
  const { rows } = await sql.query("select pid from pg_stat_activity where backend_type = 'checkpointer'")
  return rows[0].pid
}

export async function run(scene) {
  const port = await freePort()
  let node = startNode(scene.target, port)
  try {
    scene.url = addressOf({ ...scene.target, socket: `ws://127.0.0.1:${port}/socket` }, scene.list)
    const demo = await scene.tab('one')
    await kill(node)
    await demo.notLive(0)
    const away = await demo.add('While the node was away')
    await demo.notLive(1)
    const other = await scene.insert('Of somebody else')
    node = startNode(scene.target, port)
    await demo.live()
    await demo.shows(other, {})
    await scene.untilRow(away, { title: 'While the node was away' })

    const before = await startedAt(scene.sql)
    await crashPostgres(scene.target.postgres)
    const crashed = await demo.add('While PostgreSQL was away')
    for (const end = performance.now() + PATIENCE_MS; (await startedAt(scene.sql)) === before; ) {
      if (performance.now() > end) throw new Error('PostgreSQL was not restarted')
    }
    const later = await scene.insert('After the restart')
    await demo.shows(later, {})
    await demo.live()
    await scene.untilRow(crashed, { title: 'While PostgreSQL was away' })
    assert.deepEqual([await scene.writes(away), await scene.writes(crashed)], [['insert'], ['insert']])
    assert.equal(await demo.refusals().count(), 0)
    return 'both edits were carried out once, and others arrived'
  } finally {
    await kill(node)
  }
}
