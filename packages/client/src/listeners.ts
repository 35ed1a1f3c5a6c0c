/** A set of callbacks. One that throws does not keep the others from being called. */
export class Listeners<T = void> {
  private readonly callbacks = new Set<{ readonly call: (value: T) => void }>()

  /** Adds a callback; the returned function takes it out. The same function added twice is called twice. */
  add(callback: (value: T) => void): () => void {
    const entry = { call: callback }
    this.callbacks.add(entry)
    return () => void this.callbacks.delete(entry)
  }

  /** Calls everyone who is registered now. */
  call(value: T): void {
    for (const entry of [...this.callbacks]) {
      try {
        entry.call(value)
      } catch (error) {
        // the application's mistake must surface, and must not stop a commit half-way
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }

  /** How many there are. */
  get size(): number {
    return this.callbacks.size
  }
}
