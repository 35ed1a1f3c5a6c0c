/**
 * The store in IndexedDB. One database per (database id, subject), which all pages of the profile share, with a fixed
 * set of object stores; a tiny directory database tells which one belongs to a URL. `idb_rows` has the layout of rows.
 */
import { ask, transact } from './idb'
import { foldRows, Logs, readRows, type RowsKey, writeRows } from './idb_rows'
import { believedMeta, inDirectory, isMutation, isShape, leadOf, type LeadRecord, openPlace, putLead, STORES } from './idb_schema'
import {
  DeposedError,
  type DraftMutation,
  EMPTY_META,
  MovedError,
  numbered,
  type RefusedMutation,
  type Store,
  type StoreContents,
  type StoredMutation,
  type StoreEvent,
  type StoreWrite,
} from './store'
import type { WireRow } from './values'

interface Opened {
  readonly database: string | null
  readonly name: string
  readonly idb: IDBDatabase
}

/** An outbox record that cannot be sent: the application is to be told of it, and it blocks nothing. */
function refusalOf(stored: unknown, at: number): RefusedMutation {
  const id = (stored as { id?: unknown } | null)?.id
  const message = 'the local store holds this change in a form that cannot be read'
  return { id: typeof id === 'string' ? id : `unreadable ${at}`, name: null, args: null, ops: [], code: 'damaged', message }
}

/** Reads all there is, or all but the rows. */
async function readAll(tx: IDBTransaction, database: string | null, logs: Logs, revision: number | null) {
  const lead = await leadOf(tx)
  const hasRows = revision !== lead.revision
  const [meta, shapes, keys, texts, outbox, outboxKeys, refused] = await Promise.all([
    ask(tx.objectStore('meta').get('meta')),
    ask(tx.objectStore('shapes').getAll()),
    hasRows ? ask(tx.objectStore('rows').getAllKeys() as IDBRequest<unknown> as IDBRequest<RowsKey[]>) : [],
    hasRows ? ask(tx.objectStore('rows').getAll()) : [],
    ask(tx.objectStore('outbox').getAll()),
    ask(tx.objectStore('outbox').getAllKeys() as IDBRequest<number[]>),
    ask(tx.objectStore('refused').getAll()),
  ])
  const described = shapes.filter(isShape)
  const { rows, damaged } = hasRows ? readRows(described, keys, texts, logs) : { rows: new Map(), damaged: new Set<string>() }
  const believed = believedMeta(meta)
  // what is held without a cursor cannot be resumed
  for (const shape of shapes) if (believed === null || !isShape(shape)) damaged.add(shape.id)
  const unreadable = outboxKeys.filter((_, at) => !isMutation(outbox[at]))
  const count = (number: number, what: string) => `${number} ${what}${number === 1 ? '' : 's'}`
  const words = [
    ...(believed === null ? ['the cursor'] : []),
    ...(damaged.size > 0 ? [`rows of ${count(damaged.size, 'shape')}`] : []),
    ...(unreadable.length > 0 ? [count(unreadable.length, 'unsent change')] : []),
  ]
  for (const id of damaged) rows.delete(id)
  const contents: StoreContents = {
    database,
    meta: believed ?? EMPTY_META,
    revision: lead.revision,
    damaged: words,
    shapes: described.filter(({ id }) => !damaged.has(id)),
    rows,
    outbox: outbox.filter(isMutation),
    refused: [...refused, ...unreadable.map((key) => refusalOf(outbox[outboxKeys.indexOf(key)], key))],
  }
  return { lead, contents, damaged, unreadable }
}

function writeAll(tx: IDBTransaction, write: StoreWrite, lead: LeadRecord, logs: Logs): void {
  const store = (name: (typeof STORES)[number]) => tx.objectStore(name)
  const revision = lead.revision + 1
  if (write.shapes || write.forgetShapes) putLead(tx, { ...lead, revision })
  if (write.forgetShapes) {
    store('shapes').clear()
    store('rows').clear()
    logs.clear()
  }
  for (const change of write.shapes ?? []) {
    if (change.drop) store('shapes').delete(change.id)
    else if (change.shape !== null) store('shapes').put(change.shape)
    writeRows(store('rows'), change, revision, logs)
  }
  if (write.meta) store('meta').put(write.meta, 'meta')
  for (const mutation of write.outboxPut ?? []) store('outbox').put(mutation)
  for (const seq of write.outboxRemove ?? []) store('outbox').delete(seq)
  for (const refused of write.refusedPut ?? []) store('refused').put(refused)
  for (const id of write.refusedRemove ?? []) store('refused').delete(id)
}

