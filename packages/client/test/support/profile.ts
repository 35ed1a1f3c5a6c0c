/**
 * One browser profile with several pages: locks, channels and time are this object's, the store is fake IndexedDB that
 * all of them share. A page can be frozen: nothing is called in it until it is thawed, what it asked for is done all the
 * same, and what was said to it waits.
 */
import { LockstepClient } from '../../src/client'
import type { Store } from '../../src/store'
import { idbStore } from '../../src/store_idb'
import type { LockHow, TabPlatform } from '../../src/tab_platform'
import type { Timers } from '../../src/timers'
import type { TransportFactory } from '../../src/transport'

interface Waiter {
  readonly page: FakePage
  readonly granted: () => void
  readonly lost: () => void
}

/** Web Locks of one profile. */
class Locks {
  private readonly holders = new Map<string, Waiter>()
  private readonly queues = new Map<string, Waiter[]>()

  request(page: FakePage, name: string, how: LockHow, granted: () => void, lost: () => void): () => void {
    const waiter: Waiter = { page, granted, lost }
    const holder = this.holders.get(name)
    if (holder !== undefined && how === 'try') {
      page.soon(lost)
      return () => undefined
    }
    const steal = how === 'steal'
    if (holder !== undefined && steal) holder.page.soon(() => holder.lost())
    if (holder === undefined || steal) this.give(name, waiter)
    else this.queues.set(name, [...(this.queues.get(name) ?? []), waiter])
    return () => this.letGo(name, waiter)
  }

  /** A page is gone, and with it what it held. */
  forget(page: FakePage): void {
    for (const [name, queue] of this.queues) this.queues.set(name, queue.filter((waiter) => waiter.page !== page))
    for (const [name, holder] of [...this.holders]) if (holder.page === page) this.letGo(name, holder)
  }

  private letGo(name: string, waiter: Waiter): void {
    this.queues.set(name, (this.queues.get(name) ?? []).filter((one) => one !== waiter))
    if (this.holders.get(name) !== waiter) return
    this.holders.delete(name)
    const next = this.queues.get(name)?.shift()
    if (next !== undefined) this.give(name, next)
  }

  private give(name: string, waiter: Waiter): void {
    this.holders.set(name, waiter)
    waiter.page.soon(() => this.holders.get(name) === waiter && waiter.granted())
  }
}

export class Profile {
  readonly locks = new Locks()
  readonly pages: FakePage[] = []
  /** Sees what pages say to each other. */
  overhear: (message: unknown) => void = () => undefined
  private pagesEver = 0

  /** What is under way between pages: by sender and receiver, in order. */
  readonly lines = new Map<string, { to: FakePage; deliver: () => void }[]>()

  newPage(): FakePage {
    const page = new FakePage(this, `page ${(this.pagesEver += 1)}`)
    this.pages.push(page)
    return page
  }

  /** Delivers the oldest message of a line, or loses it. */
  deliver(line: string, isLost = false): void {
    const message = this.lines.get(line)?.shift()
    if (message !== undefined && !isLost) message.to.soon(message.deliver)
  }

  /** Lines with something in them. */
  waiting(): string[] {
    return [...this.lines].filter(([, line]) => line.length > 0).map(([name]) => name)
  }
}

/** One page: what it has of the platform, and the client in it. */
export class FakePage implements Timers {
  client!: LockstepClient
  isVisible = true
  isFrozen = false
  isDead = false
  private readonly held: (() => void)[] = []
  private readonly timers = new Map<object, { ms: number; run: () => void }>()
  private readonly channels = new Map<string, Set<(message: unknown) => void>>()

  constructor(
    private readonly profile: Profile,
    readonly id: string,
  ) {}

  open(transport: TransportFactory, url = 'ws://sim/socket', subject = ''): LockstepClient {
    this.client = new LockstepClient({ url, subject, store: this.store() }, { transport, timers: this, tabs: this.platform() })
    return this.client
  }

  /** Calls something in this page, now or when it is thawed. */
  soon(call: () => void): void {
    if (this.isDead) return
    if (this.isFrozen) this.held.push(call)
    else setTimeout(() => (this.isFrozen ? this.held.push(call) : this.isDead || call()), 0)
  }

  freeze(): void {
    this.isFrozen = true
  }

  thaw(): void {
    this.isFrozen = false
    for (const call of this.held.splice(0)) this.soon(call)
  }

  /** Closed, or crashed: nothing happens in it any more. */
  die(): void {
    this.isDead = true
    this.held.length = 0
    this.timers.clear()
    this.profile.locks.forget(this)
    this.profile.pages.splice(this.profile.pages.indexOf(this), 1)
  }

  chance(): number {
    return 1
  }

  after(ms: number, run: () => void): () => void {
    const timer = { ms, run }
    if (ms === 0) this.soon(() => this.timers.delete(timer) && run())
    this.timers.set(timer, timer)
    return () => void this.timers.delete(timer)
  }

  /** Delays that are being waited for. */
  delays(): number[] {
    return [...new Set([...this.timers.values()].map(({ ms }) => ms))].filter((ms) => ms > 0)
  }

  pass(ms: number): void {
    if (this.isFrozen) return
    for (const timer of [...this.timers.values()]) if (timer.ms === ms && this.timers.delete(timer)) timer.run()
  }

  private hear(name: string, message: unknown): void {
    for (const receive of this.channels.get(name) ?? []) receive(message)
  }

  private platform(): TabPlatform {
    const { locks } = this.profile
    return {
      id: this.id,
      channel: (name, receive) => {
        const here = this.channels.get(name) ?? new Set()
        this.channels.set(name, here.add(receive))
        return { post: (message) => this.post(name, message), close: () => here.delete(receive) }
      },
      lock: (name, how, granted, lost) => locks.request(this, name, how, granted, lost),
      isVisible: () => this.isVisible,
      onVisibility: () => () => undefined,
    }
  }

  private post(name: string, message: unknown): void {
    const copy = structuredClone(message)
    this.profile.overhear(copy)
    for (const to of this.profile.pages) {
      if (to === this) continue
      const line = `${this.id} to ${to.id}`
      this.profile.lines.set(line, [...(this.profile.lines.get(line) ?? []), { to, deliver: () => to.hear(name, structuredClone(copy)) }])
    }
  }

  /** IndexedDB goes on while a page is frozen; what it answers is heard later. */
  private store(): Store {
    const store = idbStore()
    const guard =
      <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
      async (...args: A): Promise<R> => {
        if (this.isDead) return new Promise<R>(() => undefined)
        const ended = await call.apply(store, args).then(
          (value) => () => value,
          (error: unknown) => () => {
            throw error
          },
        )
        if (this.isFrozen) await new Promise<void>((resolve) => this.held.push(resolve))
        return this.isDead ? new Promise<R>(() => undefined) : (ended() as R)
      }
    return new Proxy(store, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target)
        return typeof value === 'function' && name !== 'onEvent' ? guard(value as never) : value
      },
      set: (target, name, value) => Reflect.set(target, name, value, target),
    })
  }
}
