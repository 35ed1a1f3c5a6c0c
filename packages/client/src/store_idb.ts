/**
 * The store in IndexedDB. One database per (database id, subject) with a fixed set of object stores; a tiny directory
 * database tells which one belongs to a URL, so that everything opens without a network.
 *
 * Rows of a shape lie in chunks of JSON text (writing 10,000 rows one record each takes 40 times as long), with single
 * rows that changed since as records beside them: the record wins, `null` in it means removed.
 */
import { type DBSchema, type IDBPDatabase, type IDBPTransaction, openDB } from 'idb'
import { nextSlot, type SlotHold } from './slots'
import {
  EMPTY_META,
  type RefusedMutation,
  renumberInto,
  type ShapeWrite,
  type Store,
  type StoreContents,
  type StoredMeta,
  type StoredMutation,
  type StoredShape,
  type StoreWrite,
} from './store'
import type { WireRow } from './values'

/** Rows in one chunk. */
const CHUNK_ROWS = 250
/** So many single-row records, and more than half of the shape's rows, are folded into chunks on opening. */
const FOLD_AT_RECORDS = 500

const CHUNK = 0
const SINGLE = 1
type RowsKey = [shape: string, kind: typeof CHUNK | typeof SINGLE, name: number | string]

interface Schema extends DBSchema {
  meta: { key: 'meta'; value: StoredMeta }
  shapes: { key: string; value: StoredShape }
  rows: { key: RowsKey; value: string }
  outbox: { key: number; value: StoredMutation }
  refused: { key: string; value: RefusedMutation }
}

interface Directory extends DBSchema {
  databases: { key: string; value: string }
}

const STORES = ['meta', 'shapes', 'rows', 'outbox', 'refused'] as const
type Writing = IDBPTransaction<Schema, (typeof STORES)[number][], 'readwrite'>

interface Opened {
  readonly database: string | null
  readonly slot: SlotHold
  readonly idb: IDBPDatabase<Schema>
}

function rowsOf(shape: string): IDBKeyRange {
  // arrays sort after text and numbers, so [shape, []] closes the range
  return IDBKeyRange.bound([shape], [shape, []])
}

async function openSchema(name: string): Promise<IDBPDatabase<Schema>> {
  const idb = await openDB<Schema>(name, 1, {
    upgrade(db) {
      db.createObjectStore('meta')
      db.createObjectStore('shapes', { keyPath: 'id' })
      db.createObjectStore('rows')
      db.createObjectStore('outbox', { keyPath: 'seq' })
      db.createObjectStore('refused', { keyPath: 'id' })
    },
    // a newer version of the application waits in another tab: let it pass, writes here fail and say so
    blocking: () => idb.close(),
  })
  return idb
}

async function inDirectory<T>(use: (db: IDBPDatabase<Directory>) => Promise<T>): Promise<T> {
  const db = await openDB<Directory>('lockstep', 1, { upgrade: (fresh) => void fresh.createObjectStore('databases') })
  try {
    return await use(db)
  } finally {
    db.close()
  }
}

function readRows(keys: readonly RowsKey[], values: readonly string[]) {
  const rows = new Map<string, Map<string, WireRow>>()
  const singles = new Map<string, number>()
  // key order puts a shape's chunks before its single rows
  keys.forEach(([shape, kind, name], at) => {
    const held = rows.get(shape) ?? new Map<string, WireRow>()
    rows.set(shape, held)
    const value: unknown = JSON.parse(values[at] as string)
    if (kind === CHUNK) {
      for (const [key, row] of value as [string, WireRow][]) held.set(key, row)
      return
    }
    singles.set(shape, (singles.get(shape) ?? 0) + 1)
    if (value === null) held.delete(String(name))
    else held.set(String(name), value as WireRow)
  })
  return { rows, singles }
}

async function readContents(opened: Opened): Promise<StoreContents> {
  const tx = opened.idb.transaction([...STORES], 'readonly')
  const rowsStore = tx.objectStore('rows')
  const [meta, shapes, keys, values, outbox, refused] = await Promise.all([
    tx.objectStore('meta').get('meta'),
    tx.objectStore('shapes').getAll(),
    rowsStore.getAllKeys(),
    rowsStore.getAll(),
    tx.objectStore('outbox').getAll(),
    tx.objectStore('refused').getAll(),
    tx.done,
  ])
  const { rows, singles } = readRows(keys, values)
  for (const { id } of shapes) if (!rows.has(id)) rows.set(id, new Map())
  const fold = [...singles].filter(([id, count]) => count >= FOLD_AT_RECORDS && count * 2 > (rows.get(id)?.size ?? 0))
  if (fold.length > 0) {
    const folded = fold.map(([id]) => ({ id, drop: false as const, shape: null, reset: true, rows: rows.get(id) ?? new Map() }))
    await writeAll(opened.idb, { durability: 'relaxed', shapes: folded })
  }
  return { database: opened.database, meta: meta ?? EMPTY_META, shapes, rows, outbox, refused }
}

