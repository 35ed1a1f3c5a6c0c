/**
 * What is written, and shown right after: batches, drafts, changes of the outbox. All of it runs in the client's queue,
 * one transaction each, and memory changes in one step once it is through.
 */
import { type Batch, type Plan, planBatch, planCursor, reloadsOf, shapeWrites, tablesOf } from './apply'
import type { OutboxWrite } from './outbox'
import { UNSTORED } from './page_role'
import type { Parts } from './parts'
import type { Decision } from './protocol'
import type { Session } from './session'
import { type DraftMutation, numbered, type StoredMutation, without } from './store'
import type { Change } from './tab_messages'

/** After so long without a write, in milliseconds, the store is put in order. */
const IDLE_MS = 2000

/** How often, and how many milliseconds apart, a store that was thrown away is opened anew. */
const ATTEMPTS = 20
const RETRY_MS = 250

/** What writes for one client. */
export class Writer {
  /** the shapes whose rows are in the store */
  stored = new Set<string>()
  private cancelIdle: (() => void) | null = null

  constructor(private readonly parts: Parts) {}

  /** One transaction, then one step in memory, then one notification. */
  private async store(plan: Plan, session: Session, batch?: Batch): Promise<void> {
    const { screen, keeper, link } = this.parts
    const { meta, gone, refused, decisions } = screen.outbox.decide(plan.acks)
    const outbox = { meta: { ...meta, cursor: plan.cursor }, outboxRemove: gone.map(({ seq }) => seq), refusedPut: refused }
    const shapes = shapeWrites(screen.base, plan, screen.subscriptions.syncIds(), this.stored)
    // once the server was told that an outcome is stored it forgets it: that must survive a power failure
    const failure = await keeper.write({ durability: gone.length > 0 ? 'strict' : 'relaxed', ...outbox, shapes })
    const rows = [...plan.changes.values()]
    const notice = batch && {
      lsn: batch.commit.lsn,
      xid: batch.commit.xid,
      rows: rows.reduce((sum, change) => sum + change.rows.size, 0),
      tables: tablesOf(screen.base, plan),
      reloaded: reloadsOf(screen.base, session.shapes, batch),
    }
    const isFirst = notice !== undefined && !session.isEstablished
    if (isFirst) session.isEstablished = true
    const { acks: _, ...shown } = plan
    this.carryOut({ plan: shown, outbox, decisions, notice: notice ?? null }, failure === null)
    link.applied(session, batch !== undefined, isFirst)
    this.idleSoon()
  }

  /** A batch is complete. */
  async applyBatch(session: Session, batch: Batch): Promise<void> {
    const { screen, link } = this.parts
    let plan: Plan
    try {
      plan = planBatch(screen.base, session.shapes, batch)
    } catch (error) {
      return link.distrust(session, error)
    }
    await this.store(plan, session, batch)
  }

  /** Everything up to this cursor was applied. */
  async moveCursor(session: Session, cursor: string): Promise<void> {
    const { base } = this.parts.screen
    if (cursor !== base.cursor) await this.store(planCursor(base, session.shapes, cursor), session)
  }

  private carryOut(change: Partial<Change>, isStored: boolean): void {
    const { role, keeper } = this.parts
    const revision = !keeper.keepsRows ? UNSTORED : change.plan ? role.revision + 1 : role.revision
    role.carryOut({ revision, plan: null, taken: [], outbox: null, decisions: [], notice: null, ...change }, isStored)
  }

  /** Drafts become durable, and are numbered. */
  async saveDrafts(): Promise<void> {
    const { role, keeper } = this.parts
    const { outbox, waits } = this.parts.screen
    const drafts = role.storable(outbox.drafts)
    if (drafts.length === 0 || role.role === 'opening') return
    const { stored, failure } = await keeper.append(drafts, () => outbox.numberDrafts(drafts))
    if (role.isLeading) await this.takeStored(stored)
    else if (failure !== null) role.cannotStore(drafts)
    else {
      role.appended(outbox.ofDrafts(stored))
      outbox.take(outbox.ofDrafts(stored))
    }
    for (const { id } of drafts) waits.save(id, failure)
  }

