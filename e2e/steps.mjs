// The demo check, step by step. Each returns what it saw, or throws.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { recordedPairs, recordPairs } from './recorder.mjs'

const ROUNDS = 10

/** Both pages at once: a failure names the page that did not get there. */
async function both({ ann, bob }, look) {
  await Promise.all([ann, bob].map((demo) => look(demo).catch((error) => {
    throw new Error(`${demo.name}'s page: ${error.message}`)
  })))
}

async function insertTodo({ sql, list }, title) {
  const id = randomUUID()
  await sql.query('insert into todos (id, list_id, title) values ($1, $2, $3)', [id, list, title])
  return id
}

async function changedBySql(world) {
  const id = await insertTodo(world, 'Written by SQL')
  await both(world, (demo) => demo.shows(id, { title: 'Written by SQL', done: 'false' }))
  await world.sql.query("update todos set title = 'Rewritten by SQL', done = true where id = $1", [id])
  const start = performance.now()
  await both(world, (demo) => demo.shows(id, { title: 'Rewritten by SQL', done: 'true' }))
  const took = Math.round(performance.now() - start)
  await world.sql.query('delete from todos where id = $1', [id])
  await both(world, (demo) => demo.todo(id).waitFor({ state: 'detached' }))
  return `insert, update and delete in both pages; the update ${took} ms after its commit`
}

async function editedInOnePage(world) {
  const { ann, bob, sql, member } = world
  const id = await ann.add('Typed by Ann')
  await bob.shows(id, { title: 'Typed by Ann', done: 'false' })
  await bob.toggle(id)
  await bob.shows(id, { done: 'true' })
  await ann.shows(id, { done: 'true' })
  await ann.rename(id, 'Retyped by Ann')
  await bob.shows(id, { title: 'Retyped by Ann' })
  await bob.assign(id, member)
  await ann.shows(id, { assignee: member })
  await world.untilRow(id, { title: 'Retyped by Ann', done: true, assignee: member })
  await ann.remove(id)
  await bob.todo(id).waitFor({ state: 'detached' })
  await both(world, (demo) => demo.live())
  const { rowCount } = await sql.query('select from todos where id = $1', [id])
  assert.equal(rowCount, 0, 'the deleted row is still in the table')
  return 'add, toggle, rename, assign and delete in the other page and in the table'
}

/** What both offline steps share: two edits, a reload, and another's edit of the same row meanwhile. */
async function editOffline(world, title) {
  const { ann, bob, sql, member } = world
  const old = await insertTodo(world, `${title}: there before`)
  await both(world, (demo) => demo.shows(old, { done: 'false' }))
  return {
    old,
    async edit() {
      await ann.toggle(old)
      this.fresh = await ann.add(`${title}: added`)
      await sql.query('update todos set assignee = $1 where id = $2', [member, old])
      await bob.shows(old, { assignee: member, done: 'false' })
    },
    async stillThere() {
      await ann.shows(old, { done: 'true', assignee: '' })
      await ann.shows(this.fresh, { title: `${title}: added` })
      const { rows } = await sql.query('select done from todos where id in ($1, $2)', [old, this.fresh])
      assert.deepEqual(rows, [{ done: false }], 'an edit left the page while it was offline')
      assert.equal(await bob.todo(this.fresh).count(), 0, 'the other page shows an unsent edit')
    },
    async arrived() {
      await ann.live()
      await world.untilRow(old, { done: true, assignee: member })
      await world.untilRow(this.fresh, { title: `${title}: added` })
      await both(world, (demo) => demo.shows(old, { done: 'true', assignee: member }))
      await both(world, (demo) => demo.shows(this.fresh, { title: `${title}: added` }))
    },
  }
}

async function offlineBySwitch(world) {
  const { ann } = world
  const edits = await editOffline(world, 'Switched off')
  await ann.flipOfflineSwitch()
  await ann.offline(0)
  await edits.edit()
  await ann.offline(2)
  await ann.visitAnotherList()
  await edits.stillThere()
  await ann.page.reload()
  await ann.offline(2)
  await edits.stillThere()
  const said = await ann.status()
  await ann.flipOfflineSwitch()
  await edits.arrived()
  return `after the reload “${said}”; both edits arrived, another's edit of the same row was kept`
}

