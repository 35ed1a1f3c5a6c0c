/** One place per tab, by Web Locks where there are any. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { nextSlot } from '../src/slots'

/** A LockManager of one page: exclusive locks, `ifAvailable`, and a queue that `signal` leaves. */
class FakeLocks {
  private readonly held = new Set<string>()
  private queues = new Map<string, (() => void)[]>()

  request(name: string, options: { ifAvailable?: true; signal?: AbortSignal }, hold: (lock: unknown) => Promise<void> | undefined) {
    return new Promise<void>((resolve, reject) => {
      const take = () => {
        this.held.add(name)
        void Promise.resolve(hold({ name })).then(() => {
          this.held.delete(name)
          resolve()
          this.queues.get(name)?.shift()?.()
        })
      }
      if (!this.held.has(name)) return take()
      if (options.ifAvailable) return resolve(hold(null))
      const queue = this.queues.get(name) ?? []
      this.queues.set(name, queue)
      queue.push(take)
      options.signal?.addEventListener('abort', () => {
        queue.splice(queue.indexOf(take), 1)
        reject(new DOMException('aborted', 'AbortError'))
      })
    })
  }
}

describe('slots', () => {
  it('without Web Locks are told apart within the page', async () => {
    const [first, second] = [await nextSlot('a'), await nextSlot('a')]
    expect([first.name, second.name, (await nextSlot('b')).name]).toEqual(['a', 'a 1', 'b'])
    first.release()
    expect((await nextSlot('a')).name).toBe('a')
    second.release()
  })

  describe('with Web Locks', () => {
    beforeEach(() => {
      vi.useFakeTimers()
      vi.stubGlobal('navigator', { locks: new FakeLocks() })
    })
    afterEach(() => {
      vi.useRealTimers()
      vi.unstubAllGlobals()
    })

    it('are held until released, and the second tab takes the next', async () => {
      const first = await nextSlot('a')
      const second = nextSlot('a')
      await vi.advanceTimersByTimeAsync(300)
      expect([first.name, (await second).name]).toEqual(['a', 'a 1'])
      first.release()
      expect((await nextSlot('a')).name).toBe('a')
    })

    it('a page that is reloaded waits for the one before to let go', async () => {
      const before = await nextSlot('a')
      const after = nextSlot('a')
      await vi.advanceTimersByTimeAsync(100)
      before.release()
      expect((await after).name).toBe('a')
    })

    it('a failure of the lock manager is passed on', async () => {
      vi.stubGlobal('navigator', { locks: { request: () => Promise.reject(new Error('not allowed')) } })
      await expect(nextSlot('a')).rejects.toThrow('not allowed')
    })
  })
})
