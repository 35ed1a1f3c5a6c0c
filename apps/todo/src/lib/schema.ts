// Written by `lockstep types`; write it anew after a change of the database's schema.
//
// A value is what it is in a row, and in brackets what may be written and compared:
//   int8, numeric      string, which loses no digit  (string | number | bigint)
//   date, timestamp    string, as PostgreSQL prints it in UTC  (string | Date)
//   json, jsonb        Json, parsed
//   an enum            its labels
//   an array, any other type    string, as PostgreSQL prints it
import type { Json, SchemaModule } from '@lockstep/client'

export interface ListsRow {
  readonly id: string
  readonly name: string
  readonly position: number
  readonly archived: boolean
}

export interface ListsInput {
  readonly id: string
  readonly name: string
  readonly position: number
  readonly archived: boolean
}

export interface MembersRow {
  readonly id: string
  readonly list_id: string
  readonly name: string
  readonly colour: string
}

export interface MembersInput {
  readonly id: string
  readonly list_id: string
  readonly name: string
  readonly colour: string
}

export interface TodosRow {
  readonly id: string
  readonly list_id: string
  readonly title: string
  readonly done: boolean
  readonly assignee: string | null
  readonly created_at: string
}

export interface TodosInput {
  readonly id: string
  readonly list_id: string
  readonly title: string
  readonly done: boolean
  readonly assignee: string | null
  readonly created_at: string | Date
}

export type Schema = {
  lists: {
    row: ListsRow
    input: ListsInput
    key: "id"
    required: "name"
    fixed: never
    relations: {
      members: { table: "members"; many: true }
      todos: { table: "todos"; many: true }
    }
  }
  members: {
    row: MembersRow
    input: MembersInput
    key: "id"
    required: "list_id" | "name"
    fixed: never
    relations: {
      list: { table: "lists"; many: false }
      todos: { table: "todos"; many: true }
    }
  }
  todos: {
    row: TodosRow
    input: TodosInput
    key: "id"
    required: "list_id" | "title"
    fixed: never
    relations: {
      assignee_row: { table: "members"; many: false }
      list: { table: "lists"; many: false }
    }
  }
}

export const schema: SchemaModule<Schema> = {
  tables: {
    lists: {
      key: ["id"],
      columns: {
        id: "uuid",
        name: "text",
        position: "double precision",
        archived: "boolean",
      },
      labels: {
      },
      relations: {
        members: { table: "members", many: true, from: ["id"], to: ["list_id"] },
        todos: { table: "todos", many: true, from: ["id"], to: ["list_id"] },
      },
    },
    members: {
      key: ["id"],
      columns: {
        id: "uuid",
        list_id: "uuid",
        name: "text",
        colour: "text",
      },
      labels: {
      },
      relations: {
        list: { table: "lists", many: false, from: ["list_id"], to: ["id"] },
        todos: { table: "todos", many: true, from: ["id"], to: ["assignee"] },
      },
    },
    todos: {
      key: ["id"],
      columns: {
        id: "uuid",
        list_id: "uuid",
        title: "text",
        done: "boolean",
        assignee: "uuid",
        created_at: "timestamp with time zone",
      },
      labels: {
      },
      relations: {
        assignee_row: { table: "members", many: false, from: ["assignee"], to: ["id"] },
        list: { table: "lists", many: false, from: ["list_id"], to: ["id"] },
      },
    },
  },
}
