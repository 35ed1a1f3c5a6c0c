//! Tables: the random ones, and the fixed ones whose invariants are checked at every commit.

use crate::dice::Dice;
use crate::kind::{ANY, COLOURS, KEYS, Kind, SCOPES, literal};

/// Different keys of a random table.
pub const KEYS_PER_TABLE: usize = 260;
/// Different values of a scope column, besides NULL.
pub const SCOPES_PER_COLUMN: usize = 4;
/// Writers that may exist; each has a row in the tables `pulse_a` and `pulse_b`.
pub const PULSES: usize = 13;
/// Rows of each of `purse_a` and `purse_b`, and what all of them hold together.
pub const PURSES: usize = 12;
/// The sum of all purses at any moment.
pub const MONEY: i64 = 2 * 12 * 1000;

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// PostgreSQL computes it.
    pub generated: bool,
    /// It is in the stream: generated columns are since 18.
    pub travels: bool,
}

impl Column {
    fn plain(name: String, kind: Kind) -> Self {
        Self { name, kind, generated: false, travels: true }
    }
}

/// A foreign key to the primary key of another table.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The index of the other table.
    pub table: usize,
    /// Columns of this one.
    pub columns: Vec<usize>,
    actions: &'static str,
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Schema.
    pub schema: &'static str,
    /// Name.
    pub name: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Indices of the primary key's columns.
    pub key: Vec<usize>,
    /// Scopes: the indices of their columns.
    pub scopes: Vec<Vec<usize>>,
    /// Foreign key.
    pub reference: Option<Reference>,
    /// DDL of a fixed table; a random one's is made from the rest.
    ddl: Option<String>,
}

/// All tables of a world: the fixed ones first.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The tables.
    pub tables: Vec<Table>,
    /// How many of them are fixed.
    pub fixed: usize,
    /// Families are scoped.
    pub scoped_families: bool,
}

/// A quoted identifier.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Table {
    /// Its qualified, quoted name.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote(self.schema), quote(&self.name))
    }

    /// The name that clients use.
    pub fn protocol_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// A quoted column.
    pub fn column(&self, index: usize) -> String {
        quote(&self.columns[index].name)
    }

    /// Columns in no key and no foreign key, that may be written.
    pub fn plain(&self) -> Vec<usize> {
        let tied: Vec<usize> =
            self.reference.iter().flat_map(|r| r.columns.clone()).chain(self.key.clone()).collect();
        (0..self.columns.len()).filter(|c| !tied.contains(c) && !self.columns[*c].generated).collect()
    }

    /// The literals of the key with this number.
    pub fn key_of(&self, number: usize) -> Vec<String> {
        let parts = self.key.len();
        let part = |(at, column): (usize, &usize)| {
            let own = if parts == 1 { number } else { [number / 16, number % 16][at] };
            literal(&self.columns[*column].kind.numbered(own))
        };
        self.key.iter().enumerate().map(part).collect()
    }

    /// A condition that this is the key.
    pub fn key_is(&self, number: usize) -> String {
        let parts =
            self.key.iter().zip(self.key_of(number)).map(|(c, v)| format!("{} = {v}", self.column(*c)));
        parts.collect::<Vec<_>>().join(" and ")
    }

    /// An expression for a column of a row that is to be written.
    pub fn value(&self, column: usize, dice: &mut Dice) -> String {
        let kind = self.columns[column].kind;
        if self.scopes.iter().any(|s| s.contains(&column)) {
            return if dice.chance(5) {
                "null".into()
            } else {
                format!("{}::{}", literal(&kind.numbered(dice.below(SCOPES_PER_COLUMN))), kind.sql())
            };
        }
        if dice.chance(10) { "null".into() } else { format!("{}::{}", kind.random(dice), kind.sql()) }
    }

    /// Columns that clients are told.
    pub fn travelling(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|c| self.columns[*c].travels).collect()
    }

    /// From a value that is stored out of line, where there is one: what the stream leaves out, this has to know.
    fn generation(&self) -> String {
        let big = self.columns.iter().position(|column| column.kind == Kind::Big);
        let from = big.map_or("'g'::text || 'x'::text".to_owned(), |c| format!("md5({})", self.column(c)));
        format!(" generated always as ({from}) stored")
    }

    fn ddl(&self, tables: &[Self]) -> String {
        if let Some(ddl) = &self.ddl {
            return ddl.clone();
        }
        let mut parts: Vec<String> = Vec::new();
        for (i, column) in self.columns.iter().enumerate() {
            let more = if column.generated { self.generation() } else { String::new() };
            parts.push(format!("{} {}{more}", self.column(i), column.kind.sql()));
        }
        let list = |columns: &[usize]| columns.iter().map(|c| self.column(*c)).collect::<Vec<_>>().join(", ");
        parts.push(format!("primary key ({})", list(&self.key)));
        if let Some(reference) = &self.reference {
            let to = tables[reference.table].sql();
            parts.push(format!(
                "foreign key ({}) references {to} {}",
                list(&reference.columns),
                reference.actions
            ));
        }
        let mut sql = format!("create table {} ({});\n", self.sql(), parts.join(", "));
        for (i, column) in self.columns.iter().enumerate() {
            if column.kind == Kind::Big {
                sql += &format!(
                    "alter table {} alter column {} set storage external;\n",
                    self.sql(),
                    self.column(i)
                );
            }
        }
        if let Some(reference) = &self.reference {
            sql += &format!("create index on {} ({});\n", self.sql(), list(&reference.columns));
        }
        sql
    }
}

