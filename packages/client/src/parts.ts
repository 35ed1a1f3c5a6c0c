/** The parts of one client, as far as they know of each other. Each is made with all of them, and uses them once all are made. */
import type { Keeper } from './keeper'
import type { NodeLink } from './node_link'
import type { PageRole } from './page_role'
import type { Joined } from './protocol'
import type { Screen } from './screen'
import type { Session } from './session'
import type { Command } from './tab_messages'
import type { Timers } from './timers'
import type { Writer } from './writer'

/** One client, from the inside. */
export interface Parts {
  readonly screen: Screen
  readonly timers: Timers
  readonly keeper: Keeper
  readonly role: PageRole
  readonly link: NodeLink
  readonly writer: Writer
  /** Whether the application wants a connection. */
  readonly online: boolean
  /** Puts a job at the end of the queue of everything that touches the store. */
  run(job: () => Promise<void>): void
  /** Job: opens the store, wherever it is now. */
  open(): Promise<void>
  /** Job: becomes the one that writes and speaks to the node. */
  takeOver(): Promise<void>
  /** Job: the node said who the client is and which database this is. */
  takeJoined(session: Session, joined: Joined): Promise<void>
  /** Calls `act` at once or soon, if this page may speak to the node still. */
  ifLeader(act: () => void): void
  /** Carries out what the application asked of this or another page. */
  obey(command: Command): void
  /** Another page signed out: everything is wiped. */
  signedOut(): void
}
