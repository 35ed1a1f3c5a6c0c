// Written by `lockstep types`; write it anew after a change of the database's schema.
//
// A value is what it is in a row, and in brackets what may be written and compared:
//   int8               bigint  (string | number | bigint)
//   numeric            number, rounded to a double  (string | number | bigint)
//   date, timestamp    Date, without a zone as in UTC  (string | Date)
//   json, jsonb        unknown, parsed
//   an enum            its labels
//   an array, any other type    string, as PostgreSQL prints it
import type { SchemaModule } from '@lockstep/client'

export type Level = "low" | "mid" | "high"

export interface AppBillsOf2026Row {
  readonly id: bigint
  readonly "todo-id": string | null
  readonly level: Level
}

export interface AppBillsOf2026Input {
  readonly id: string | number | bigint
  readonly "todo-id": string | null
  readonly level: Level
}

export interface ListsRow {
  readonly id: string
  readonly name: string
  readonly rated: number
  readonly parent: string | null
}

export interface ListsInput {
  readonly id: string
  readonly name: string
  readonly rated: number
  readonly parent: string | null
}

export interface MembersRow {
  readonly id: number
  readonly list_id: string
  readonly name: string
  readonly born: Date | null
}

export interface MembersInput {
  readonly id: number
  readonly list_id: string
  readonly name: string
  readonly born: string | Date | null
}

export interface TodosRow {
  readonly id: string
  readonly list_id: string
  readonly title: string
  readonly done: boolean
  readonly level: Level | null
  readonly assignee: number | null
  readonly author: number | null
  readonly position: bigint
  readonly hours: number | null
  readonly weight: number | null
  readonly due: Date | null
  readonly extra: unknown | null
  readonly tags: string | null
}

export interface TodosInput {
  readonly id: string
  readonly list_id: string
  readonly title: string
  readonly done: boolean
  readonly level: Level | null
  readonly assignee: number | null
  readonly author: number | null
  readonly position: string | number | bigint
  readonly hours: string | number | bigint | null
  readonly weight: number | null
  readonly due: string | Date | null
  readonly extra: unknown | null
  readonly tags: string | null
}

export type Schema = {
  "app.Bills of 2026": {
    row: AppBillsOf2026Row
    input: AppBillsOf2026Input
    key: "id"
    required: "id" | "level"
    fixed: never
    relations: {
      "todo-id_row": { table: "todos"; many: false }
    }
  }
  lists: {
    row: ListsRow
    input: ListsInput
    key: "id"
    required: "name"
    fixed: never
    relations: {
      parent_row: { table: "lists"; many: false }
      lists: { table: "lists"; many: true }
      members: { table: "members"; many: true }
      todos: { table: "todos"; many: true }
    }
  }
  members: {
    row: MembersRow
    input: MembersInput
    key: "id"
    required: "list_id" | "name"
    fixed: "id"
    relations: {
      list: { table: "lists"; many: false }
      todos_by_assignee: { table: "todos"; many: true }
      todos_by_author: { table: "todos"; many: true }
    }
  }
  todos: {
    row: TodosRow
    input: TodosInput
    key: "id"
    required: "list_id" | "title"
    fixed: never
    relations: {
      "Bills of 2026": { table: "app.Bills of 2026"; many: false }
      assignee_row: { table: "members"; many: false }
      author_row: { table: "members"; many: false }
      list: { table: "lists"; many: false }
    }
  }
}

export const schema: SchemaModule<Schema> = {
  tables: {
    "app.Bills of 2026": {
      key: ["id"],
      columns: {
        id: "bigint",
        "todo-id": "uuid",
        level: "level",
      },
      labels: {
        level: ["low", "mid", "high"],
      },
      forms: {
        id: "bigint",
      },
      relations: {
        "todo-id_row": { table: "todos", many: false, from: ["todo-id"], to: ["id"] },
      },
    },
    lists: {
      key: ["id"],
      columns: {
        id: "uuid",
        name: "text",
        rated: "integer",
        parent: "uuid",
      },
      labels: {
      },
      relations: {
        parent_row: { table: "lists", many: false, from: ["parent"], to: ["id"] },
        lists: { table: "lists", many: true, from: ["id"], to: ["parent"] },
        members: { table: "members", many: true, from: ["id"], to: ["list_id"] },
        todos: { table: "todos", many: true, from: ["id"], to: ["list_id"] },
      },
    },
    members: {
      key: ["id"],
      columns: {
        id: "integer",
        list_id: "uuid",
        name: "text",
        born: "date",
      },
      labels: {
      },
      forms: {
        born: "Date",
      },
      relations: {
        list: { table: "lists", many: false, from: ["list_id"], to: ["id"] },
        todos_by_assignee: { table: "todos", many: true, from: ["id"], to: ["assignee"] },
        todos_by_author: { table: "todos", many: true, from: ["id"], to: ["author"] },
      },
    },
    todos: {
      key: ["id"],
      columns: {
        id: "uuid",
        list_id: "uuid",
        title: "text",
        done: "boolean",
        level: "level",
        assignee: "integer",
        author: "integer",
        position: "bigint",
        hours: "numeric(10,2)",
        weight: "double precision",
        due: "timestamp with time zone",
        extra: "jsonb",
        tags: "text[]",
      },
      labels: {
        level: ["low", "mid", "high"],
      },
      forms: {
        position: "bigint",
        hours: "number",
        due: "Date",
      },
      relations: {
        "Bills of 2026": { table: "app.Bills of 2026", many: false, from: ["id"], to: ["todo-id"] },
        assignee_row: { table: "members", many: false, from: ["assignee"], to: ["id"] },
        author_row: { table: "members", many: false, from: ["author"], to: ["id"] },
        list: { table: "lists", many: false, from: ["list_id"], to: ["id"] },
      },
    },
  },
}
