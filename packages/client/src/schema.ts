/**
 * What an application knows of its database: the module that `lockstep types` generates, or the same written by hand.
 * The types are those of `typed.ts`; here is what a live query needs while it runs.
 */
import { type Form, presenter } from './forms'
import { type KnownColumn, plainDecimal, isDecimal } from './order'
import type { SchemaTypes } from './typed'
import { isNull, own, reader, type Row } from './values'

/** A declared relationship: rows of `table` whose `to` columns equal this table's `from` columns. */
export interface Relation {
  readonly table: string
  readonly many: boolean
  readonly from: readonly string[]
  readonly to: readonly string[]
}

/** One table: its key, its columns' types as PostgreSQL prints them, and the labels of those that are enums. */
export interface TableDescription {
  readonly key: readonly string[]
  readonly columns: Readonly<Record<string, string>>
  readonly labels?: Readonly<Record<string, readonly string[]>>
  /** Columns whose values are shown in another form than they travel in. */
  readonly forms?: Readonly<Record<string, Form>>
  readonly relations?: Readonly<Record<string, Relation>>
}

/** The tables by name, and (never there at run time) their types. */
export interface SchemaModule<S extends SchemaTypes = SchemaTypes> {
  readonly tables: Readonly<Record<keyof S & string, TableDescription>>
  readonly types?: S
}

/** Where everything about tables is asked: the schema module first, then what the node described. */
export interface Knowledge {
  column(table: string, name: string): KnownColumn | null
  key(table: string): readonly string[] | null
  relation(table: string, name: string): Relation
  /** The form that a column is shown in, if not as it travels. */
  form(table: string, name: string): Form | undefined
  /** Rows in the application's forms. */
  present(table: string): (row: Row) => Row
}

/** What is known with a schema module, or without one. */
export function knowledgeOf(schema: SchemaModule | undefined, described: Pick<Knowledge, 'column' | 'key'>): Knowledge {
  const tables: Readonly<Record<string, TableDescription | undefined>> = schema?.tables ?? {}
  const presenters = new Map(Object.entries(tables).map(([name, table]) => [name, presenter(table?.forms)]))
  return {
    form: (table, name) => own(own(tables, table)?.forms, name),
    present: (table) => presenters.get(table) ?? presenter(),
    column(table, name) {
      const known = own(tables, table)
      const type = own(known?.columns, name)
      if (type === undefined) return described.column(table, name)
      const labels = own(known?.labels, name)
      return labels === undefined ? { type } : { type, labels }
    },
    key: (table) => described.key(table) ?? own(tables, table)?.key ?? null,
    relation(table, name) {
      const relation = own(own(tables, table)?.relations, name)
      if (relation === undefined) throw new TypeError(`the schema declares no relationship ${name} of ${table}: generate it anew with lockstep types`)
      return relation
    },
  }
}

/** Reads the text under which rows of two tables meet; null where a value is NULL, which meets nothing. */
export function joinReader(names: readonly string[], column: (name: string) => KnownColumn | null): (row: Row) => string | null {
  const reads = names.map((name) => {
    const plain = isDecimal(column(name)) ? plainDecimal : String
    const read = reader(name)
    return (row: Row) => {
      const value = read(row)
      return isNull(value) ? null : plain(String(value))
    }
  })
  const [only] = reads
  if (reads.length === 1 && only !== undefined) return only
  return (row) => {
    const texts = reads.map((read) => read(row))
    return texts.includes(null) ? null : JSON.stringify(texts)
  }
}
