/**
 * A store that lives as long as its object: for tests, servers, and where nothing may be left behind.
 * A second client opened on the same object finds what the first one left, like a reload would.
 */
import {
  EMPTY_META,
  type RefusedMutation,
  renumberInto,
  type Store,
  type StoreContents,
  type StoredMeta,
  type StoredMutation,
  type StoredShape,
  type StoreWrite,
} from './store'
import type { WireRow } from './values'

interface Place {
  database: string | null
  meta: StoredMeta
  shapes: Map<string, StoredShape>
  rows: Map<string, Map<string, WireRow>>
  outbox: Map<number, StoredMutation>
  refused: Map<string, RefusedMutation>
}

function emptyPlace(database: string | null): Place {
  return { database, meta: EMPTY_META, shapes: new Map(), rows: new Map(), outbox: new Map(), refused: new Map() }
}

function contentsOf(place: Place): StoreContents {
  return {
    database: place.database,
    meta: place.meta,
    shapes: [...place.shapes.values()],
    rows: new Map([...place.rows].map(([id, rows]) => [id, new Map(rows)])),
    outbox: [...place.outbox.values()].sort((a, b) => a.seq - b.seq),
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
  private readonly places = new Map<string, Place>()
  private readonly directory = new Map<string, string>()
  private url = ''
  private subject = ''
  private place: Place | null = null

  async open(url: string, subject: string): Promise<StoreContents> {
    this.url = url
    this.subject = subject
    const database = this.directory.get(JSON.stringify([url, subject])) ?? null
    this.place = this.placeOf(database)
    return contentsOf(this.place)
  }

  async adopt(database: string): Promise<StoreContents | null> {
    const old = this.opened()
    if (old.database === database) return null
    const place = this.placeOf(database)
    if (old.database === null) {
      const [there, moving] = [contentsOf(place), contentsOf(old)]
      for (const mutation of renumberInto(place.meta, there.outbox, moving.outbox)) place.outbox.set(mutation.seq, mutation)
      for (const [id, refused] of old.refused) place.refused.set(id, refused)
      this.places.delete(this.placeName(null))
    }
    this.directory.set(JSON.stringify([this.url, this.subject]), database)
    this.place = place
    return contentsOf(place)
  }

  async write(write: StoreWrite): Promise<void> {
    const place = this.opened()
    if (write.meta) place.meta = write.meta
    writeShapes(place, write)
    for (const mutation of write.outboxPut ?? []) place.outbox.set(mutation.seq, mutation)
    for (const seq of write.outboxRemove ?? []) place.outbox.delete(seq)
    for (const refused of write.refusedPut ?? []) place.refused.set(refused.id, refused)
    for (const id of write.refusedRemove ?? []) place.refused.delete(id)
  }

  async close(): Promise<void> {
    this.place = null
  }

  private opened(): Place {
    if (this.place === null) throw new Error('the store is not open')
    return this.place
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