impl Schema {
    /// A random one.
    pub fn random(dice: &mut Dice) -> Self {
        let scoped_families = dice.chance(60);
        let mut tables = fixed(scoped_families);
        let fixed = tables.len();
        let count = 3 + dice.below(4);
        for i in 0..count {
            let table = random_table(dice, i, &tables[fixed..], fixed);
            tables.push(table);
        }
        Self { tables, fixed, scoped_families }
    }

    /// For this version.
    pub fn on(mut self, major: u32) -> Self {
        for column in self.tables.iter_mut().flat_map(|table| &mut table.columns) {
            column.travels = !column.generated || major >= 18;
        }
        self
    }

    /// Everything as SQL, the fixed tables' first rows included.
    pub fn ddl(&self) -> String {
        let labels: Vec<String> = COLOURS.iter().map(|c| literal(c)).collect();
        let mut sql =
            format!("create schema \"Side Room\";\ncreate type colour as enum ({});\n", labels.join(", "));
        for table in &self.tables {
            sql += &table.ddl(&self.tables);
        }
        sql + &format!(
            "insert into pulse_a select i, 0 from generate_series(0, {p}) i;
             insert into pulse_b select i, 0, 'x' from generate_series(0, {p}) i;
             insert into purse_a select i, 1000 from generate_series(1, {PURSES}) i;
             insert into purse_b select i, 1000 from generate_series(1, {PURSES}) i;
             create function tally() returns trigger language plpgsql as $$ begin
               insert into public.tallies values (new.who, 1)
               on conflict (who) do update set n = tallies.n + 1; return null; end $$;
             create trigger tally after insert on receipts for each row execute function tally();\n",
            p = PULSES - 1
        )
    }

    /// The index of a fixed table.
    pub fn fixed_table(&self, name: &str) -> usize {
        self.tables.iter().position(|t| t.name == name).unwrap_or_default()
    }
}

