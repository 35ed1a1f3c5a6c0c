/**
 * The connection as a pure state machine: a total table of state × event, no I/O, no clock.
 * `client` feeds it events and carries out the effects it answers with.
 */

/**
 * - `offline`: nobody asked for a connection.
 * - `connecting`: the transport tries, and tries again by itself.
 * - `preparing`: the socket is open; the store is opened and earlier commits are written before a cursor is sent.
 * - `joining`: the join is sent; whatever arrives now is of an older session and is dropped.
 * - `joined`: frames are of this session.
 * - `retrying`: the socket is open, the next join waits for its time.
 * - `refused`: the node does not want this client as it is; only the application starts again.
 * - `closed`: the client is closed for good.
 */
export type ConnectionState =
  | 'offline'
  | 'connecting'
  | 'preparing'
  | 'joining'
  | 'joined'
  | 'retrying'
  | 'refused'
  | 'closed'

/**
 * - `go_online`, `go_offline`, `close`: the application's wishes.
 * - `network_changed`: the browser's word that the network went or came. A socket does not close then, it falls silent,
 *   and the next attempt may be far off: so a hint to connect anew, never the truth.
 * - `opened`, `lost`, `sent_away`: the socket opened; closed and coming back; closed with "do not come back".
 * - `prepared`: the store is ready and every commit received earlier is in it.
 * - `join_ok`, `join_failed`, `join_refused`: the answers to a join: yes; not now; never.
 * - `session_ended`: the node ended the session, or the session cannot be trusted any more; join again after a pause.
 * - `retry_due`: the pause is over.
 * - `restart`: join again at once, the store was exchanged.
 */
export type ConnectionEvent =
  | 'go_online'
  | 'network_changed'
  | 'go_offline'
  | 'close'
  | 'opened'
  | 'lost'
  | 'sent_away'
  | 'prepared'
  | 'join_ok'
  | 'join_failed'
  | 'join_refused'
  | 'session_ended'
  | 'retry_due'
  | 'restart'

/** What the caller has to do, in order. `end_session` throws the open batch away. */
export type ConnectionEffect =
  | 'connect'
  | 'disconnect'
  | 'prepare'
  | 'send_join'
  | 'begin_session'
  | 'end_session'
  | 'start_pause'
  | 'cancel_pause'

/** One cell of the table. */
export interface ConnectionStep {
  readonly to: ConnectionState
  readonly effects: readonly ConnectionEffect[]
}

const go = (to: ConnectionState, ...effects: ConnectionEffect[]): ConnectionStep => ({ to, effects })

/** A row of the table; where a cell is missing nothing happens. */
type Cells = Partial<Record<ConnectionEvent, ConnectionStep>>

/** Where a connection is wanted. `leaving`: what has to be done on every way out. A socket that opens always means a new connection. */
const wanted = (...leaving: ConnectionEffect[]) => ({
  network_changed: go('connecting', ...leaving, 'disconnect', 'connect'),
  go_offline: go('offline', ...leaving, 'disconnect'),
  close: go('closed', ...leaving, 'disconnect'),
  opened: go('preparing', ...leaving, 'prepare'),
  lost: go('connecting', ...leaving),
  sent_away: go('refused', ...leaving, 'disconnect'),
  restart: go('preparing', ...leaving, 'prepare'),
})

const inSession = { ...wanted('end_session'), session_ended: go('retrying', 'end_session', 'start_pause') }

// a socket that opens although nobody wants it is closed
const TABLE: Record<ConnectionState, Cells> = {
  offline: { go_online: go('connecting', 'connect'), close: go('closed'), opened: go('offline', 'disconnect') },
  connecting: { ...wanted(), restart: go('connecting') },
  preparing: { ...wanted(), prepared: go('joining', 'send_join') },
  joining: { ...inSession, join_ok: go('joined', 'begin_session'), join_failed: inSession.session_ended, join_refused: inSession.sent_away },
  joined: inSession,
  retrying: { ...wanted('cancel_pause'), retry_due: go('preparing', 'prepare') },
  refused: { go_online: go('connecting', 'connect'), go_offline: go('offline'), close: go('closed'), opened: go('refused', 'disconnect') },
  closed: { opened: go('closed', 'disconnect') },
}

/** The cell of the table for a state and an event. */
export function connectionStep(state: ConnectionState, event: ConnectionEvent): ConnectionStep {
  return TABLE[state][event] ?? go(state)
}

/**
 * The pause before the next attempt, in milliseconds, after so many failures in a row (1 or more): any time up to a bound
 * that doubles. Thousands whose node died in one moment come back spread over it, and one whose connection blinked is
 * back within half a second.
 */
export function pauseAfter(failures: number, chance: number): number {
  return chance * Math.min(5000, 250 * 2 ** failures)
}
