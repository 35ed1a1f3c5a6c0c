//! Random statements of an application: every kind that writes.

use crate::dice::Dice;
use crate::kind::Kind;
use crate::schema::{KEYS_PER_TABLE, PURSES, Schema, Table};

/// Something that a writer does within a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Statements.
    Sql(String),
    /// COPY … FROM STDIN and its lines.
    Copy(String, String),
}

/// Kinds of which some must commit in every long run, so that none is dead: by its syntax, say.
pub fn kinds(major: u32) -> Vec<&'static str> {
    let mut kinds = vec![
        "insert",
        "on-conflict",
        "insert-many",
        "update",
        "scope-move",
        "delete",
        "key-change",
        "key-swap",
        "delete-and-insert",
        "copy",
        "subtransaction",
        "reference-change",
        "truncate",
        "truncate-and-insert",
        "nothing-changes",
        "delete-many",
        "without-triggers",
        "money",
        "family",
        "savepoint-released",
        "savepoint-undone",
        "two-phase",
    ];
    if major >= 15 {
        kinds.push("merge");
    }
    kinds
}

/// Makes statements for one version of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Statements {
    /// The tables.
    pub schema: Schema,
    /// The major version.
    pub major: u32,
}

fn key_number(dice: &mut Dice) -> usize {
    // Some keys are hot, so that writers meet.
    if dice.chance(30) { dice.below(12) } else { dice.below(KEYS_PER_TABLE) }
}

impl Statements {
    /// One random step on the random tables, and what kind of statement it is.
    pub fn random(&self, dice: &mut Dice) -> (&'static str, Vec<Step>) {
        let at = self.schema.fixed + dice.below(self.schema.tables.len() - self.schema.fixed);
        let table = &self.schema.tables[at];
        let (kind, sql) = match dice.below(1000) {
            0..220 => {
                let conflict = dice_conflict(table, dice);
                let kind = if conflict.is_empty() { "insert" } else { "on-conflict" };
                (kind, self.insert(table, dice, &conflict))
            }
            220..300 => ("insert-many", self.insert_many(table, dice)),
            300..460 => ("update", self.update(table, dice)),
            460..540 => ("scope-move", self.scope_move(table, dice)),
            540..640 => {
                let sql = format!("delete from {} where {}", table.sql(), table.key_is(key_number(dice)));
                ("delete", sql)
            }
            640..700 => ("key-change", self.key_change(table, dice)),
            700..760 => ("key-swap", self.swap(table, dice)),
            760..800 => ("delete-and-insert", self.again(table, dice)),
            800..860 => return ("copy", self.copy(table, dice)),
            860..910 if self.major >= 15 => ("merge", self.merge(table, dice)),
            860..930 => ("subtransaction", self.exception(table, dice)),
            930..950 => ("reference-change", self.reference_change(at, dice)),
            950..955 => ("truncate", format!("truncate {} cascade", table.sql())),
            955..960 => {
                let insert = self.insert_many(table, dice);
                ("truncate-and-insert", format!("truncate {} cascade; {insert}", table.sql()))
            }
            960..980 => ("nothing-changes", self.unchanged(table, dice)),
            980..988 => {
                let (name, key) = (table.sql(), table.key_is(key_number(dice)));
                ("delete-many", format!("delete from {name} where {key} or random() < 0.3"))
            }
            988..994 => ("without-triggers", self.without_triggers(table, dice)),
            _ => ("select", format!("select count(*) from {} ", table.sql())),
        };
        (kind, vec![Step::Sql(sql)])
    }

    /// Every column of a new row.
    fn row(&self, table: &Table, number: usize, dice: &mut Dice) -> Vec<(usize, String)> {
        let keys = table.key.iter().copied().zip(table.key_of(number));
        let mut row: Vec<(usize, String)> = keys.collect();
        let rest = table.plain().into_iter().map(|c| (c, table.value(c, dice)));
        row.extend(rest);
        row.extend(self.reference_values(table, dice));
        row
    }

