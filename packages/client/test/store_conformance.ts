/** What every store keeps to. Each test gets a store of its own; `reopen` opens what it left, as a reload does. */
import { describe, expect, it } from 'vitest'
import { EMPTY_META, type Store, type StoredMutation, type StoredShape } from '../src/store'
import type { WireRow } from '../src/values'

export const SHAPE: StoredShape = {
  id: 'shape one',
  fingerprint: 'f1',
  table: ['public', 'todos'],
  key: ['id'],
  columns: [
    { name: 'id', type: 'int8', wire: 'text' },
    { name: 'title', type: 'text', wire: 'text' },
  ],
}

export function mutation(seq: number, more: Partial<StoredMutation> = {}): StoredMutation {
  return { seq, n: `${seq}`, id: `m${seq}`, kind: 'ops', name: null, args: null, ops: [{ op: 'delete', table: 't', key: { id: seq } }], ...more }
}

export function rows(...list: WireRow[]): Map<string, WireRow> {
  return new Map(list.map((row) => [JSON.stringify([row[0]]), row]))
}

const REFUSED = { id: 'r1', name: 'add', args: { a: 1 }, ops: [], code: '23505', message: 'twice' }

/** `makeFamily` gives a function that makes stores which share what is durable. */
export function storeConformance(name: string, makeFamily: () => () => Store): void {
  describe(`${name} keeps to the store's contract`, () => {
    const url = 'ws://node/socket'

    async function reopen(store: Store, next: () => Store) {
      await store.close()
      const reopened = next()
      const contents = await reopened.open(url, '')
      await reopened.lead(null)
      return { store: reopened, contents }
    }

    it('is empty at first', async () => {
      const contents = await makeFamily()().open(url, '')
      expect(contents).toEqual({ database: null, meta: EMPTY_META, revision: 0, damaged: [], shapes: [], rows: new Map(), outbox: [], refused: [] })
    })

    it('gives back what one write put, after it was closed and opened', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, '')
      await store.lead(null)
      const meta = { cursor: '1~k', client: 'c1', confirmed: '4', unknown: 'c2' }
      await store.write({
        durability: 'strict',
        meta,
        shapes: [{ id: SHAPE.id, drop: false, shape: SHAPE, reset: true, rows: rows(['1', 'a'], ['2', null]) }],
        outboxPut: [mutation(2), mutation(1)],
        refusedPut: [REFUSED],
      })
      const { contents } = await reopen(store, next)
      expect(contents).toEqual({
        database: null,
        meta,
        revision: 1,
        damaged: [],
        shapes: [SHAPE],
        rows: new Map([[SHAPE.id, rows(['1', 'a'], ['2', null])]]),
        outbox: [mutation(1), mutation(2)],
        refused: [REFUSED],
      })
    })

    it('puts, replaces and removes single rows, and a reset drops all others', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, '')
      await store.lead(null)
      const change = (reset: boolean, changed: Map<string, WireRow | null>) =>
        store.write({ durability: 'relaxed', shapes: [{ id: SHAPE.id, drop: false, shape: SHAPE, reset, rows: changed }] })
      const many = Array.from({ length: 600 }, (_, at): WireRow => [`${at}`, `row ${at}`])
      await change(true, rows(...many))
      await change(false, new Map<string, WireRow | null>([['["3"]', ['3', 'new']], ['["599"]', null], ['["700"]', ['700', 'added']]]))
      await change(false, new Map<string, WireRow | null>([['["700"]', null], ['["599"]', ['599', 'back']]]))
      let held = (await reopen(store, next)).contents.rows.get(SHAPE.id)
      expect(held?.size).toBe(600)
      expect([held?.get('["3"]'), held?.get('["599"]'), held?.get('["700"]')]).toEqual([['3', 'new'], ['599', 'back'], undefined])
      const again = next()
      await again.open(url, '')
      await again.lead(null)
      await again.write({ durability: 'relaxed', shapes: [{ id: SHAPE.id, drop: false, shape: null, reset: true, rows: rows(['9', 'only']) }] })
      held = (await reopen(again, next)).contents.rows.get(SHAPE.id)
      expect(held).toEqual(rows(['9', 'only']))
    })

    it('keeps a shape without rows, and drops a shape with its rows and no others', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, '')
      await store.lead(null)
      const other = { ...SHAPE, id: 'shape one more' }
      await store.write({
        durability: 'relaxed',
        shapes: [
          { id: SHAPE.id, drop: false, shape: SHAPE, reset: true, rows: rows(['1', 'a']) },
          { id: other.id, drop: false, shape: other, reset: true, rows: new Map() },
        ],
      })
      await store.write({ durability: 'relaxed', shapes: [{ id: SHAPE.id, drop: true }] })
      const { contents } = await reopen(store, next)
      expect(contents.shapes).toEqual([other])
      expect(contents.rows).toEqual(new Map([[other.id, new Map()]]))
    })

    it('forgets all shapes when room is needed, and nothing else', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, '')
      await store.lead(null)
      await store.write({ durability: 'relaxed', shapes: [{ id: SHAPE.id, drop: false, shape: SHAPE, reset: true, rows: rows(['1', 'a']) }], outboxPut: [mutation(1)] })
      await store.write({ durability: 'strict', forgetShapes: true })
      const { contents } = await reopen(store, next)
      expect([contents.shapes, contents.rows, contents.outbox]).toEqual([[], new Map(), [mutation(1)]])
    })

    it('keeps mutations of kinds and fields it does not know', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, '')
      await store.lead(null)
      const later = { ...mutation(1, { kind: 'call' }), bonus: { deep: [1] } }
      await store.write({ durability: 'strict', outboxPut: [later] })
      expect((await reopen(store, next)).contents.outbox).toEqual([later])
    })

    it('removes from outbox and refusals', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, '')
      await store.lead(null)
      await store.write({ durability: 'strict', outboxPut: [mutation(1), mutation(2)], refusedPut: [REFUSED, { ...REFUSED, id: 'r2' }] })
      await store.write({ durability: 'strict', outboxRemove: [1], refusedRemove: ['r1'] })
      const { contents } = await reopen(store, next)
      expect(contents.outbox).toEqual([mutation(2)])
      expect(contents.refused).toEqual([{ ...REFUSED, id: 'r2' }])
    })

    it('moves the outbox to the first database it learns of, behind what is there, once', async () => {
      const next = makeFamily()
      const first = next()
      await first.open(url, '')
      await first.lead(null)
      expect((await first.adopt('db1'))?.database).toBe('db1')
      await first.lead(null)
      await first.write({ durability: 'strict', meta: { ...EMPTY_META, confirmed: '7', client: 'c1' }, outboxPut: [mutation(8)] })
      await first.close()
      // the same database through another URL, written to before the node was met
      const second = next()
      await second.open('ws://other/socket', '')
      await second.lead(null)
      await second.write({ durability: 'strict', outboxPut: [mutation(1, { id: 'x' }), mutation(2, { id: 'm8' })], refusedPut: [REFUSED] })
      const contents = await second.adopt('db1')
      await second.lead(null)
      expect(contents?.meta.client).toBe('c1')
      expect(contents?.outbox).toEqual([mutation(8), mutation(9, { id: 'x', n: '9', ops: mutation(1).ops })])
      expect(contents?.refused).toEqual([REFUSED])
      expect(await second.adopt('db1')).toBeNull()
      expect((await reopen(second, next)).contents.outbox.map(({ id }) => id)).toEqual(['m8', 'x'])
    })

    it('orders what is appended behind all that the page that leads has seen, elsewhere too, and numbers it as what is here', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, '')
      await store.lead(null, 50)
      const draft = (id: string) => ({ id, name: null, args: null, ops: mutation(1).ops })
      expect(await store.append([draft('a')])).toMatchObject([{ seq: 51, n: '1' }])
      await store.write({ durability: 'strict', outboxRemove: [51], meta: { ...EMPTY_META, confirmed: '1' } })
      await store.lead(null, 7)
      expect(await store.append([draft('b')])).toMatchObject([{ seq: 52, n: '2' }])
      const { store: later } = await reopen(store, next)
      expect(await later.append([draft('c')])).toMatchObject([{ seq: 53, n: '3' }])
    })

    it('leaves everything where it is when the server is another database', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, '')
      await store.lead(null)
      await store.adopt('db1')
      await store.lead(null)
      await store.write({ durability: 'strict', outboxPut: [mutation(1)], meta: { ...EMPTY_META, cursor: 'k1' } })
      const other = await store.adopt('db2')
      await store.lead(null)
      expect([other?.database, other?.outbox, other?.meta]).toEqual(['db2', [], EMPTY_META])
      const reopened = await reopen(store, next)
      expect(reopened.contents.database).toBe('db2')
      const back = await reopened.store.adopt('db1')
      expect([back?.outbox, back?.meta.cursor]).toEqual([[mutation(1)], 'k1'])
    })

    it('keeps URLs and subjects apart', async () => {
      const next = makeFamily()
      const store = next()
      await store.open(url, 'ann')
      await store.lead(null)
      await store.adopt('db1')
      await store.lead(null)
      await store.write({ durability: 'strict', outboxPut: [mutation(1)] })
      await store.close()
      const other = next()
      expect((await other.open(url, 'ben')).outbox).toEqual([])
      expect((await other.adopt('db1'))?.outbox).toEqual([])
    })

    it('cannot be written when it is not open', async () => {
      const store = makeFamily()()
      await expect(store.write({ durability: 'strict' })).rejects.toThrow('not open')
      await expect(store.adopt('db1')).rejects.toThrow('not open')
    })
  })
}
