/** The IndexedDB databases: what is in them, how they are opened and upgraded, and what of a record can be believed. */
import { ask, begin, ended, openDatabase } from './idb'
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
export const NOBODY: LeadRecord = { epoch: 0, revision: 0, lastSeq: 0, moved: false }

/** The object stores of a place: StoredMeta, LeadRecord, StoredShape by id, texts by RowsKey, mutations by seq, refusals by id. */
export const STORES = ['meta', 'lead', 'shapes', 'rows', 'outbox', 'refused'] as const

/** Opens a place, and makes or upgrades it if need be. */
export async function openPlace(name: string, tell: (event: StoreEvent) => void): Promise<IDBDatabase> {
  let wasBlocked = false
  const idb = await openDatabase(name, SCHEMA_VERSION, {
    upgrade(db, from, tx) {
      if (from === 0) {
        db.createObjectStore('meta')
        db.createObjectStore('shapes', { keyPath: 'id' })
        db.createObjectStore('outbox', { keyPath: 'seq' })
        db.createObjectStore('refused', { keyPath: 'id' })
      } else {
        db.deleteObjectStore('rows')
      }
      db.createObjectStore('rows')
      db.createObjectStore('lead')
      if (from === 0) return
      tx.objectStore('shapes').clear()
      const meta = tx.objectStore('meta')
      const reading = meta.get('meta')
      // a cursor without its rows would cover what is not there
      reading.onsuccess = () => reading.result && meta.put({ ...reading.result, cursor: null }, 'meta')
    },
    // an older version of the application has it open in another page and does not let go
    blocked: () => {
      wasBlocked = true
      tell('blocked')
    },
    // another page deletes it, or a newer version of the application waits there: let it pass
    blocking: (db, wanted) => {
      db.close()
      tell(wanted === null ? 'wiped' : 'replaced')
    },
    // the browser threw it away
    terminated: () => tell('lost'),
  })
  if (wasBlocked) tell('unblocked')
  return idb
}

/** Uses the directory of the stores of this name: it tells which place belongs to a URL and subject, without a network. */
export async function inDirectory<T>(name: string, use: (databases: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const db = await openDatabase(name, 1, { upgrade: (fresh) => void fresh.createObjectStore('databases') })
  try {
    const tx = begin(db, ['databases'], 'readwrite')
    const [answer] = await Promise.all([ask(use(tx.objectStore('databases'))), ended(tx)])
    return answer
  } finally {
    db.close()
  }
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
