/** The IndexedDB databases: what is in them, how they are opened and upgraded, and what of a record can be believed. */
import { type DBSchema, type IDBPDatabase, openDB } from 'idb'
import type { RowsKey } from './idb_rows'
import { EMPTY_META, type RefusedMutation, type StoredMeta, type StoredMutation, type StoredShape, type StoreEvent } from './store'

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

/** One place. */
export interface Schema extends DBSchema {
  meta: { key: 'meta'; value: StoredMeta }
  lead: { key: 'lead'; value: LeadRecord }
  shapes: { key: string; value: StoredShape }
  rows: { key: RowsKey; value: string }
  outbox: { key: number; value: StoredMutation }
  refused: { key: string; value: RefusedMutation }
}

/** The object stores of a place. */
export const STORES = ['meta', 'lead', 'shapes', 'rows', 'outbox', 'refused'] as const

/** Tells which place belongs to a URL and subject, so that everything opens without a network. */
interface Directory extends DBSchema {
  databases: { key: string; value: string }
}

/** Opens a place, and makes or upgrades it if need be. */
export async function openPlace(name: string, tell: (event: StoreEvent) => void): Promise<IDBPDatabase<Schema>> {
  let wasBlocked = false
  const idb = await openDB<Schema>(name, SCHEMA_VERSION, {
    async upgrade(db, from, _, tx) {
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
      const meta = await tx.objectStore('meta').get('meta')
      // a cursor without its rows would cover what is not there
      await Promise.all([tx.objectStore('shapes').clear(), meta && tx.objectStore('meta').put({ ...meta, cursor: null }, 'meta')])
    },
    // an older version of the application has it open in another page and does not let go
    blocked: () => {
      wasBlocked = true
      tell('blocked')
    },
    // another page deletes it, or a newer version of the application waits there: let it pass
    blocking: (_, wanted) => {
      idb.close()
      tell(wanted === null ? 'wiped' : 'replaced')
    },
    // the browser threw it away
    terminated: () => tell('lost'),
  })
  if (wasBlocked) tell('unblocked')
  return idb
}

/** Uses the directory of the stores of this name. */
export async function inDirectory<T>(name: string, use: (db: IDBPDatabase<Directory>) => Promise<T>): Promise<T> {
  const db = await openDB<Directory>(name, 1, { upgrade: (fresh) => void fresh.createObjectStore('databases') })
  try {
    return await use(db)
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
