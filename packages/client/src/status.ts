/** The state of the client as one stable snapshot. */
import type { ConnectionState } from './connection'
import { Listeners } from './listeners'
import type { RefusedMutation } from './store'

/** A failure that the application should show: a code of docs/protocol.md, `store_failed`, `bad_frame` or `defect`. */
export interface StatusError {
  readonly code: string
  readonly message: string
  /** With `malformed`: the mutation that blocks the outbox until it is dismissed. */
  readonly mutationId?: string
  /** With `crowded` and `not_ready`: after how many milliseconds the node is asked again, counted from when it said so. */
  readonly retryIn?: number | undefined
}

/**
 * - `connection`: `connecting` until a session is joined; `loading` until the first commit of the session and while rows
 *   of a subscription are to come; `live`; `behind` when the session is there and nothing is heard of it, or what was
 *   heard waits to be stored; `offline` by the application's wish; `refused` when the node does not want this client.
 * - `loadedRows`: with `loading`, the rows that have come so far.
 * - `aboutRows`: with `loading`, about how many there will be, by the database's estimate; as many as have come where there
 *   is none, so that a share never passes 1.
 * - `isProvisional`: rows are shown that are all there and not settled: the next commit may still change them.
 * - `behindSeconds`: with `behind`, for how long.
 * - `unsent`: mutations that are not decided yet.
 * - `refused`: refused mutations that were not dismissed, oldest first.
 * - `unknownFrames`: events of the node that this version does not know.
 */
export interface ClientStatus {
  readonly connection: 'connecting' | 'loading' | 'live' | 'behind' | 'offline' | 'refused'
  readonly loadedRows: number
  readonly aboutRows: number
  readonly isProvisional: boolean
  readonly behindSeconds: number
  readonly unsent: number
  readonly refused: readonly RefusedMutation[]
  readonly unknownFrames: number
  readonly error?: StatusError
}

/** All other states are ways to a connection. */
const CONNECTION: Partial<Record<ConnectionState, ClientStatus['connection']>> = { offline: 'offline', closed: 'offline', refused: 'refused', joined: 'live' }

/** How the connection is, as far as the status tells. */
export interface LinkStatus {
  readonly state: ConnectionState
  readonly isEstablished: boolean
  readonly loadedRows: number
  readonly aboutRows: number
  readonly behindSeconds: number
}

/** The link of a page that does not know yet. */
export const LINK_UNKNOWN: LinkStatus = { state: 'connecting', isEstablished: false, loadedRows: 0, aboutRows: 0, behindSeconds: 0 }

const text = (number: number) => number.toLocaleString('en')
const count = (number: number, what: string) => `${text(number)} ${what}${number === 1 ? '' : 's'}`

function describeLoad({ loadedRows, aboutRows, isProvisional }: ClientStatus): string {
  if (!loadedRows && !aboutRows) return 'Loading'
  if (isProvisional) return `Loading, ${count(loadedRows, 'row')} shown provisionally`
  return aboutRows > loadedRows ? `Loading, ${text(loadedRows)} of about ${count(aboutRows, 'row')}` : `Loading, ${count(loadedRows, 'row')} so far`
}

/** The status in a few English words, for people. */
export function describeStatus(status: ClientStatus): string {
  const { connection, behindSeconds, unsent, refused, error } = status
  const words = {
    connecting: error?.retryIn === undefined ? 'Connecting' : `The server is ${error.code === 'crowded' ? 'busy' : 'not ready'}, next try after ${count(Math.ceil(error.retryIn / 1000), 'second')}`,
    loading: describeLoad(status),
    live: 'Live',
    behind: `Behind by ${count(behindSeconds, 'second')}`,
    offline: 'Offline',
    refused: error === undefined ? 'Refused by the server' : `Refused by the server: ${error.message}`,
  }[connection]
  const edits = unsent === 0 ? '' : `, ${count(unsent, 'unsent edit')}`
  return `${words}${edits}${refused.length === 0 ? '' : `, ${count(refused.length, 'refused edit')}`}`
}

/** Where an error comes from, the gravest first: only the first is shown. */
const SOURCES = ['store', 'outbox', 'session', 'shared'] as const
/** `shared`: what the page that leads told. */
type Source = (typeof SOURCES)[number]

/** Holds the snapshot and tells when it changed. */
export class StatusBoard {
  private snapshot: ClientStatus = { connection: 'connecting', loadedRows: 0, aboutRows: 0, isProvisional: false, behindSeconds: 0, unsent: 0, refused: [], unknownFrames: 0 }
  private readonly listeners = new Listeners()
  private readonly errors = new Map<Source, StatusError>()

  /** The same object until something changes. */
  getSnapshot(): ClientStatus {
    return this.snapshot
  }

  /** Calls back on every change. */
  subscribe(callback: () => void): () => void {
    return this.listeners.add(callback)
  }

  /** Takes what the client knows; true when the snapshot is another one now. The caller then calls `notify`. */
  update(link: LinkStatus, isLoading: boolean, isProvisional: boolean, unsent: number, refused: readonly RefusedMutation[]): boolean {
    const isBehind = link.state === 'joined' && !isLoading && link.behindSeconds > 0
    const connection = isLoading ? 'loading' : isBehind ? 'behind' : (CONNECTION[link.state] ?? 'connecting')
    const [loadedRows, aboutRows] = isLoading ? [link.loadedRows, link.aboutRows] : [0, 0]
    const behindSeconds = isBehind ? link.behindSeconds : 0
    const next = { connection, loadedRows, aboutRows, isProvisional, behindSeconds, unsent, refused }
    const now = this.snapshot
    if ((Object.keys(next) as (keyof typeof next)[]).every((name) => now[name] === next[name])) return false
    this.snapshot = { ...now, ...next }
    return true
  }

  /** Sets or clears the error of one source and calls back. */
  setError(source: Source, error: StatusError | null): void {
    const before = this.errors.get(source)
    if (error !== null && before?.code === error.code && before.message === error.message && before.retryIn === error.retryIn) return
    if (error !== null) this.errors.set(source, error)
    else if (!this.errors.delete(source)) return
    const { error: _, ...rest } = this.snapshot
    const gravest = SOURCES.map((one) => this.errors.get(one)).find((one) => one !== undefined)
    this.snapshot = gravest === undefined ? rest : { ...rest, error: gravest }
    this.notify()
  }

  /** Counts an event that nobody knows and calls back. */
  countUnknownFrame(): void {
    this.snapshot = { ...this.snapshot, unknownFrames: this.snapshot.unknownFrames + 1 }
    this.notify()
  }

  /** Calls back. */
  notify(): void {
    this.listeners.call()
  }
}
