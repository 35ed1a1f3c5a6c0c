//! One text for a value: a first load, a catch-up and the stream send the same bytes, and they say what `select` says.
//!
//! `samples.rs` lists every built-in type; a type that it does not know fails the test, so that a new version's types
//! are not forgotten.

#[path = "values/samples.rs"]
mod samples;
#[path = "values/wide.rs"]
mod wide;

use crate::raw::{Raw, RawRows};
use crate::world::{Node, Sql, World};
use lockstep_core::catalog::Wire;
use lockstep_core::change::Value;
use lockstep_core::protocol::encode_value;
use lockstep_pg::install::{self, Patience, TrackRequest};
use samples::TYPES;
use serde_json::{Value as Json, json};
use wide::{literal, pinned, wide};

async fn track(world: &mut World, table: &str, scope: &[&str]) {
    let scopes = scope.iter().map(|s| vec![(*s).to_owned()]).collect();
    let request = TrackRequest { table: table.into(), scopes, ..TrackRequest::default() };
    install::track(&mut world.sql.client, &request, &Patience::default()).await.expect("track");
}

/// What `select` says, and that each value's JSON says the same.
async fn assert_is_select(raw: &Raw, sql: &Sql, query: &str) {
    let truth = sql.rows(query).await;
    assert_eq!(truth.len(), raw.rows.len(), "rows");
    for row in truth {
        let key = encode(raw, 0, row[0].as_deref());
        let held = &raw.rows.get(&key).unwrap_or_else(|| panic!("no row {key}"));
        for (i, text) in row.iter().enumerate() {
            let (name, wire) = &raw.columns[i];
            assert_eq!(held[i], encode(raw, i, text.as_deref()), "{name} ({wire}) of {key}");
            assert!(
                says(&held[i], wire, text.as_deref()),
                "{name} ({wire}) of {key}: {} of {text:?}",
                held[i]
            );
        }
    }
}

fn wire(word: &str) -> Wire {
    [Wire::Bool, Wire::Int, Wire::Float, Wire::Json, Wire::Text]
        .into_iter()
        .find(|w| w.as_str() == word)
        .unwrap()
}

/// The JSON that the encoder makes of a text.
fn encode(raw: &Raw, column: usize, text: Option<&str>) -> String {
    let value = text.map_or(Value::Null, |t| Value::Text(t.into()));
    let mut out = String::new();
    encode_value(&mut out, wire(&raw.columns[column].1), &value);
    out
}

/// Whether a JSON text, read by somebody who knows only the page, is this text of PostgreSQL's.
fn says(held: &str, wire: &str, text: Option<&str>) -> bool {
    let json: Json = serde_json::from_str(held).expect("JSON");
    let Some(text) = text else { return json.is_null() };
    match (wire, &json) {
        ("bool", Json::Bool(b)) => text == if *b { "t" } else { "f" },
        // The digits themselves: reading them as binary is the reader's.
        ("int" | "float", Json::Number(_)) => held == text,
        ("float", Json::String(s)) => s == text && ["NaN", "Infinity", "-Infinity"].contains(&text),
        ("json" | "text", Json::String(s)) => s == text,
        _ => false,
    }
}

/// Compared one by one: a difference of such rows must be readable.
fn assert_equal(one: &Raw, other: &Raw, what: &str) {
    assert_eq!(one.columns, other.columns, "{what}");
    assert_eq!(one.rows.keys().collect::<Vec<_>>(), other.rows.keys().collect::<Vec<_>>(), "{what}");
    for (key, row) in &one.rows {
        for (i, value) in row.iter().enumerate() {
            assert!(
                *value == other.rows[key][i],
                "{what}: {:?} of {key}: {value} and {}",
                one.columns[i],
                other.rows[key][i]
            );
        }
    }
}

fn markers(rows: &RawRows, marker: &str) -> bool {
    !rows.is_empty() && rows.values().all(|r| r[1] == marker)
}

