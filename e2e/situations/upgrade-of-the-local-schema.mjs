// A browser comes back with what version 1 of the local layout left in it: an edit that was never sent.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'

export async function run(scene) {
  const id = randomUUID()
  const empty = await scene.context.newPage()
  const socket = new URL(scene.url).searchParams.get('socket') ?? new URL('/socket', scene.url).href.replace(/^http/, 'ws')
  await empty.route('**/empty', (route) => route.fulfill({ contentType: 'text/html', body: '' }))
  await empty.goto(new URL('/empty', scene.url).href)
  await empty.evaluate(
    ([socket, id, list]) =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open(`todo-ada ${JSON.stringify(['url', socket, ''])}`, 1)
        opening.onupgradeneeded = () => {
          const db = opening.result
          db.createObjectStore('meta')
          db.createObjectStore('shapes', { keyPath: 'id' })
          db.createObjectStore('rows')
          const ops = [{ op: 'insert', table: 'todos', values: { id, list_id: list, title: 'Of the older version' } }]
          db.createObjectStore('outbox', { keyPath: 'seq' }).put({ seq: 1, n: '1', id: crypto.randomUUID(), kind: 'ops', name: null, args: null, ops })
          db.createObjectStore('refused', { keyPath: 'id' })
        }
        opening.onsuccess = () => resolve(opening.result.close())
        opening.onerror = () => reject(opening.error)
      }),
    [socket, id, scene.list],
  )
  await empty.close()
  const demo = await scene.tab('one')
  await demo.shows(id, { title: 'Of the older version' })
  await scene.untilRow(id, { title: 'Of the older version' })
  assert.deepEqual(await scene.writes(id), ['insert'])
  return 'the edit was sent, once'
}
