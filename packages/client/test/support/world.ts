/** A client, its store and a fake node, with the steps that most scenarios share. */
import { LockstepClient } from '../../src/client'
import type { Store } from '../../src/store'
import { memoryStore } from '../../src/store_memory'
import { FakeServer, ManualTimers, type Sent } from './fake_server'

export const TODO_COLUMNS = [
  { name: 'id', type: 'uuid', wire: 'text' },
  { name: 'list_id', type: 'uuid', wire: 'text' },
  { name: 'title', type: 'text', wire: 'text' },
  { name: 'done', type: 'bool', wire: 'bool' },
]

export interface Todo {
  id: string
  list_id: string
  title: string
  done: boolean
}

export interface World {
  server: FakeServer
  timers: ManualTimers
  client: LockstepClient
  store: Store
}

export function openWorld(store: Store = memoryStore(), url = 'ws://node/socket'): World {
  const server = new FakeServer()
  const timers = new ManualTimers()
  const client = new LockstepClient({ url, store }, { transport: server.transport, timers })
  return { server, timers, client, store }
}

/** Opens the socket and answers the join; all shapes are taken. */
export async function join(server: FakeServer, { database = 'db1', client = 'c1' } = {}): Promise<Sent> {
  server.open()
  return answerJoin(server, { database, client })
}

export async function answerJoin(server: FakeServer, { database = 'db1', client = 'c1' } = {}): Promise<Sent> {
  const request = await server.next('phx_join')
  server.reply(request, joined(request, database, client))
  return request
}

export function joined(request: Sent, database = 'db1', client = 'c1') {
  const shapes = request.payload.shapes.map(({ ref }: { ref: string }) => ({ ref, ok: true }))
  return { protocol: 1, capabilities: [], database, subject: '', client, shapes }
}

/** A `shape` frame of the table todos. */
export function todosShape(ref: string, shape = 'S', fingerprint = 'f1') {
  return { ref, shape, fingerprint, table: ['public', 'todos'], key: ['id'], columns: TODO_COLUMNS }
}

export function todo(id: string, title: string, done = false, list = 'L'): [string, string, string, boolean] {
  return [id, list, title, done]
}

/** The next commit that the client applied; to be called before the frames are sent. */
export function nextCommit(client: LockstepClient): Promise<{ lsn: string; xid: string | null; rows: number; tables: string[] }> {
  return new Promise((resolve) => {
    const off = client.onCommit((commit) => {
      off()
      resolve(commit)
    })
  })
}

/** Sends a commit and waits until it is applied. */
export async function commit(world: World, cursor: string, xid: string | null = null) {
  const applied = nextCommit(world.client)
  world.server.send('commit', { lsn: '0/1', xid, cursor })
  return applied
}

/** Joins, and loads shape S of the subscription with these rows. */
export async function load(world: World, ref: string, rows: unknown[], cursor = 'k1'): Promise<Sent> {
  const request = await join(world.server)
  world.server.send('shape', todosShape(ref))
  world.server.send('rows', { shape: 'S', reset: 'first', put: rows })
  await commit(world, cursor)
  return request
}

/** Waits until `holds`, looking again whenever the status changes. */
export function untilStatus(client: LockstepClient, holds: (status: ReturnType<LockstepClient['status']['getSnapshot']>) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (!holds(client.status.getSnapshot())) return
      off()
      resolve()
    }
    const off = client.status.subscribe(look)
    look()
  })
}

/** One turn of the event loop: what could happen by itself has happened. */
export async function turn(): Promise<void> {
  await new Promise<void>((resolve) => setTimeout(resolve, 0))
  // fake IndexedDB takes a step in each round of the event loop, of which a busy machine makes one in a timer's time
  for (let round = 0; round < 10; round += 1) await new Promise<void>((resolve) => setImmediate(resolve))
}
