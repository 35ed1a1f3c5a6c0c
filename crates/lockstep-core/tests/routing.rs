//! The matching index against its naive twin, and net effects against their definition.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::catalog::{Catalog, Column, Table};
use lockstep_core::change::{Change, ChangeKind, NetChanges, Tuple, Value};
use lockstep_core::fanout::{MatchIndex, delta_for};
use lockstep_core::shape::{Shape, ShapeRequest};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

const ITEMS: u32 = 100;
const TOMBSTONES: u32 = 101;

/// `items(id, a, b, body)`, scopes `(a)` and `(a, b)`; `free(id, a, b, body)` without scope.
fn catalog() -> Catalog {
    let column = |name: &str, attnum, type_oid| Column {
        name: name.into(),
        attnum,
        type_oid,
        type_name: "text".into(),
        type_sql: "text".into(),
        ..Column::default()
    };
    let table = |oid: u32, name: &str, scopes: Vec<Vec<usize>>| Table {
        oid,
        log: oid as i32,
        tombstones: oid + 1,
        schema: "public".into(),
        name: name.into(),
        columns: vec![column("id", 1, 23), column("a", 2, 25), column("b", 3, 25), column("body", 4, 25)],
        key: vec![0],
        scope_columns: if scopes.is_empty() { vec![] } else { vec![1, 2] },
        scopes,
        schema_id: "1".into(),
        ..Table::default()
    };
    Catalog::new(
        vec![table(ITEMS, "items", vec![vec![1], vec![1, 2]]), table(200, "free", vec![])],
        999,
        "installation".into(),
    )
}

fn shapes(catalog: &Catalog) -> Vec<Arc<Shape>> {
    let mut requests = vec![
        json!({"ref": "f", "table": "free"}),
        json!({"ref": "s", "table": "free", "columns": ["id", "a"]}),
    ];
    for a in ["x", "y", "z"] {
        requests.push(json!({"ref": "a", "table": "items", "scope": {"a": a}}));
        requests.push(json!({"ref": "c", "table": "items", "scope": {"a": a}, "columns": ["id", "b"]}));
        for b in ["x", "y"] {
            requests.push(json!({"ref": "b", "table": "items", "scope": {"a": a, "b": b}}));
        }
    }
    let resolve =
        |r| Arc::new(Shape::resolve(&serde_json::from_value::<ShapeRequest>(r).unwrap(), catalog).unwrap());
    for (table, scope) in
        [("free", json!(null)), ("items", json!({"a": "x"})), ("items", json!({"a": "x", "b": "y"}))]
    {
        for predicate in [
            "b = 'x'",
            "a = 'x' and b = 'x'",
            "a = 'y' and b = 'x'",
            "b <> 'x'",
            "b is null",
            "id = 2",
            "body is null",
            "body = 'body' and b = 'y'",
            "id in (1, 2) or b = 'z'",
            "id between 2 and 3 and b = 'x'",
            "id > 1",
            "id <= 2 and body is not null",
            "id in (1, 3)",
            "b like '%x%' and body like 'bo%dy'",
            "body collate \"C\" ilike '%BOD%'",
            "body like '%ODY%' or a is null",
            "a = 'x' and a = 'y'",
            "id < 3 and id is not null and a <> 'z'",
        ] {
            requests.push(json!({"ref": "w", "table": table, "scope": scope, "where": predicate}));
            requests.push(json!({"ref": "w", "table": table, "scope": scope, "where": predicate, "columns": ["id", "a"]}));
        }
    }
    requests.into_iter().map(resolve).collect()
}

fn text(t: &str) -> Value {
    Value::Text(t.into())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![4 => Just(text("x")), 4 => Just(text("y")), 2 => Just(text("z")), 1 => Just(Value::Null)]
}

fn large() -> impl Strategy<Value = Value> {
    prop_oneof![3 => Just(text("body")), 1 => Just(Value::Null), 2 => Just(Value::Unchanged)]
}

fn tuple(key: &'static str) -> impl Strategy<Value = Tuple> {
    (value(), value(), large()).prop_map(move |(a, b, body)| vec![text(key), a, b, body])
}

