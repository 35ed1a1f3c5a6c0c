/** IndexedDB by promises, as far as it is used here: a request, a transaction, a database that opens. */
import type { StoreEvent } from './store'

/** What a request gives. */
export function ask<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
}

/**
 * One transaction: resolves to what `work` gives once all of it is carried out, rejects when none of it is. A request
 * that nobody asks about and that fails ends the transaction as well, with its error.
 */
export async function transact<T>(
  db: IDBDatabase,
  stores: readonly string[],
  mode: IDBTransactionMode,
  work: (tx: IDBTransaction) => T | Promise<T>,
  durability: 'relaxed' | 'strict' = 'relaxed',
): Promise<T> {
  const tx = db.transaction([...stores], mode, { durability })
  // listened for from the start: it may end before anybody asks
  const end = new Promise<void>((resolve, reject) => {
    tx.oncomplete = () => resolve()
    tx.onabort = () => reject(tx.error ?? new DOMException('AbortError', 'AbortError'))
  })
  try {
    const [result] = await Promise.all([work(tx), end])
    return result
  } catch (error) {
    // a value that cannot be stored throws at once; without the abort the first half would be kept
    try {
      tx.abort()
    } catch {
      // it has ended by itself
    }
    await end.catch(() => undefined)
    throw error
  }
}

/** Opens a database, and makes or upgrades it if need be. */
export async function openDatabase(
  name: string,
  version: number,
  upgrade: (db: IDBDatabase, from: number, tx: IDBTransaction) => void,
  tell: (event: StoreEvent) => void = () => undefined,
): Promise<IDBDatabase> {
  const request = indexedDB.open(name, version)
  let wasBlocked = false
  request.onupgradeneeded = ({ oldVersion }) => upgrade(request.result, oldVersion, request.transaction as IDBTransaction)
  // an older version of the application has it open in another page and does not let go
  request.onblocked = () => {
    wasBlocked = true
    tell('blocked')
  }
  const db = await ask(request)
  if (wasBlocked) tell('unblocked')
  // the browser threw it away
  db.addEventListener('close', () => tell('lost'))
  // another page deletes it, or a newer version of the application waits there: let it pass
  db.addEventListener('versionchange', ({ newVersion }) => {
    db.close()
    tell(newVersion === null ? 'wiped' : 'replaced')
  })
  return db
}
