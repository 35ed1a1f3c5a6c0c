//! Parts of a transaction, applied one after another, against the rows as they are after it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::catalog::{Catalog, Column, Oid, Table};
use lockstep_core::change::{Assembler, Final, Key, Part, Relation, RelationColumn, Text, Tuple, Value};
use lockstep_core::fanout::delta_for;
use lockstep_core::limits::Bounds;
use lockstep_core::pgoutput::Message;
use lockstep_core::position::Lsn;
use lockstep_core::shape::{Shape, ShapeRequest};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

const ITEMS: Oid = 100;
const FREE: Oid = 200;
const COLUMNS: [&str; 4] = ["id", "a", "b", "body"];

/// `items(id, a, b, body)`, scopes `(a)` and `(a, b)`; `free(id, a, b, body)` without scope.
fn catalog() -> Catalog {
    let column = |(nth, name): (usize, &&str)| Column {
        name: (*name).into(),
        attnum: nth as i16 + 1,
        type_oid: 25,
        type_name: "text".into(),
        type_sql: "text".into(),
        ..Column::default()
    };
    let table = |oid: Oid, name: &str, scopes: Vec<Vec<usize>>| Table {
        oid,
        log: oid as i32,
        tombstones: oid + 1,
        schema: "public".into(),
        name: name.into(),
        columns: COLUMNS.iter().enumerate().map(column).collect(),
        key: vec![0],
        scope_columns: if scopes.is_empty() { vec![] } else { vec![1, 2] },
        scopes,
        schema_id: "1".into(),
        ..Table::default()
    };
    let tables = vec![table(ITEMS, "items", vec![vec![1], vec![2, 1]]), table(FREE, "free", vec![])];
    Catalog::new(tables, 999, "installation".into())
}

fn shapes(catalog: &Catalog) -> Vec<Shape> {
    let mut scopes = vec![("free", json!(null))];
    for a in ["x", "y"] {
        scopes.push(("items", json!({"a": a})));
        scopes.push(("items", json!({"a": a, "b": "x"})));
    }
    let mut shapes = Vec::new();
    for (table, scope) in scopes {
        for wanted in [None, Some("b = 'x'"), Some("body = 'small'"), Some("b <> 'x' or a = 'y'")] {
            for columns in [json!(null), json!(["id", "a", "b"])] {
                let request =
                    json!({"ref": "s", "table": table, "scope": scope, "where": wanted, "columns": columns});
                let request: ShapeRequest = serde_json::from_value(request).unwrap();
                shapes.push(Shape::resolve(&request, catalog).unwrap());
            }
        }
    }
    shapes
}

type Rows = BTreeMap<(Oid, Text), Tuple>;

fn text(t: &str) -> Value {
    Value::Text(t.into())
}

/// What one operation does.
#[derive(Debug, Clone)]
enum Op {
    /// Inserts the row, or updates the one that has its key. What is equal and large is not repeated.
    Put(Oid, Tuple),
    /// Gives the row that has this key another one.
    Rekey(Oid, &'static str, &'static str),
    Delete(Oid, &'static str),
    /// Of all these tables, by one statement.
    Truncate(Vec<Oid>),
    /// The triggers of all statements so far run.
    Triggers,
    /// The replica identity is the other one from here on.
    Identity,
}

fn op() -> impl Strategy<Value = Op> {
    let table = || prop_oneof![4 => Just(ITEMS), 1 => Just(FREE)];
    let key = || prop_oneof![Just("1"), Just("2"), Just("3")];
    let truncated = prop_oneof![Just(vec![ITEMS]), Just(vec![FREE]), Just(vec![ITEMS, FREE])];
    prop_oneof![
        8 => (table(), row()).prop_map(|(table, row)| Op::Put(table, row)),
        2 => (table(), key(), key()).prop_map(|(table, from, to)| Op::Rekey(table, from, to)),
        4 => (table(), key()).prop_map(|(table, key)| Op::Delete(table, key)),
        1 => prop_oneof![9 => Just(Op::Triggers), 1 => truncated.prop_map(Op::Truncate)],
        6 => Just(Op::Triggers),
        1 => Just(Op::Identity),
    ]
}

fn row() -> impl Strategy<Value = Tuple> {
    let value = || prop_oneof![4 => Just(text("x")), 3 => Just(text("y")), 1 => Just(Value::Null)];
    let body = prop_oneof![3 => Just(text("small")), 2 => Just(text("large")), 1 => Just(Value::Null)];
    let key = prop_oneof![Just(text("1")), Just(text("2")), Just(text("3"))];
    (key, value(), value(), body).prop_map(|(key, a, b, body)| vec![key, a, b, body])
}

/// PostgreSQL: rows, and the messages of one transaction.
struct Db {
    rows: Rows,
    full: bool,
    messages: Vec<Message>,
    tombstones: Vec<Message>,
}

impl Db {
    fn tombstone(&mut self, table: Oid, old: &Tuple) {
        let mut new = vec![text("9")];
        if table == ITEMS {
            new.extend([old[1].clone(), old[2].clone()]);
        }
        new.extend([old[0].clone(), text("700"), text("m")]);
        self.tombstones.push(Message::Insert { relation: table + 1, new });
    }

