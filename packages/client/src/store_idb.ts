/**
 * The store in IndexedDB. One database per (database id, subject), which all pages of the profile share, with a fixed
 * set of object stores; a tiny directory database tells which one belongs to a URL. `idb_rows` has the layout of rows.
 */
import { ask, begin, ended } from './idb'
import { foldRows, Logs, readRows, type RowsKey, writeRows } from './idb_rows'
import { believedMeta, inDirectory, isMutation, isShape, type LeadRecord, NOBODY, openPlace, STORES } from './idb_schema'
import {
  DeposedError,
  type DraftMutation,
  EMPTY_META,
  MovedError,
  numbered,
  type RefusedMutation,
  renumberInto,
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
  const lead = (await ask(tx.objectStore('lead').get('lead'))) ?? NOBODY
  const isSame = revision === lead.revision
  const rowsStore = tx.objectStore('rows')
  const [meta, shapes, keys, texts, outbox, outboxKeys, refused] = await Promise.all([
    ask(tx.objectStore('meta').get('meta')),
    ask(tx.objectStore('shapes').getAll()),
    isSame ? [] : ask(rowsStore.getAllKeys() as IDBRequest<unknown> as IDBRequest<RowsKey[]>),
    isSame ? [] : ask(rowsStore.getAll()),
    ask(tx.objectStore('outbox').getAll()),
    ask(tx.objectStore('outbox').getAllKeys() as IDBRequest<number[]>),
    ask(tx.objectStore('refused').getAll()),
  ])
  const described = shapes.filter(isShape)
  const { rows, damaged } = isSame ? { rows: new Map(), damaged: new Set<string>() } : readRows(described, keys, texts, logs)
  for (const shape of shapes) if (!isShape(shape)) damaged.add((shape as { id: string }).id)
  const believed = believedMeta(meta)
  // what is held without a cursor cannot be resumed
  const held = believed === null ? [] : described.filter(({ id }) => !damaged.has(id))
  const unreadable = outboxKeys.filter((_, at) => !isMutation(outbox[at]))
  const words = [
    ...(believed === null ? ['the cursor'] : []),
    ...(damaged.size > 0 ? [`rows of ${damaged.size} shape${damaged.size === 1 ? '' : 's'}`] : []),
    ...(unreadable.length > 0 ? [`${unreadable.length} unsent change${unreadable.length === 1 ? '' : 's'}`] : []),
  ]
  const contents: StoreContents = {
    database,
    meta: believed ?? EMPTY_META,
    revision: lead.revision,
    damaged: words,
    shapes: held,
    rows: new Map(held.flatMap(({ id }) => (isSame ? [] : [[id, rows.get(id) ?? new Map()] as const]))),
    outbox: outbox.filter(isMutation),
    refused: [...refused, ...unreadable.map((key) => refusalOf(outbox[outboxKeys.indexOf(key)], key))],
  }
  return { lead, contents, damaged: believed === null ? new Set(shapes.map(({ id }) => id)) : damaged, unreadable }
}

/** The one transaction of a page that leads, or none at all. */
async function inLead(
  opened: Opened,
  epoch: number,
  durability: StoreWrite['durability'],
  work: (tx: IDBTransaction, lead: LeadRecord, requests: Promise<unknown>[]) => void,
): Promise<void> {
  const tx = begin(opened.idb, STORES, 'readwrite', durability)
  const requests: Promise<unknown>[] = []
  try {
    const lead = (await ask(tx.objectStore('lead').get('lead'))) ?? NOBODY
    if (lead.epoch !== epoch) throw new DeposedError('another page leads')
    work(tx, lead, requests)
  } catch (error) {
    // a value that cannot be stored throws at once; without the abort the first half would be kept
    await Promise.allSettled([...requests, abort(tx)])
    throw error
  }
  await Promise.all([...requests, ended(tx)])
}

function abort(tx: IDBTransaction): Promise<void> {
  tx.abort()
  return ended(tx)
}

