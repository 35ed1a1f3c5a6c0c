/**
 * Which page of the profile leads: one at a time holds the lock, has the connection and writes rows. A page that closes
 * lets go of the lock, and the next in the queue leads at once. A leader that is frozen does not answer: a page that
 * somebody looks at then takes the lock away. Neither is what keeps two leaders apart: that is the epoch in the store,
 * which every writing transaction checks.
 */
import type { LeaderMessage, PageMessage } from './tab_messages'
import type { LockHow, TabChannel, TabPlatform } from './tab_platform'
import type { Timers } from './timers'

/** How often a page that somebody looks at asks its leader for a sign of life, in milliseconds. */
export const PING_MS = 500
/** A leader that does not answer for so long is taken for frozen. */
export const SILENCE_MS = 1500

/** A message as it travels: who says it, and for a leader under which epoch. */
type Envelope =
  | { readonly from: string; readonly epoch: number; readonly body: LeaderMessage | { readonly kind: 'pong'; readonly at: number | null } }
  | { readonly from: string; readonly epoch: null; readonly body: PageMessage | { readonly kind: 'ping' } }

/** What happens to a page. */
export interface TabPorts {
  /** It is this page's turn to lead: raise the epoch, then call `leads`. */
  lead(): void
  /** Another page leads. */
  stepDown(): void
  /** A leader is there, under a new epoch, or this page may say hello now. */
  meet(): void
  fromPage(from: string, message: PageMessage): void
  fromLeader(message: LeaderMessage): void
  /** As the leader: the number of what was said last, null while it reads the store. */
  said(): number | null
  /** The leader is alive, and has said so much. */
  alive(at: number | null): void
  /** A page that was watched is gone. */
  gone(page: string): void
}

/** One page among those that share a place. */
export class Tabs {
  private readonly channel: TabChannel
  private readonly watched = new Map<string, () => void>()
  private readonly stops: (() => void)[] = []
  /** Whether this page may say hello. */
  isKnown = false
  /** the highest epoch that was heard of, or is this page's own */
  private epoch = 0
  private isLeader = false
  /** its turn has come, and it reads the store */
  private isTaking = false
  private isClosed = false
  private letGo: () => void = () => undefined
  private cancelPing: (() => void) | null = null
  private cancelSilence: (() => void) | null = null

  constructor(
    private readonly place: string,
    private readonly platform: TabPlatform,
    private readonly timers: Timers,
    private readonly ports: TabPorts,
    /** asked for at once, and told whether this page leads; `ports.lead` is not called then */
    private first: ((isLeading: boolean) => void) | null = null,
  ) {
    this.channel = platform.channel(`${place} tabs`, (message) => this.receive(message as Envelope))
    // held for life: who leads learns by it that this page is gone, and must not ask for it before it is held
    const known = () => {
      this.isKnown = true
      ports.meet()
    }
    if (platform.lock) this.stops.push(platform.lock(this.lockOf(platform.id), 'queue', known, () => undefined))
    else this.isKnown = true
    this.stops.push(platform.onVisibility(() => this.look()))
    this.wait(first === null ? 'queue' : 'try')
  }

  /** This page leads, under the epoch that the store gave it. */
  leads(epoch: number): void {
    this.epoch = epoch
    this.isLeader = true
    this.isTaking = false
    this.quiet()
    this.lead({ kind: 'leading' })
  }

  /** This page leads no longer: it waits for its turn. */
  follow(): void {
    if (this.isClosed) return
    this.isLeader = false
    this.unwatch()
    this.letGo()
    this.wait('queue')
  }

  /** Says something to whoever leads. */
  say(message: PageMessage): void {
    this.post(null, message)
  }

  /** Says something to all pages, as their leader. */
  lead(message: LeaderMessage): void {
    this.post(this.epoch, message)
  }

  /** Hears when a page is gone. Where there are no locks nobody does. */
  watch(page: string): void {
    if (this.watched.has(page) || !this.platform.lock) return
    const gone = () => {
      this.watched.get(page)?.()
      this.watched.delete(page)
      this.ports.gone(page)
    }
    this.watched.set(page, this.platform.lock(this.lockOf(page), 'queue', gone, () => undefined))
  }

  /** Whether other pages follow this one. */
  get hasFollowers(): boolean {
    return this.watched.size > 0 || (this.platform.lock === null && this.isLeader)
  }

  /** For this page the others are gone. */
  close(): void {
    this.isClosed = true
    this.isLeader = false
    this.tellFirst(false)
    this.quiet()
    this.unwatch()
    this.letGo()
    for (const stop of this.stops) stop()
    this.channel.close()
  }

  private lockOf(page: string): string {
    return `${this.place} page ${page}`
  }

  /** Answers whoever waits for the first try; true when somebody did. */
  private tellFirst(isLeading: boolean): boolean {
    const { first } = this
    this.first = null
    first?.(isLeading)
    return first !== null
  }

  private wait(how: LockHow): void {
    this.letGo()
    this.isTaking = false
    const turn = () => {
      if (this.isClosed) return
      this.isTaking = true
      if (!this.tellFirst(true)) this.ports.lead()
    }
    const lost = () => {
      if (this.isClosed) return
      if (this.tellFirst(false)) this.wait('queue')
      else this.ports.stepDown()
    }
    if (this.platform.lock) this.letGo = this.platform.lock(`${this.place} leader`, how, turn, lost)
    else if (how === 'steal') turn()
    else if (how === 'try') lost()
    this.look()
  }

  /** Asks for a sign of life, as long as somebody looks at this page and it does not lead itself. */
  private look(): void {
    if (this.isLeader || this.isClosed || !this.platform.isVisible()) return this.quiet()
    if (this.cancelPing === null) this.ping()
  }

  private ping(): void {
    this.post(null, { kind: 'ping' })
    this.cancelSilence ??= this.timers.after(SILENCE_MS, () => {
      this.quiet()
      this.wait('steal')
    })
    this.cancelPing = this.timers.after(PING_MS, () => this.ping())
  }

  private post(epoch: Envelope['epoch'], body: Envelope['body']): void {
    this.channel.post({ from: this.platform.id, epoch, body })
  }

  private quiet(): void {
    this.cancelPing?.()
    this.cancelSilence?.()
    this.cancelPing = this.cancelSilence = null
  }

  private unwatch(): void {
    for (const stop of this.watched.values()) stop()
    this.watched.clear()
  }

  private receive({ from, epoch, body }: Envelope): void {
    if (epoch === null) {
      if (body.kind !== 'ping') this.ports.fromPage(from, body)
      else if (this.isLeader || this.isTaking) this.post(this.epoch, { kind: 'pong', at: this.ports.said() })
      return
    }
    // a leader of an older epoch has been frozen and does not know yet
    if (epoch < this.epoch) return
    const isNew = epoch > this.epoch
    this.epoch = epoch
    this.cancelSilence?.()
    this.cancelSilence = null
    if (isNew && this.isLeader) this.ports.stepDown()
    if (isNew) this.ports.meet()
    if (body.kind === 'pong') this.ports.alive(body.at)
    else this.ports.fromLeader(body)
  }
}
