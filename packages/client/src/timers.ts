/** Time and chance as arguments, so that tests need not wait for either. */
export interface Timers {
  /** Calls `run` once after `ms` milliseconds; the returned function prevents it. */
  after(ms: number, run: () => void): () => void
  /** From 0 up to 1. */
  chance(): number
}

/** The clock of the platform. */
export const platformTimers: Timers = {
  after(ms, run) {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
  chance: Math.random,
}
