/** The IndexedDB databases: what is in them, how they are opened and upgraded, and what of a record can be believed. */
import { ask, openDatabase, transact } from './idb'
import { EMPTY_META, type StoredMeta, type StoredMutation, type StoredShape, type StoreEvent } from './store'

/**
 * The version of the layout. 2: rows in chunks and a log, and one place for all pages. What 1 held of rows is dropped on
 * upgrade and loaded anew; outbox, refusals and the client's number stay.
 */
export const SCHEMA_VERSION = 2

/** Who leads, how often rows were written, the highest order number ever given, and whether all has moved away. */
export interface LeadRecord {
  readonly epoch: number
  readonly revision: number
  readonly lastSeq: number
  readonly moved: boolean
}

/** The record of a store that nobody led yet. */
const NOBODY: LeadRecord = { epoch: 0, revision: 0, lastSeq: 0, moved: false }

/** The object stores of a place: StoredMeta, LeadRecord, StoredShape by id, texts by RowsKey, mutations by seq, refusals by id. */
export const STORES = ['meta', 'lead', 'shapes', 'rows', 'outbox', 'refused'] as const

function upgradePlace(db: IDBDatabase, from: number, tx: IDBTransaction): void {
  if (from === 0) {
    db.createObjectStore('meta')
    db.createObjectStore('shapes', { keyPath: 'id' })
    db.createObjectStore('outbox', { keyPath: 'seq' })
    db.createObjectStore('refused', { keyPath: 'id' })
  } else {
    db.deleteObjectStore('rows')
    tx.objectStore('shapes').clear()
    const meta = tx.objectStore('meta')
    const reading = meta.get('meta')
    // a cursor without its rows would cover what is not there
    reading.onsuccess = () => reading.result && meta.put({ ...reading.result, cursor: null }, 'meta')
  }
  db.createObjectStore('rows')
  db.createObjectStore('lead')
}

/** Opens a place, and makes or upgrades it if need be. */
export function openPlace(name: string, tell: (event: StoreEvent) => void): Promise<IDBDatabase> {
  return openDatabase(name, SCHEMA_VERSION, upgradePlace, tell)
}

/** Uses the directory of the stores of this name: it tells which place belongs to a URL and subject, without a network. */
export async function inDirectory<T>(name: string, use: (databases: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const db = await openDatabase(name, 1, (fresh) => void fresh.createObjectStore('databases'))
  try {
    return await transact(db, ['databases'], 'readwrite', (tx) => ask(use(tx.objectStore('databases'))))
  } finally {
    db.close()
  }
}

/** Who leads. */
export async function leadOf(tx: IDBTransaction): Promise<LeadRecord> {
  return (await ask(tx.objectStore('lead').get('lead'))) ?? NOBODY
}

/** Writes who leads. */
export function putLead(tx: IDBTransaction, lead: LeadRecord): void {
  tx.objectStore('lead').put(lead, 'lead')
}

const isText = (value: unknown): value is string => typeof value === 'string'
const isTextOrNull = (value: unknown): boolean => value === null || isText(value)
const isNumber = (value: unknown): boolean => isText(value) && /^\d+$/.test(value)

/** What was stored as meta, or null when that is not what it should be. */
export function believedMeta(stored: unknown): StoredMeta | null {
  if (stored === undefined) return EMPTY_META
  const { cursor, client, confirmed, unknown } = (stored ?? {}) as Record<string, unknown>
  return isTextOrNull(cursor) && isTextOrNull(client) && isNumber(confirmed) && isTextOrNull(unknown) ? (stored as StoredMeta) : null
}

/** Whether a shape's description can be used. */
export function isShape(stored: unknown): stored is StoredShape {
  const { id, fingerprint, table, key, columns } = (stored ?? {}) as Record<string, unknown>
  const lists = [table, key, columns].every(Array.isArray)
  const named = lists && (columns as unknown[]).every((column) => isText((column as { name?: unknown } | null)?.name))
  return isText(id) && isText(fingerprint) && named
}

/** Whether a mutation can be sent. */
export function isMutation(stored: unknown): stored is StoredMutation {
  const { seq, n, id, kind, ops } = (stored ?? {}) as Record<string, unknown>
  return typeof seq === 'number' && isNumber(n) && isText(id) && isText(kind) && Array.isArray(ops)
}
