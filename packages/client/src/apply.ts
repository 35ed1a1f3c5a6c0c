/**
 * Nothing before `commit`: frames are collected, and a whole batch becomes one plan (what the store writes and what
 * memory will hold), which the caller stores first and then carries out in one step.
 */
import {
  type AckFrame,
  type CommitFrame,
  type DataFrame,
  FrameError,
  type RowsFrame,
  type ShapeFrame,
  tableNameOf,
  type WithdrawFrame,
} from './protocol'
import type { ShapeWrite, StoredShape } from './store'
import { type Json, keyReader, keyText, own, type WireRow } from './values'

/** A shape's rows in memory, as of the cursor. */
export interface HeldShape extends StoredShape {
  readonly rows: ReadonlyMap<string, WireRow>
}

/**
 * What the client holds: every shape as of one cursor. `provisional`: a first load that is not settled. It is shown until
 * the next commit, and is never stored, resumed from or told to other pages.
 */
export interface Base {
  cursor: string | null
  readonly shapes: Map<string, HeldShape>
  provisional?: ReadonlyMap<string, HeldShape> | undefined
}

/** A shape as it is shown. */
export function shownShape({ shapes, provisional }: Base, id: string): HeldShape | undefined {
  return shapes.get(id) ?? provisional?.get(id)
}

/** One complete batch of frames. */
export interface Batch {
  readonly frames: readonly (ShapeFrame | RowsFrame | WithdrawFrame | AckFrame)[]
  readonly commit: CommitFrame
}

/** What was set aside under one name. `about`: how many rows the node expects it to have. */
interface Load {
  readonly frames: RowsFrame[]
  rows: number
  about: number
}

/** Collects the frames of one session until their commit. */
export class BatchCollector {
  private open: Batch['frames'][number][] = []
  private openRows = 0
  /** rows of no batch yet, by the name of their load */
  private readonly aside = new Map<string, Load>()

  /** Takes a frame; gives the batch when it was the commit. */
  take(frame: DataFrame): Batch | null {
    switch (frame.event) {
      case 'commit': {
        const frames = this.open
        this.open = []
        this.openRows = 0
        return { frames, commit: frame }
      }
      case 'progress':
        this.load(frame.load).about = frame.about
        return null
      case 'load': {
        const load = this.load(frame.load)
        load.frames.push({ ...frame, event: 'rows' })
        load.rows += frame.put.length
        return null
      }
      case 'loaded':
      case 'unload':
        for (const name of frame.loads) {
          const { frames, rows } = this.known(name)
          this.aside.delete(name)
          if (frame.event === 'unload') continue
          for (const one of frames) this.open.push(one)
          this.openRows += rows
        }
        return null
      case 'provisional':
        return null
      default:
        if (frame.event === 'rows') this.openRows += frame.put.length
        this.open.push(frame)
        return null
    }
  }

  /** What was set aside under these names as a batch of its own, with the descriptions that it needs. */
  provisional(loads: readonly string[]): Batch['frames'] {
    return [...this.open.filter(({ event }) => event === 'shape'), ...loads.flatMap((name) => this.known(name).frames)]
  }

  private load(name: string): Load {
    const load = this.aside.get(name) ?? { frames: [], rows: 0, about: 0 }
    this.aside.set(name, load)
    return load
  }

  private known(name: string): Load {
    const load = this.aside.get(name)
    if (load === undefined) throw new FrameError('load: was not sent')
    return load
  }

  /** Whether frames wait for their commit. */
  get isOpen(): boolean {
    return this.open.length > 0
  }

  /** Rows that wait for their commit, and about how many there will be; as many as there are where nobody said. */
  get progress(): { readonly loadedRows: number; readonly aboutRows: number } {
    let [loadedRows, aboutRows] = [this.openRows, this.openRows]
    for (const { rows, about } of this.aside.values()) {
      loadedRows += rows
      aboutRows += Math.max(rows, about)
    }
    return { loadedRows, aboutRows }
  }
}

/**
 * What one session means by its names. `refs`: what was asked for, by ref (shape ids of this client). `named`: the refs
 * that each of the server's shape names stands for. `covered`: shapes that the session's cursors cover, those that it
 * resumed or loaded; every other shape is dropped when the cursor moves, or it would pass for current later.
 */
export interface SessionShapes {
  readonly refs: Map<string, string>
  readonly named: Map<string, Set<string>>
  readonly described: Map<string, ShapeFrame>
  readonly covered: Set<string>
}

/** A session that asked for nothing yet. */
export function newSessionShapes(): SessionShapes {
  return { refs: new Map(), named: new Map(), described: new Map(), covered: new Set() }
}

/** What a batch does to one held shape. */
export interface ShapePlan {
  readonly shape: StoredShape
  /** its description is new */
  described: boolean
  /** its earlier rows are gone */
  reset: boolean
  /** rows put, or null for removed */
  readonly rows: Map<string, WireRow | null>
}

/** What a batch does. */
export interface Plan {
  readonly cursor: string
  readonly changes: ReadonlyMap<string, ShapePlan>
  readonly drops: readonly string[]
  readonly acks: readonly AckFrame['mutations'][number][]
}

