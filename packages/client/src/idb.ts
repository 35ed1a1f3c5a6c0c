/** IndexedDB by promises, as far as it is used here: a request, a transaction, a database that opens. */

/** What a request gives. */
export function ask<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
}

const ends = new WeakMap<IDBTransaction, Promise<void>>()

/** Begins a transaction. */
export function begin(db: IDBDatabase, stores: readonly string[], mode: 'readonly' | 'readwrite', durability: 'relaxed' | 'strict' = 'relaxed'): IDBTransaction {
  const tx = db.transaction([...stores], mode, { durability })
  // listened for from the start: it may end before anybody asks
  const end = new Promise<void>((resolve, reject) => {
    tx.oncomplete = () => resolve()
    tx.onabort = () => reject(tx.error ?? new DOMException('AbortError', 'AbortError'))
  })
  end.catch(() => undefined)
  ends.set(tx, end)
  return tx
}

/** Resolves when all of a transaction is carried out, rejects when none of it is. */
export function ended(tx: IDBTransaction): Promise<void> {
  return ends.get(tx) as Promise<void>
}

/** What may be told of a database. */
export interface Hooks {
  upgrade(db: IDBDatabase, from: number, tx: IDBTransaction): void
  blocked?(): void
  blocking?(db: IDBDatabase, wanted: number | null): void
  terminated?(): void
}

/** Opens a database, and makes or upgrades it if need be. */
export function openDatabase(name: string, version: number, { upgrade, blocked, blocking, terminated }: Hooks): Promise<IDBDatabase> {
  const request = indexedDB.open(name, version)
  request.onupgradeneeded = ({ oldVersion }) => upgrade(request.result, oldVersion, request.transaction as IDBTransaction)
  request.onblocked = () => blocked?.()
  return ask(request).then((db) => {
    db.addEventListener('close', () => terminated?.())
    db.addEventListener('versionchange', ({ newVersion }) => blocking?.(db, newVersion))
    return db
  })
}
