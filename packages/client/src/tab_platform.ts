/** What pages of one browser profile have between them: channels, locks, and whether a person looks. */
import { randomId } from './mutation'

/** An open channel; a page does not hear itself. */
export interface TabChannel {
  post(message: unknown): void
  close(): void
}

/** The seam that tests replace. */
export interface TabPlatform {
  /** This page's name among them. */
  readonly id: string
  channel(name: string, receive: (message: unknown) => void): TabChannel
  /**
   * Waits for a lock, or takes it from whoever has it. `lost` is called when another page took it. The returned function
   * gives it up, or the place in the queue. Null where there are no locks.
   */
  readonly lock: ((name: string, steal: boolean, granted: () => void, lost: () => void) => () => void) | null
  isVisible(): boolean
  /** Calls back when a person looks at the page again, or no longer. */
  onVisibility(callback: () => void): () => void
}

interface Locks {
  request(name: string, options: object, hold: () => Promise<void>): Promise<unknown>
}

function lockWith(locks: Locks): NonNullable<TabPlatform['lock']> {
  return (name, steal, granted, lost) => {
    const waiting = new AbortController()
    let isHeld = false
    let release!: () => void
    const released = new Promise<void>((resolve) => (release = resolve))
    const hold = () => {
      isHeld = true
      granted()
      return released
    }
    // a lock is stolen at once, without a queue, and then takes no signal
    locks.request(name, steal ? { steal } : { signal: waiting.signal }, hold).catch(() => isHeld && lost())
    return () => {
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
