/**
 * React: hooks over a client. On a server every hook shows what the client holds there, which is nothing unless its store
 * was filled: a page is drawn there as it is before its rows arrive.
 */
import { type DependencyList, useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react'
import type { Client } from './client'
import { definitionKey } from './definition_key'
import type { LiveValue, QueryDefinition } from './live_query'
import type { Mutation, MutationOptions, MutationOutcome, OpInput } from './mutation'
import type { ShapeDefinition } from './protocol'
import type { ClientStatus } from './status'
import type { Subscription, SubscriptionSnapshot } from './subscriptions'
import type { ResultRow, SchemaTypes, TableName, TypedAggregates, TypedClient, TypedInclude, TypedOp, TypedQuery, TypedShape } from './typed'
import type { Row } from './values'

/** A client with or without a schema. */
type AnyClient = Client | TypedClient<any>

/** Shows a live value, such as one of `client.count`. Make it once, not in each rendering. */
export function useLive<V>(live: LiveValue<V>): V {
  const subscribe = useCallback((callback: () => void) => live.subscribe(callback), [live])
  const read = useCallback(() => live.getSnapshot(), [live])
  return useSyncExternalStore(subscribe, read, read)
}

/**
 * Shows a live query. The definition may be written in place: one that asks the same is the same. Where it holds a
 * function, `deps` say when that is another one, as with `useMemo`.
 */
export function useQuery<S extends SchemaTypes, T extends TableName<S>, const I extends TypedInclude<S, T> = {}, const A extends TypedAggregates<S, T> = {}>(
  client: TypedClient<S>,
  definition: TypedQuery<S, T, I, A>,
  deps?: DependencyList,
): readonly ResultRow<S, T, I, A>[]
export function useQuery<T extends object = Row>(client: Client, definition: QueryDefinition<T>, deps?: DependencyList): readonly T[]
export function useQuery(client: AnyClient, definition: QueryDefinition<any>, deps: DependencyList = []): readonly unknown[] {
  const query = useMemo(() => (client as Client).query(definition), [client, definitionKey(definition), ...deps])
  return useLive(query)
}

const PENDING: SubscriptionSnapshot = { state: 'pending' }

/** Asks for a shape while the component is there; null asks for none. */
export function useShape<S extends SchemaTypes, T extends TableName<S>>(client: TypedClient<S>, definition: TypedShape<S, T> | null): SubscriptionSnapshot
export function useShape(client: Client, definition: ShapeDefinition | null): SubscriptionSnapshot
export function useShape(client: AnyClient, definition: ShapeDefinition | null): SubscriptionSnapshot {
  const [held, hold] = useState<{ readonly of: string; readonly subscription: Subscription } | null>(null)
  const key = definitionKey(definition)
  const wanted = useRef(definition)
  wanted.current = definition
  useEffect(() => {
    if (wanted.current === null) return
    const subscription = (client as Client).subscribe(wanted.current)
    hold({ of: key, subscription })
    return () => subscription.unsubscribe()
  }, [client, key])
  const subscription = held?.of === key ? held.subscription : null
  const subscribe = useCallback((callback: () => void) => subscription?.subscribe(callback) ?? (() => undefined), [subscription])
  const read = useCallback(() => subscription?.getSnapshot() ?? PENDING, [subscription])
  return useSyncExternalStore(subscribe, read, read)
}

/** Shows how the client is: connection, unsent and refused changes. */
export function useStatus(client: AnyClient): ClientStatus {
  return useLive(client.status)
}

/** What became of the last mutation of a hook. */
export interface MutationState {
  readonly state: 'idle' | 'pending' | MutationOutcome['outcome']
  readonly code?: string
  readonly message?: string
}

const IDLE: MutationState = { state: 'idle' }

/** A function that writes, and what became of its last mutation. */
export function useMutation<S extends SchemaTypes>(
  client: TypedClient<S>,
): [mutate: (ops: readonly TypedOp<S>[], options?: MutationOptions) => Mutation, state: MutationState]
export function useMutation(client: Client): [mutate: (ops: readonly OpInput[], options?: MutationOptions) => Mutation, state: MutationState]
export function useMutation(client: AnyClient): [mutate: (ops: readonly any[], options?: MutationOptions) => Mutation, state: MutationState] {
  const [state, setState] = useState(IDLE)
  const last = useRef('')
  const mutate = useCallback(
    (ops: readonly any[], options?: MutationOptions) => {
      const mutation = client.mutate(ops, options)
      last.current = mutation.id
      setState({ state: 'pending' })
      void mutation.outcome.then(({ outcome, ...rest }) => {
        if (last.current === mutation.id) setState({ state: outcome, ...rest })
      })
      return mutation
    },
    [client],
  )
  return [mutate, state]
}
