/** A client that knows its database's types: a wrong table, column, operator or value does not compile. */
import type { Client, ClientOptions } from './client'
import type { LiveQuery, LiveValue } from './live_query'
import type { Mutation, MutationOptions } from './mutation'
import type { ShapeDefinition } from './protocol'
import type { SchemaModule } from './schema'
import type { Subscription } from './subscriptions'
import type { Json } from './values'

/**
 * The types of one table. `row`: what the application sees; `input`: what it may write and compare with; `required`:
 * columns that an insert must give; `fixed`: columns that cannot be written.
 */
export interface TableTypes {
  readonly row: object
  readonly input: object
  readonly key: string
  readonly required: string
  readonly fixed: string
  readonly relations: object
}

/** The types of all tables, by name. */
export type SchemaTypes = Readonly<Record<string, TableTypes>>

/** A relationship as a type. */
export interface RelationTypes {
  readonly table: string
  readonly many: boolean
}

/** The names of the tables. */
export type TableName<S> = keyof S & string

type RowOf<S, T extends TableName<S>> = S[T] extends { row: infer R } ? R : never
type InputOf<S, T extends TableName<S>> = S[T] extends { input: infer I } ? I : never
type RelationsOf<S, T extends TableName<S>> = S[T] extends { relations: infer R } ? R : never
type KeyOf<S, T extends TableName<S>> = S[T] extends { key: infer K extends PropertyKey } ? K : never
type RequiredOf<S, T extends TableName<S>> = S[T] extends { required: infer K extends PropertyKey } ? K : never
type FixedOf<S, T extends TableName<S>> = S[T] extends { fixed: infer K extends PropertyKey } ? K : never
type TargetOf<S, T extends TableName<S>, N extends keyof RelationsOf<S, T>> = RelationsOf<S, T>[N] extends { table: infer U extends TableName<S> } ? U : never
type ManyOf<S, T extends TableName<S>> = { [N in keyof RelationsOf<S, T>]: RelationsOf<S, T>[N] extends { many: true } ? N : never }[keyof RelationsOf<S, T>]

type ColumnOf<S, T extends TableName<S>> = keyof RowOf<S, T> & keyof InputOf<S, T> & string

/** `V`: what the column is compared with. JSON is compared with nothing; `like` is for texts alone. */
type ColumnCondition<C, V> = [NonNullable<Json>] extends [V]
  ? readonly [C, 'is' | 'is not', null]
  :
      | readonly [C, 'is' | 'is not', V | null]
      | readonly [C, '=' | '<>' | '<' | '<=' | '>' | '>=', V]
      | readonly [C, 'in' | 'not in', readonly V[]]
      | ([V] extends [string] ? (string extends V ? readonly [C, 'like' | 'not like', string] : never) : never)

/** A condition on rows of a table. */
export type TypedCondition<S, T extends TableName<S>> =
  | { [C in ColumnOf<S, T>]: ColumnCondition<C, NonNullable<InputOf<S, T>[C]>> }[ColumnOf<S, T>]
  | { readonly and: readonly TypedCondition<S, T>[] }
  | { readonly or: readonly TypedCondition<S, T>[] }
  | { readonly not: TypedCondition<S, T> }

/** What chooses rows of a table. */
export type TypedWhere<S, T extends TableName<S>> = TypedCondition<S, T> | readonly TypedCondition<S, T>[] | ((row: RowOf<S, T>) => boolean)

/** An order of a table's rows. */
export type TypedOrderBy<S, T extends TableName<S>> =
  | (keyof RowOf<S, T> & string)
  | readonly (readonly [column: keyof RowOf<S, T> & string, direction: 'asc' | 'desc'])[]
  | ((a: RowOf<S, T>, b: RowOf<S, T>) => number)

/** The columns that can be summed. */
export type SumColumn<S, T extends TableName<S>> = {
  [C in ColumnOf<S, T>]: number extends NonNullable<InputOf<S, T>[C]> ? ([NonNullable<Json>] extends [NonNullable<InputOf<S, T>[C]>] ? never : C) : never
}[ColumnOf<S, T>]

type SumOf<S, T extends TableName<S>, C> = C extends keyof RowOf<S, T> ? NonNullable<RowOf<S, T>[C]> | null : never

interface Choice<S, T extends TableName<S>> {
  readonly where?: TypedWhere<S, T>
  readonly orderBy?: TypedOrderBy<S, T>
  readonly limit?: number
}

interface Nested<S, T extends TableName<S>> extends Choice<S, T> {
  readonly include?: TypedInclude<S, T>
  readonly aggregate?: TypedAggregates<S, T>
}

/** Relationships to follow. */
export type TypedInclude<S, T extends TableName<S>> = { readonly [N in keyof RelationsOf<S, T>]?: true | Nested<S, TargetOf<S, T, N>> }

/** Counts and sums over relationships to many rows. */
export type TypedAggregates<S, T extends TableName<S>> = Readonly<Record<string, Aggregate<S, T>>>

type Aggregate<S, T extends TableName<S>> = {
  [N in ManyOf<S, T>]:
    | { readonly count: N; readonly where?: TypedWhere<S, TargetOf<S, T, N>> }
    | { readonly sum: N; readonly column: SumColumn<S, TargetOf<S, T, N>>; readonly where?: TypedWhere<S, TargetOf<S, T, N>> }
}[ManyOf<S, T>]

