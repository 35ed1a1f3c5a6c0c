/**
 * What this page is among the pages of its profile. Alone or leading, it speaks to the node and tells the others what
 * became of it; following, it shows what the leader tells and appends its own mutations to the store they share.
 */
import { LINK_UNKNOWN, type LinkStatus } from './status'
import type { Screen } from './screen'
import type { DraftMutation, StoredMutation } from './store'
import type { Change, Command, LeaderMessage, PageMessage, SharedStatus, Welcome } from './tab_messages'
import type { TabPlatform } from './tab_platform'
import { type TabPorts, Tabs } from './tabs'
import type { Timers } from './timers'

/** What a role needs of the client around it. */
export interface RolePorts {
  /** Puts a job at the end of the queue. */
  run(job: () => Promise<void>): void
  /** Job: becomes the one that writes and speaks to the node. */
  takeOver(): Promise<void>
  /** Stops writing and speaking to the node. */
  stop(): void
  /** Job: takes what other pages appended to the outbox. */
  readOutbox(): Promise<void>
  /** Drafts of a page that cannot store them. */
  takeDrafts(drafts: readonly DraftMutation[]): void
  /** What other pages want has changed. */
  flush(): void
  /** The store is in another place now. */
  reopen(): void
  /** Carries out what the application asked of another page. */
  command(command: Command, isLeader: boolean): void
  /** Whether the application wants a connection. */
  isOnline(): boolean
  /** Everything is wiped. */
  signedOut(): void
}

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
    private readonly platform: TabPlatform | null,
    private readonly timers: Timers,
    private readonly screen: () => Screen,
    private readonly ownLink: () => LinkStatus,
    private readonly ports: RolePorts,
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
    this.tabs?.close()
    this.tabs = null
    this.at = null
    if (this.platform === null || place === null) {
      this.role = 'alone'
      return true
    }
    this.role = 'follower'
    this.tabs = new Tabs(place, this.platform, this.timers, this)
    this.hello()
    return false
  }

  /** Like `enter`, in a place that this page was the first to find: resolves to whether it may lead there at once. */
  async enterFirst(place: string | null): Promise<boolean> {
    const { platform } = this
    if (platform === null || place === null) return this.enter(place)
    this.tabs?.close()
    this.at = null
    this.role = 'follower'
    const isLeading = await new Promise<boolean>((resolve) => {
      this.tabs = new Tabs(place, platform, this.timers, this, resolve)
    })
    if (!isLeading) this.hello()
    return isLeading
  }

  /** The store says that this page leads. True when others followed the page before it, and are about to say hello. */
  leads(epoch: number): boolean {
    if (this.tabs === null) return false
    const isHeir = this.shared !== null
    this.role = 'leader'
    this.at = 0
    this.shared = null
    this.sharedText = ''
    this.screen().status.setError('shared', null)
    this.tabs.leads(epoch)
    this.unheard.clear()
    const drafts = [...this.unsaved.values()]
    this.unsaved.clear()
    this.ports.takeDrafts(drafts)
    return isHeir
  }

  /** Carries a change out and tells the others. */
  carryOut(change: Change, isStored: boolean): void {
    this.revision = change.revision
    this.screen().carryOut(change, isStored)
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
    if (this.role === 'follower') this.say({ kind: 'wants', wants: this.screen().subscriptions.wants() })
  }

  /** How it is with the node, wherever the connection is. */
  get linkStatus(): LinkStatus {
    if (this.role === 'leader') this.shareSoon()
    if (this.isLeading || this.platform === null) return this.ownLink()
    return this.shared?.link ?? { ...LINK_UNKNOWN, state: this.ports.isOnline() ? 'connecting' : 'offline' }
  }

  /** The page goes away. */
  close(): void {
    this.tabs?.close()
    this.tabs = null
  }

  lead(): void {
    this.ports.run(() => this.ports.takeOver())
  }

  stepDown(): void {
    if (this.role !== 'leader' && this.role !== 'follower') return
    this.ports.stop()
    this.role = 'follower'
    this.at = null
    this.screen().subscriptions.forgetOthers()
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
    this.screen().subscriptions.setOther(page, [])
    this.ports.flush()
  }

  fromPage(from: string, message: PageMessage): void {
    if (message.kind === 'signed_out') return this.ports.signedOut()
    if (message.kind === 'command') return this.ports.command(message.command, this.role === 'leader')
    if (this.role !== 'leader') return
    switch (message.kind) {
      case 'hello':
        this.tabs?.watch(from)
        this.setWants(from, message.wants)
        this.ports.takeDrafts(message.unsaved)
        // after every write that the page may have read, and whatever it appended
        this.ports.run(async () => {
          await this.ports.readOutbox()
          this.tabs?.lead({ kind: 'welcome', to: from, welcome: this.welcomeOf(message) })
        })
        return
      case 'wants':
        return this.setWants(from, message.wants)
      case 'appended':
        return this.ports.run(() => this.ports.readOutbox())
      case 'unsaved':
        return this.ports.takeDrafts(message.drafts)
    }
  }

  fromLeader(message: LeaderMessage): void {
    if (message.kind === 'moved') return this.ports.reopen()
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
    const { subscriptions, base } = this.screen()
    this.say({ kind: 'hello', revision: this.revision, held: [...base.shapes.keys()], wants: subscriptions.wants(), unsaved: [...this.unsaved.values()] })
  }

  private setWants(from: string, wants: Parameters<Screen['subscriptions']['setOther']>[1]): void {
    this.screen().subscriptions.setOther(from, wants)
    this.ports.flush()
  }

  private welcomeOf({ revision, held }: PageMessage & { kind: 'hello' }): Welcome {
    const { base, outbox } = this.screen()
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
    this.screen().welcome(welcome, [...this.unheard.values()])
    this.takeStatus(welcome.status)
    if (this.unheard.size > 0) this.say({ kind: 'appended' })
  }

  private takeChange(change: Change): void {
    for (const { id } of [...change.taken, ...change.decisions]) {
      this.unheard.delete(id)
      this.unsaved.delete(id)
    }
    this.revision = change.revision
    this.screen().carryOut(change, true)
  }

  private takeStatus(status: SharedStatus): void {
    this.shared = status
    const { subscriptions } = this.screen()
    for (const entry of subscriptions.takeRefusals(status.refusals)) entry.listeners.call()
    this.screen().status.setError('shared', status.error)
    this.screen().showStatus()
  }

  private statusNow(): SharedStatus {
    const { status, subscriptions } = this.screen()
    return { link: this.ownLink(), error: status.getSnapshot().error ?? null, refusals: subscriptions.refusals() }
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
