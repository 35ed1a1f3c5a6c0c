// The measured page: the real client over the real store, with a node inside the page so that no network is measured.
// Each measure has a bare twin: the same bytes through IndexedDB calls and nothing around them.
import { LockstepClient } from '../../packages/client/src/client'
import type { SchemaModule } from '../../packages/client/src/schema'
import { idbStore } from '../../packages/client/src/store_idb'
import type { Message, TransportEvents, TransportFactory } from '../../packages/client/src/transport'

const ROWS = 50_000
const CHANGED = 10_000
const URL_OF_NODE = 'ws://bench/socket'
const DATABASE = 'lockstep ["database","bench",""]'
const SCRATCH = 'bare'

const COLUMNS: [string, string, string][] = [
  ['id', 'uuid', 'text'],
  ['list_id', 'uuid', 'text'],
  ['title', 'text', 'text'],
  ['done', 'bool', 'bool'],
  ['priority', 'int4', 'int'],
  ['estimate', 'float8', 'float'],
  ['position', 'int8', 'text'],
  ['changed_at', 'timestamptz', 'text'],
  ['note', 'text', 'text'],
  ['extra', 'jsonb', 'json'],
]

const LISTS = 40
const LIST_COLUMNS: [string, string, string][] = [
  ['id', 'uuid', 'text'],
  ['name', 'text', 'text'],
]

const SCHEMA: SchemaModule<any> = {
  tables: {
    todos: { key: ['id'], columns: {}, relations: { list: { table: 'lists', many: false, from: ['list_id'], to: ['id'] } } },
    lists: { key: ['id'], columns: {} },
  },
}

type Todo = { id: string; title: string; done: boolean; priority: number; position: string }

function uuid(number: number): string {
  return `7f0c${number.toString(16).padStart(8, '0')}-5b3c-4d52-9f2c-44d01b7e6a35`.replace(/^(.{8})(.{4})/, '$1-$2')
}

function row(number: number, round: number): unknown[] {
  return [
    uuid(number),
    uuid(number % LISTS),
    `Buy ${number} things for the house, ${round}`,
    number % 3 === 0,
    (number + round) % 7,
    number * 1.5,
    String(1_000_000_000 + number * 7),
    `2026-11-22 10:11:12.${String(100_000 + ((number + round) % 899_999))}+00`,
    number % 5 === 0 ? null : `a note of some words for row ${number}`,
    `{"tags": ["a", "b${number % 9}"], "n": ${number}}`,
  ]
}

/** A node that answers joins and says what it is told to say. */
class InPageNode {
  rounds = 0
  private events!: TransportEvents
  private refs = 0

  constructor(private readonly loads: boolean) {}

  readonly transport: TransportFactory = (events) => {
    this.events = events
    return {
      connect: () => void setTimeout(() => events.opened(), 0),
      disconnect: () => undefined,
      makeRef: () => `${(this.refs += 1)}`,
      send: (message) => void setTimeout(() => this.answer(message), 0),
    }
  }

  /** A text as the socket would bring it. */
  hear(text: string): void {
    const [joinRef, ref, topic, event, payload] = JSON.parse(text)
    this.events.message({ joinRef, ref, topic, event, payload })
  }

  commit(): void {
    this.hear(JSON.stringify([null, null, 'sync', 'commit', { lsn: '0/1', xid: null, cursor: `1~${(this.rounds += 1)}` }]))
  }

  private answer({ joinRef, ref, event, payload }: Message): void {
    if (event !== 'phx_join') return
    const { shapes, client } = payload as { shapes: { ref: string; table: string }[]; client: string | null }
    const response = { database: 'bench', subject: '', client: client ?? 'c1', shapes: shapes.map((shape) => ({ ref: shape.ref, ok: true })) }
    this.hear(JSON.stringify([joinRef, ref, 'sync', 'phx_reply', { status: 'ok', response }]))
    for (const { ref, table } of shapes) {
      const [name, described] = table === 'lists' ? ['L', LIST_COLUMNS] : ['S', COLUMNS]
      const columns = described.map(([name, type, wire]) => ({ name, type, wire }))
      this.hear(JSON.stringify([null, null, 'sync', 'shape', { ref, shape: name, fingerprint: 'f', table: ['public', table], key: ['id'], columns }]))
      if (!this.loads) continue
      const put = table === 'lists' ? Array.from({ length: LISTS }, (_, number) => [uuid(number), `list ${number}`]) : Array.from({ length: ROWS }, (_, number) => row(number, 0))
      this.hear(JSON.stringify([null, null, 'sync', 'rows', { shape: name, reset: 'first', put }]))
    }
    this.commit()
  }
}

function rowsText(numbers: number[], round: number): string {
  const put = numbers.map((number) => row(number, round))
  return JSON.stringify([null, null, 'sync', 'rows', { shape: 'S', put }])
}

function start(node: InPageNode): LockstepClient {
  const client = new LockstepClient({ url: URL_OF_NODE, store: idbStore(), schema: SCHEMA }, { transport: node.transport })
  client.subscribe({ table: 'todos' })
  client.subscribe({ table: 'lists' })
  return client
}

function nextCommit(client: LockstepClient): Promise<void> {
  return new Promise((resolve) => {
    const off = client.onCommit(() => {
      off()
      resolve()
    })
  })
}