/** Forbids what `TypedInclude` does not name: an inferred type alone would let it pass. */
type Known<S, T extends TableName<S>, I> = {
  [N in keyof I]: N extends keyof RelationsOf<S, T> ? (I[N] extends true ? true : KnownNested<S, TargetOf<S, T, N>, I[N]>) : never
}
type KnownNested<S, T extends TableName<S>, D> = {
  [K in keyof D]: K extends 'include' ? Known<S, T, D[K]> : K extends keyof Nested<S, T> ? D[K] : never
}

/** A live query of one table. */
export type TypedQuery<S, T extends TableName<S>, I, A> = Choice<S, T> & {
  readonly table: T
  readonly include?: I & Known<S, T, I>
  readonly aggregate?: A
}

type Included<S, T extends TableName<S>, I> = {
  readonly [N in keyof I & keyof RelationsOf<S, T>]: RelationsOf<S, T>[N] extends { many: true }
    ? readonly NestedRow<S, TargetOf<S, T, N>, I[N]>[]
    : NestedRow<S, TargetOf<S, T, N>, I[N]> | null
}
type Aggregated<S, T extends TableName<S>, A> = {
  readonly [N in keyof A]: A[N] extends { sum: infer R extends keyof RelationsOf<S, T>; column: infer C } ? SumOf<S, TargetOf<S, T, R>, C> : number
}
type NestedRow<S, T extends TableName<S>, D> = ResultRow<S, T, D extends { include: infer I } ? I : unknown, D extends { aggregate: infer A } ? A : unknown>

type Flat<R> = { readonly [K in keyof R]: R[K] }

/** A row as a query shows it. A row at the other end of a relationship is null while it is not on this page. */
export type ResultRow<S, T extends TableName<S>, I, A> = Flat<RowOf<S, T> & Included<S, T, I> & Aggregated<S, T, A>>

/** What an insert gives. */
export type InsertValues<S, T extends TableName<S>> = Readonly<
  Pick<InputOf<S, T>, RequiredOf<S, T> & keyof InputOf<S, T>> & Partial<Omit<InputOf<S, T>, RequiredOf<S, T> | FixedOf<S, T>>>
>

/** The key of a row. */
export type KeyValues<S, T extends TableName<S>> = Readonly<Pick<InputOf<S, T>, KeyOf<S, T> & keyof InputOf<S, T>>>

/** What must still be so for an operation to be carried out. */
type Unchanged<S, T extends TableName<S>> = 'unchanged' | Readonly<Partial<InputOf<S, T>>>

/** One operation. */
export type TypedOp<S> = {
  [T in TableName<S>]:
    | { readonly op: 'insert'; readonly table: T; readonly values: InsertValues<S, T> }
    | { readonly op: 'update'; readonly table: T; readonly key: KeyValues<S, T>; readonly set: Readonly<Partial<Omit<InputOf<S, T>, FixedOf<S, T>>>>; readonly if?: Unchanged<S, T> }
    | { readonly op: 'delete'; readonly table: T; readonly key: KeyValues<S, T>; readonly if?: Unchanged<S, T> }
}[TableName<S>]

/** A shape of a known table. */
export interface TypedShape<S, T extends TableName<S>> extends Omit<ShapeDefinition, 'table' | 'scope' | 'columns' | 'where'> {
  readonly table: T
  readonly scope?: { readonly [C in ColumnOf<S, T>]?: NonNullable<InputOf<S, T>[C]> & (string | number | boolean) } | null
  readonly columns?: readonly (keyof RowOf<S, T> & string)[] | null
  readonly where?: string | TypedCondition<S, T> | readonly TypedCondition<S, T>[] | null
}

/** A client with the types of a schema. */
export interface TypedClient<S extends SchemaTypes> extends Omit<Client, 'subscribe' | 'mutate' | 'resend' | 'query' | 'count' | 'sum' | 'schema'> {
  /** Types alone: at run time there is nothing. */
  readonly schema: SchemaModule<S> | undefined
  /** Asks for a shape; may be called at any time. */
  subscribe<T extends TableName<S>>(definition: TypedShape<S, T>): Subscription
  /** Writes: shown at once, durable when `saved` resolves, decided when `outcome` does. */
  mutate(ops: readonly TypedOp<S>[], options?: MutationOptions): Mutation
  /** Writes a refused mutation anew, with other operations if there are any. */
  resend(mutationId: string, ops?: readonly TypedOp<S>[]): Mutation
  /** A live list of a table's rows, with the rows that its relationships lead to. */
  query<T extends TableName<S>, const I extends TypedInclude<S, T> = {}, const A extends TypedAggregates<S, T> = {}>(
    definition: TypedQuery<S, T, I, A>,
  ): LiveQuery<ResultRow<S, T, I, A>>
  /** How many rows there are. */
  count<T extends TableName<S>>(definition: { readonly table: T; readonly where?: TypedWhere<S, T> }): LiveValue<number>
  /** The sum of a column; null without values. */
  sum<T extends TableName<S>, C extends SumColumn<S, T>>(definition: {
    readonly table: T
    readonly column: C
    readonly where?: TypedWhere<S, T>
  }): LiveValue<SumOf<S, T, C>>
}

/** Options of a client with a schema. */
export type TypedClientOptions<S extends SchemaTypes> = ClientOptions & { readonly schema: SchemaModule<S> }