fn fixed(scoped_families: bool) -> Vec<Table> {
    let table = |name: &str, columns: &[(&str, Kind)], scope: Option<usize>, more: &str| {
        let columns: Vec<Column> = columns.iter().map(|(n, k)| Column::plain((*n).into(), *k)).collect();
        let list: Vec<String> =
            columns.iter().map(|c| format!("{} {} not null", c.name, c.kind.sql())).collect();
        let list = list.join(", ").replacen(" not null", " primary key", 1);
        let ddl = format!("create table {name} ({}{more});\n", list.replace("serial ", ""));
        let scopes = scope.into_iter().map(|s| vec![s]).collect();
        Table {
            schema: "public",
            name: name.into(),
            columns,
            key: vec![0],
            scopes,
            reference: None,
            ddl: Some(ddl),
        }
    };
    let group = |at: usize| scoped_families.then_some(at);
    let mut tables = vec![
        table("pulse_a", &[("writer", Kind::Int4), ("n", Kind::Int8)], None, ""),
        table("pulse_b", &[("writer", Kind::Int4), ("n", Kind::Int8), ("note", Kind::Text)], None, ""),
        table("purse_a", &[("id", Kind::Int4), ("amount", Kind::Int8)], None, ""),
        table("purse_b", &[("id", Kind::Int4), ("amount", Kind::Int8)], None, ""),
        table(
            "parents",
            &[("id", Kind::Int4), ("g", Kind::Int4), ("title", Kind::Text)],
            group(1),
            ", unique (id, g)",
        ),
        table(
            "children",
            &[("id", Kind::Int8), ("parent_id", Kind::Int4), ("g", Kind::Int4), ("body", Kind::Text)],
            group(2),
            ", foreign key (parent_id, g) references parents (id, g) on delete cascade on update cascade",
        ),
        table(
            "receipts",
            &[("id", Kind::Int8), ("who", Kind::Int4), ("what", Kind::Uuid), ("fine", Kind::Bool)],
            Some(1),
            ", check (fine)",
        ),
        table("tallies", &[("who", Kind::Int4), ("n", Kind::Int8)], Some(0), ""),
    ];
    // Without a key of its own, an insert that is applied twice makes two rows.
    if let Some(ddl) = &mut tables[6].ddl {
        *ddl = ddl.replacen("id int8", "id int8 generated by default as identity", 1);
    }
    tables
}

fn random_table(dice: &mut Dice, number: usize, others: &[Table], fixed: usize) -> Table {
    let name = match dice.below(4) {
        0 => format!("Mixed Case {number}"),
        1 => format!("order_{number}"),
        _ => format!("t{number}"),
    };
    let column = Column::plain;
    let mut columns = Vec::new();
    let mut key = Vec::new();
    for part in 0..if dice.chance(30) { 2 } else { 1 } {
        key.push(columns.len());
        columns.push(column(if part == 0 { "id".into() } else { "Part 2".into() }, *dice.pick(&KEYS)));
    }
    let mut scopes = Vec::new();
    for scope in 0..[0, 1, 1, 1, 2, 2][dice.below(6)] {
        let mut parts = Vec::new();
        for part in 0..if dice.chance(30) { 2 } else { 1 } {
            parts.push(columns.len());
            columns.push(column(format!("scope_{scope}_{part}"), *dice.pick(&SCOPES)));
        }
        scopes.push(parts);
    }
    // A scope may also be a part of the key: then a change of scope is a change of key.
    if key.len() == 2 && dice.chance(30) {
        scopes.push(vec![key[0]]);
    }
    for extra in 0..2 + dice.below(6) {
        columns.push(column(
            ["v", "Weird \"name\"", "select", "ünïcode", "v_4", "v_5", "v_6", "v_7"][extra].into(),
            *dice.pick(&ANY),
        ));
    }
    if dice.chance(40) {
        columns.push(column("big".into(), Kind::Big));
    }
    if dice.chance(25) {
        columns.push(Column { generated: true, travels: false, ..column("made".into(), Kind::Text) });
    }
    let mut reference = None;
    if !others.is_empty() && dice.chance(60) {
        let table = dice.below(others.len());
        let first = columns.len();
        let kinds = others[table].key.iter().map(|k| others[table].columns[*k].kind);
        columns.extend(kinds.enumerate().map(|(i, kind)| column(format!("ref_{i}"), kind)));
        let actions = *dice.pick(&[
            "on delete cascade on update cascade",
            "on delete set null on update cascade",
            "on delete cascade on update set null",
            "on delete set null on update set null deferrable initially deferred",
            "deferrable initially deferred",
        ]);
        reference =
            Some(Reference { table: fixed + table, columns: (first..columns.len()).collect(), actions });
    }
    let schema = if dice.chance(20) { "Side Room" } else { "public" };
    Table { schema, name, columns, key, scopes, reference, ddl: None }
}
