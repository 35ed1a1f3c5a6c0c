// One person of the demo: a client of their own with a store of their own, as in a browser of their own, and every edit
// the page can make. An edit is on the screen before the database has heard of it; a list of operations is one transaction.
import { type Client, createClient, idbStore, type TypedClient, type TypedOp } from '@lockstep/client'
import { type Current, liveStatus } from '@lockstep/client/svelte'
import { getContext, setContext } from 'svelte'
import { Meter, meteredSocket } from './meter.svelte'
import { schema, type ListsRow, type MembersRow, type Schema, type TodosRow } from './schema'

export type { ListsRow as List, MembersRow as Member, TodosRow as Todo }

export const COLOURS = ['blue', 'green', 'rose', 'violet', 'amber', 'slate'] as const
export type Colour = (typeof COLOURS)[number]

export const TITLE_LENGTH_MAX = 200
export const LIST_NAME_LENGTH_MAX = 80
export const MEMBER_NAME_LENGTH_MAX = 40

/** Whoever can be shown. */
export const PROFILES = [
  { id: 'ada', name: 'Ada', colour: 'blue' },
  { id: 'linus', name: 'Linus', colour: 'green' },
] as const satisfies readonly { id: string; name: string; colour: Colour }[]
export type Profile = (typeof PROFILES)[number]

/** The node that served the page also answers its socket, unless ?socket= names another. */
function socketUrl(): string {
  const override = new URLSearchParams(location.search).get('socket')
  return override ?? `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/socket`
}

export class Person {
  readonly meter = new Meter()
  readonly client: TypedClient<Schema>
  readonly status: Current<ReturnType<Client['status']['getSnapshot']>>
  off = $state(false)

  constructor(readonly profile: Profile) {
    const { meter } = this
    this.client = createClient({ url: socketUrl(), store: idbStore({ name: `todo-${profile.id}` }), schema, webSocket: meteredSocket(meter) })
    this.status = liveStatus(this.client)
    this.client.onCommit((commit) => meter.shown(commit))
    // remembered for the tab, so that a reload while offline stays offline
    if (sessionStorage.getItem(this.#offlineKey) !== null) this.switchOff(true)
  }

  switchOff(off: boolean): void {
    this.off = off
    if (off) sessionStorage.setItem(this.#offlineKey, '1')
    else sessionStorage.removeItem(this.#offlineKey)
    this.client.setOnline(!off)
  }

  get #offlineKey(): string {
    return `todo-${this.profile.id}-offline`
  }

  /** Runs this now if the node answers, else as soon as it does. */
  whenLive(run: () => void): void {
    const { status } = this.client
    const isLive = () => status.getSnapshot().connection === 'live'
    if (isLive()) return run()
    const stop = status.subscribe(() => {
      if (!isLive()) return
      stop()
      run()
    })
  }

  addList(name: string, last: ListsRow | undefined): string {
    const id = crypto.randomUUID()
    const position = Math.floor(last?.position ?? 0) + 1
    this.#write([{ op: 'insert', table: 'lists', values: { id, name, position, archived: false } }])
    return id
  }

  addMember(list_id: string, name: string, taken: readonly MembersRow[]): void {
    const free = COLOURS.find((colour) => !taken.some((member) => member.colour === colour))
    const colour = free ?? COLOURS[taken.length % COLOURS.length]!
    this.#write([{ op: 'insert', table: 'members', values: { id: crypto.randomUUID(), list_id, name, colour } }])
  }

  addTodo(list_id: string, title: string): Promise<unknown> {
    const values = { id: crypto.randomUUID(), list_id, title, done: false, assignee: null, created_at: new Date() }
    return this.#write([{ op: 'insert', table: 'todos', values }])
  }

  tick(id: string, done: boolean): Promise<unknown> {
    return this.#write([{ op: 'update', table: 'todos', key: { id }, set: { done } }])
  }

  assign(id: string, assignee: string | null): void {
    this.#write([{ op: 'update', table: 'todos', key: { id }, set: { assignee } }])
  }

  /** Only if the title is still what it was when the editing began: nobody's words are lost unseen. */
  rename(id: string, title: string, before: string): Promise<unknown> {
    return this.#write([{ op: 'update', table: 'todos', key: { id }, set: { title }, if: { title: before } }])
  }

  remove(id: string): void {
    this.#write([{ op: 'delete', table: 'todos', key: { id } }])
  }

  /** Resolves when the database has decided. */
  #write(ops: readonly TypedOp<Schema>[]): Promise<unknown> {
    const begun = performance.now()
    const { outcome } = this.client.mutate(ops)
    // one that waited in the outbox tells of the offline time, not of the way
    const wasLive = this.status.current.connection === 'live'
    void outcome.then(() => wasLive && this.meter.travelled(performance.now() - begun))
    return outcome
  }
}

const KEY = Symbol('person')

export function providePerson(person: Person): void {
  setContext(KEY, person)
}

/** Whose pane this component is in. */
export function thisPerson(): Person {
  return getContext<Person>(KEY)
}