    /// NULL where the other row does not exist, so that most statements succeed.
    fn reference_values(&self, table: &Table, dice: &mut Dice) -> Vec<(usize, String)> {
        let Some(reference) = &table.reference else { return Vec::new() };
        let other = &self.schema.tables[reference.table];
        let place = other.key_is(key_number(dice));
        let pairs = reference.columns.iter().zip(&other.key);
        pairs
            .map(|(c, k)| (*c, format!("(select {} from {} where {place})", other.column(*k), other.sql())))
            .collect()
    }

    fn insert(&self, table: &Table, dice: &mut Dice, conflict: &str) -> String {
        let row = self.row(table, key_number(dice), dice);
        let (columns, values): (Vec<String>, Vec<String>) =
            row.into_iter().map(|(c, v)| (table.column(c), v)).unzip();
        format!(
            "insert into {} ({}) values ({}) {conflict}",
            table.sql(),
            columns.join(", "),
            values.join(", ")
        )
    }

    fn insert_many(&self, table: &Table, dice: &mut Dice) -> String {
        let start = dice.below(KEYS_PER_TABLE);
        let count = 2 + dice.below(18);
        let mut names = Vec::new();
        let mut rows = Vec::new();
        for number in start..(start + count).min(KEYS_PER_TABLE) {
            let row = self.row(table, number, dice);
            names = row.iter().map(|(c, _)| table.column(*c)).collect();
            rows.push(format!("({})", row.into_iter().map(|(_, v)| v).collect::<Vec<_>>().join(", ")));
        }
        format!(
            "insert into {} ({}) values {} on conflict do nothing",
            table.sql(),
            names.join(", "),
            rows.join(", ")
        )
    }

    fn update(&self, table: &Table, dice: &mut Dice) -> String {
        let plain = table.plain();
        let mut set: Vec<usize> = plain.iter().copied().filter(|_| dice.chance(40)).collect();
        if set.is_empty() {
            set.push(*dice.pick(&plain));
        }
        let set: Vec<String> =
            set.iter().map(|c| format!("{} = {}", table.column(*c), table.value(*c, dice))).collect();
        format!("update {} set {} where {}", table.sql(), set.join(", "), some_rows(table, dice))
    }

    /// An update that changes nothing, or sets a value to an equal one that prints differently.
    fn unchanged(&self, table: &Table, dice: &mut Dice) -> String {
        let column = *dice.pick(&table.plain());
        let name = table.column(column);
        let value = match table.columns[column].kind {
            Kind::Numeric if dice.chance(50) => format!("{name} + 0.00"),
            _ => name.clone(),
        };
        format!("update {} set {name} = {value} where {}", table.sql(), some_rows(table, dice))
    }

    fn scope_move(&self, table: &Table, dice: &mut Dice) -> String {
        let columns: Vec<usize> =
            table.scopes.iter().flatten().copied().filter(|c| !table.key.contains(c)).collect();
        if columns.is_empty() {
            return self.update(table, dice);
        }
        let column = *dice.pick(&columns);
        let name = table.column(column);
        let value = table.value(column, dice);
        format!("update {} set {name} = {value} where {}", table.sql(), some_rows(table, dice))
    }

    fn set_key(table: &Table, from: &str, to: usize) -> String {
        let set = table.key.iter().zip(table.key_of(to)).map(|(c, v)| format!("{} = {v}", table.column(*c)));
        format!("update {} set {} where {from}", table.sql(), set.collect::<Vec<_>>().join(", "))
    }

    fn key_change(&self, table: &Table, dice: &mut Dice) -> String {
        let (from, to) = (key_number(dice), key_number(dice));
        let change = Self::set_key(table, &table.key_is(from), to);
        if dice.chance(50) {
            format!("delete from {} where {}; {change}", table.sql(), table.key_is(to))
        } else {
            change
        }
    }

    /// Two rows exchange their keys, by way of a third.
    fn swap(&self, table: &Table, dice: &mut Dice) -> String {
        let (a, b) = (key_number(dice), key_number(dice));
        // The numbers just past the ordinary ones are nobody's.
        let spare = KEYS_PER_TABLE - 1;
        let steps =
            [(a, spare), (b, a), (spare, b)].map(|(from, to)| Self::set_key(table, &table.key_is(from), to));
        format!("delete from {} where {}; {}", table.sql(), table.key_is(spare), steps.join("; "))
    }