/** Adds each request to `requests` as it is made. */
function writeAll(tx: IDBTransaction, write: StoreWrite, lead: LeadRecord, logs: Logs, requests: Promise<unknown>[]): void {
  const revision = lead.revision + 1
  if (write.shapes || write.forgetShapes) requests.push(ask(tx.objectStore('lead').put({ ...lead, revision }, 'lead')))
  if (write.forgetShapes) {
    requests.push(ask(tx.objectStore('shapes').clear()), ask(tx.objectStore('rows').clear()))
    logs.clear()
  }
  for (const change of write.shapes ?? []) {
    if (change.drop) requests.push(ask(tx.objectStore('shapes').delete(change.id)))
    else if (change.shape !== null) requests.push(ask(tx.objectStore('shapes').put(change.shape)))
    writeRows(tx.objectStore('rows'), change, revision, logs, requests)
  }
  if (write.meta) requests.push(ask(tx.objectStore('meta').put(write.meta, 'meta')))
  for (const mutation of write.outboxPut ?? []) requests.push(ask(tx.objectStore('outbox').put(mutation)))
  for (const seq of write.outboxRemove ?? []) requests.push(ask(tx.objectStore('outbox').delete(seq)))
  for (const refused of write.refusedPut ?? []) requests.push(ask(tx.objectStore('refused').put(refused)))
  for (const id of write.refusedRemove ?? []) requests.push(ask(tx.objectStore('refused').delete(id)))
}