fn change() -> impl Strategy<Value = (u32, ChangeKind)> {
    let key = || prop_oneof![Just("1"), Just("2"), Just("3")];
    let row = || key().prop_flat_map(tuple);
    // The old key, or with REPLICA IDENTITY FULL the whole old row.
    let old_key = || {
        prop_oneof![
            2 => key().prop_map(|k| (vec![text(k), Value::Null, Value::Null, Value::Null], false)),
            1 => key().prop_flat_map(tuple).prop_map(|row| (row, true)),
        ]
    };
    let tombstone = (key(), value(), value())
        .prop_map(|(k, a, b)| ChangeKind::Insert(vec![text("9"), a, b, text(k), text("700"), text("m")]));
    prop_oneof![
        6 => (prop_oneof![Just(ITEMS), Just(200)], prop_oneof![
            row().prop_map(ChangeKind::Insert),
            (proptest::option::of(old_key()), row()).prop_map(|(old, new)| ChangeKind::Update { old, new }),
            old_key().prop_map(|(old, full)| ChangeKind::Delete(old, full)),
        ]),
        3 => tombstone.prop_map(|t| (TOMBSTONES, t)),
        1 => Just((ITEMS, ChangeKind::Truncate)),
    ]
}

fn net(changes: &[(u32, ChangeKind)], catalog: &Catalog) -> NetChanges {
    let numbered = |(i, (relation, kind)): (usize, &(u32, ChangeKind))| Change {
        index: i as u32,
        relation: *relation,
        kind: kind.clone(),
    };
    NetChanges::of(&changes.iter().enumerate().map(numbered).collect::<Vec<_>>(), catalog)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Contract of `MatchIndex::route`: for each shape what `delta_for` says, nothing for those it leaves alone.
    #[test]
    fn the_index_routes_as_its_naive_twin(changes in proptest::collection::vec(change(), 0..8)) {
        let catalog = catalog();
        let shapes = shapes(&catalog);
        let mut index = MatchIndex::default();
        for (i, shape) in shapes.iter().enumerate() {
            index.insert(i as u32, shape.clone());
        }
        let net = net(&changes, &catalog);
        let routed = index.route(&net).deltas();
        for (i, shape) in shapes.iter().enumerate() {
            let naive = delta_for(shape, &net);
            match routed.get(&(i as u32)) {
                Some(delta) => prop_assert_eq!(delta, &naive),
                None => prop_assert!(matches!(&naive, Ok(d) if d.is_empty()), "{:?} not routed to shape {}", naive, i),
            }
        }
    }
}

#[test]
fn a_shape_taken_out_is_routed_to_no_more() {
    let catalog = catalog();
    let shapes = shapes(&catalog);
    let mut index = MatchIndex::default();
    for (i, shape) in shapes.iter().enumerate() {
        index.insert(i as u32, shape.clone());
    }
    let insert = |table| (table, ChangeKind::Insert(vec![text("1"), text("x"), text("x"), text("body")]));
    let net = net(&[insert(ITEMS), insert(200)], &catalog);
    let routed = index.route(&net).deltas();
    assert_eq!(routed.len(), 5 + 32, "five by scope alone, thirty-two whose predicate passes");
    for (i, shape) in shapes.iter().enumerate() {
        index.remove(i as u32, shape);
    }
    assert!(index.route(&net).deltas().is_empty());
}

/// An unchanged value is filled from where the transaction itself wrote it, also across a change of the key; one
/// that the transaction never wrote stays unchanged, and is never NULL.
#[test]
fn unchanged_values_are_filled_within_a_transaction_only() {
    let catalog = catalog();
    let row = |key: &str, body: Value| vec![text(key), text("x"), Value::Null, body];
    let rekey = ChangeKind::Update {
        old: Some((vec![text("1"), Value::Null, Value::Null, Value::Null], false)),
        new: row("2", Value::Unchanged),
    };
    let filled = net(&[(200, ChangeKind::Insert(row("1", text("large")))), (200, rekey.clone())], &catalog);
    let free = catalog.find("free").unwrap();
    let shape = shapes(&catalog)[0].clone();
    let delta = delta_for(&shape, &filled).unwrap();
    assert_eq!((delta.put, delta.remove.len()), (vec![row("2", text("large"))], 1));
    let unknown = net(&[(200, rekey)], &catalog);
    assert_eq!(unknown.tables[&free.oid].ends().count(), 2);
    assert!(delta_for(&shape, &unknown).is_err(), "a client does not hold the new key's large value");
}