    /// A key is deleted and comes back in the same transaction, or even statement.
    fn again(&self, table: &Table, dice: &mut Dice) -> String {
        let number = key_number(dice);
        let row = self.row(table, number, dice);
        let (columns, values): (Vec<String>, Vec<String>) =
            row.into_iter().map(|(c, v)| (table.column(c), v)).unzip();
        let (columns, values) = (columns.join(", "), values.join(", "));
        let (name, place) = (table.sql(), table.key_is(number));
        match dice.below(3) {
            0 => format!(
                "with gone as (delete from {name} where {place} returning 1) insert into {name} ({columns}) select {values} from gone"
            ),
            1 => {
                format!("delete from {name} where {place}; insert into {name} ({columns}) values ({values})")
            }
            _ => format!(
                "insert into {name} ({columns}) values ({values}) on conflict do nothing; delete from {name} where {place}; \
                 insert into {name} ({columns}) values ({values})"
            ),
        }
    }

    fn copy(&self, table: &Table, dice: &mut Dice) -> Vec<Step> {
        let start = dice.below(KEYS_PER_TABLE - 20);
        let numbers: Vec<usize> = (start..start + 2 + dice.below(15)).collect();
        let places: Vec<String> = numbers.iter().map(|n| format!("({})", table.key_is(*n))).collect();
        let clear = format!("delete from {} where {}", table.sql(), places.join(" or "));
        let columns: Vec<String> = table.key.iter().map(|c| table.column(*c)).collect();
        let texts: Vec<usize> =
            table.plain().into_iter().filter(|c| table.columns[*c].kind == Kind::Text).collect();
        let scopes: Vec<usize> = table
            .scopes
            .iter()
            .flatten()
            .copied()
            .filter(|c| !table.key.contains(c) && !texts.contains(c))
            .collect();
        let all: Vec<String> =
            columns.iter().cloned().chain(texts.iter().chain(&scopes).map(|c| table.column(*c))).collect();
        let mut data = String::new();
        for number in numbers {
            let parts = table.key.len();
            let mut fields = Vec::new();
            for (at, column) in table.key.iter().enumerate() {
                let own = if parts == 1 { number } else { [number / 16, number % 16][at] };
                fields.push(copy_field(&table.columns[*column].kind.numbered(own)));
            }
            fields.extend(texts.iter().map(|c| copy_field(&table.columns[*c].kind.numbered(dice.below(4)))));
            fields.extend(scopes.iter().map(|c| copy_field(&table.columns[*c].kind.numbered(dice.below(4)))));
            data += &fields.join("\t");
            data.push('\n');
        }
        let into = format!("copy {} ({}) from stdin", table.sql(), all.join(", "));
        vec![Step::Sql(clear), Step::Copy(into, data)]
    }

    fn merge(&self, table: &Table, dice: &mut Dice) -> String {
        let row = self.row(table, key_number(dice), dice);
        let names: Vec<String> = row.iter().map(|(c, _)| table.column(*c)).collect();
        let sources: Vec<String> = row
            .iter()
            .map(|(c, v)| format!("({v})::{} as {}", table.columns[*c].kind.sql(), table.column(*c)))
            .collect();
        let on: Vec<String> = table.key.iter().map(|c| format!("t.{0} = s.{0}", table.column(*c))).collect();
        let set: Vec<String> =
            table.plain().iter().map(|c| format!("{0} = s.{0}", table.column(*c))).collect();
        let values: Vec<String> = names.iter().map(|n| format!("s.{n}")).collect();
        let matched = match dice.below(3) {
            0 => "delete".to_owned(),
            1 => format!("update set {}", set.join(", ")),
            _ => "do nothing".to_owned(),
        };
        format!(
            "merge into {} t using (select {}) s on {} when matched then {matched} when not matched then insert ({}) values ({})",
            table.sql(),
            sources.join(", "),
            on.join(" and "),
            names.join(", "),
            values.join(", ")
        )
    }

    /// A subtransaction of PL/pgSQL that is undone after it wrote.
    fn exception(&self, table: &Table, dice: &mut Dice) -> String {
        let conflict = dice_conflict(table, dice);
        let (lost, kept) = (self.update(table, dice), self.insert(table, dice, &conflict));
        format!(
            "do $do$ begin begin {lost}; raise division_by_zero; exception when division_by_zero then {kept}; end; end $do$"
        )
    }