/** Appends in a transaction of its own, whoever leads. */
function appendTo(place: IDBDatabase, fresh: Parameters<typeof numbered>[3], refused: readonly RefusedMutation[] = []): Promise<StoredMutation[]> {
  const work = async (tx: IDBTransaction) => {
    const store = tx.objectStore('outbox')
    const [meta, lead, outbox] = await Promise.all([ask(tx.objectStore('meta').get('meta')), leadOf(tx), ask(store.getAll())])
    if (lead.moved) throw new MovedError('the outbox has moved')
    const stored = numbered(believedMeta(meta) ?? EMPTY_META, outbox.filter(isMutation), lead.lastSeq, fresh)
    for (const mutation of stored) store.put(mutation)
    for (const one of refused) tx.objectStore('refused').put(one)
    putLead(tx, { ...lead, lastSeq: stored.at(-1)?.seq ?? lead.lastSeq })
    return stored
  }
  return transact(place, ['meta', 'lead', 'outbox', 'refused'], 'readwrite', work, 'strict')
}

/** The mutations behind this one. */
async function tailOf(tx: IDBTransaction, seq: number): Promise<StoredMutation[]> {
  return (await ask(tx.objectStore('outbox').getAll(IDBKeyRange.lowerBound(seq, true)))).filter(isMutation)
}

class IdbStore implements Store {
  onEvent: (event: StoreEvent) => void = () => undefined
  private url = ''
  private subject = ''
  private opened: Opened | null = null
  epoch = 0
  /** never led under an epoch twice, not even when the record of it is gone */
  private highest = 0
  private readonly logs = new Logs()

  constructor(private readonly name: string) {}

  get place(): string | null {
    return this.opened?.name ?? null
  }

  get isScattered(): boolean {
    return this.opened !== null && this.logs.isLong
  }

  async open(url: string, subject: string): Promise<StoreContents> {
    this.url = url
    this.subject = subject
    this.opened?.idb.close()
    this.opened = await this.openFor(await this.named())
    return this.read()
  }

  async lead(revision: number | null, seen = 0): Promise<StoreContents> {
    const { idb, database } = this.isOpen()
    if ((await this.named()) !== database) throw new MovedError('the store has moved')
    const [contents, epoch] = await transact(idb, STORES, 'readwrite', async (tx) => {
      const { lead, contents, damaged, unreadable } = await readAll(tx, database, this.logs, revision)
      const repair: StoreWrite = {
        durability: 'relaxed',
        ...(damaged.size > 0 ? { shapes: [...damaged].map((id) => ({ id, drop: true as const })) } : {}),
        outboxRemove: unreadable,
        refusedPut: contents.refused.filter(({ code }) => code === 'damaged'),
      }
      writeAll(tx, repair, lead, this.logs)
      const epoch = Math.max(lead.epoch, this.highest) + 1
      const lastSeq = Math.max(lead.lastSeq, seen, contents.outbox.at(-1)?.seq ?? 0, ...unreadable)
      putLead(tx, { ...lead, epoch, lastSeq, moved: false })
      return [contents, epoch] as const
    })
    this.epoch = this.highest = epoch
    return contents
  }

  async isLeader(): Promise<boolean> {
    return (await transact(this.isOpen().idb, ['lead'], 'readonly', leadOf)).epoch === this.epoch
  }

  async adopt(database: string): Promise<StoreContents | null> {
    const old = this.isOpen()
    if (old.database === database) return null
    const next = await this.openFor(database)
    if (old.database === null) await this.move(old, next)
    await inDirectory(this.name, (databases) => databases.put(database, this.directoryKey()))
    // only now: a crash before this line leaves a second copy that the directory no longer leads to
    if (old.database === null) {
      await this.inLead(old, 'strict', (tx) => {
        tx.objectStore('outbox').clear()
        tx.objectStore('refused').clear()
      })
    }
    old.idb.close()
    this.opened = next
    this.epoch = 0
    return this.read()
  }

  async append(drafts: readonly DraftMutation[]): Promise<StoredMutation[]> {
    return appendTo(this.isOpen().idb, drafts)
  }