/// A world with every type in one table, a node, and a client that has all its rows.
async fn loaded() -> (World, Node, Vec<wide::Column>, Raw) {
    let mut world = World::new().await;
    let (columns, fill) = wide(&mut world).await;
    world.sql.run(&fill).await;
    let node = world.node_that_asks().await;
    let mut client = Raw::new(json!({"table": "wide"}));
    client.join(&node.socket()).await;
    (world, node, columns, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_by_first_load_by_catch_up_and_by_the_stream() {
    let mut world = World::new().await;
    let (columns, fill) = wide(&mut world).await;
    let node = world.node_that_asks().await;
    let shape = json!({"table": "wide"});
    let (mut live, mut away) = (Raw::new(shape.clone()), Raw::new(shape.clone()));
    live.join(&node.socket()).await;
    away.join(&node.socket()).await;
    away.leave();
    world.sql.run(&format!("begin; {fill} commit")).await;
    live.until(|r| !r.rows.is_empty()).await;
    let sql = pinned(&world).await;
    let query = "select * from public.wide";
    assert_is_select(&live, &sql, query).await;
    assert_eq!(live.columns.len(), columns.len() + 2);
    // Again as updates; as such they may leave out what is large and unchanged.
    world.sql.run("update wide set marker = 1").await;
    live.until(|r| markers(&r.rows, "1")).await;
    assert!(live.patches > 0);
    assert_is_select(&live, &sql, query).await;
    away.join(&node.socket()).await;
    let mut fresh = Raw::new(shape);
    fresh.join(&node.socket()).await;
    assert_equal(&live, &away, "stream and catch-up");
    assert_equal(&live, &fresh, "stream and first load");
    assert_eq!(
        (live.resets, away.resets, fresh.resets),
        (vec!["first".into()], vec!["first".into()], vec!["first".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_unchanged_and_changed() {
    let mut world = World::new().await;
    world
        .sql
        .run(
            "create table big (id int primary key, marker int, body text, plain text, bytes bytea, json jsonb, list text[]);
             alter table big alter plain set storage external",
        )
        .await;
    track(&mut world, "big", &[]).await;
    let node = world.node_that_asks().await;
    let shape = json!({"table": "big"});
    let (mut live, mut away) = (Raw::new(shape.clone()), Raw::new(shape.clone()));
    live.join(&node.socket()).await;
    let text = "(select string_agg(md5(i::text) || 'é\\\"', '') from generate_series(1, 28000) i)";
    world
        .sql
        .run(&format!(
            "insert into big values (1, 0, {text}, {text}, convert_to({text}, 'UTF8'), jsonb_build_object('a', {text}), \
             array[{text}, null]), (2, 0, 'small', '', '', 'null', '{{}}')"
        ))
        .await;
    live.until(|r| markers(&r.rows, "0")).await;
    away.join(&node.socket()).await;
    let sql = pinned(&world).await;
    assert!(
        sql.one("select min(octet_length(body)) from public.big where id = 1").await.parse::<u32>().unwrap()
            > 1_000_000
    );
    let changes = [
        ("nothing large", "plain = plain"),
        ("a large one", "body = body || '!'"),
        ("to NULL", "bytes = null, list = null"),
        ("to empty", "body = '', json = '{}'"),
        ("from empty to large", "body = plain, bytes = convert_to(plain, 'UTF8')"),
    ];
    for (marker, (what, change)) in (1..).zip(changes) {
        away.leave();
        world.sql.run(&format!("update big set marker = {marker}, {change}")).await;
        live.until(|r| markers(&r.rows, &marker.to_string())).await;
        assert_is_select(&live, &sql, "select * from public.big").await;
        away.join(&node.socket()).await;
        assert_equal(&live, &away, what);
        let mut fresh = Raw::new(shape.clone());
        fresh.join(&node.socket()).await;
        assert_equal(&live, &fresh, what);
    }
    assert!(live.patches >= 4, "{}", live.patches);
    assert_eq!((live.resets.len(), away.resets.len()), (1, 1));
}

const NAMES: &[&str] = &[
    "Plain \"quoted\" name",
    "a.b",
    " ",
    "名前 שלום é",
    "tab\tnew\nline \\ back",
    "\u{1f600}\u{ffff}",
    "select",
    "$1 %I {table} $$ -- ; /* '",
    "ends in 63 bytes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names of schemas, tables and columns, and the texts of keys and scopes.
#[tokio::test(flavor = "multi_thread")]
async fn names_keys_and_scopes_of_any_text() {
    let mut world = World::new().await;
    let texts = TYPES.iter().find(|(t, _)| *t == "text").unwrap().1;
    let mut tables = Vec::new();
    for (i, name) in NAMES.iter().enumerate() {
        let schema = NAMES[(i + 1) % NAMES.len()];
        let table = format!("{}.{}", quoted(schema), quoted(name));
        let column = |n: usize| quoted(NAMES[(i + n) % NAMES.len()]);
        let (key, scope, rest) = (column(0), column(1), column(2));
        world
            .sql
            .run(&format!(
                "create schema if not exists {}; create table {table} ({key} text primary key, {scope} text, {rest} text)",
                quoted(schema)
            ))
            .await;
        track(&mut world, &table, &[&scope]).await;
        tables.push((
            json!(format!("{schema}.{name}")),
            NAMES[(i + 1) % NAMES.len()],
            table,
            [key, scope, rest],
        ));
    }
    let node = world.node_that_asks().await;
    let sql = pinned(&world).await;
    for (n, (name, scope_name, table, [key, scope, rest])) in tables.iter().enumerate() {
        // Each table another scope: all of them in one table would be many clients of the same.
        let wanted = texts[n];
        let shape = json!({"table": name, "scope": {*scope_name: wanted}});
        let (mut live, mut away) = (Raw::new(shape.clone()), Raw::new(shape.clone()));
        live.join(&node.socket()).await;
        away.join(&node.socket()).await;
        away.leave();
        for (i, text) in texts.iter().enumerate() {
            // Each key goes through this scope and half of them stay.
            let (a, b) = if i % 2 == 0 { (wanted, wanted) } else { (wanted, "elsewhere") };
            let (key_text, a, b) = (literal(text), literal(a), literal(b));
            world
                .sql
                .run(&format!(
                    "insert into {table} values ({key_text}, {a}, 'x'); \
                     update {table} set {scope} = {b}, {rest} = {key_text} where {key} = {key_text}"
                ))
                .await;
        }
        let last = literal(texts[1]);
        world
            .sql
            .run(&format!(
                "update {table} set {scope} = {}, {rest} = 'last' where {key} = {last}",
                literal(wanted)
            ))
            .await;
        live.until(|r| r.rows.values().any(|v| v[2] == "\"last\"")).await;
        let query = format!("select * from {table} where {scope} = {}", literal(wanted));
        assert_is_select(&live, &sql, &query).await;
        away.join(&node.socket()).await;
        let mut fresh = Raw::new(shape);
        fresh.join(&node.socket()).await;
        assert_equal(&live, &away, "stream and catch-up");
        assert_equal(&live, &fresh, "stream and first load");
        assert_eq!((live.resets.len(), away.resets.len()), (1, 1), "{name}");
    }
}

/// What a client sends back as it came is what it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_writes_every_value_as_it_travels() {
    let (world, node, columns, mut client) = loaded().await;
    let sql = pinned(&world).await;
    let before = sql.rows("select * from public.wide order by id").await;
    let rows = client.rows.len();
    let mut operations = Vec::new();
    for row in client.rows.values() {
        let values: Vec<String> = client
            .columns
            .iter()
            .zip(row)
            .skip(2)
            .map(|((name, wire), value)| {
                // Of json, the JSON itself is sent, and a node reads its numbers as doubles: docs/protocol.md.
                // And "-" is read as no relation by regclass's input function, not by the cast from text.
                let left_out = wire == "json" || value == "\"-\"";
                let value = if left_out { "null" } else { value };
                format!("{}:{value}", json!(name))
            })
            .collect();
        let id: usize = row[0].parse().unwrap();
        let (id, marker) = (id + 1000, "\"marker\":0");
        operations.push(format!(
            r#"{{"op":"insert","table":"wide","values":{{"id":{id},{marker},{}}}}}"#,
            values.join(",")
        ));
    }
    let ops = operations.join(",");
    let mutation = format!(r#"{{"mutations":[{{"n":"1","id":"m","kind":"ops","ops":[{ops}]}}]}}"#);
    client.send("mutate", &mutation).await;
    let reply = client.reply("mutate").await;
    assert_eq!(reply["status"], "ok", "{reply} {:#?}", node.log());
    client.until(|c| c.rows.len() == 2 * rows).await;
    let after = sql.rows("select * from public.wide where id >= 1000 order by id").await;
    for (one, other) in before.iter().zip(&after) {
        for (i, column) in columns.iter().enumerate() {
            if client.columns[i + 2].1 != "json" && one[i + 2].as_deref() != Some("-") {
                assert_eq!(one[i + 2], other[i + 2], "{} of {:?}", column.type_name, one[0]);
            }
        }
    }
}

/// `vectors/values.json` says what PostgreSQL prints and what travels; the TypeScript client's test reads it.
#[tokio::test(flavor = "multi_thread")]
async fn the_shared_vectors_are_what_postgresql_prints() {
    let (world, _node, columns, client) = loaded().await;
    let mut lines = Vec::new();
    for (i, column) in columns.iter().enumerate().filter(|(_, c)| c.name.starts_with('v') || c.name == "a7") {
        for row in 0..column.values.len() {
            let held = &client.rows[&row.to_string()][i + 2];
            if held.len() < 300 {
                let wire = &client.columns[i + 2].1;
                lines.push(json!({"type": column.type_name, "wire": wire, "travels": held}).to_string());
            }
        }
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/values.json");
    if std::env::var_os("LOCKSTEP_WRITE_VECTORS").is_some() {
        std::fs::write(&path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: Vec<Json> = serde_json::from_str(&text).unwrap();
    let here: Vec<Json> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    // A server without libxml lacks those.
    let xml = here.iter().any(|v| v["type"] == "xml");
    let mut kept: Vec<Json> = kept.into_iter().filter(|v| xml || v["type"] != "xml").collect();
    if world.cluster.major() < 15 {
        // Octal is read and printed since 15; before, "char" takes the first byte of what is written.
        for kept in kept.iter_mut().filter(|v| v["travels"] == r#""\\303""#) {
            kept["travels"] = r#""\\""#.into();
        }
    }
    assert_eq!(kept.len(), here.len(), "written anew with LOCKSTEP_WRITE_VECTORS=1");
    for (kept, here) in kept.iter().zip(&here) {
        assert_eq!(kept, here, "written anew with LOCKSTEP_WRITE_VECTORS=1");
    }
}
