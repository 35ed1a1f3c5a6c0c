/**
 * What an application knows of its database: the module that `lockstep types` generates, or the same written by hand.
 * The types are those of `typed.ts`; here is what a live query needs while it runs.
 */
import { type KnownColumn, plainDecimal, isDecimal } from './order'
import type { SchemaTypes } from './typed'
import type { Row } from './values'

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
}

/** What is known with a schema module, or without one. */
export function knowledgeOf(schema: SchemaModule | undefined, described: Omit<Knowledge, 'relation'>): Knowledge {
  const tables: Readonly<Record<string, TableDescription | undefined>> = schema?.tables ?? {}
  return {
    column(table, name) {
      const known = tables[table]
      const type = known?.columns[name]
      if (type === undefined) return described.column(table, name)
      const labels = known?.labels?.[name]
      return labels === undefined ? { type } : { type, labels }
    },
    key: (table) => described.key(table) ?? tables[table]?.key ?? null,
    relation(table, name) {
      const relation = tables[table]?.relations?.[name]
      if (relation === undefined) throw new TypeError(`the schema declares no relationship ${name} of ${table}: generate it anew with lockstep types`)
      return relation
    },
  }
}

/** The text under which rows of two tables meet; null where a value is NULL, which meets nothing. */
export function joinText(row: Row, names: readonly string[], columns: readonly (KnownColumn | null)[]): string | null {
  const texts: string[] = []
  for (let at = 0; at < names.length; at += 1) {
    const value = row[names[at] as string]
    if (value === null || value === undefined) return null
    const text = String(value)
    texts.push(isDecimal(columns[at] ?? null) ? plainDecimal(text) : text)
  }
  return texts.length === 1 ? (texts[0] as string) : JSON.stringify(texts)
}