  async outboxAfter(seq: number): Promise<readonly StoredMutation[]> {
    return transact(this.isOpen().idb, ['outbox'], 'readonly', (tx) => tailOf(tx, seq))
  }

  async change(seq: number, propose: (tail: readonly StoredMutation[]) => StoreWrite | null): Promise<void> {
    await this.inLead(this.isOpen(), 'strict', async (tx, lead) => {
      const write = propose(await tailOf(tx, seq))
      if (write !== null) writeAll(tx, write, lead, this.logs)
    })
  }

  async write(write: StoreWrite): Promise<void> {
    await this.inLead(this.isOpen(), write.durability, (tx, lead) => writeAll(tx, write, lead, this.logs))
  }

  async compact(rows: (shape: string) => ReadonlyMap<string, WireRow> | undefined): Promise<void> {
    for (const id of this.logs.long((shape) => rows(shape)?.size ?? 0)) {
      const held = rows(id)
      if (held !== undefined) await this.inLead(this.isOpen(), 'relaxed', (tx) => foldRows(tx.objectStore('rows'), id, held, this.logs))
    }
  }

  async wipe(): Promise<void> {
    const { database } = this.isOpen()
    await this.close()
    await inDirectory(this.name, (databases) => databases.delete(this.directoryKey()))
    // other pages let go when they hear of it; the requests wait for them
    const names = new Set([this.nameOf(null), this.nameOf(database)])
    await Promise.all([...names].map((name) => ask(indexedDB.deleteDatabase(name))))
  }

  async close(): Promise<void> {
    this.opened?.idb.close()
    this.opened = null
  }

  /** The one transaction of a page that leads, or none at all. */
  private inLead({ idb }: Opened, durability: StoreWrite['durability'], work: (tx: IDBTransaction, lead: LeadRecord) => void | Promise<void>): Promise<void> {
    const ifLeading = async (tx: IDBTransaction) => {
      const lead = await leadOf(tx)
      if (lead.epoch !== this.epoch) throw new DeposedError('another page leads')
      await work(tx, lead)
    }
    return transact(idb, STORES, 'readwrite', ifLeading, durability)
  }

  /** The outbox goes behind what the other place holds; nobody can append to the old one any more. */
  private async move(old: Opened, next: Opened): Promise<void> {
    await this.inLead(old, 'strict', (tx, lead) => putLead(tx, { ...lead, moved: true }))
    const [outbox, refused] = await transact(old.idb, ['outbox', 'refused'], 'readonly', (tx) =>
      Promise.all([tailOf(tx, 0), ask<RefusedMutation[]>(tx.objectStore('refused').getAll())]),
    )
    if (outbox.length + refused.length > 0) await appendTo(next.idb, outbox, refused)
  }

  private async read(): Promise<StoreContents> {
    const { idb, database } = this.isOpen()
    return (await transact(idb, STORES, 'readonly', (tx) => readAll(tx, database, this.logs, null))).contents
  }

  /** The database that belongs to the URL and the subject, null as long as no node has been met. */
  private async named(): Promise<string | null> {
    return (await inDirectory(this.name, (databases) => databases.get(this.directoryKey()))) ?? null
  }

  private isOpen(): Opened {
    if (this.opened === null) throw new Error('the store is not open')
    return this.opened
  }

  private directoryKey(): string {
    return JSON.stringify([this.url, this.subject])
  }

  private nameOf(database: string | null): string {
    return `${this.name} ${JSON.stringify(database === null ? ['url', this.url, this.subject] : ['database', database, this.subject])}`
  }

  private async openFor(database: string | null): Promise<Opened> {
    const name = this.nameOf(database)
    const idb = await openPlace(name, (event) => {
      // of a place that was left nobody needs to hear
      if (event === 'blocked' || event === 'unblocked' || this.opened?.name === name) this.onEvent(event)
    })
    return { database, name, idb }
  }
}

/** Where an IndexedDB store is. */
export interface IdbStoreOptions {
  /** What its databases' names begin with, `lockstep` unless given. Stores of different names share nothing. */
  readonly name?: string
}

/** A new store in this origin's IndexedDB. Rejects where there is none; the client then goes on in memory. */
export function idbStore({ name = 'lockstep' }: IdbStoreOptions = {}): Store {
  return new IdbStore(name)
}
