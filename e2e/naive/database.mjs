// PostgreSQL as the naive node sees it: read everything again at each change, keep nothing.
import pg from 'pg'

const SETTINGS =
  "set datestyle = 'ISO, YMD'; set intervalstyle = 'iso_8601'; set timezone = 'UTC'; " +
  'set bytea_output = hex; set extra_float_digits = 1'

const WIRES = { bool: 'bool', int2: 'int', int4: 'int', oid: 'int', float4: 'float', float8: 'float', json: 'json', jsonb: 'json' }

const DESCRIBE = `
  select c.relname as table, a.attname as column, t.typname as type, format_type(t.oid, a.atttypmod) as full_type,
         coalesce(a.attnum = any (i.indkey), false) as is_key
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
  join pg_index i on i.indrelid = c.oid and i.indisprimary
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname = any ($1)
  order by c.relname, a.attnum`

const quote = (name) => '"' + name.replaceAll('"', '""') + '"'

/** A mutation that PostgreSQL, or this file, would not run. */
export class Refusal extends Error {
  constructor(code, message) {
    super(message)
    this.code = code
  }
}

export class Database {
  static async open(url, tracked) {
    const database = new Database()
    // Commits are heard on one connection while another reads and writes.
    database.listener = new pg.Client({ connectionString: url })
    database.client = new pg.Client({ connectionString: url })
    await database.listener.connect()
    await database.client.connect()
    await database.client.query(SETTINGS)
    await database.describe(tracked)
    return database
  }

  async describe(tracked) {
    this.tables = new Map()
    const { rows } = await this.client.query(DESCRIBE, [Object.keys(tracked)])
    for (const row of rows) {
      const table = this.tables.get(row.table) ?? { name: row.table, columns: [], key: [], scope: tracked[row.table] }
      table.columns.push({ name: row.column, type: row.type, wire: WIRES[row.type] ?? 'text', fullType: row.full_type })
      if (row.is_key) table.key.push(row.column)
      this.tables.set(row.table, table)
    }
    for (const name of Object.keys(tracked)) {
      if (!this.tables.has(name)) throw new Error(`table ${name} is not there or has no primary key`)
    }
  }

  /** NOTIFY is delivered at commit, so a statement trigger is enough to hear of every change. */
  async watch(onChange) {
    await this.client.query(`
      create or replace function public.lockstep_naive_notify() returns trigger language plpgsql as
      $$ begin notify lockstep_naive; return null; end $$`)
    for (const name of this.tables.keys()) {
      await this.client.query(`
        drop trigger if exists lockstep_naive on ${quote(name)};
        create trigger lockstep_naive after insert or update or delete or truncate on ${quote(name)}
        for each statement execute function public.lockstep_naive_notify()`)
    }
    this.listener.on('notification', onChange)
    await this.listener.query('listen lockstep_naive')
  }

  /** All tables as of one moment: {lsn, rows: Map(table → array of rows)}. */
  async snapshot() {
    await this.client.query('begin isolation level repeatable read, read only')
    const rows = new Map()
    // The position is read first: it may be older than the snapshot, never newer.
    const position = await this.client.query('select pg_current_wal_lsn()::text as lsn')
    for (const table of this.tables.values()) {
      const columns = table.columns.map((column) => `${quote(column.name)}::text`).join(', ')
      const result = await this.client.query({ text: `select ${columns} from ${quote(table.name)}`, rowMode: 'array' })
      rows.set(table.name, result.rows.map((row) => row.map((text, at) => decode(text, table.columns[at].wire))))
    }
    await this.client.query('commit')
    return { lsn: position.rows[0].lsn, rows }
  }

  /** Runs the operations as one transaction; throws a Refusal when one of them will not do. */
  async mutate(operations) {
    await this.client.query('begin')
    try {
      for (const operation of operations) await this.run(operation)
      await this.client.query('commit')
    } catch (error) {
      await this.client.query('rollback')
      if (typeof error.code === 'string') throw new Refusal(error.code, error.message)
      throw error
    }
  }

  async run(operation) {
    const table = this.tables.get(operation.table?.replace(/^public\./, ''))
    if (!table) throw new Refusal('unknown_table', `there is no tracked table ${operation.table}`)
    const values = []
    const place = ([name, value]) => {
      const column = table.columns.find((candidate) => candidate.name === name)
      if (!column) throw new Refusal('unknown_column', `table ${table.name} has no column ${name}`)
      values.push(column.wire === 'json' && value !== null ? JSON.stringify(value) : value)
      return [quote(name), `$${values.length}::text::${column.fullType}`]
    }
    const pairs = (object, glue) => Object.entries(object).map(place).map((pair) => pair.join(' = ')).join(glue)
    const target = quote(table.name)
    if (operation.if) {
      const same = Object.entries({ ...operation.key, ...operation.if }).map(place).map((pair) => pair.join(' is not distinct from ')).join(' and ')
      const { rowCount } = await this.client.query(`select from ${target} where ${same} for update`, values.splice(0))
      if (rowCount === 0) throw new Refusal('conflict', `a row of ${table.name} has changed`)
    }
    if (operation.op === 'insert') {
      const placed = Object.entries(operation.values).map(place)
      const [names, marks] = [0, 1].map((side) => placed.map((pair) => pair[side]).join(', '))
      await this.client.query(`insert into ${target} (${names}) values (${marks})`, values)
    } else if (operation.op === 'update') {
      const set = pairs(operation.set, ', ')
      await this.client.query(`update ${target} set ${set} where ${pairs(operation.key, ' and ')}`, values)
    } else if (operation.op === 'delete') {
      await this.client.query(`delete from ${target} where ${pairs(operation.key, ' and ')}`, values)
    } else {
      throw new Refusal('unknown_kind', `there is no operation ${operation.op}`)
    }
  }

  async close() {
    await this.listener.end()
    await this.client.end()
  }
}

function decode(text, wire) {
  if (text === null) return null
  if (wire === 'bool') return text === 'true'
  if (wire === 'int') return Number(text)
  if (wire === 'float') return Number.isFinite(Number(text)) ? Number(text) : text
  return text
}
