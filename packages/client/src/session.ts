/** One session: from the join that is sent to whatever ends it. */
import { type Batch, BatchCollector, newSessionShapes, type Base } from './apply'
import { CAPABILITIES, PROTOCOL_VERSION, tableName, type JoinRequest, type ShapeRequest } from './protocol'
import type { Outbox } from './outbox'
import type { SubscriptionEntry } from './subscriptions'

/** The state of one session. Batches keep it, so that a late one is never read with a newer session's names. */
export class Session {
  readonly shapes = newSessionShapes()
  readonly collector = new BatchCollector()
  /** what is shown, or about to be, before it is settled */
  provisional: Batch['frames'] = []
  /** refs given up that the node was not told of yet */
  givenUp: string[] = []
  /** its first commit was applied: what was resumed is up to date */
  isEstablished = false
  /** its commits must not be applied any more, not even complete ones */
  discarded = false

  /** SHAPE for an entry that this session asks for. `held`: resume from the join's cursor. */
  ask(entry: SubscriptionEntry, held: { fingerprint: string } | null): ShapeRequest {
    const { ref, id, definition } = entry
    this.shapes.refs.set(ref, id)
    if (held !== null) this.shapes.covered.add(id)
    return {
      ref,
      table: tableName(definition.table),
      columns: definition.columns ?? null,
      scope: definition.scope ?? null,
      where: definition.where || null,
      ...(definition.where ? { params: definition.params ?? [] } : {}),
      have: held !== null,
      fingerprint: held?.fingerprint ?? null,
    }
  }

  /** Gives a shape up: what arrives for it from now on means nothing, and its rows go with the next cursor. */
  giveUp(entry: SubscriptionEntry): void {
    if (this.shapes.refs.delete(entry.ref)) this.givenUp.push(entry.ref)
    this.shapes.covered.delete(entry.id)
  }
}

/** JOIN for everything subscribed, resumed from what is held. */
export function joinRequest(
  session: Session,
  subject: string,
  base: Base,
  outbox: Outbox,
  entries: readonly SubscriptionEntry[],
): JoinRequest {
  return {
    protocol: PROTOCOL_VERSION,
    capabilities: [...CAPABILITIES],
    required: [],
    token: null,
    subject,
    client: outbox.meta.client,
    cursor: base.cursor,
    shapes: entries.map((entry) => session.ask(entry, base.shapes.get(entry.id) ?? null)),
  }
}