/** Appends in a transaction of its own, whoever leads. */
async function appendTo(
  place: IDBDatabase,
  make: (meta: StoreContents['meta'], outbox: readonly StoredMutation[], lastSeq: number) => StoredMutation[],
  refused: readonly RefusedMutation[] = [],
): Promise<StoredMutation[]> {
  const tx = begin(place, ['meta', 'lead', 'outbox', 'refused'], 'readwrite', 'strict')
  const [meta, lead = NOBODY, outbox] = await Promise.all([
    ask(tx.objectStore('meta').get('meta')),
    ask(tx.objectStore('lead').get('lead')),
    ask(tx.objectStore('outbox').getAll()),
  ])
  if (lead.moved) {
    tx.abort()
    await ended(tx).catch(() => undefined)
    throw new MovedError('the outbox has moved')
  }
  const fresh = make(believedMeta(meta) ?? EMPTY_META, outbox.filter(isMutation), lead.lastSeq)
  const lastSeq = fresh.at(-1)?.seq ?? lead.lastSeq
  await Promise.all([
    ...fresh.map((mutation) => ask(tx.objectStore('outbox').put(mutation))),
    ...refused.map((one) => ask(tx.objectStore('refused').put(one))),
    ask(tx.objectStore('lead').put({ ...lead, lastSeq }, 'lead')),
    ended(tx),
  ])
  return fresh
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
    const database = await inDirectory(this.name, (databases) => databases.get(this.directoryKey()))
    this.opened = await this.openFor(database ?? null)
    return this.read()
  }

  async lead(revision: number | null): Promise<StoreContents> {
    const { idb, database } = this.isOpen()
    const named = await inDirectory(this.name, (databases) => databases.get(this.directoryKey()))
    if ((named ?? null) !== database) throw new MovedError('the store has moved')
    const tx = begin(idb, STORES, 'readwrite')
    const { lead, contents, damaged, unreadable } = await readAll(tx, database, this.logs, revision)
    const epoch = Math.max(lead.epoch, this.highest) + 1
    const repairs: Promise<unknown>[] = []
    const repair = {
      durability: 'relaxed' as const,
      ...(damaged.size > 0 ? { shapes: [...damaged].map((id) => ({ id, drop: true as const })) } : {}),
      outboxRemove: unreadable,
      refusedPut: contents.refused.filter(({ code }) => code === 'damaged'),
    }
    writeAll(tx, repair, lead, this.logs, repairs)
    const last = Math.max(lead.lastSeq, contents.outbox.at(-1)?.seq ?? 0, ...unreadable)
    await Promise.all([...repairs, ask(tx.objectStore('lead').put({ ...lead, epoch, lastSeq: last, moved: false }, 'lead')), ended(tx)])
    this.epoch = this.highest = epoch
    return contents
  }

  async isLeader(): Promise<boolean> {
    return (await ask<LeadRecord | undefined>(begin(this.isOpen().idb, ['lead'], 'readonly').objectStore('lead').get('lead')))?.epoch === this.epoch
  }

  async adopt(database: string): Promise<StoreContents | null> {
    const old = this.isOpen()
    if (old.database === database) return null
    const next = await this.openFor(database)
    if (old.database === null) await this.move(old, next)
    await inDirectory(this.name, (databases) => databases.put(database, this.directoryKey()))
    // only now: a crash before this line leaves a second copy that the directory no longer leads to
    if (old.database === null) {
      await inLead(old, this.epoch, 'strict', (tx, _, requests) => {
        requests.push(ask(tx.objectStore('outbox').clear()), ask(tx.objectStore('refused').clear()))
      })
    }
    old.idb.close()
    this.opened = next
    this.epoch = 0
    return this.read()
  }

  async append(drafts: readonly DraftMutation[]): Promise<StoredMutation[]> {
    return appendTo(this.isOpen().idb, (meta, outbox, lastSeq) => numbered(meta, outbox, lastSeq, drafts))
  }

  async outboxAfter(seq: number): Promise<readonly StoredMutation[]> {
    return (await ask(begin(this.isOpen().idb, ['outbox'], 'readonly').objectStore('outbox').getAll(IDBKeyRange.lowerBound(seq, true)))).filter(isMutation)
  }

  async change(seq: number, propose: (tail: readonly StoredMutation[]) => StoreWrite | null): Promise<void> {
    const { idb } = this.isOpen()
    const tx = begin(idb, STORES, 'readwrite', 'strict')
    const requests: Promise<unknown>[] = []
    try {
      const [lead = NOBODY, tail] = await Promise.all([
        ask(tx.objectStore('lead').get('lead')),
        ask(tx.objectStore('outbox').getAll(IDBKeyRange.lowerBound(seq, true))),
      ])
      if (lead.epoch !== this.epoch) throw new DeposedError('another page leads')
      const write = propose(tail.filter(isMutation))
      if (write !== null) writeAll(tx, write, lead, this.logs, requests)
    } catch (error) {
      await Promise.allSettled([...requests, abort(tx)])
      throw error
    }
    await Promise.all([...requests, ended(tx)])
  }

  async write(write: StoreWrite): Promise<void> {
    await inLead(this.isOpen(), this.epoch, write.durability, (tx, lead, requests) => writeAll(tx, write, lead, this.logs, requests))
  }

  async compact(rows: (shape: string) => ReadonlyMap<string, WireRow> | undefined): Promise<void> {
    for (const id of this.logs.long((shape) => rows(shape)?.size ?? 0)) {
      const held = rows(id)
      if (held === undefined) continue
      await inLead(this.isOpen(), this.epoch, 'relaxed', (tx, _, requests) => {
        requests.push(foldRows(tx.objectStore('rows'), id, held, this.logs))
      })
    }
  }

  async wipe(): Promise<void> {
    const { database } = this.isOpen()
    await this.close()
    await inDirectory(this.name, (databases) => databases.delete(this.directoryKey()))
    const names = [this.nameOf(null), ...(database === null ? [] : [this.nameOf(database)])]
    await Promise.all(names.map(deleteDatabase))
  }

  async close(): Promise<void> {
    this.opened?.idb.close()
    this.opened = null
  }

  /** The outbox goes behind what the other place holds; nobody can append to the old one any more. */
  private async move(old: Opened, next: Opened): Promise<void> {
    await inLead(old, this.epoch, 'strict', (tx, lead, requests) => {
      requests.push(ask(tx.objectStore('lead').put({ ...lead, moved: true }, 'lead')))
    })
    const tx = begin(old.idb, ['outbox', 'refused'], 'readonly')
    const [outbox, refused] = await Promise.all([ask<unknown[]>(tx.objectStore('outbox').getAll()), ask<RefusedMutation[]>(tx.objectStore('refused').getAll())])
    if (outbox.length + refused.length === 0) return
    await appendTo(
      next.idb,
      (meta, there, lastSeq) => {
        const from = lastSeq - (there.at(-1)?.seq ?? 0)
        return renumberInto(meta, there, outbox.filter(isMutation)).map((one) => ({ ...one, seq: one.seq + Math.max(0, from) }))
      },
      refused,
    )
  }

  private async read(): Promise<StoreContents> {
    const { idb, database } = this.isOpen()
    const tx = begin(idb, STORES, 'readonly')
    const [{ contents }] = await Promise.all([readAll(tx, database, this.logs, null), ended(tx)])
    return contents
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

function deleteDatabase(name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(name)
    request.onsuccess = () => resolve()
    request.onerror = () => reject(request.error)
    // other pages let go when they hear of it; the request waits for them
  })
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
