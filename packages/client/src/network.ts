/** The browser's word on the network: heard where there is one, silent elsewhere (Node, workers without it). */

/** Calls `changed` whenever the network went or came. Returns how to stop. */
export function onNetworkChange(changed: () => void): () => void {
  const target = globalThis as Partial<Pick<EventTarget, 'addEventListener' | 'removeEventListener'>>
  target.addEventListener?.('offline', changed)
  target.addEventListener?.('online', changed)
  return () => {
    target.removeEventListener?.('offline', changed)
    target.removeEventListener?.('online', changed)
  }
}