/** A table of which a shape that was held is loaded anew, and the protocol's reason. */
export interface Reload {
  readonly table: string
  readonly reason: string
}

/** The reloads of a batch, each once. */
export function reloadsOf(base: Base, session: SessionShapes, { frames }: Batch): Reload[] {
  const found = new Map<string, Reload>()
  for (const frame of frames) {
    if (frame.event !== 'rows' || frame.reset === null) continue
    for (const ref of session.named.get(frame.shape) ?? []) {
      const held = base.shapes.get(session.refs.get(ref) ?? '')
      if (held === undefined) continue
      const reload = { table: tableNameOf(held.table), reason: frame.reset }
      found.set(JSON.stringify(reload), reload)
    }
  }
  return [...found.values()]
}

/** A shape without its rows: a plan is told to other pages. */
function storedShape(id: string, { fingerprint, table, key, columns }: Omit<StoredShape, 'id'>): StoredShape {
  return { id, fingerprint, table, key, columns }
}

function sameDescription(a: StoredShape, b: StoredShape): boolean {
  return JSON.stringify([a.fingerprint, a.table, a.key, a.columns]) === JSON.stringify([b.fingerprint, b.table, b.key, b.columns])
}

/** Reads the keys of a shape's rows as the node sends them. */
function keysIn(shape: StoredShape): (row: WireRow) => string {
  const read = keyReader(shape)
  return (row) => {
    if (row.length !== shape.columns.length) throw new FrameError('rows: width')
    return read(row)
  }
}

function putAll(rows: Map<string, WireRow>, changes: ReadonlyMap<string, WireRow | null>): void {
  for (const [key, row] of changes) {
    if (row === null) rows.delete(key)
    else rows.set(key, row)
  }
}

/** Plans one batch against what is held. Pure but for `session`, whose names the batch's shape frames extend. */
class Planner {
  readonly changes = new Map<string, ShapePlan>()
  readonly acks: AckFrame['mutations'][number][] = []

  constructor(
    private readonly base: Base,
    private readonly session: SessionShapes,
  ) {}

  take(frame: Batch['frames'][number]): void {
    switch (frame.event) {
      case 'shape':
        this.describe(frame)
        return
      case 'rows':
        for (const id of this.idsOf(frame.shape)) this.rows(id, frame)
        return
      case 'withdraw':
        for (const id of this.idsOf(frame.shape)) this.withdraw(id)
        return
      case 'ack':
        this.acks.push(...frame.mutations)
    }
  }

  private idsOf(name: string): string[] {
    const refs = this.session.named.get(name) ?? []
    return [...refs].flatMap((ref) => this.session.refs.get(ref) ?? [])
  }

  private describe(frame: ShapeFrame): void {
    const id = this.session.refs.get(frame.ref)
    // the application gave it up while the frame was on its way
    if (id === undefined) return
    for (const refs of this.session.named.values()) refs.delete(frame.ref)
    const refs = this.session.named.get(frame.shape) ?? new Set()
    this.session.named.set(frame.shape, refs.add(frame.ref))
    this.session.described.set(id, frame)
    const shape = storedShape(id, frame)
    const earlier = this.changes.get(id)
    const held = earlier?.shape ?? this.base.shapes.get(id)
    if (held === undefined || !this.session.covered.has(id) || sameDescription(held, shape)) return
    // described anew without a reset: the rows stay, their values move to where the columns are now, and new columns are
    // filled with what rows from before they were added have
    const rows = new Map<string, WireRow | null>()
    const keyOf = keysIn(shape)
    for (const row of this.currentRows(id).values()) {
      const moved = shape.columns.map(({ name }) => {
        const at = held.columns.findIndex((column) => column.name === name)
        return (at < 0 ? own(frame.fill, name) : row[at]) ?? null
      })
      rows.set(keyOf(moved), moved)
    }
    this.changes.set(id, { shape, described: true, reset: true, rows })
  }

  private currentRows(id: string): Map<string, WireRow> {
    const change = this.changes.get(id)
    const rows = new Map(change?.reset ? [] : this.base.shapes.get(id)?.rows)
    putAll(rows, change?.rows ?? new Map())
    return rows
  }

  private changeOf(id: string, reset: boolean): ShapePlan {
    const earlier = this.changes.get(id)
    if (earlier !== undefined && !reset) return earlier
    const held = this.base.shapes.get(id)
    const frame = this.session.described.get(id)
    const loads = reset || held === undefined || !this.session.covered.has(id)
    const is = loads && frame !== undefined ? frame : held
    if (is === undefined) throw new FrameError('rows: of no described shape')
    const change: ShapePlan = { shape: storedShape(id, is), described: loads, reset: loads, rows: new Map() }
    this.changes.set(id, change)
    this.session.covered.add(id)
    return change
  }

