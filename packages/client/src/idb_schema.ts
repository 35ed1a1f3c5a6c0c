/** The IndexedDB databases: what is in them, how they are opened and upgraded, and what of a record can be believed. */
import { ask, openDatabase, transact } from './idb'
import { list, listOf, or, record, text, that } from './reading'
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

const digits = that((value) => /^\d+$/.test(text(value) as string))
const META = record({ cursor: or(null, text), client: or(null, text), confirmed: digits, unknown: or(null, text) })
const SHAPE = record({ id: text, fingerprint: text, table: list, key: list, columns: listOf(record({ name: text })) })
const MUTATION = record({ seq: that((seq) => typeof seq === 'number'), n: digits, id: text, kind: text, ops: list })

/** What was stored as meta, or null when that is not what it should be. */
export function believedMeta(stored: unknown): StoredMeta | null {
  if (stored === undefined) return EMPTY_META
  const meta = META(stored)
  // fields of later versions are kept
  return meta === undefined ? null : ({ ...(stored as object), ...meta } as StoredMeta)
}

/** Whether a shape's description can be used. */
export function isShape(stored: unknown): stored is StoredShape {
  return SHAPE(stored) !== undefined
}

/** Whether a mutation can be sent. */
export function isMutation(stored: unknown): stored is StoredMutation {
  return MUTATION(stored) !== undefined
}
