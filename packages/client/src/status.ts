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
}

/**
 * - `connection`: `connecting` until a session is joined; `loading` until the
 *   first commit of the session and while rows of a subscription are to come; `live`;
 *   `offline` by the application's wish or because the node refused the client.
 * - `unsent`: mutations that are not decided yet.
 * - `refused`: refused mutations that were not dismissed, oldest first.
 * - `unknownFrames`: events of the node that this version does not know.
 */
export interface ClientStatus {
  readonly connection: 'connecting' | 'loading' | 'live' | 'offline'
  readonly unsent: number
  readonly refused: readonly RefusedMutation[]
  readonly unknownFrames: number
  readonly error?: StatusError
}

const CONNECTION: Record<ConnectionState, ClientStatus['connection']> = {
  offline: 'offline',
  refused: 'offline',
  closed: 'offline',
  connecting: 'connecting',
  preparing: 'connecting',
  joining: 'connecting',
  retrying: 'connecting',
  joined: 'live',
}

/** How the connection is, as far as the status tells. */
export interface LinkStatus {
  readonly state: ConnectionState
  readonly isEstablished: boolean
}

/** Where an error comes from, the gravest first: only the first is shown. */
const SOURCES = ['store', 'outbox', 'session', 'shared'] as const
/** `shared`: what the page that leads told. */
type Source = (typeof SOURCES)[number]

/** Holds the snapshot and tells when it changed. */
export class StatusBoard {
  private snapshot: ClientStatus = { connection: 'connecting', unsent: 0, refused: [], unknownFrames: 0 }
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
  update(state: ConnectionState, isLoading: boolean, unsent: number, refused: readonly RefusedMutation[]): boolean {
    const connection = isLoading ? 'loading' : CONNECTION[state]
    const now = this.snapshot
    if (now.connection === connection && now.unsent === unsent && now.refused === refused) return false
    this.snapshot = { ...now, connection, unsent, refused }
    return true
  }

  /** Sets or clears the error of one source and calls back. */
  setError(source: Source, error: StatusError | null): void {
    const before = this.errors.get(source)
    if (error !== null && before?.code === error.code && before.message === error.message) return
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