  private rows(id: string, frame: RowsFrame): void {
    const change = this.changeOf(id, frame.reset !== null)
    const { shape, rows } = change
    const keyOf = keysIn(shape)
    const drop = (key: string) => (change.reset ? rows.delete(key) : rows.set(key, null))
    for (const key of frame.remove) drop(keyText(key))
    for (const row of frame.put) rows.set(keyOf(row), row)
    for (const [row, kept] of frame.patch) {
      const key = keyOf(row)
      const before = rows.has(key) ? rows.get(key) : change.reset ? undefined : this.base.shapes.get(id)?.rows.get(key)
      if (!before) throw new FrameError('rows: patch of a row that is not held')
      rows.set(key, row.map((value, index) => (kept.includes(index) ? (before[index] as Json) : value)))
    }
  }

  private withdraw(id: string): void {
    this.changes.delete(id)
    this.session.covered.delete(id)
  }
}

/**
 * Plans one batch. Throws FrameError when it cannot be applied to what is held: nothing was changed then but the
 * session's names, and the session must be ended.
 */
export function planBatch(base: Base, session: SessionShapes, batch: Batch): Plan {
  const planner = new Planner(base, session)
  for (const frame of batch.frames) planner.take(frame)
  return { ...planCursor(base, session, batch.commit.cursor), changes: planner.changes, acks: planner.acks }
}

/** A first load that is not settled, as it may be shown. Nothing changes, not even the session's names. */
export function provisionalShapes(base: Base, session: SessionShapes, frames: Batch['frames']): ReadonlyMap<string, HeldShape> {
  const planner = new Planner(base, structuredClone(session))
  for (const frame of frames) planner.take(frame)
  // nothing was held, so nothing is removed
  return new Map([...planner.changes].map(([id, { shape, rows }]) => [id, { ...shape, rows: rows as Map<string, WireRow> }]))
}

/** Plans that the cursor moves and nothing else: whatever the session does not cover is dropped. */
export function planCursor(base: Base, session: SessionShapes, cursor: string): Plan {
  const drops = [...base.shapes.keys()].filter((id) => !session.covered.has(id))
  return { cursor, changes: new Map(), drops, acks: [] }
}

/**
 * The plan as the store writes it. `kept`: the shapes whose rows are to be stored; `stored`: those whose rows are, which
 * this brings in line with `kept`, also where the plan itself does nothing.
 */
export function shapeWrites(base: Base, plan: Plan, kept: ReadonlySet<string>, stored: Set<string>): ShapeWrite[] {
  const writes: ShapeWrite[] = []
  const gone = new Set(plan.drops)
  for (const id of [...stored]) {
    if (kept.has(id) && !gone.has(id)) continue
    stored.delete(id)
    writes.push({ id, drop: true })
  }
  for (const id of kept) {
    const change = plan.changes.get(id)
    const held = gone.has(id) ? undefined : base.shapes.get(id)
    // rows that were in memory alone until now
    const isNew = !stored.has(id)
    if (change === undefined && (held === undefined || !isNew)) continue
    const { rows: before, ...shape } = { ...held, ...change?.shape } as HeldShape
    const rows = change === undefined ? before : !isNew || change.reset ? change.rows : new Map([...before, ...change.rows])
    writes.push({ id, drop: false, shape: isNew || change?.described ? shape : null, reset: isNew || change?.reset === true, rows })
    stored.add(id)
  }
  return writes
}

/** Rows that a plan touched, by table name, then key text. */
export type TouchedKeys = Map<string, Set<string>>

function touch(touched: TouchedKeys, shape: StoredShape, keys: Iterable<string>): void {
  const table = tableNameOf(shape.table)
  const set = touched.get(table) ?? new Set()
  for (const key of keys) set.add(key)
  touched.set(table, set)
}

/** All keys of the shapes with these ids, added to `touched`. */
export function keysOf(base: Base, ids: Iterable<string>, touched: TouchedKeys = new Map()): TouchedKeys {
  for (const id of ids) {
    const held = shownShape(base, id)
    if (held !== undefined) touch(touched, held, held.rows.keys())
  }
  return touched
}

/** The tables whose rows a plan touches. */
export function tablesOf(base: Base, plan: Plan): string[] {
  const shapes = [...plan.drops.map((id) => base.shapes.get(id)), ...[...plan.changes.values()].map(({ shape }) => shape)]
  return [...new Set(shapes.flatMap((shape) => (shape ? [tableNameOf(shape.table)] : [])))]
}

/** Carries a plan out in memory, in one step, and tells which rows it touched. */
export function carryOut(base: Base, plan: Omit<Plan, 'acks'>): TouchedKeys {
  const reset = [...plan.changes].flatMap(([id, change]) => (change.reset ? [id] : []))
  const touched = keysOf(base, [...plan.drops, ...reset, ...(base.provisional?.keys() ?? [])])
  base.provisional = undefined
  for (const id of plan.drops) base.shapes.delete(id)
  for (const [id, change] of plan.changes) {
    touch(touched, change.shape, change.rows.keys())
    const held = base.shapes.get(id)
    // the held map is this module's own; it changes only here
    const rows = (change.reset || held === undefined ? new Map() : held.rows) as Map<string, WireRow>
    putAll(rows, change.rows)
    // what is told of a shape that was not described anew is a copy, where another page planned this
    base.shapes.set(id, { ...(change.described ? change.shape : (held ?? change.shape)), rows })
  }
  base.cursor = plan.cursor
  return touched
}
