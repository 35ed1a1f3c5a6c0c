/**
 * The durable queue of mutations that are not decided yet, and the numbers that they carry. Every change gives back
 * what the store has to write; the caller writes it before anything is sent.
 */
import type { Decision, MutationRequest, Op } from './protocol'
import {
  type DraftMutation,
  EMPTY_META,
  kindOf,
  numberAfter,
  numbered,
  type RefusedMutation,
  type StoreContents,
  type StoredMeta,
  type StoredMutation,
  without,
} from './store'

/** What the view needs to know of a mutation. */
export interface PendingMutation {
  readonly kind: string
  readonly ops: readonly Op[]
}

/** A change of the outbox as the store writes it. */
export interface OutboxWrite {
  readonly meta: StoredMeta
  readonly outboxPut?: readonly StoredMutation[]
  readonly outboxRemove?: readonly number[]
  readonly refusedPut?: readonly RefusedMutation[]
  readonly refusedRemove?: readonly string[]
}

/** All that one page tells another of the outbox. */
export interface OutboxContents {
  readonly meta: StoredMeta
  readonly entries: readonly StoredMutation[]
  readonly refused: readonly RefusedMutation[]
  readonly lastSeq: number
}

/** What acknowledgements decided: mutations that leave, and those among them that were refused. */
export interface Decided {
  readonly meta: StoredMeta
  readonly gone: readonly StoredMutation[]
  readonly refused: readonly RefusedMutation[]
  readonly decisions: readonly Decision[]
}

function isBelow(a: string, b: string): boolean {
  return BigInt(a) < BigInt(b)
}

/** The outbox in memory. `entries` are in the store (or would be, if it could be written); `drafts` are not yet. */
export class Outbox {
  meta: StoredMeta = EMPTY_META
  entries: readonly StoredMutation[] = []
  drafts: readonly DraftMutation[] = []
  refused: readonly RefusedMutation[] = []
  /** What the server may be told: the highest decided number that is known to be in the store. */
  confirmed = EMPTY_META.confirmed
  /**
   * The highest order number seen. It never goes down in a page that sends, not even in another place: what was sent in a
   * session is known by it. A place that this page leads goes on behind it (`Store.lead`).
   */
  lastSeq = 0

  /** Takes over what a store holds; drafts stay. */
  load({ meta, outbox, refused }: StoreContents): void {
    // the same list as long as it is empty: nothing has changed for whoever shows it
    const kept = this.refused.length + refused.length > 0 ? refused : this.refused
    this.takeContents({ meta, entries: outbox, refused: kept, lastSeq: Math.max(this.lastSeq, outbox.at(-1)?.seq ?? 0) })
  }

  /** Everything undecided, in order. */
  pending(): PendingMutation[] {
    return [...this.entries, ...this.drafts.map(({ ops }) => ({ kind: kindOf(ops), ops }))]
  }

  /** How many are undecided. */
  get size(): number {
    return this.entries.length + this.drafts.length
  }

  /** Adds a draft at the end. */
  add(draft: DraftMutation): void {
    this.drafts = [...this.drafts, draft]
  }

  /** The drafts as they are numbered where no store can do it. */
  numberDrafts(drafts: readonly DraftMutation[]): StoredMutation[] {
    return numbered(this.meta, this.entries, this.lastSeq, drafts)
  }

  /**
   * Takes mutations that are in the store: drafts of this page, or other pages' mutations. Where order matters, in the
   * page that sends, the caller gives all behind `lastSeq`. True when some were new.
   */
  take(stored: readonly StoredMutation[]): boolean {
    const fresh = without(stored, this.entries)
    if (fresh.length === 0) return false
    this.lastSeq = Math.max(this.lastSeq, ...fresh.map(({ seq }) => seq))
    this.drafts = without(this.drafts, fresh)
    this.entries = [...this.entries, ...fresh].sort((a, b) => a.seq - b.seq)
    return true
  }

  /** Those of them that are drafts still: the others are here already, or decided even. */
  ofDrafts(stored: readonly StoredMutation[]): StoredMutation[] {
    return without(stored, without(stored, this.drafts))
  }

  /** Everything, for another page. */
  contents(): OutboxContents {
    return { meta: this.meta, entries: this.entries, refused: this.refused, lastSeq: this.lastSeq }
  }

  /** Takes everything over from the page that sends; drafts stay. */
  takeContents({ meta, entries, refused, lastSeq }: OutboxContents): void {
    this.drafts = without(this.drafts, entries)
    Object.assign(this, { meta, entries, refused, lastSeq, confirmed: meta.confirmed })
  }

