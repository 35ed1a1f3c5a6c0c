/** Time as an argument, so that tests need not wait for it. */
export interface Timers {
  /** Calls `run` once after `ms` milliseconds; the returned function prevents it. */
  after(ms: number, run: () => void): () => void
}

/** The clock of the platform. */
export const platformTimers: Timers = {
  after(ms, run) {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
}