    fn update(&mut self, relation: Oid, old: &Tuple, new: Tuple) {
        let rekeyed = old[0] != new[0];
        let only_key = vec![old[0].clone(), Value::Null, Value::Null, Value::Null];
        let told = match (self.full, rekeyed) {
            (true, _) => Some((old.clone(), true)),
            (false, true) => Some((only_key, false)),
            (false, false) => None,
        };
        let mut sent = new.clone();
        if old[3] == new[3] && new[3] == text("large") {
            sent[3] = Value::Unchanged;
        }
        self.messages.push(Message::Update { relation, old: told, new: sent });
        if rekeyed || relation == ITEMS && old[1..3] != new[1..3] {
            self.tombstone(relation, old);
        }
        self.rows.remove(&(relation, key(old)));
        self.rows.insert((relation, key(&new)), new);
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Put(relation, new) => match self.rows.get(&(relation, key(&new))).cloned() {
                Some(old) => self.update(relation, &old, new),
                None => {
                    self.messages.push(Message::Insert { relation, new: new.clone() });
                    self.rows.insert((relation, key(&new)), new);
                }
            },
            Op::Rekey(relation, from, to) => {
                let old = self.rows.get(&(relation, from.into())).cloned();
                if let Some(old) = old.filter(|_| !self.rows.contains_key(&(relation, to.into()))) {
                    let mut new = old.clone();
                    new[0] = text(to);
                    self.update(relation, &old, new);
                }
            }
            Op::Delete(relation, key) => {
                let Some(old) = self.rows.remove(&(relation, key.into())) else { return };
                let mut told = vec![Value::Null; 4];
                told[0] = old[0].clone();
                let told = if self.full { old.clone() } else { told };
                self.messages.push(Message::Delete { relation, old: told, full: self.full });
                self.tombstone(relation, &old);
            }
            Op::Truncate(relations) => {
                self.rows.retain(|(table, _), _| !relations.contains(table));
                self.messages.push(Message::Truncate { relations });
            }
            Op::Triggers => self.messages.append(&mut self.tombstones),
            Op::Identity => {
                self.full = !self.full;
                self.messages.extend([relation(ITEMS, self.full), relation(FREE, self.full)]);
            }
        }
    }
}

fn key(row: &Tuple) -> Text {
    row[0].text().unwrap().into()
}

/// The relation as the stream describes it.
fn relation(oid: Oid, full: bool) -> Message {
    Message::Relation(described(oid, full))
}

