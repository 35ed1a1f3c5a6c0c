/**
 * What this page is among the pages of its profile. Alone or leading, it speaks to the node and tells the others what
 * became of it; following, it shows what the leader tells and appends its own mutations to the store they share.
 */
import { LINK_UNKNOWN, type LinkStatus } from './status'
import type { Parts } from './parts'
import type { Subscriptions } from './subscriptions'
import type { DraftMutation, StoredMutation } from './store'
import type { Change, LeaderMessage, PageMessage, SharedStatus, Welcome } from './tab_messages'
import type { TabPlatform } from './tab_platform'
import { type TabPorts, Tabs } from './tabs'

/** Rows whose revision in the store says nothing about those in memory. */
export const UNSTORED = -1

/** One page's role. */
export class PageRole implements TabPorts {
  /** `opening` until the store is open. */
  role: 'opening' | 'alone' | 'follower' | 'leader' = 'opening'
  /** the revision of the rows in memory, or UNSTORED */
  revision = UNSTORED
  private tabs: Tabs | null = null
  /** the number of what was last said, or heard; null when this page is not in step */
  private at: number | null = null
  private shared: SharedStatus | null = null
  private sharedText = ''
  private isSaying = false
  /** mutations of this page that are stored, and that the leader has not shown to know */
  private readonly unheard = new Map<string, StoredMutation>()
  /** drafts that this page could not store */
  private readonly unsaved = new Map<string, DraftMutation>()

  constructor(
    private readonly parts: Parts,
    private readonly platform: TabPlatform | null,
  ) {}

  /** Whether this page writes and speaks to the node. */
  get isLeading(): boolean {
    return this.role === 'alone' || this.role === 'leader'
  }

  /** Whether another page might lead. */
  get hasOthers(): boolean {
    return this.tabs !== null
  }

  /** The store is open, and `place` is what pages that share it call it. True when no other page can lead. */
  enter(place: string | null): boolean {
    const isAlone = this.join(place)
    if (!isAlone) this.hello()
    return isAlone
  }

  /** Like `enter`, in a place that this page was the first to find: resolves to whether it may lead there at once. */
  async enterFirst(place: string | null): Promise<boolean> {
    const isLeading = await new Promise<boolean>((resolve) => {
      if (this.join(place, resolve)) resolve(true)
    })
    if (!isLeading) this.hello()
    return isLeading
  }

  private join(place: string | null, first: ((isLeading: boolean) => void) | null = null): boolean {
    this.tabs?.close()
    this.tabs = null
    this.at = null
    // what this place holds was just read from it, and the order numbers of another one mean nothing here
    this.unheard.clear()
    const isAlone = this.platform === null || place === null
    this.role = isAlone ? 'alone' : 'follower'
    if (!isAlone) this.tabs = new Tabs(place, this.platform, this.parts.timers, this, first)
    return isAlone
  }

  /** The store says that this page leads. True when others followed the page before it, and are about to say hello. */
  leads(epoch: number): boolean {
    if (this.tabs === null) return false
    const isHeir = this.shared !== null
    this.role = 'leader'
    this.at = 0
    this.shared = null
    this.sharedText = ''
    this.parts.screen.status.setError('shared', null)
    this.tabs.leads(epoch)
    this.unheard.clear()
    const drafts = [...this.unsaved.values()]
    this.unsaved.clear()
    this.parts.writer.takeDrafts(drafts)
    return isHeir
  }

  /** Carries a change out and tells the others. */
  carryOut(change: Change, isStored: boolean): void {
    this.revision = change.revision
    this.parts.screen.carryOut(change, isStored)
    if (this.role !== 'leader') return
    // counted also when nobody seems to listen: a page that was taken for gone notices by it
    this.at = (this.at ?? 0) + 1
    if (this.tabs?.hasFollowers) this.tabs.lead({ kind: 'change', at: this.at, change })
  }

  /** Mutations of this page are in the store. */
  appended(stored: readonly StoredMutation[]): void {
    for (const one of stored) this.unheard.set(one.id, one)
    this.tabs?.say({ kind: 'appended' })
  }

  /** Drafts of this page could not be stored: the leader may be able to. */
  cannotStore(drafts: readonly DraftMutation[]): void {
    for (const draft of drafts) this.unsaved.set(draft.id, draft)
    this.tabs?.say({ kind: 'unsaved', drafts })
  }

  /** Drafts that are still this page's to store. */
  storable(drafts: readonly DraftMutation[]): DraftMutation[] {
    return drafts.filter(({ id }) => !this.unsaved.has(id))
  }

  /** Tells the leader, and the others. */
  say(message: PageMessage): void {
    this.tabs?.say(message)
  }

  /** Tells that all is in another place now. */
  moved(): void {
    this.tabs?.lead({ kind: 'moved' })
  }

  /** What this page wants has changed. */
  wantsChanged(): void {
    if (this.role === 'follower') this.say({ kind: 'wants', wants: this.parts.screen.subscriptions.wants() })
  }

  /** How it is with the node, wherever the connection is. */
  get linkStatus(): LinkStatus {
    if (this.role === 'leader') this.shareSoon()
    if (this.isLeading || this.platform === null) return this.parts.link.status
    return this.shared?.link ?? { ...LINK_UNKNOWN, state: this.parts.online ? 'connecting' : 'offline' }
  }

  /** The page goes away. */
  close(): void {
    this.tabs?.close()
    this.tabs = null
  }

  lead(): void {
    this.parts.run(() => this.parts.takeOver())
  }