  /** Other pages may have appended before: what is sent is sent in order, and nothing left out. */
  private async takeStored(stored: readonly StoredMutation[]): Promise<void> {
    const { screen, keeper, link } = this.parts
    const { lastSeq } = screen.outbox
    const isNext = stored[0]?.seq === lastSeq + 1
    const taken = isNext ? stored : [...(await keeper.outboxAfter(lastSeq)), ...stored.filter(({ seq }) => seq <= lastSeq)]
    if (taken.length > 0) this.carryOut({ taken }, true)
    link.sender.pump()
  }

  /** What other pages appended. */
  readOutbox(): Promise<void> {
    return this.takeStored([])
  }

  /** Drafts of a page that cannot store them. */
  takeDrafts(drafts: readonly DraftMutation[]): void {
    const { outbox } = this.parts.screen
    for (const draft of without(drafts, [...outbox.entries, ...outbox.drafts])) outbox.add(draft)
    if (outbox.drafts.length > 0) this.parts.run(() => this.saveDrafts())
  }

  /** A change of the outbox as it is then; calls `then` afterwards. */
  async changeOutbox(propose: () => OutboxWrite | null, then?: () => void): Promise<void> {
    const { outbox } = this.parts.screen
    let taken: readonly StoredMutation[] = []
    let write: OutboxWrite | null = null
    const failure = await this.parts.keeper.change(outbox.lastSeq, (tail) => {
      taken = tail
      outbox.take(tail)
      write = propose()
      return write === null ? null : { durability: 'strict', ...write }
    })
    const { refusedPut = [] } = (write as OutboxWrite | null) ?? {}
    const decisions = refusedPut.map(({ id, code, message }): Decision => ({ n: '0', id, outcome: 'refused', code, message }))
    if (write !== null || taken.length > 0) this.carryOut({ taken, outbox: write, decisions }, failure === null)
    then?.()
  }

  /** The browser threw the store away while this page was open: what memory holds is written anew, the outbox first. */
  async restore(url: string, subject: string, attempt = 1): Promise<void> {
    const { screen, keeper, role } = this.parts
    const { meta, entries, refused, lastSeq } = screen.outbox
    const message = 'the browser deleted the local data of this site; what this page holds is stored anew'
    screen.status.setError('store', { code: 'store_lost', message })
    const contents = await keeper.reopen(url, subject, keeper.database, lastSeq)
    if (contents === null) {
      // it may still be busy deleting
      if (attempt < ATTEMPTS) this.parts.timers.after(RETRY_MS, () => this.parts.run(() => this.restore(url, subject, attempt + 1)))
      else keeper.giveUp({ code: 'store_lost', message: 'the browser deleted the local data of this site, and nothing is kept when this page is left' })
      return
    }
    // a page that came upon the empty place has numbered its mutations as if nothing were there: they go behind
    await keeper.change(0, (tail) => {
      const outboxPut = [...entries, ...numbered(meta, entries, lastSeq, tail)]
      return { durability: 'strict', meta: { ...meta, cursor: null }, outboxPut, refusedPut: refused }
    })
    this.stored = new Set()
    const nothing = { cursor: '', changes: new Map(), drops: [], acks: [] }
    const shapes = shapeWrites(screen.base, nothing, screen.subscriptions.syncIds(), this.stored)
    await keeper.write({ durability: 'relaxed', meta, shapes })
    role.revision = contents.revision + 1
    role.leads(keeper.epoch)
  }

  /** Nothing is put in order any more. */
  end(): void {
    this.cancelIdle?.()
  }

  /** Puts the store in order once nothing else is to do. */
  private idleSoon(): void {
    this.cancelIdle?.()
    this.cancelIdle = null
    const { keeper, role, screen, timers, run } = this.parts
    if (!keeper.isScattered) return
    this.cancelIdle = timers.after(IDLE_MS, () => run(async () => {
      if (role.isLeading) await keeper.compact((id) => screen.base.shapes.get(id)?.rows)
    }))
  }
}

