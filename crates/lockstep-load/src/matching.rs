//! `match`: one row's change against many subscriptions, without sockets or a database.

use crate::figures::{Bench, Figure, Limit};
use crate::machine::{Machine, Versions};
use anyhow::{Result, ensure};
use lockstep_core::catalog::{Catalog, Column, Table};
use lockstep_core::change::{Change, ChangeKind, NetChanges, Value};
use lockstep_core::fanout::{MatchIndex, Touch};
use lockstep_core::shape::{Shape, ShapeRequest};
use rand::Rng;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::Instant;

const ITEMS: u32 = 100;

/// `items(id, a, b, c, body)` with scopes over `a`, `b` and `c`; `texts` the same without any.
fn catalog() -> Catalog {
    let column = |name: &str, attnum, type_oid| Column {
        name: name.into(),
        attnum,
        type_oid,
        type_name: "text".into(),
        type_sql: "text".into(),
        ..Column::default()
    };
    let columns = vec![
        column("id", 1, 23),
        column("a", 2, 23),
        column("b", 3, 23),
        column("c", 4, 23),
        column("body", 5, 25),
    ];
    let table = |oid: u32, name: &str, scopes: Vec<Vec<usize>>| Table {
        oid,
        log: i32::try_from(oid).unwrap_or_default(),
        tombstones: oid + 1,
        schema: "public".into(),
        name: name.into(),
        columns: columns.clone(),
        key: vec![0],
        scope_columns: if scopes.is_empty() { vec![] } else { vec![1, 2, 3] },
        scopes,
        schema_id: "1".into(),
        ..Table::default()
    };
    let scopes = vec![vec![1], vec![2], vec![3], vec![1, 2]];
    Catalog::new(vec![table(ITEMS, "items", scopes), table(200, "texts", vec![])], 999, "bench".into())
}

/// The eight templates: four are scopes, four ask for more by `where`.
fn request(template: usize, keys: [u32; 3]) -> Json {
    let [a, b, c] = keys;
    let more = |text: &str, parameters: &[u32]| (json!(text), json!(parameters));
    let (scope, (text, parameters)) = match template {
        0 => (json!({"a": a}), more("true", &[])),
        1 => (json!({"b": b}), more("true", &[])),
        2 => (json!({"c": c}), more("true", &[])),
        3 => (json!({"a": a, "b": b}), more("true", &[])),
        4 => (json!({"a": a}), more("c = $1", &[c])),
        5 => (json!({"b": b}), more("c = $1", &[c])),
        6 => (json!({"a": a, "b": b}), more("c = $1", &[c])),
        _ => (json!({"c": c}), more("a = $1 and b = $2", &[a, b])),
    };
    match template {
        0..4 => json!({"ref": "", "table": "items", "scope": scope}),
        _ => json!({"ref": "", "table": "items", "scope": scope, "where": text, "params": parameters}),
    }
}

fn add(index: &mut MatchIndex, number: usize, request: Json, catalog: &Catalog) -> Result<()> {
    let request: ShapeRequest = serde_json::from_value(request)?;
    let shape = Shape::resolve(&request, catalog).map_err(|e| anyhow::anyhow!("{}", e.message))?;
    index.insert(u32::try_from(number)?, Arc::new(shape));
    Ok(())
}

fn row(keys: [u32; 3], body: &str) -> Vec<Value> {
    let mut row: Vec<Value> = vec![Value::Text("1".into())];
    row.extend(keys.map(|k| Value::Text(k.to_string().into())));
    row.push(Value::Text(body.into()));
    row
}

fn net(relation: u32, kind: ChangeKind, catalog: &Catalog) -> NetChanges {
    NetChanges::of(&[Change { index: 0, relation, kind }], catalog)
}

/// One size's figures: nanoseconds per change, and the bytes of a subscription.
struct Equality {
    nanoseconds: f64,
    bytes: f64,
}