  /** What these decisions would do. Decisions on mutations that are not here (decided before) are passed over. */
  decide(decisions: readonly Decision[]): Decided {
    const byId = new Map(this.entries.map((entry) => [entry.id, entry]))
    const gone: StoredMutation[] = []
    const refused: RefusedMutation[] = []
    const told: Decision[] = []
    let confirmed = this.meta.confirmed
    for (const decision of decisions) {
      const entry = byId.get(decision.id)
      if (entry === undefined) continue
      byId.delete(decision.id)
      gone.push(entry)
      told.push(decision)
      // a number of an earlier client id says nothing about the present one
      if (entry.n === decision.n && isBelow(confirmed, decision.n)) confirmed = decision.n
      if (decision.outcome === 'refused') {
        const { id, name, args, ops } = entry
        refused.push({ id, name, args, ops, code: decision.code ?? '', message: decision.message ?? '' })
      }
    }
    return { meta: { ...this.meta, confirmed }, gone, refused, decisions: told }
  }

  /** The client id that a join was answered with. Null when nothing changes. */
  takeClient(client: string): OutboxWrite | null {
    if (client === this.meta.client) return null
    const other = this.meta.client !== null && this.size === 0
    const unknown = this.meta.unknown === null ? null : client
    return { meta: { ...this.meta, client, unknown, confirmed: other ? '0' : this.meta.confirmed } }
  }

  /** `renumber`: another id, numbers from 1. */
  renumber(client: string): OutboxWrite {
    return this.numberFrom('0', this.entries, { ...this.meta, client, unknown: null })
  }

  /**
   * `gap`: the server saw nothing after `last`. Null when the outbox holds `last` + 1 and sending from there is enough;
   * otherwise the entries are numbered anew from `last` + 1.
   */
  closeGap(last: string): OutboxWrite | null {
    const next = numberAfter(last)
    if (this.entries.some(({ n }) => n === next)) return null
    const later = this.entries.filter(({ n }) => isBelow(last, n))
    return later.length === 0 ? null : this.numberFrom(last, later, this.meta)
  }

  /** `unknown_client`: nothing is sent until the application decided. */
  holdUnknown(client: string): OutboxWrite {
    return { meta: { ...this.meta, unknown: client } }
  }

  /** The application's decision on mutations of unknown outcome: send all again under the new id, or give them up. */
  resolveUnknown(send: boolean): OutboxWrite | null {
    const { unknown } = this.meta
    if (unknown === null) return null
    if (send) return this.renumber(unknown)
    const refusedPut = this.entries.map(({ id, name, args, ops }) => ({
      ...{ id, name, args, ops },
      code: 'unknown_client',
      message: 'whether the server carried this out is unknown, and it was given up',
    }))
    const outboxRemove = this.entries.map(({ seq }) => seq)
    return { meta: { ...this.meta, client: unknown, unknown: null, confirmed: '0' }, outboxRemove, refusedPut }
  }

  /** A refusal that the application has seen. */
  dismiss(id: string): OutboxWrite | null {
    return this.refused.some((one) => one.id === id) ? { meta: this.meta, refusedRemove: [id] } : null
  }

  /** A mutation that the server never took is given up; later ones move up, or its number would be missing. */
  giveUp(id: string): OutboxWrite | null {
    const at = this.entries.findIndex((entry) => entry.id === id)
    const entry = this.entries[at]
    if (entry === undefined) return null
    const before = (BigInt(entry.n) - 1n).toString()
    return { ...this.numberFrom(before, this.entries.slice(at + 1), this.meta), outboxRemove: [entry.seq] }
  }

  /** Carries out a write that this outbox proposed. `isStored`: a restart would not bring back what it removed. */
  carryOut(write: OutboxWrite, isStored: boolean): void {
    const put = new Map((write.outboxPut ?? []).map((entry) => [entry.seq, entry]))
    const gone = new Set(write.outboxRemove ?? [])
    const dismissed = new Set(write.refusedRemove ?? [])
    this.meta = write.meta
    if (isStored || BigInt(this.confirmed) > BigInt(write.meta.confirmed)) this.confirmed = write.meta.confirmed
    if (put.size + gone.size > 0) {
      this.entries = this.entries.filter(({ seq }) => !gone.has(seq)).map((entry) => put.get(entry.seq) ?? entry)
    }
    if (dismissed.size === 0 && !write.refusedPut?.length) return
    this.refused = [...this.refused.filter(({ id }) => !dismissed.has(id)), ...(write.refusedPut ?? [])]
  }

  private numberFrom(last: string, entries: readonly StoredMutation[], meta: StoredMeta): OutboxWrite {
    let n = last
    const outboxPut = entries.map((entry) => {
      n = numberAfter(n)
      return { ...entry, n }
    })
    const confirmed = isBelow(last, meta.confirmed) ? last : meta.confirmed
    return { meta: { ...meta, confirmed }, outboxPut }
  }
}

/** MUTATION of the protocol for an entry. */
export function toRequest({ n, id, kind, name, args, ops }: StoredMutation): MutationRequest {
  return { n, id, kind, name, args, ops }
}
