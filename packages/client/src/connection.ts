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

type Cells = Record<ConnectionEvent, ConnectionStep>

/** A row in which nothing happens, to be overwritten cell by cell. */
function idle(state: ConnectionState): Cells {
  const stay = go(state)
  return {
    go_online: stay,
    network_changed: stay,
    go_offline: stay,
    close: stay,
    opened: stay,
    lost: stay,
    sent_away: stay,
    prepared: stay,
    join_ok: stay,
    join_failed: stay,
    join_refused: stay,
    session_ended: stay,
    retry_due: stay,
    restart: stay,
  }
}

/** The table. A socket that opens always means a new connection, so `opened` ends whatever was there. */
export const CONNECTION_TABLE: Record<ConnectionState, Cells> = {
  offline: {
    ...idle('offline'),
    go_online: go('connecting', 'connect'),
    close: go('closed'),
    // a socket that opens although nobody wants it
    opened: go('offline', 'disconnect'),
  },
  connecting: {
    ...idle('connecting'),
    network_changed: go('connecting', 'disconnect', 'connect'),
    go_offline: go('offline', 'disconnect'),
    close: go('closed', 'disconnect'),
    opened: go('preparing', 'prepare'),
    sent_away: go('refused', 'disconnect'),
  },
  preparing: {
    ...idle('preparing'),
    network_changed: go('connecting', 'disconnect', 'connect'),
    go_offline: go('offline', 'disconnect'),
    close: go('closed', 'disconnect'),
    opened: go('preparing', 'prepare'),
    lost: go('connecting'),
    sent_away: go('refused', 'disconnect'),
    prepared: go('joining', 'send_join'),
    restart: go('preparing', 'prepare'),
  },
  joining: {
    ...idle('joining'),
    network_changed: go('connecting', 'end_session', 'disconnect', 'connect'),
    go_offline: go('offline', 'end_session', 'disconnect'),
    close: go('closed', 'end_session', 'disconnect'),
    opened: go('preparing', 'end_session', 'prepare'),
    lost: go('connecting', 'end_session'),
    sent_away: go('refused', 'end_session', 'disconnect'),
    join_ok: go('joined', 'begin_session'),
    join_failed: go('retrying', 'end_session', 'start_pause'),
    join_refused: go('refused', 'end_session', 'disconnect'),
    session_ended: go('retrying', 'end_session', 'start_pause'),
    restart: go('preparing', 'end_session', 'prepare'),
  },
  joined: {
    ...idle('joined'),
    network_changed: go('connecting', 'end_session', 'disconnect', 'connect'),
    go_offline: go('offline', 'end_session', 'disconnect'),
    close: go('closed', 'end_session', 'disconnect'),
    opened: go('preparing', 'end_session', 'prepare'),
    lost: go('connecting', 'end_session'),
    sent_away: go('refused', 'end_session', 'disconnect'),
    session_ended: go('retrying', 'end_session', 'start_pause'),
    restart: go('preparing', 'end_session', 'prepare'),
  },
  retrying: {
    ...idle('retrying'),
    network_changed: go('connecting', 'cancel_pause', 'disconnect', 'connect'),
    go_offline: go('offline', 'cancel_pause', 'disconnect'),
    close: go('closed', 'cancel_pause', 'disconnect'),
    opened: go('preparing', 'cancel_pause', 'prepare'),
    lost: go('connecting', 'cancel_pause'),
    sent_away: go('refused', 'cancel_pause', 'disconnect'),
    retry_due: go('preparing', 'prepare'),
    restart: go('preparing', 'cancel_pause', 'prepare'),
  },
  refused: {
    ...idle('refused'),
    go_online: go('connecting', 'connect'),
    go_offline: go('offline'),
    close: go('closed'),
    opened: go('refused', 'disconnect'),
  },
  closed: {
    ...idle('closed'),
    opened: go('closed', 'disconnect'),
  },
}

/**
 * The pause before the next attempt, in milliseconds, after so many failures in a row (1 or more): any time up to a bound
 * that doubles. Thousands whose node died in one moment come back spread over it, and one whose connection blinked is
 * back within half a second.
 */
export function pauseAfter(failures: number, chance: number): number {
  return chance * Math.min(5000, 250 * 2 ** failures)
}
