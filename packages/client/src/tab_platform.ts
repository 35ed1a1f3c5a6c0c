/** What pages of one browser profile have between them: channels, locks, and whether a person looks. */
import { randomId } from './mutation'

/** An open channel; a page does not hear itself. */
export interface TabChannel {
  post(message: unknown): void
  close(): void
}

/** How a lock is asked for. */
export type LockHow = 'queue' | 'steal' | 'try'

/** The seam that tests replace. */
export interface TabPlatform {
  /** This page's name among them. */
  readonly id: string
  channel(name: string, receive: (message: unknown) => void): TabChannel
  /**
   * Waits for a lock (`queue`), takes it from whoever has it (`steal`), or takes it if nobody has it (`try`). `lost` is
   * called when another page took it, or has it already. The returned function gives it up, or the place in the queue.
   * Null where there are no locks.
   */
  readonly lock: ((name: string, how: LockHow, granted: () => void, lost: () => void) => () => void) | null
  isVisible(): boolean
  /** Calls back when a person looks at the page again, or no longer. */
  onVisibility(callback: () => void): () => void
}

interface Locks {
  request(name: string, options: object, hold: (lock: unknown) => Promise<void>): Promise<unknown>
}

function lockWith(locks: Locks): NonNullable<TabPlatform['lock']> {
  return (name, how, granted, lost) => {
    const waiting = new AbortController()
    let isHeld = false
    let release!: () => void
    const released = new Promise<void>((resolve) => (release = resolve))
    let isGivenUp = false
    const hold = (lock: unknown) => {
      // only what was tried comes without a lock
      if (lock === null) {
        if (!isGivenUp) lost()
        return Promise.resolve()
      }
      isHeld = true
      granted()
      return released
    }
    // a lock is stolen or tried at once, without a queue, and then takes no signal
    const options = { queue: { signal: waiting.signal }, steal: { steal: true }, try: { ifAvailable: true } }[how]
    locks.request(name, options, hold).catch(() => isHeld && lost())
    return () => {
      isGivenUp = true
      isHeld = false
      waiting.abort()
      release()
    }
  }
}

/** The platform of a browser's page or worker; null where there is none, such as on a server. */
export function browserTabs(): TabPlatform | null {
  const { document, navigator, BroadcastChannel } = globalThis as Partial<typeof globalThis>
  const isWorker = 'WorkerGlobalScope' in globalThis
  if (BroadcastChannel === undefined || (document === undefined && !isWorker)) return null
  const locks = (navigator as { locks?: Locks } | undefined)?.locks
  return {
    id: randomId(),
    channel: (name, receive) => {
      const channel = new BroadcastChannel(name)
      channel.onmessage = ({ data }) => receive(data)
      return { post: (message) => channel.postMessage(message), close: () => channel.close() }
    },
    lock: locks === undefined ? null : lockWith(locks),
    isVisible: () => document === undefined || document.visibilityState === 'visible',
    onVisibility: (callback) => {
      document?.addEventListener('visibilitychange', callback)
      return () => document?.removeEventListener('visibilitychange', callback)
    },
  }
}
