// A node inside the page, behind the client's transport: it serves two tables and says what the test tells it to say.
import { LockstepClient } from '../../packages/client/src/client'
import type { SchemaModule } from '../../packages/client/src/schema'
import { memoryStore } from '../../packages/client/src/store_memory'
import type { TransportFactory } from '../../packages/client/src/transport'
import { FakeServer, type Sent } from '../../packages/client/test/support/fake_server'

type Cell = string | number | boolean | null

const COLUMNS: Record<string, [name: string, type: string, wire: string][]> = {
  lists: [['id', 'bigint', 'text'], ['name', 'text', 'text']],
  todos: [['id', 'bigint', 'text'], ['list_id', 'bigint', 'text'], ['title', 'text', 'text'], ['done', 'boolean', 'bool']],
}

export const schema: SchemaModule<any> = {
  tables: {
    lists: { key: ['id'], columns: { id: 'bigint', name: 'text' }, relations: { todos: { table: 'todos', many: true, from: ['id'], to: ['list_id'] } } },
    todos: { key: ['id'], columns: {}, relations: { list: { table: 'lists', many: false, from: ['list_id'], to: ['id'] } } },
  },
}

class PageNode {
  readonly server = new FakeServer()
  /** tables that the client has asked for and not given up */
  readonly asked = new Map<string, string>()
  /** the title of a to-do that is refused */
  readonly forbidden = 'forbidden'
  private readonly tables: Record<string, Cell[][]> = {
    lists: [['1', 'Home'], ['2', 'Work']],
    todos: [['1', '1', 'Milk', false], ['10', '1', 'Tea', false], ['9', '1', 'Bread', false], ['2', '2', 'Mail', true]],
  }
  private commits = 0

  /** Opens at once and answers everything, each in a turn of its own. */
  readonly transport: TransportFactory = (events) => {
    const { connect, send, ...rest } = this.server.transport(events)
    return {
      ...rest,
      connect: () => {
        connect()
        setTimeout(() => this.server.open(), 0)
      },
      send: (message) => {
        send(message)
        setTimeout(() => this.answer(message as Sent), 0)
      },
    }
  }

  private answer(message: Sent): void {
    const { event, payload } = message
    // all that it knows was said
    if (event === 'heartbeat') return this.server.answerAge(0)
    if (event === 'unsubscribe') {
      for (const ref of payload.refs) this.asked.delete(ref)
      return this.server.reply(message, {})
    }
    if (event === 'mutate') return this.mutate(message)
    const shapes = payload.shapes as { ref: string; table: string }[]
    const answers = shapes.map(({ ref }) => ({ ref, ok: true }))
    this.server.reply(message, { protocol: 1, capabilities: [], database: 'd', subject: '', client: 'c1', shapes: answers })
    for (const { ref, table } of shapes) {
      this.asked.set(ref, table)
      const columns = (COLUMNS[table] ?? []).map(([name, type, wire]) => ({ name, type, wire }))
      this.server.send('shape', { ref, shape: ref, fingerprint: 'f', table: ['public', table], key: ['id'], columns })
      this.server.send('rows', { shape: ref, reset: 'first', put: this.tables[table] })
    }
    this.commit()
  }

  private mutate(message: Sent): void {
    this.server.reply(message, {})
    const mutations = message.payload.mutations as { n: string; id: string; ops: { values: Record<string, Cell> }[] }[]
    const decisions = mutations.map(({ n, id, ops }) => {
      const refused = ops.some(({ values }) => values['title'] === this.forbidden)
      if (refused) return { n, id, outcome: 'refused', code: 'check_violation', message: 'not this word' }
      for (const { values } of ops) this.stage('todos', (COLUMNS['todos'] ?? []).map(([name]) => values[name] ?? null))
      return { n, id, outcome: 'applied' }
    })
    this.server.send('ack', { mutations: decisions })
    this.commit()
  }

  private stage(table: string, row: Cell[]): void {
    const rows = this.tables[table] ?? []
    this.tables[table] = [...rows.filter(([id]) => id !== row[0]), row]
    for (const [ref, name] of this.asked) if (name === table) this.server.send('rows', { shape: ref, put: [row] })
  }

  /** One commit of somebody else. */
  put(...rows: [table: string, row: Cell[]][]): void {
    for (const [table, row] of rows) this.stage(table, row)
    this.commit()
  }

  private commit(): void {
    this.server.send('commit', { lsn: '0/1', xid: null, cursor: `1~${(this.commits += 1)}` })
  }
}

/** A client at a node of its own, and what the test asks for. `followed` counts live queries with subscribers. */
export function start() {
  const node = new PageNode()
  const client = new LockstepClient({ url: 'ws://page/socket', store: memoryStore(), schema }, { transport: node.transport, tabs: null })
  const test = { node, followed: 0, drawn: 0, asked: () => [...node.asked.values()].sort() }
  const make = client.query.bind(client)
  client.query = ((definition: never) => {
    const query = make(definition)
    const subscribe = query.subscribe.bind(query)
    query.subscribe = (callback) => {
      test.followed += 1
      const off = subscribe(callback)
      return () => {
        test.followed -= 1
        off()
      }
    }
    return query
  }) as typeof client.query
  Object.assign(globalThis, { test })
  return { client, test }
}