fn described(oid: Oid, full: bool) -> Relation {
    let (name, columns): (&str, Vec<&str>) = match oid {
        ITEMS => ("items", COLUMNS.to_vec()),
        FREE => ("free", COLUMNS.to_vec()),
        _ => ("tombstones", vec!["id", "s1", "s2", "k1", "xid", "kind"]),
    };
    let column = |name: &&str| RelationColumn {
        key: *name == "id" || full,
        name: (*name).into(),
        type_oid: 25,
        type_mod: -1,
    };
    let mut columns: Vec<_> = columns.iter().map(column).collect();
    if oid == FREE + 1 {
        columns.drain(1..3);
    }
    let identity = if full { b'f' } else { b'd' };
    Relation { oid, schema: "public".into(), name: name.into(), identity, columns }
}

/// A partition is truncated, and then the log is built anew: only the old log's tombstones name the table.
#[test]
fn a_table_is_touched_by_tombstones_of_a_log_that_is_no_more() {
    let catalog = catalog();
    let mut old = Relation { oid: 700, ..described(ITEMS + 1, false) };
    (old.schema, old.name) = ("lockstep".into(), format!("tombstones_{ITEMS}"));
    let new = ["9", "-", "-", "-", "700", "p"].map(text).to_vec();
    let mut assembler = Assembler::default();
    let delivered = [
        Message::Begin { final_lsn: Lsn(1), xid: 700 },
        Message::Relation(old),
        Message::Insert { relation: 700, new },
        Message::Commit { commit_lsn: Lsn(1), end_lsn: Lsn(2) },
    ]
    .into_iter()
    .find_map(|message| assembler.handle(message, 700, &catalog).unwrap());
    let touched = delivered.unwrap().transaction.touched;
    assert!(catalog.among(&touched).any(|table| table.oid == ITEMS));
}

/// Gives a transaction to an assembler; returns its parts.
fn parts(messages: Vec<Message>, full: bool, bounds: &Bounds, catalog: &Catalog) -> Vec<Part> {
    let mut assembler = Assembler::new(bounds);
    let described = [ITEMS, ITEMS + 1, FREE, FREE + 1].map(|oid| relation(oid, full && oid % 2 == 0));
    let begin = Message::Begin { final_lsn: Lsn(1), xid: 700 };
    let commit = Message::Commit { commit_lsn: Lsn(1), end_lsn: Lsn(2) };
    let mut parts = Vec::new();
    for message in described.into_iter().chain([begin]).chain(messages).chain([commit]) {
        let delivered = assembler.handle(message, 700, catalog).unwrap();
        let part = assembler.take_part();
        if let Some(delivered) = delivered {
            assert_eq!(delivered.net.is_none(), part.is_some(), "it is held, or it is given out in parts");
        }
        parts.extend(part);
    }
    parts
}

/// What the client shows of a shape, by key: its columns' values.
type Shown = BTreeMap<Text, Tuple>;

fn shown(shape: &Shape, rows: &Rows) -> Shown {
    let mine = rows.iter().filter(|((table, _), row)| {
        *table == shape.table.oid && shape.covers(row) && shape.passes(row) == Ok(true)
    });
    mine.map(|((_, key), row)| (key.clone(), shape.columns.iter().map(|c| row[*c].clone()).collect()))
        .collect()
}