    fn reference_change(&self, at: usize, dice: &mut Dice) -> String {
        let table = &self.schema.tables[at];
        let values = self.reference_values(table, dice);
        if values.is_empty() {
            return self.update(table, dice);
        }
        let set: Vec<String> =
            values.into_iter().map(|(c, v)| format!("{} = {v}", table.column(c))).collect();
        format!("update {} set {} where {}", table.sql(), set.join(", "), some_rows(table, dice))
    }

    /// As restores and logical replication write: only triggers that are ALWAYS enabled fire.
    fn without_triggers(&self, table: &Table, dice: &mut Dice) -> String {
        format!(
            "set local session_replication_role = replica; {}; set local session_replication_role = origin",
            self.update(table, dice)
        )
    }

    /// Money moves between purses of two tables; its sum stays.
    pub fn move_money(&self, dice: &mut Dice) -> String {
        let (a, b, amount) = (1 + dice.below(PURSES), 1 + dice.below(PURSES), dice.below(50));
        let (from, to) =
            *dice.pick(&[("purse_a", "purse_b"), ("purse_b", "purse_a"), ("purse_a", "purse_a")]);
        match dice.below(4) {
            // Without the lock an update that waits for the row finds it gone, and takes nothing.
            0 => format!(
                "lock table {from} in share row exclusive mode; \
                 with gone as (delete from {from} where id = {a} returning *) insert into {from} select id + 100, amount from gone; \
                 update {from} set id = {a} where id = {a} + 100"
            ),
            1 if from != to => format!(
                "with taken as (update {from} set amount = amount - {amount} where id = {a} returning 1) \
                 update {to} set amount = amount + {amount} * (select count(*) from taken) where id = {b}"
            ),
            _ => format!(
                "update {from} set amount = amount - {amount} where id = {a}; update {to} set amount = amount + {amount} where id = {b}"
            ),
        }
    }

    /// Parents and children come, move and go together.
    pub fn family(&self, dice: &mut Dice) -> String {
        let (p, g, c) = (dice.below(40), dice.below(3), dice.between(1, 1_000_000_000));
        let adopt = format!(
            "insert into children select {c} + i, id, g, 'child ' || i from parents, generate_series(0, 2) i where id = {p} on conflict do nothing"
        );
        match dice.below(8) {
            0 | 1 => format!("insert into parents values ({p}, {g}, 'p') on conflict do nothing; {adopt}"),
            2 => adopt,
            3 => format!("update parents set g = {g} where id = {p}"),
            4 => format!("delete from parents where id = {p}"),
            5 => format!(
                "delete from children where parent_id = {p}; delete from parents where id = {p}; insert into parents values ({p}, {g}, 'again'); {adopt}"
            ),
            6 => format!(
                "delete from parents where id = {p} + 1; update parents set id = {p} + 1 where id = {p}"
            ),
            _ => format!(
                "update children set body = 'b' || id where parent_id = {p}; update parents set title = 't{c}' where id = {p}"
            ),
        }
    }
}

fn dice_conflict(table: &Table, dice: &mut Dice) -> String {
    let key: Vec<String> = table.key.iter().map(|c| table.column(*c)).collect();
    let key = key.join(", ");
    let set: Vec<String> =
        table.plain().iter().map(|c| format!("{0} = excluded.{0}", table.column(*c))).collect();
    match dice.below(3) {
        0 => String::new(),
        1 => "on conflict do nothing".into(),
        _ => format!("on conflict ({key}) do update set {}", set.join(", ")),
    }
}

fn some_rows(table: &Table, dice: &mut Dice) -> String {
    match dice.below(10) {
        0..6 => table.key_is(key_number(dice)),
        6..9 => {
            let places = (0..2 + dice.below(6)).map(|_| format!("({})", table.key_is(key_number(dice))));
            places.collect::<Vec<_>>().join(" or ")
        }
        _ => format!("hashtext({}::text) % 7 = {}", table.column(table.key[0]), dice.below(7)),
    }
}

fn copy_field(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}
