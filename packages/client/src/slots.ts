/**
 * Each open tab needs a place of its own: two clients on one cursor, one client id and one outbox would undo each
 * other's numbering and drop each other's shapes. The first tab gets slot 0, which every later visit finds again.
 */

/** A slot that is held until released, or until the tab is gone. */
export interface SlotHold {
  /** The database name of the slot. */
  readonly name: string
  release(): void
}

interface LockManagerLike {
  request(
    name: string,
    options: { ifAvailable: true },
    hold: (lock: unknown) => Promise<void> | undefined,
  ): Promise<unknown>
}

/** Held slots where there are no Web Locks (Node, insecure pages); these know only this page. */
const heldHere = new Set<string>()

function tryHold(name: string): Promise<SlotHold | null> {
  const locks = (globalThis as { navigator?: { locks?: LockManagerLike } }).navigator?.locks
  if (locks === undefined) {
    if (heldHere.has(name)) return Promise.resolve(null)
    heldHere.add(name)
    return Promise.resolve({ name, release: () => void heldHere.delete(name) })
  }
  return new Promise((resolve, reject) => {
    locks
      .request(name, { ifAvailable: true }, (lock) => {
        if (lock === null) {
          resolve(null)
          return undefined
        }
        return new Promise<void>((release) => resolve({ name, release }))
      })
      .catch(reject)
  })
}

/** Takes the first free slot of `base`: `base`, then `base 1`, `base 2`, and so on. */
export async function nextSlot(base: string): Promise<SlotHold> {
  for (let slot = 0; ; slot += 1) {
    const hold = await tryHold(slot === 0 ? base : `${base} ${slot}`)
    if (hold !== null) return hold
  }
}