/// Applies a part as the reference client does; false if the shape is caught up instead.
fn apply(shape: &Shape, part: &Part, client: &mut Shown) -> Result<bool, TestCaseError> {
    let Ok(delta) = delta_for(shape, &part.net) else { return Ok(false) };
    prop_assert!(delta.reset.is_none(), "nothing is told of a truncated table");
    let table = shape.table.oid;
    if delta.remove.iter().any(|key: &Key| part.doubts(table, shape.scope(), key)) {
        return Ok(false);
    }
    for key in &delta.remove {
        client.remove(&key[0]);
    }
    for row in delta.put {
        let mut new: Tuple = shape.columns.iter().map(|c| row[*c].clone()).collect();
        for (at, value) in new.iter_mut().enumerate().filter(|(_, v)| **v == Value::Unchanged) {
            let held = client.get(&key(&row));
            prop_assert!(held.is_some(), "a patch of a row that the client does not hold");
            *value = held.unwrap()[at].clone();
        }
        client.insert(key(&row), new);
    }
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    /// In parts of any size the client ends with the rows as they are, or knows that it has to be caught up.
    #[test]
    fn parts_end_as_the_transaction_does(
        before in proptest::collection::vec(row(), 0..4),
        ops in proptest::collection::vec(op(), 1..14),
        full in any::<bool>(),
        part_bytes in prop_oneof![Just(1usize), Just(300), Just(600), Just(1_500)],
        part_keys in prop_oneof![4 => Just(1_000usize), 1 => Just(2)],
    ) {
        let catalog = catalog();
        let mut db = Db { rows: Rows::new(), full, messages: vec![], tombstones: vec![] };
        for row in before {
            for table in [ITEMS, FREE] {
                db.rows.insert((table, key(&row)), row.clone());
            }
        }
        let before = db.rows.clone();
        for op in ops {
            db.run(op);
        }
        db.run(Op::Triggers);
        let bounds = Bounds { transaction_bytes: 0, part_bytes, part_keys, ..Bounds::default() };
        let parts = parts(std::mem::take(&mut db.messages), full, &bounds, &catalog);
        for shape in shapes(&catalog) {
            let mut client = shown(&shape, &before);
            let mut told = true;
            for part in &parts {
                told = told && apply(&shape, part, &mut client)?;
            }
            if told {
                prop_assert_eq!(client, shown(&shape, &db.rows), "{:?}", shape.scope());
            }
        }
    }
}

/// One statement over many rows, and its tombstones in later parts: nothing is in doubt.
#[test]
fn deletes_moves_and_new_keys_of_any_number_of_rows_pass() {
    let catalog = catalog();
    let bounds = Bounds { transaction_bytes: 0, part_bytes: 500, ..Bounds::default() };
    let moved = |key: &'static str| Op::Put(ITEMS, vec![text(key), text("y"), text("y"), text("small")]);
    let cases: [Vec<Op>; 4] = [
        ["1", "2", "3"].map(|key| Op::Delete(ITEMS, key)).to_vec(),
        ["1", "2", "3"].map(moved).to_vec(),
        [("1", "4"), ("2", "5"), ("3", "6")].map(|(from, to)| Op::Rekey(ITEMS, from, to)).to_vec(),
        ["4", "5", "6"].map(moved).to_vec(),
    ];
    for ops in cases {
        let mut db = Db { rows: Rows::new(), full: false, messages: vec![], tombstones: vec![] };
        for key in ["1", "2", "3"] {
            let row = vec![text(key), text("x"), text("x"), text("small")];
            db.rows.insert((ITEMS, key.into()), row);
        }
        let before = db.rows.clone();
        ops.clone().into_iter().for_each(|op| db.run(op));
        db.run(Op::Triggers);
        let parts = parts(std::mem::take(&mut db.messages), false, &bounds, &catalog);
        assert!(parts.len() > 1, "{ops:?}");
        for shape in shapes(&catalog) {
            let mut client = shown(&shape, &before);
            for part in &parts {
                assert!(
                    apply(&shape, part, &mut client).unwrap(),
                    "{ops:?}: {:?} is in doubt",
                    shape.scope()
                );
            }
            assert_eq!(client, shown(&shape, &db.rows));
        }
    }
}

/// `update … set b`: no row leaves the scope (a), but every late tombstone names it, and an earlier part put the row there.
/// Nothing that is kept says that it stayed. The scopes (a, b) are told of it.
#[test]
fn rows_that_move_inside_a_wider_scope_leave_it_in_doubt() {
    let catalog = catalog();
    let row = |key: &str, b: &str| vec![text(key), text("x"), text(b), text("small")];
    let mut db = Db { rows: Rows::new(), full: false, messages: vec![], tombstones: vec![] };
    for key in ["1", "2", "3"] {
        db.rows.insert((ITEMS, key.into()), row(key, "x"));
    }
    let before = db.rows.clone();
    ["1", "2", "3"].into_iter().for_each(|key| db.run(Op::Put(ITEMS, row(key, "y"))));
    db.run(Op::Triggers);
    let bounds = Bounds { transaction_bytes: 0, part_bytes: 500, ..Bounds::default() };
    let parts = parts(std::mem::take(&mut db.messages), false, &bounds, &catalog);
    for shape in shapes(&catalog).iter().filter(|shape| shape.table.oid == ITEMS) {
        let mut client = shown(shape, &before);
        let told = parts.iter().all(|part| apply(shape, part, &mut client).unwrap());
        let wider = *shape.scope() == [(1, Text::from("x"))];
        assert_eq!(told, !wider, "{:?}", shape.scope());
        assert!(!told || client == shown(shape, &db.rows), "{:?}", shape.scope());
    }
}

