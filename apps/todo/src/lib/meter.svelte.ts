// What travels: every commit that arrives, and bytes both ways.
import type { CommitNotice, WebSocketClass } from '@lockstep/client'

/** A commit as one person's page saw it. */
export interface Seen extends CommitNotice {
  /** The order of its arrival on this page. */
  readonly number: number
  /** What it came in; null in a page that shares another tab's connection. */
  readonly bytes: number | null
  /** From its arrival until it was stored and on the screen, in milliseconds. */
  readonly took: number | null
}

const KEPT = 30
let arrivals = 0

const encoder = new TextEncoder()
const bytesOf = (data: unknown): number => (typeof data === 'string' ? encoder.encode(data).length : ((data as { byteLength?: number }).byteLength ?? 0))

/** What tells one commit from the next: a load has the LSN of the commit before it, and no transaction. */
export const nameOf = ({ lsn, xid }: { readonly lsn: string; readonly xid: string | null }): string => `${lsn} ${xid ?? 'load'}`

/** The name of the commit that a message ends; null for other messages. */
function commitIn(data: unknown): string | null {
  if (typeof data !== 'string' || data.length > 10_000 || !data.includes('"commit"')) return null
  const [, , , event, payload] = JSON.parse(data)
  return event === 'commit' ? nameOf(payload) : null
}

export class Meter {
  commits = $state.raw<readonly Seen[]>([])
  received = $state(0)
  sent = $state(0)
  /** How long the last edit took to the database and back. */
  roundTrip = $state<number | null>(null)
  #open = 0
  readonly #arrived = new Map<string, { bytes: number; at: number }>()

  connected(): void {
    this.#open = 0
    this.#arrived.clear()
  }

  receive(data: unknown): void {
    const bytes = bytesOf(data)
    this.received += bytes
    this.#open += bytes
    const name = commitIn(data)
    if (name === null) return
    this.#arrived.set(name, { bytes: this.#open, at: performance.now() })
    this.#open = 0
  }

  send(data: unknown): void {
    this.sent += bytesOf(data)
  }

  shown(commit: CommitNotice): void {
    const arrived = this.#arrived.get(nameOf(commit))
    this.#arrived.delete(nameOf(commit))
    const seen = { ...commit, number: (arrivals += 1), bytes: arrived?.bytes ?? null, took: arrived ? performance.now() - arrived.at : null }
    this.commits = [seen, ...this.commits.slice(0, KEPT - 1)]
  }

  travelled(ms: number): void {
    this.roundTrip = ms
  }
}

/** The browser's WebSocket with a meter on it. */
export function meteredSocket(meter: Meter): WebSocketClass {
  return class extends WebSocket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, protocols)
      this.addEventListener('open', () => meter.connected())
      this.addEventListener('message', ({ data }) => meter.receive(data))
    }

    override send(data: string | ArrayBufferLike | Blob | ArrayBufferView<ArrayBuffer>): void {
      meter.send(data)
      super.send(data as string)
    }
  }
}