/// Subscriptions have keys of `1..=n/8`; rows of twice as many, so that half of the lookups miss.
fn equality(subscriptions: usize, changes: usize, allocated: fn() -> usize) -> Result<Equality> {
    let catalog = catalog();
    let keys = u32::try_from(subscriptions / 8)?.max(1);
    let mut rng = rand::rng();
    // Keys that are drawn one by one would hardly ever be the three of one subscription: rows are drawn from what was
    // subscribed to, or from what was not.
    let drawn: Vec<[u32; 3]> = (1..=keys).map(|k| [k, k % keys + 1, (k * 7) % keys + 1]).collect();
    let before = allocated();
    let mut index = MatchIndex::default();
    for (nth, keys) in drawn.iter().enumerate() {
        for template in 0..8 {
            add(&mut index, nth * 8 + template, request(template, *keys), &catalog)?;
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "bytes of a process")]
    let bytes = (allocated() - before) as f64 / subscriptions as f64;
    let mut one = || {
        let hit = rng.random_range(0..2) == 0;
        match hit {
            true => drawn[rng.random_range(0..drawn.len())],
            false => [0; 3].map(|_: u32| rng.random_range(keys + 1..=2 * keys)),
        }
    };
    let mut runs = Vec::new();
    for _ in 0..5 {
        let (mut touches, mut took) = (0, Vec::with_capacity(changes));
        for _ in 0..changes {
            // REPLICA IDENTITY FULL: the old row comes along, and is matched too. It was just decoded.
            let old = Some((row(one(), "before"), true));
            let change = ChangeKind::Update { old, new: row(one(), "after") };
            let net = net(ITEMS, change, &catalog);
            let began = Instant::now();
            let routed = index.route(&net);
            took.push(began.elapsed().as_secs_f64() * 1e9);
            touches += routed.shapes().count();
        }
        ensure!(
            touches > changes * 3,
            "half of the changes touch eight subscriptions, and {touches} were touched"
        );
        // Whoever else runs on the machine interrupts a few of them for a thousand times as long.
        runs.push(crate::pairs::median(&took));
    }
    Ok(Equality { nanoseconds: crate::pairs::median(&runs), bytes })
}

/// Milliseconds for one change against so many text patterns: of a new row, and of one that was already there.
fn patterns(count: usize) -> Result<[f64; 2]> {
    let catalog = catalog();
    let mut index = MatchIndex::default();
    for nth in 0..count {
        let text = match nth % 4 {
            0 => format!("body like '%word{nth}%'"),
            1 => format!("body like 'begins with {nth}%'"),
            2 => format!("body collate \"C\" ilike '%Either{nth} _ or%'"),
            _ => format!("body like '%one{nth}%two%'"),
        };
        add(&mut index, nth, json!({"ref": "", "table": "texts", "where": text}), &catalog)?;
    }
    let body =
        format!("{} word40 and EITHER42 x or one43 with two", "some text without any of it; ".repeat(30));
    let insert = net(200, ChangeKind::Insert(row([1; 3], &body)), &catalog);
    let update = net(200, ChangeKind::Update { old: None, new: row([1; 3], &body) }, &catalog);
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        for (net, took) in [&insert, &update].into_iter().zip(&mut took) {
            let began = Instant::now();
            let routed = index.route(net);
            took.push(began.elapsed().as_secs_f64() * 1e3);
            let put = |t: &(u32, Touch<'_>)| matches!(t.1, Touch::Put(_));
            let passed = routed.shapes().filter(|(_, t)| t.is_ok_and(|t| t.iter().any(put))).count();
            // `%word4%` too.
            ensure!(passed == 4, "{passed} patterns match, and four should");
        }
    }
    Ok(took.map(|took| crate::pairs::median(&took)))
}

/// Runs it. `allocated` says how many bytes the process holds.
///
/// # Errors
/// If a shape is refused or not found.
pub fn run(small: bool, allocated: fn() -> usize) -> Result<Bench> {
    let machine = Machine::this();
    let sizes: &[usize] = if small { &[800, 8_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let changes = if small { 100 } else { 20_000 };
    let mut found = Vec::new();
    for size in sizes {
        found.push((*size, equality(*size, changes, allocated)?));
    }
    let limit = |at: f64| Some(Limit::ValueAtMost(at)).filter(|_| !small);
    let mut figures = Vec::new();
    for (size, equality) in &found {
        let name = match size {
            1_000_000 => "equality_1m_ns".to_owned(),
            size => format!("equality_{size}_ns"),
        };
        let limit = if *size == 1_000_000 { limit(1000.0) } else { None };
        figures.push(Figure { limit, ..Figure::told(&name, "ns", equality.nanoseconds) });
    }
    if let (Some((_, least)), Some((_, most))) = (found.first(), found.last()) {
        let flatness = most.nanoseconds / least.nanoseconds;
        figures.push(Figure { limit: limit(1.5), ..Figure::told("equality_flatness", "", flatness) });
        figures.push(Figure::told("bytes_per_subscription", "bytes", most.bytes));
    }
    let [inserted, updated] = patterns(if small { 100 } else { 10_000 })?;
    figures.push(Figure { limit: limit(20.0), ..Figure::told("patterns_10k_ms", "ms", updated) });
    figures.push(Figure::told("patterns_10k_new_row_ms", "ms", inserted));
    Ok(Bench { name: "match", runs: 5, figures, machine, versions: Versions::with("none".into()) })
}
