//! The world's tables, and the shapes that clients may want.

use crate::pg::Change;
use lockstep_core::catalog::{Catalog, Column, Oid, Table};
use lockstep_core::change::Text;
use serde_json::{Value as Json, json};
use std::fmt::Write as _;

/// A row, in the order of its table's columns.
pub type Row = Vec<Option<Text>>;
/// The values of a primary key.
pub type Key = Vec<Text>;

/// Tables of the application come first.
pub const APP_TABLES: usize = 3;
/// `lockstep.clients`: published, not tracked.
pub const CLIENTS: usize = 3;
/// `lockstep.mutations`: not published.
pub const MUTATIONS: usize = 4;
/// `lockstep.incarnations`: life of the server, mark, LSN. Not published.
pub const MARKS: usize = 5;
/// All of them.
pub const TABLES: usize = 6;
/// Oid of `lockstep.clients`.
pub const CLIENTS_OID: Oid = 16_900;
/// A value longer than this is stored apart, and not repeated by an update that leaves it alone.
pub const LARGE: usize = 40;
/// How many values a scope column takes.
pub const SCOPES: u64 = 4;
/// Values of columns of numbers.
pub const NUMBERS: i64 = 600;

const INT4: Oid = 23;
const TEXT: Oid = 25;

/// A tracked table, and which of its columns may be large.
#[derive(Debug, Clone)]
pub struct TableDef {
    /// As the core knows it.
    pub table: Table,
    /// A column of text.
    pub text: usize,
    /// A column of numbers, free to change.
    pub number: Option<usize>,
    /// Columns that it began with.
    pub width: usize,
}

/// A shape: definition as sent, and what it means.
#[derive(Debug, Clone)]
pub struct ShapeDef {
    /// Index of the table.
    pub table: usize,
    /// Indices of columns, ascending.
    pub columns: Vec<usize>,
    /// Scope column and value.
    pub scope: Vec<(usize, Text)>,
    /// A predicate: this column of numbers is below so much.
    pub below: Option<(usize, i64)>,
    /// As in docs/protocol.md.
    pub definition: Json,
}

/// What exists in every run.
#[derive(Debug, Clone)]
pub struct Schema {
    /// Tracked tables.
    pub tables: Vec<TableDef>,
    /// Shapes; a client's reference of one is its index.
    pub shapes: Vec<ShapeDef>,
}

fn column(name: &str, attnum: i16, type_oid: Oid) -> Column {
    let type_name = if type_oid == INT4 { "integer" } else { "text" }.to_owned();
    Column {
        name: name.into(),
        attnum,
        type_oid,
        type_sql: type_name.clone(),
        type_name,
        ..Column::default()
    }
}

fn table(index: usize, name: &str, columns: &[(&str, Oid)], key: &[usize], scopes: &[&[usize]]) -> Table {
    let number = u32::try_from(index).unwrap_or(0);
    let mut scope_columns: Vec<usize> = scopes.iter().flat_map(|s| s.iter().copied()).collect();
    scope_columns.dedup();
    Table {
        oid: 16_000 + number,
        log: 1 + i32::try_from(index).unwrap_or(0),
        tombstones: 17_000 + number,
        schema: "public".into(),
        name: name.into(),
        columns: (1..).zip(columns).map(|(n, (name, oid))| column(name, n, *oid)).collect(),
        key: key.to_vec(),
        scope_columns,
        scopes: scopes.iter().map(|s| s.to_vec()).collect(),
        schema_id: format!("{name}-1"),
        ..Table::default()
    }
}

impl Schema {
    /// Three tables: one public, one with a scope that may be NULL, one with two scopes and a key of two columns.
    pub fn new() -> Self {
        let lists = table(0, "lists", &[("id", INT4), ("n", INT4), ("title", TEXT)], &[0], &[]);
        let todos = [("id", INT4), ("list_id", INT4), ("n", INT4), ("note", TEXT)];
        let todos = table(1, "todos", &todos, &[0], &[&[1]]);
        let members = [("org", INT4), ("id", INT4), ("team", INT4), ("name", TEXT)];
        let members = table(2, "members", &members, &[0, 1], &[&[0], &[2]]);
        let tables = vec![
            TableDef { table: lists, text: 2, number: Some(1), width: 3 },
            TableDef { table: todos, text: 3, number: Some(2), width: 4 },
            TableDef { table: members, text: 3, number: None, width: 4 },
        ];
        let mut schema = Self { tables, shapes: Vec::new() };
        schema.shape(0, None, &[]);
        schema.filtered(0, &[], (1, NUMBERS / 2));
        schema.filtered(1, &[(1, 1)], (2, NUMBERS / 2));
        for value in 1..=SCOPES {
            schema.shape(1, None, &[(1, value)]);
        }
        schema.shape(1, Some(&[0, 1, 2]), &[(1, 1)]);
        for value in 1..=2 {
            schema.shape(2, None, &[(0, value)]);
            schema.shape(2, None, &[(2, value)]);
        }
        schema
    }

