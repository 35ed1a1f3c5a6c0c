/**
 * Svelte 5: live values whose `current` is reactive where it is read in an effect or a template, and followed only while
 * it is.
 */
import { createSubscriber } from 'svelte/reactivity'
import type { Client } from './client'
import { definitionKey } from './definition_key'
import type { LiveValue, QueryDefinition } from './live_query'
import type { ClientStatus } from './status'
import type { ResultRow, SchemaTypes, TableName, TypedAggregates, TypedClient, TypedInclude, TypedQuery } from './typed'
import type { Row } from './values'

/** A value that is reactive where it is read. */
export interface Current<V> {
  readonly current: V
}

interface Followed<V> {
  readonly key: unknown
  readonly live: LiveValue<V>
  readonly follow: () => void
}

/** `key` tells when another value is to be followed; `make` makes it. Both may read reactive state. */
function following<V>(key: () => unknown, make: () => LiveValue<V>): Current<V> {
  let followed: Followed<V> | null = null
  return {
    get current() {
      const wanted = key()
      if (followed === null || !Object.is(followed.key, wanted)) {
        const live = make()
        followed = { key: wanted, live, follow: createSubscriber((update) => live.subscribe(update)) }
      }
      followed.follow()
      return followed.live.getSnapshot()
    },
  }
}

/** Shows a live value: `client.count(…)`, a subscription, `client.status`. A function may give another one as state changes. */
export function live<V>(value: LiveValue<V> | (() => LiveValue<V>)): Current<V> {
  if (typeof value !== 'function') return following(() => value, () => value)
  return following(value, value)
}

/**
 * Shows a live query. `definition` is a function and may read reactive state: when what it gives asks for something else,
 * that is followed. Where it holds functions of the application, `deps` gives what they depend on.
 */
export function liveQuery<S extends SchemaTypes, T extends TableName<S>, const I extends TypedInclude<S, T> = {}, const A extends TypedAggregates<S, T> = {}>(
  client: TypedClient<S>,
  definition: () => TypedQuery<S, T, I, A>,
  deps?: () => readonly unknown[],
): Current<readonly ResultRow<S, T, I, A>[]>
export function liveQuery<T extends object = Row>(
  client: Client,
  definition: () => QueryDefinition<T>,
  deps?: () => readonly unknown[],
): Current<readonly T[]>
export function liveQuery(
  client: Client | TypedClient<any>,
  definition: () => QueryDefinition<any>,
  deps: () => readonly unknown[] = () => [],
): Current<readonly unknown[]> {
  let before: readonly unknown[] = []
  // counts the sets of dependencies that were seen
  let stamp = 0
  const key = () => {
    const now = [definitionKey(definition()), ...deps()]
    if (now.length !== before.length || now.some((one, at) => !Object.is(one, before[at]))) stamp += 1
    before = now
    return stamp
  }
  return following<readonly unknown[]>(key, () => (client as Client).query(definition()))
}

/** Shows how the client is: connection, unsent and refused changes. */
export function liveStatus(client: Client | TypedClient<any>): Current<ClientStatus> {
  return live(client.status)
}