function writeShape(tx: Writing, change: ShapeWrite, requests: Promise<unknown>[]): void {
  const rows = tx.objectStore('rows')
  if (change.drop) {
    requests.push(tx.objectStore('shapes').delete(change.id), rows.delete(rowsOf(change.id)))
    return
  }
  if (change.shape !== null) requests.push(tx.objectStore('shapes').put(change.shape))
  if (!change.reset) {
    for (const [key, row] of change.rows) requests.push(rows.put(JSON.stringify(row), [change.id, SINGLE, key]))
    return
  }
  requests.push(rows.delete(rowsOf(change.id)))
  const kept = [...change.rows].filter(([, row]) => row !== null)
  for (let from = 0; from < kept.length; from += CHUNK_ROWS) {
    const chunk = JSON.stringify(kept.slice(from, from + CHUNK_ROWS))
    requests.push(rows.put(chunk, [change.id, CHUNK, from / CHUNK_ROWS]))
  }
}

/** One transaction; nothing but its own requests is waited for, or IndexedDB would commit it half-way. */
async function writeAll(idb: IDBPDatabase<Schema>, write: StoreWrite): Promise<void> {
  const tx: Writing = idb.transaction([...STORES], 'readwrite', { durability: write.durability })
  const requests: Promise<unknown>[] = []
  try {
    if (write.forgetShapes) requests.push(tx.objectStore('shapes').clear(), tx.objectStore('rows').clear())
    for (const change of write.shapes ?? []) writeShape(tx, change, requests)
    if (write.meta) requests.push(tx.objectStore('meta').put(write.meta, 'meta'))
    for (const mutation of write.outboxPut ?? []) requests.push(tx.objectStore('outbox').put(mutation))
    for (const seq of write.outboxRemove ?? []) requests.push(tx.objectStore('outbox').delete(seq))
    for (const refused of write.refusedPut ?? []) requests.push(tx.objectStore('refused').put(refused))
    for (const id of write.refusedRemove ?? []) requests.push(tx.objectStore('refused').delete(id))
  } catch (error) {
    // a value that cannot be stored throws at once; without the abort the first half would be kept
    await Promise.allSettled([...requests, abort(tx)])
    throw error
  }
  await Promise.all([...requests, tx.done])
}

function abort(tx: Writing): Promise<void> {
  tx.abort()
  return tx.done
}

class IdbStore implements Store {
  private url = ''
  private subject = ''
  private opened: Opened | null = null

  async open(url: string, subject: string): Promise<StoreContents> {
    this.url = url
    this.subject = subject
    const database = await inDirectory((db) => db.get('databases', this.directoryKey()))
    this.opened = await this.openPlace(database ?? null)
    return readContents(this.opened)
  }

  async adopt(database: string): Promise<StoreContents | null> {
    const old = this.isOpen()
    if (old.database === database) return null
    const next = await this.openPlace(database)
    const moving = old.database === null ? await readContents(old) : null
    if (moving !== null) {
      const there = await readContents(next)
      const outboxPut = renumberInto(there.meta, there.outbox, moving.outbox)
      await writeAll(next.idb, { durability: 'strict', outboxPut, refusedPut: moving.refused })
    }
    await inDirectory((db) => db.put('databases', database, this.directoryKey()))
    // only now: a crash before this line leaves a second copy that the directory no longer leads to
    if (moving !== null) {
      const outboxRemove = moving.outbox.map(({ seq }) => seq)
      await writeAll(old.idb, { durability: 'strict', outboxRemove, refusedRemove: moving.refused.map(({ id }) => id) })
    }
    old.idb.close()
    old.slot.release()
    this.opened = next
    return readContents(next)
  }

  async write(write: StoreWrite): Promise<void> {
    await writeAll(this.isOpen().idb, write)
  }

  async close(): Promise<void> {
    this.opened?.idb.close()
    this.opened?.slot.release()
    this.opened = null
  }

  private isOpen(): Opened {
    if (this.opened === null) throw new Error('the store is not open')
    return this.opened
  }

  private directoryKey(): string {
    return JSON.stringify([this.url, this.subject])
  }

  private async openPlace(database: string | null): Promise<Opened> {
    const name = JSON.stringify(database === null ? ['url', this.url, this.subject] : ['database', database, this.subject])
    const slot = await nextSlot(`lockstep ${name}`)
    try {
      return { database, slot, idb: await openSchema(slot.name) }
    } catch (error) {
      slot.release()
      throw error
    }
  }
}

/** A new store in this origin's IndexedDB. Rejects where there is none; the client then goes on in memory. */
export function idbStore(): Store {
  return new IdbStore()
}
