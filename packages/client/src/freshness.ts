/**
 * How old is what is shown? The node is asked every other second, and its answers are added up.
 *
 *     asked at t ──► answered: "as of `age` ms ago you were sent everything" ──► so at t − age it was so
 *
 * The moment counts from the question, so it does not matter how long the answer travelled, nor behind what it waited.
 * A node that stops, a wire that went dead and a node that PostgreSQL does not reach look alike: nothing newer is proven.
 */
import type { Timers } from './timers'

/** Between two questions, in milliseconds. */
export const ASK_MS = 2000
/** What is shown is behind when no moment newer than so long ago is proven: a stall is told within 5 seconds. */
export const BEHIND_MS = 4500
const TICK_MS = 1000
/** Questions without an answer; after so many phoenix gives the connection up by itself. */
const UNANSWERED = 30

/** One session's proofs. */
export class Freshness {
  /** For how long what is shown may have been old, in whole seconds; 0 as long as all is well. */
  seconds = 0
  private provenAt = 0
  private readonly asked = new Map<string, number>()
  private cancelAsk: (() => void) | null = null
  private cancelLook: (() => void) | null = null

  /** `ask` sends a heartbeat and returns its ref; `changed` is called whenever `seconds` is another number. */
  constructor(
    private readonly timers: Timers,
    private readonly ask: () => string,
    private readonly changed: () => void,
  ) {}

  /** A session begins; its first commit will be read later than now. */
  begin(): void {
    this.end()
    this.provenAt = Date.now()
    this.askAgain()
    this.look()
  }

  /** The session is over. */
  end(): void {
    this.cancelAsk?.()
    this.cancelLook?.()
    this.asked.clear()
    this.seconds = 0
  }

  /** A heartbeat was answered; false if it was not one of these. `age` is null while the node has no proof. */
  answered(ref: string | null, age: number | null): boolean {
    const at = this.asked.get(ref ?? '')
    if (at === undefined) return false
    for (const one of this.asked.keys()) {
      this.asked.delete(one)
      if (one === ref) break
    }
    if (age !== null) this.provenAt = Math.max(this.provenAt, at - age)
    this.look()
    return true
  }

  private askAgain(): void {
    if (this.asked.size < UNANSWERED) {
      const now = Date.now()
      this.asked.set(this.ask(), now)
    }
    this.cancelAsk = this.timers.after(ASK_MS, () => this.askAgain())
  }

  private look(): void {
    const age = Date.now() - this.provenAt
    const seconds = age < BEHIND_MS ? 0 : Math.round(age / 1000)
    this.cancelLook?.()
    this.cancelLook = this.timers.after(seconds === 0 ? BEHIND_MS - age : TICK_MS, () => this.look())
    if (seconds === this.seconds) return
    this.seconds = seconds
    this.changed()
  }
}
