/** Notices when a session that is there says nothing any more. */
import type { Timers } from './timers'

/** Heartbeats are answered every 30 s: after so long without a word, in milliseconds, what is shown may be old. */
export const SILENT_MS = 40_000
const TICK_MS = 1000

/** For how long nothing was heard, in whole seconds, once that is too long. */
export class Silence {
  /** 0 as long as all is well. */
  seconds = 0
  private heardAt = 0
  private wasHeard = false
  private cancel: (() => void) | null = null

  /** `changed` is called whenever `seconds` is another number. */
  constructor(
    private readonly timers: Timers,
    private readonly changed: () => void,
  ) {}

  /** Something was heard; from now on a silence counts. */
  heard(): void {
    this.heardAt = Date.now()
    this.wasHeard = true
    if (this.seconds > 0) {
      this.end()
      this.changed()
    }
    this.cancel ??= this.timers.after(SILENT_MS, () => this.look())
  }

  /** The session is over. */
  end(): void {
    this.cancel?.()
    this.cancel = null
    this.seconds = 0
  }

  private look(): void {
    if (this.seconds === 0 && this.wasHeard && Date.now() - this.heardAt < SILENT_MS) {
      this.wasHeard = false
      this.cancel = this.timers.after(Math.max(TICK_MS, SILENT_MS - (Date.now() - this.heardAt)), () => this.look())
      return
    }
    this.seconds = Math.max(1, Math.round((Date.now() - this.heardAt) / 1000))
    this.cancel = this.timers.after(TICK_MS, () => this.look())
    this.changed()
  }
}
