/** Numbers, acknowledgements, and the recoveries of docs/protocol.md. */
import { describe, expect, it } from 'vitest'
import { type Decided, Outbox, type OutboxWrite, toRequest } from '../src/outbox'
import { EMPTY_META, type StoredMeta, type StoredMutation } from '../src/store'

function entry(seq: number, n: number, id = `m${seq}`): StoredMutation {
  return { seq, n: `${n}`, id, kind: 'ops', name: null, args: null, ops: [] }
}

function outboxOf(meta: Partial<StoredMeta>, ...outbox: StoredMutation[]): Outbox {
  const box = new Outbox()
  box.load({ database: 'd', meta: { ...EMPTY_META, client: 'c1', ...meta }, revision: 0, damaged: [], shapes: [], rows: new Map(), outbox, refused: [] })
  return box
}

function numbers(box: Outbox): [string, string][] {
  return box.entries.map(({ id, n }) => [id, n])
}

function carry(box: Outbox, write: OutboxWrite | null): void {
  if (write === null) throw new Error('nothing to carry out')
  box.carryOut(write, true)
}

function acked(box: Outbox, { meta, gone, refused }: Decided, cursor: string, isStored: boolean): void {
  box.carryOut({ meta: { ...meta, cursor }, outboxRemove: gone.map(({ seq }) => seq), refusedPut: refused }, isStored)
}

const draft = (id: string) => ({ id, name: null, args: null, ops: [] })

describe('numbers', () => {
  it('begin at 1 and go on behind what is undecided or confirmed', () => {
    const fresh = outboxOf({ client: null })
    fresh.add(draft('a'))
    fresh.add(draft('b'))
    expect(fresh.numberDrafts(fresh.drafts).map(({ n, seq }) => [n, seq])).toEqual([['1', 1], ['2', 2]])
    const confirmed = outboxOf({ confirmed: '9007199254740993' })
    confirmed.add(draft('a'))
    expect(confirmed.numberDrafts(confirmed.drafts).map(({ n }) => n)).toEqual(['9007199254740994'])
    const queued = outboxOf({ confirmed: '3' }, entry(7, 4))
    queued.add(draft('a'))
    expect(queued.numberDrafts(queued.drafts).map(({ n, seq }) => [n, seq])).toEqual([['5', 8]])
  })

  it('come with an order that is never given twice, not even after everything was decided', () => {
    const box = outboxOf({})
    box.add(draft('a'))
    box.take(box.numberDrafts(box.drafts))
    acked(box, box.decide([{ n: '1', id: 'a', outcome: 'applied' }]), 'k', true)
    box.add(draft('b'))
    expect(box.numberDrafts(box.drafts).map(({ n, seq }) => [n, seq])).toEqual([['2', 2]])
  })

  it('are given to drafts, which stay in order behind the entries', () => {
    const box = outboxOf({}, entry(1, 1))
    box.add(draft('a'))
    const numbered = box.numberDrafts(box.drafts)
    box.add(draft('b'))
    box.take(numbered)
    expect(numbers(box)).toEqual([['m1', '1'], ['a', '2']])
    expect(box.drafts.map(({ id }) => id)).toEqual(['b'])
    expect([box.size, box.pending().length]).toEqual([3, 3])
  })
})

describe('acknowledgements', () => {
  it('let decided mutations leave and raise what is confirmed', () => {
    const box = outboxOf({ confirmed: '2' }, entry(1, 3), entry(2, 4), entry(3, 5))
    const decided = box.decide([
      { n: '3', id: 'm1', outcome: 'applied' },
      { n: '4', id: 'm2', outcome: 'refused', code: '23505', message: 'twice' },
    ])
    expect(numbers(box)).toHaveLength(3)
    acked(box, decided, 'k', true)
    expect(numbers(box)).toEqual([['m3', '5']])
    expect(box.refused).toEqual([{ id: 'm2', name: null, args: null, ops: [], code: '23505', message: 'twice' }])
    expect([box.meta.confirmed, box.confirmed, box.meta.cursor]).toEqual(['4', '4', 'k'])
  })

  it('that come again, or twice in one batch, are told once', () => {
    const box = outboxOf({}, entry(1, 1))
    const refusal = { n: '1', id: 'm1', outcome: 'refused' as const, code: 'x', message: 'y' }
    acked(box, box.decide([refusal, refusal]), 'k', true)
    acked(box, box.decide([refusal]), 'k', true)
    expect(box.refused).toHaveLength(1)
  })

  it('under an earlier number decide the mutation and confirm nothing', () => {
    const box = outboxOf({ confirmed: '0' }, entry(1, 1))
    acked(box, box.decide([{ n: '5', id: 'm1', outcome: 'applied' }]), 'k', true)
    expect([box.size, box.meta.confirmed]).toEqual([0, '0'])
  })

  it('of another mutation with the same number decide nothing', () => {
    const box = outboxOf({}, entry(1, 1))
    expect(box.decide([{ n: '1', id: 'somebody else', outcome: 'applied' }]).gone).toEqual([])
  })

  it('that could not be stored are not confirmed to the server', () => {
    const box = outboxOf({}, entry(1, 1))
    acked(box, box.decide([{ n: '1', id: 'm1', outcome: 'applied' }]), 'k', false)
    expect([box.meta.confirmed, box.confirmed]).toEqual(['1', '0'])
    box.add(draft('next'))
    expect(box.numberDrafts(box.drafts).map(({ n }) => n)).toEqual(['2'])
  })
})

