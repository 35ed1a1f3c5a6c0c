/** A browser that deletes a site's data while pages are open: the event is one that nothing but a browser can make. */
import { IDBFactory } from 'fake-indexeddb'
import { vi } from 'vitest'

/** Watches the stores that are opened from now on; what it returns throws all of them away and tells whoever has one open. */
export function watchStores(): () => void {
  const closed: (() => void)[] = []
  const listen = IDBDatabase.prototype.addEventListener
  vi.spyOn(IDBDatabase.prototype, 'addEventListener').mockImplementation(function (this: IDBDatabase, ...[name, callback]: unknown[]) {
    if (name === 'close') closed.push(callback as () => void)
    else listen.call(this, name as never, callback as never)
  })
  return () => {
    globalThis.indexedDB = new IDBFactory()
    for (const tell of closed.splice(0)) tell()
  }
}