  stepDown(): void {
    if (this.role !== 'leader' && this.role !== 'follower') return
    this.parts.link.stop()
    this.role = 'follower'
    this.at = null
    this.parts.screen.subscriptions.forgetOthers()
    this.tabs?.follow()
    this.hello()
  }

  meet(): void {
    if (this.role === 'follower') this.hello()
  }

  said(): number | null {
    return this.role === 'leader' ? (this.at ?? 0) : null
  }

  /** Messages between pages are not lost as a rule; where one was, this is how it is noticed. */
  alive(at: number | null): void {
    if (this.role !== 'follower' || at === null) return
    if (at !== this.at) return this.hello()
    if (this.unheard.size > 0) this.say({ kind: 'appended' })
    if (this.unsaved.size > 0) this.say({ kind: 'unsaved', drafts: [...this.unsaved.values()] })
  }

  gone(page: string): void {
    this.parts.screen.subscriptions.setOther(page, [])
    this.parts.link.flushSoon()
  }

  fromPage(from: string, message: PageMessage): void {
    if (message.kind === 'signed_out') return this.parts.signedOut()
    if (message.kind === 'command') return this.parts.obey(message.command)
    if (this.role !== 'leader') return
    switch (message.kind) {
      case 'hello':
        this.tabs?.watch(from)
        this.setWants(from, message.wants)
        this.parts.writer.takeDrafts(message.unsaved)
        // after every write that the page may have read, and whatever it appended
        this.parts.run(async () => {
          await this.parts.writer.readOutbox()
          this.tabs?.lead({ kind: 'welcome', to: from, welcome: this.welcomeOf(message) })
        })
        return
      case 'wants':
        return this.setWants(from, message.wants)
      case 'appended':
        return this.parts.run(() => this.parts.writer.readOutbox())
      case 'unsaved':
        return this.parts.writer.takeDrafts(message.drafts)
    }
  }

  fromLeader(message: LeaderMessage): void {
    if (message.kind === 'moved') return this.parts.run(() => this.parts.open())
    if (this.role !== 'follower') return
    switch (message.kind) {
      case 'leading':
        return
      case 'welcome':
        return void (message.to === this.platform?.id && this.takeWelcome(message.welcome))
      case 'change':
        return void (this.isNext(message.at) && this.takeChange(message.change))
      case 'status':
        return void (this.isNext(message.at) && this.takeStatus(message.status))
    }
  }

  private hello(): void {
    this.at = null
    if (!this.tabs?.isKnown) return
    const { subscriptions, base } = this.parts.screen
    this.say({ kind: 'hello', revision: this.revision, held: [...base.shapes.keys()], wants: subscriptions.wants(), unsaved: [...this.unsaved.values()] })
  }

  private setWants(from: string, wants: Parameters<Subscriptions['setOther']>[1]): void {
    this.parts.screen.subscriptions.setOther(from, wants)
    this.parts.link.flushSoon()
  }

  private welcomeOf({ revision, held }: PageMessage & { kind: 'hello' }): Welcome {
    const { base, outbox } = this.parts.screen
    const isWhole = revision !== this.revision || revision === UNSTORED
    const shapes = new Map([...base.shapes].filter(([id]) => isWhole || !held.includes(id)))
    const rest = { at: this.at ?? 0, revision: this.revision, cursor: base.cursor }
    return { ...rest, isWhole, shapes, outbox: outbox.contents(), status: this.statusNow() }
  }

  /** Whether this is what follows on what was heard; otherwise something was lost, and everything is asked for. */
  private isNext(at: number): boolean {
    if (this.at === null) return false
    if (at !== this.at + 1) {
      this.hello()
      return false
    }
    this.at = at
    return true
  }

  private takeWelcome(welcome: Welcome): void {
    // of a hello before the last
    if (!welcome.isWhole && welcome.revision !== this.revision) return
    this.at = welcome.at
    this.revision = welcome.revision
    const known = new Set(welcome.outbox.entries.map(({ id }) => id))
    for (const [id, { seq }] of this.unheard) if (known.has(id) || seq <= welcome.outbox.lastSeq) this.unheard.delete(id)
    for (const id of known) this.unsaved.delete(id)
    this.parts.screen.welcome(welcome, [...this.unheard.values()])
    this.takeStatus(welcome.status)
    if (this.unheard.size > 0) this.say({ kind: 'appended' })
  }

  private takeChange(change: Change): void {
    for (const { id } of [...change.taken, ...change.decisions]) {
      this.unheard.delete(id)
      this.unsaved.delete(id)
    }
    this.revision = change.revision
    this.parts.screen.carryOut(change, true)
  }

  private takeStatus(status: SharedStatus): void {
    this.shared = status
    const { subscriptions } = this.parts.screen
    for (const entry of subscriptions.takeRefusals(status.refusals)) entry.listeners.call()
    this.parts.screen.status.setError('shared', status.error)
    this.parts.screen.showStatus()
  }

  private statusNow(): SharedStatus {
    const { status, subscriptions } = this.parts.screen
    return { link: this.parts.link.status, error: status.getSnapshot().error ?? null, refusals: subscriptions.refusals() }
  }

  /** What changed within one turn is said once. */
  private shareSoon(): void {
    if (this.isSaying) return
    this.isSaying = true
    queueMicrotask(() => {
      this.isSaying = false
      if (this.role !== 'leader' || !this.tabs?.hasFollowers) return
      const status = this.statusNow()
      const text = JSON.stringify(status)
      if (text === this.sharedText) return
      this.sharedText = text
      this.at = (this.at ?? 0) + 1
      this.tabs.lead({ kind: 'status', at: this.at, status })
    })
  }
}
