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
    options: { ifAvailable: true } | { signal: AbortSignal },
    hold: (lock: unknown) => Promise<void> | undefined,
  ): Promise<unknown>
}

/** How long slot 0 is waited for, in milliseconds: a page that is being reloaded may not have let go of it yet. */
const FIRST_SLOT_WAIT_MS = 300

/** Held slots where there are no Web Locks (Node, insecure pages); these know only this page. */
const heldHere = new Set<string>()

function holdHere(name: string): SlotHold | null {
  if (heldHere.has(name)) return null
  heldHere.add(name)
  return { name, release: () => void heldHere.delete(name) }
}

function holdLock(locks: LockManagerLike, name: string, waitMs: number): Promise<SlotHold | null> {
  return new Promise((resolve, reject) => {
    const waiting = new AbortController()
    const timer = waitMs > 0 ? setTimeout(() => waiting.abort(), waitMs) : undefined
    const hold = (lock: unknown) => {
      clearTimeout(timer)
      if (lock === null) {
        resolve(null)
        return undefined
      }
      return new Promise<void>((release) => resolve({ name, release }))
    }
    locks
      .request(name, waitMs > 0 ? { signal: waiting.signal } : { ifAvailable: true }, hold)
      .catch((error: unknown) => (waiting.signal.aborted ? resolve(null) : reject(error)))
  })
}

/** Takes the first free slot of `base`: `base`, then `base 1`, `base 2`, and so on. */
export async function nextSlot(base: string): Promise<SlotHold> {
  const locks = (globalThis as { navigator?: { locks?: LockManagerLike } }).navigator?.locks
  for (let slot = 0; ; slot += 1) {
    const name = slot === 0 ? base : `${base} ${slot}`
    const hold = locks === undefined ? holdHere(name) : await holdLock(locks, name, slot === 0 ? FIRST_SLOT_WAIT_MS : 0)
    if (hold !== null) return hold
  }
}
