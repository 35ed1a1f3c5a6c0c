/**
 * What pages tell each other. The leader numbers what it says: a follower that misses a number, or hears of a leader
 * that it does not know, says hello again and gets everything.
 */
import type { Base, HeldShape, Plan } from './apply'
import type { OutboxContents, OutboxWrite } from './outbox'
import type { Decision, AskedShape } from './protocol'
import type { CommitNotice } from './screen'
import type { LinkStatus, StatusError } from './status'
import type { DraftMutation, StoredMutation } from './store'
import type { ShapeRefusal } from './subscriptions'

/** One change of what is shown, carried out in one step by every page. `revision`: that of the rows after it. */
export interface Change {
  readonly revision: number
  readonly plan: Omit<Plan, 'acks'> | null
  /** mutations of any page that are in the store now */
  readonly taken: readonly StoredMutation[]
  readonly outbox: OutboxWrite | null
  readonly decisions: readonly Decision[]
  readonly notice: CommitNotice | null
}

/** How it is with the node, for pages that have no connection of their own. */
export interface SharedStatus {
  readonly link: LinkStatus
  readonly error: StatusError | null
  readonly refusals: readonly ShapeRefusal[]
}

/** What the application asks of the page that leads. */
export type Command =
  | { readonly name: 'dismiss'; readonly id: string }
  | { readonly name: 'resolveUnknown'; readonly send: boolean }
  | { readonly name: 'setOnline'; readonly online: boolean }

/**
 * Everything a page needs to be in step. `shapes`: all of them, or (`isWhole` false) those that the page lacks among the
 * rows of this revision, which it has. Shapes that are not stored are never known by the revision alone.
 */
export interface Welcome {
  readonly at: number
  readonly revision: number
  readonly cursor: Base['cursor']
  readonly isWhole: boolean
  readonly shapes: ReadonlyMap<string, HeldShape>
  readonly outbox: OutboxContents
  readonly status: SharedStatus
}

/** From any page. `hello`: `unsaved` are drafts that could not be stored by their page. */
export type PageMessage =
  | {
      readonly kind: 'hello'
      readonly revision: number
      readonly held: readonly string[]
      readonly wants: readonly AskedShape[]
      readonly unsaved: readonly DraftMutation[]
    }
  | { readonly kind: 'wants'; readonly wants: readonly AskedShape[] }
  | { readonly kind: 'appended' }
  | { readonly kind: 'unsaved'; readonly drafts: readonly DraftMutation[] }
  | { readonly kind: 'command'; readonly command: Command }
  | { readonly kind: 'signed_out' }

/** From the page that leads. */
export type LeaderMessage =
  | { readonly kind: 'leading' }
  | { readonly kind: 'moved' }
  | { readonly kind: 'welcome'; readonly to: string; readonly welcome: Welcome }
  | { readonly kind: 'change'; readonly at: number; readonly change: Change }
  | { readonly kind: 'status'; readonly at: number; readonly status: SharedStatus }