describe('recoveries', () => {
  it('renumber: from 1 under the new id', () => {
    const box = outboxOf({ confirmed: '6' }, entry(1, 7), entry(2, 8))
    carry(box, box.renumber('c2'))
    expect(numbers(box)).toEqual([['m1', '1'], ['m2', '2']])
    expect([box.meta.client, box.meta.confirmed, box.confirmed]).toEqual(['c2', '0', '0'])
  })

  it('gap: nothing to change when last + 1 is here, new numbers when the outbox begins later', () => {
    const box = outboxOf({ confirmed: '6' }, entry(1, 7), entry(2, 8))
    expect(box.closeGap('7')).toBeNull()
    carry(box, box.closeGap('4'))
    expect(numbers(box)).toEqual([['m1', '5'], ['m2', '6']])
    expect([box.meta.confirmed, box.confirmed]).toEqual(['4', '4'])
  })

  it('gap: nothing to change when everything was seen', () => {
    expect(outboxOf({}, entry(1, 1)).closeGap('1')).toBeNull()
  })

  it('unknown client: held until the application decides, then sent again or given up', () => {
    const sending = outboxOf({ confirmed: '6' }, entry(1, 7))
    expect(sending.resolveUnknown(true)).toBeNull()
    carry(sending, sending.holdUnknown('c2'))
    expect([sending.meta.unknown, sending.meta.client, numbers(sending)]).toEqual(['c2', 'c1', [['m1', '7']]])
    carry(sending, sending.resolveUnknown(true))
    expect([sending.meta.unknown, sending.meta.client, numbers(sending)]).toEqual([null, 'c2', [['m1', '1']]])
    const giving = outboxOf({ confirmed: '6' }, entry(1, 7))
    carry(giving, giving.holdUnknown('c2'))
    carry(giving, giving.resolveUnknown(false))
    expect([giving.size, giving.meta.confirmed, giving.refused.map(({ code }) => code)]).toEqual([0, '0', ['unknown_client']])
  })

  it('another id in the answer to a join: numbers begin anew only when nothing is undecided', () => {
    expect(outboxOf({}).takeClient('c1')).toBeNull()
    const empty = outboxOf({ confirmed: '6' })
    carry(empty, empty.takeClient('c2'))
    expect([empty.meta.client, empty.meta.confirmed]).toEqual(['c2', '0'])
    const full = outboxOf({ confirmed: '6' }, entry(1, 7))
    carry(full, full.takeClient('c2'))
    expect([full.meta.client, full.meta.confirmed, numbers(full)]).toEqual(['c2', '6', [['m1', '7']]])
    const first = outboxOf({ client: null }, entry(1, 1))
    carry(first, first.takeClient('c1'))
    expect([first.meta.client, numbers(first)]).toEqual(['c1', [['m1', '1']]])
  })

  it('giving one up moves the later ones up', () => {
    const box = outboxOf({ confirmed: '6' }, entry(1, 7), entry(2, 8), entry(3, 9))
    carry(box, box.giveUp('m2'))
    expect(numbers(box)).toEqual([['m1', '7'], ['m3', '8']])
    expect(box.meta.confirmed).toBe('6')
    expect(box.giveUp('m2')).toBeNull()
  })
})

it('a mutation is sent with exactly the fields of the protocol', () => {
  const later = { ...entry(3, 5), kind: 'call', bonus: 1 }
  expect(toRequest(later)).toEqual({ n: '5', id: 'm3', kind: 'call', name: null, args: null, ops: [] })
})
