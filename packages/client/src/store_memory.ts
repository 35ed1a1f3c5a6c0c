/**
 * A store that lives as long as its object: for tests, servers, and where nothing may be left behind.
 * A second client opened on the same object finds what the first one left, like a reload would.
 */
import {
  DeposedError,
  type DraftMutation,
  EMPTY_META,
  numbered,
  type RefusedMutation,
  type Store,
  type StoreContents,
  type StoredMeta,
  type StoredMutation,
  type StoredShape,
  type StoreEvent,
  type StoreWrite,
} from './store'
import type { WireRow } from './values'

interface Place {
  database: string | null
  meta: StoredMeta
  epoch: number
  revision: number
  lastSeq: number
  shapes: Map<string, StoredShape>
  rows: Map<string, Map<string, WireRow>>
  outbox: Map<number, StoredMutation>
  refused: Map<string, RefusedMutation>
}

function emptyPlace(database: string | null): Place {
  const nothing = { epoch: 0, revision: 0, lastSeq: 0, meta: EMPTY_META }
  return { database, ...nothing, shapes: new Map(), rows: new Map(), outbox: new Map(), refused: new Map() }
}

function outboxOf(place: Place): StoredMutation[] {
  return [...place.outbox.values()].sort((a, b) => a.seq - b.seq)
}

function contentsOf(place: Place): StoreContents {
  return {
    database: place.database,
    meta: place.meta,
    revision: place.revision,
    damaged: [],
    shapes: [...place.shapes.values()],
    rows: new Map([...place.rows].map(([id, rows]) => [id, new Map(rows)])),
    outbox: outboxOf(place),
    refused: [...place.refused.values()],
  }
}

function writeShapes(place: Place, write: StoreWrite): void {
  if (write.forgetShapes) {
    place.shapes.clear()
    place.rows.clear()
  }
  for (const change of write.shapes ?? []) {
    if (change.drop) {
      place.shapes.delete(change.id)
      place.rows.delete(change.id)
      continue
    }
    if (change.shape !== null) place.shapes.set(change.id, change.shape)
    const rows = change.reset ? new Map<string, WireRow>() : (place.rows.get(change.id) ?? new Map<string, WireRow>())
    for (const [key, row] of change.rows) {
      if (row === null) rows.delete(key)
      else rows.set(key, row)
    }
    place.rows.set(change.id, rows)
  }
}

class MemoryStore implements Store {
  readonly place = null
  readonly isScattered = false
  onEvent: (event: StoreEvent) => void = () => undefined
  private readonly places = new Map<string, Place>()
  private readonly directory = new Map<string, string>()
  private url = ''
  private subject = ''
  private here: Place | null = null
  epoch = 0

  async open(url: string, subject: string): Promise<StoreContents> {
    this.url = url
    this.subject = subject
    const database = this.directory.get(JSON.stringify([url, subject])) ?? null
    this.here = this.placeOf(database)
    return contentsOf(this.here)
  }

  async lead(revision: number | null, seen = 0): Promise<StoreContents> {
    const place = this.opened()
    this.epoch = place.epoch += 1
    place.lastSeq = Math.max(place.lastSeq, seen, outboxOf(place).at(-1)?.seq ?? 0)
    const contents = contentsOf(place)
    return revision === place.revision ? { ...contents, rows: new Map() } : contents
  }

  async isLeader(): Promise<boolean> {
    return this.here?.epoch === this.epoch
  }

  async adopt(database: string): Promise<StoreContents | null> {
    const old = this.opened()
    if (old.database === database) return null
    const place = this.placeOf(database)
    if (old.database === null) {
      for (const mutation of numbered(place.meta, outboxOf(place), 0, outboxOf(old))) place.outbox.set(mutation.seq, mutation)
      for (const [id, refused] of old.refused) place.refused.set(id, refused)
      this.places.delete(this.placeName(null))
    }
    this.directory.set(JSON.stringify([this.url, this.subject]), database)
    this.here = place
    return contentsOf(place)
  }

  async append(drafts: readonly DraftMutation[]): Promise<StoredMutation[]> {
    const place = this.opened()
    const fresh = numbered(place.meta, outboxOf(place), place.lastSeq, drafts)
    for (const mutation of fresh) place.outbox.set(mutation.seq, mutation)
    place.lastSeq = fresh.at(-1)?.seq ?? place.lastSeq
    return fresh
  }

  async outboxAfter(after: number): Promise<readonly StoredMutation[]> {
    return outboxOf(this.opened()).filter(({ seq }) => seq > after)
  }

  async change(seq: number, propose: (tail: readonly StoredMutation[]) => StoreWrite | null): Promise<void> {
    // in one step, like a transaction
    const write = propose(outboxOf(this.opened()).filter((one) => one.seq > seq))
    if (write !== null) await this.write(write)
  }

  async write(write: StoreWrite): Promise<void> {
    const place = this.opened()
    if (place.epoch !== this.epoch) throw new DeposedError('another client on this store leads')
    if (write.meta) place.meta = write.meta
    if (write.shapes || write.forgetShapes) place.revision += 1
    writeShapes(place, write)
    for (const mutation of write.outboxPut ?? []) place.outbox.set(mutation.seq, mutation)
    for (const seq of write.outboxRemove ?? []) place.outbox.delete(seq)
    for (const refused of write.refusedPut ?? []) place.refused.set(refused.id, refused)
    for (const id of write.refusedRemove ?? []) place.refused.delete(id)
  }

  async compact(): Promise<void> {}

  async wipe(): Promise<void> {
    for (const database of [null, this.opened().database]) this.places.delete(this.placeName(database))
    this.directory.delete(JSON.stringify([this.url, this.subject]))
    this.here = null
  }

  async close(): Promise<void> {
    this.here = null
  }

  private opened(): Place {
    if (this.here === null) throw new Error('the store is not open')
    return this.here
  }

  private placeName(database: string | null): string {
    return JSON.stringify(database === null ? ['url', this.url, this.subject] : ['database', database, this.subject])
  }

  private placeOf(database: string | null): Place {
    const name = this.placeName(database)
    const place = this.places.get(name) ?? emptyPlace(database)
    this.places.set(name, place)
    return place
  }
}

/** A new store in memory. */
export function memoryStore(): Store {
  return new MemoryStore()
}