async function offlineByNetwork(world) {
  const { ann } = world
  const edits = await editOffline(world, 'Cut off')
  await ann.cutNetwork()
  await ann.notLive()
  await edits.edit()
  await ann.notLive(2)
  await ann.page.reload()
  await ann.notLive(2)
  await edits.stillThere()
  const said = await ann.status()
  await ann.restoreNetwork()
  await edits.arrived()
  return `after the reload “${said}”; both edits arrived by themselves`
}

async function neverHalf(world) {
  const { ann, bob, sql, list } = world
  const id = await insertTodo(world, 'Belongs to a pair')
  await both(world, (demo) => demo.shows(id, {}))
  for (const demo of [ann, bob]) await recordPairs(demo.page, id, 'Pair')
  let previous = randomUUID()
  for (let round = 1; round <= ROUNDS; round += 1) {
    const member = randomUUID()
    await sql.query('begin')
    await sql.query('update todos set assignee = null where id = $1', [id])
    await sql.query('delete from members where id = $1', [previous])
    await sql.query('insert into members (id, list_id, name) values ($1, $2, $3)', [member, list, `Pair ${round}`])
    await sql.query('update todos set assignee = $1 where id = $2', [member, id])
    await sql.query('commit')
    await both(world, (demo) => demo.shows(id, { assignee: member }))
    previous = member
  }
  await sql.query('delete from members where id = $1', [previous])
  await both(world, (demo) => demo.shows(id, { assignee: '' }))
  const states = (await Promise.all([ann, bob].map((demo) => recordedPairs(demo.page)))).flat()
  const half = states.filter((state) => !state.whole)
  assert.deepEqual(half, [], 'half of a transaction was on the screen')
  assert.ok(states.length >= 2 * (ROUNDS + 2), `only ${states.length} states were recorded`)
  return `${ROUNDS + 1} transactions over two tables, ${states.length} states on the screens, none half`
}

async function refusedAndRolledBack(world) {
  const { ann, bob, sql, list } = world
  const kept = await insertTodo(world, 'A good title')
  await both(world, (demo) => demo.shows(kept, {}))
  // Offline first, so that the edit is certainly on the screen before it is refused.
  await ann.flipOfflineSwitch()
  await ann.offline(0)
  const added = await ann.add('A forbidden thing')
  await ann.rename(kept, 'Forbidden too')
  const after = await ann.add('Allowed, and behind the refused ones')
  await ann.offline(3)
  await ann.flipOfflineSwitch()
  await ann.refusals().nth(1).waitFor()
  await ann.todo(added).waitFor({ state: 'detached' })
  await ann.shows(kept, { title: 'A good title' })
  await bob.shows(after, { title: 'Allowed, and behind the refused ones' })
  await ann.live()
  const { rows } = await sql.query('select title from todos where list_id = $1 and title ~* $2', [list, 'forbidden'])
  assert.deepEqual(rows, [], 'the forbidden title is in the table')
  assert.equal(await ann.refusals().first().getAttribute('data-code'), '23514')
  const said = (await ann.refusals().first().locator('p').allInnerTexts()).join(' ')
  await ann.dismiss()
  await ann.dismiss()
  await ann.refusals().first().waitFor({ state: 'detached' })
  return `“${said}”; the edit behind the refused ones was applied`
}

async function noErrors({ ann, bob }) {
  assert.deepEqual([...ann.errors, ...bob.errors], [])
  return 'no exception and no error in the consoles'
}

export const STEPS = [
  ['b', 'a row changed by SQL appears in both pages', changedBySql],
  ['c', 'an edit in one page appears in the other and in the table', editedInOnePage],
  ['d', 'offline by the switch: edits survive a reload and arrive', offlineBySwitch],
  ['d', 'offline by the network: edits survive a reload and arrive', offlineByNetwork],
  ['e', 'a transaction over two tables appears at once', neverHalf],
  ['f', 'a refused edit is shown and rolled back', refusedAndRolledBack],
  ['', 'the pages reported no errors', noErrors],
]