function request<T>(of: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    of.onsuccess = () => resolve(of.result)
    of.onerror = () => reject(of.error)
  })
}

function openBare(name: string): Promise<IDBDatabase> {
  const opening = indexedDB.open(name)
  opening.onupgradeneeded = () => void opening.result.createObjectStore('rows')
  return request(opening)
}

async function putBare(db: IDBDatabase, text: string, key: number): Promise<void> {
  const tx = db.transaction('rows', 'readwrite', { durability: 'relaxed' })
  tx.objectStore('rows').put(text, key)
  await new Promise((resolve, reject) => {
    tx.oncomplete = resolve
    tx.onabort = () => reject(tx.error)
  })
}

/** What the log holds for these rows. */
function logText(numbers: number[], round: number): string {
  return JSON.stringify(numbers.map((number) => [JSON.stringify([uuid(number)]), row(number, round)]))
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] as number

/** The first visit: everything is loaded and stored. */
async function fill(): Promise<number> {
  const node = new InPageNode(true)
  const client = start(node)
  await nextCommit(client)
  await client.close()
  return ROWS
}

/** From nothing but the store to the answer of a filter over all rows. */
async function reload(): Promise<{ ms: number; answer: string }> {
  const begun = performance.now()
  const client = new LockstepClient({ url: URL_OF_NODE, store: idbStore() }, { transport: new InPageNode(false).transport })
  const open = client.query<Todo>({ table: 'todos', where: (todo) => !todo.done })
  const sub = client.subscribe({ table: 'todos' })
  await sub.ready
  let sum = 0n
  const rows = open.getSnapshot()
  for (const { position, priority } of rows) sum += BigInt(position) * BigInt(priority + 1)
  const ms = performance.now() - begun
  await client.close()
  return { ms, answer: `${rows.length} ${sum}` }
}

async function reloadBare(): Promise<{ ms: number; answer: string }> {
  const begun = performance.now()
  const db = await request(indexedDB.open(DATABASE))
  const store = db.transaction('rows').objectStore('rows')
  const texts: string[] = await request(store.getAll())
  const length = texts.reduce((sum, text) => sum + text.length, 0)
  const ms = performance.now() - begun
  db.close()
  return { ms, answer: `${length}` }
}

/** The warm page of the two other measures. */
class Warm {
  private round = 0
  private constructor(
    private readonly node: InPageNode,
    private readonly client: LockstepClient,
    private readonly bare: IDBDatabase,
  ) {}

  static async open(): Promise<Warm> {
    const node = new InPageNode(false)
    const client = start(node)
    await nextCommit(client)
    return new Warm(node, client, await openBare(SCRATCH))
  }

  /** 10,000 rows all over the table change, under an ordered live query of half of it. */
  async apply(): Promise<{ ms: number; bare: number }> {
    this.round += 1
    const numbers = Array.from({ length: CHANGED }, (_, at) => (at * 5 + this.round) % ROWS)
    const text = rowsText(numbers, this.round)
    const list = this.client.query<Todo>({ table: 'todos', where: ({ done }) => !done, orderBy: 'title' })
    const told = new Promise<void>((resolve) => {
      const off = list.subscribe(() => {
        off()
        resolve()
      })
    })
    const begun = performance.now()
    this.node.hear(text)
    this.node.commit()
    await told
    const ms = performance.now() - begun
    const stored = logText(numbers, this.round)
    const again = performance.now()
    await putBare(this.bare, stored, 1)
    return { ms, bare: performance.now() - again }
  }

  /** One row changes, in the ordered, limited, joined list that is looked at. */
  async one(): Promise<{ us: number; bare: number }> {
    const list = this.client.query<Todo>({ table: 'todos', orderBy: [['priority', 'desc'], ['id', 'asc']], limit: 50, include: { list: true } })
    let told!: () => void
    const off = list.subscribe(() => told())
    const [took, bare]: [number[], number[]] = [[], []]
    for (let turn = 0; turn < 21; turn += 1) {
      this.round += 1
      const top = list.getSnapshot()[turn % 40] as Todo
      const number = Number.parseInt(top.id.replaceAll('-', '').slice(4, 12), 16)
      // the note changes and the row stays where it is
      const changed = row(number, 0).map((value, at) => (at === 8 ? `note ${this.round}` : at === 4 ? top.priority : value))
      const text = JSON.stringify([null, null, 'sync', 'rows', { shape: 'S', put: [changed] }])
      const next = new Promise<void>((resolve) => (told = resolve))
      const begun = performance.now()
      this.node.hear(text)
      this.node.commit()
      await next
      took.push(performance.now() - begun)
      const stored = JSON.stringify([[JSON.stringify([top.id]), changed]])
      const again = performance.now()
      await putBare(this.bare, stored, 2 + this.round)
      bare.push(performance.now() - again)
    }
    off()
    return { us: median(took) * 1000, bare: median(bare) * 1000 }
  }

  async close(): Promise<void> {
    this.bare.close()
    await this.client.close()
  }
}

let warm: Warm | undefined
Object.assign(globalThis, {
  bench: {
    fill,
    reload,
    reloadBare,
    openWarm: async () => void (warm = await Warm.open()),
    apply: () => warm?.apply(),
    one: () => warm?.one(),
    closeWarm: () => warm?.close(),
  },
})
