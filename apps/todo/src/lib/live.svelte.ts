// The client's live values are framework-free: subscribe(cb) and getSnapshot(). This makes one of
// them a value that Svelte follows, listening only while something on the page reads it.
import { createSubscriber } from 'svelte/reactivity'

export interface Source<T> {
  getSnapshot(): T
  subscribe(changed: () => void): () => void
}

export class Live<T> {
  readonly #source: Source<T>
  readonly #follow: () => void

  constructor(source: Source<T>) {
    this.#source = source
    this.#follow = createSubscriber((changed) => source.subscribe(changed))
  }

  get current(): T {
    this.#follow()
    return this.#source.getSnapshot()
  }
}