    fn shape(&mut self, table: usize, columns: Option<&[usize]>, scope: &[(usize, u64)]) {
        let core = &self.tables[table].table;
        let name = |i: &usize| core.columns[*i].name.clone();
        let scoped: serde_json::Map<String, Json> = scope.iter().map(|(c, v)| (name(c), json!(v))).collect();
        let definition = json!({
            "table": core.name,
            "columns": columns.map(|c| c.iter().map(name).collect::<Vec<_>>()),
            "scope": (!scoped.is_empty()).then_some(scoped),
        });
        let all = (0..core.columns.len()).collect();
        let columns = columns.map_or(all, <[usize]>::to_vec);
        let scope = scope.iter().map(|(c, v)| (*c, v.to_string().into())).collect();
        self.shapes.push(ShapeDef { table, columns, scope, below: None, definition });
    }

    /// A shape with a predicate, which rows pass and fail as they change.
    fn filtered(&mut self, table: usize, scope: &[(usize, u64)], below: (usize, i64)) {
        self.shape(table, None, scope);
        let name = &self.tables[table].table.columns[below.0].name;
        let predicate = format!("{name} < $1");
        if let Some(shape) = self.shapes.last_mut() {
            shape.below = Some(below);
            shape.definition["where"] = predicate.into();
            shape.definition["params"] = json!([below.1]);
        }
    }

    /// The last column comes, goes, or is another one. `version` is a number that was not used before.
    pub fn migrate(&mut self, table: usize, change: &Change, version: usize) {
        let core = &mut self.tables[table].table;
        let name = format!("extra_{version}");
        let attnum = 10 + i16::try_from(version).unwrap_or(0);
        match change {
            Change::Add(_) => core.columns.push(column(&name, attnum, TEXT)),
            Change::Drop => drop(core.columns.pop()),
            Change::Rename => {
                core.columns.iter_mut().next_back().into_iter().for_each(|c| c.name.clone_from(&name))
            }
            Change::Retype => {
                let last = core.columns.pop().unwrap_or_else(|| column(&name, attnum, TEXT));
                let type_oid = if last.type_oid == INT4 { TEXT } else { INT4 };
                core.columns.push(column(&last.name, last.attnum, type_oid));
            }
        }
        core.schema_id = format!("{}-{}", core.name, version + 1);
        let width = core.columns.len();
        for shape in self.shapes.iter_mut().filter(|s| s.table == table && s.definition["columns"].is_null())
        {
            shape.columns = (0..width).collect();
        }
    }

    /// Columns of a table beyond those it began with.
    pub fn extra_columns(&self, table: usize) -> usize {
        self.tables[table].table.columns.len() - self.tables[table].width
    }

    /// What a node reads from the catalog.
    pub fn catalog(&self) -> Catalog {
        Catalog::new(self.tables.iter().map(|t| t.table.clone()).collect(), CLIENTS_OID, "sim".into())
    }

    /// The key of a row of any table.
    pub fn key_of(&self, table: usize, row: &Row) -> Key {
        let columns: &[usize] = match table {
            CLIENTS => &[0, 1],
            MUTATIONS => &[0, 1, 2],
            MARKS => &[0],
            tracked => &self.tables[tracked].table.key,
        };
        columns.iter().map(|c| row[*c].clone().unwrap_or_else(|| "".into())).collect()
    }

    /// The JSON of a row in a shape, or None if it is not in it. Written apart from the core's encoder.
    pub fn row_text(&self, shape: &ShapeDef, row: &Row) -> Option<String> {
        if !shape.scope.iter().all(|(c, v)| row[*c].as_ref() == Some(v)) {
            return None;
        }
        let number = |c: usize| row[c].as_ref().and_then(|n| n.parse::<i64>().ok());
        if shape.below.is_some_and(|(c, most)| number(c).is_none_or(|n| n >= most)) {
            return None;
        }
        let columns = &self.tables[shape.table].table.columns;
        let mut text = String::from("[");
        for (nth, at) in shape.columns.iter().enumerate() {
            if nth > 0 {
                text.push(',');
            }
            match &row[*at] {
                None => text.push_str("null"),
                Some(value) if columns[*at].type_oid == INT4 => text.push_str(value),
                Some(value) => {
                    let _ = write!(text, "{}", Json::from(value.as_ref()));
                }
            }
        }
        text.push(']');
        Some(text)
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self::new()
    }
}