/// A row that an earlier part left in its scope, and that leaves it later: only that scope is in doubt.
#[test]
fn a_row_that_was_written_and_leaves_later_is_in_doubt() {
    let catalog = catalog();
    let row = |a: &str| vec![text("1"), text(a), text("x"), text("small")];
    let mut db = Db { rows: Rows::new(), full: false, messages: vec![], tombstones: vec![] };
    [Op::Put(ITEMS, row("x")), Op::Put(ITEMS, row("y")), Op::Triggers].into_iter().for_each(|op| db.run(op));
    let bounds = Bounds { transaction_bytes: 0, part_bytes: 1, ..Bounds::default() };
    let parts = parts(db.messages, false, &bounds, &catalog);
    let doubts = |a: &str, key: &str| {
        let scope = [(1, Text::from(a))];
        parts.iter().any(|part| part.doubts(ITEMS, &scope, &[key.into()].into_iter().collect()))
    };
    assert_eq!((doubts("x", "1"), doubts("y", "1"), doubts("x", "2")), (true, false, false));
}

/// `TRUNCATE items, free` is one message: what it does to the first table is not lost for the second.
#[test]
fn tables_that_are_truncated_together_are_both_caught_up() {
    let catalog = catalog();
    let row = |key: &str| vec![text(key), text("x"), text("x"), text("small")];
    for most in [1, 100, 400] {
        let mut db = Db { rows: Rows::new(), full: false, messages: vec![], tombstones: vec![] };
        [Op::Put(ITEMS, row("1")), Op::Put(FREE, row("1")), Op::Truncate(vec![ITEMS, FREE])]
            .into_iter()
            .for_each(|op| db.run(op));
        let bounds = Bounds { transaction_bytes: 0, part_bytes: most, ..Bounds::default() };
        let parts = parts(db.messages, false, &bounds, &catalog);
        for table in [ITEMS, FREE] {
            let untold = parts.iter().any(|part| part.net.tables.get(&table).is_some_and(|t| t.unreadable));
            assert!(untold, "table {table} in parts of {most}");
        }
    }
}

/// ```text
///  many small rows, held ─ rows that are each larger than a part: as much goes as comes
/// ```
#[test]
fn what_is_held_does_not_grow_by_rows_larger_than_a_part() {
    let catalog = catalog();
    let bounds = Bounds { transaction_bytes: 100_000, part_bytes: 1_000, ..Bounds::default() };
    let mut assembler = Assembler::new(&bounds);
    let begin = Message::Begin { final_lsn: Lsn(1), xid: 700 };
    for message in [relation(FREE, false), begin] {
        assembler.handle(message, 700, &catalog).unwrap();
    }
    let (mut held, mut large, mut key) = (0, 250, 0);
    while key < 1_000 {
        key += 1;
        let new = vec![text(&key.to_string()), text("x"), text("x"), text(&"l".repeat(large))];
        held += large;
        assembler.handle(Message::Insert { relation: FREE, new }, 700, &catalog).unwrap();
        let Some(part) = assembler.take_part() else { continue };
        for (_, end, _) in part.net.tables[&FREE].ends() {
            let Final::Row(row) = end else { panic!("{end:?}") };
            held -= row[3].text().unwrap().len();
        }
        assert!(held <= bounds.transaction_bytes, "{held} bytes are held at row {key}");
        large = 20_000;
    }
    assert_eq!(large, 20_000, "nothing was given out");
}
