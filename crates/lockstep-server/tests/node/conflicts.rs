//! Conditional mutations: carried out only while the row is what the client saw.

use crate::world::{World, lists, todos};
use lockstep_client::{Client, Commit};
use serde_json::{Value as Json, json};

fn rename(id: i64, to: &str, seen: Json) -> Json {
    json!({"op": "update", "table": "todos", "key": {"id": id}, "set": {"title": to}, "if": seen})
}

/// Code and sentence of each refusal, in order; None for what was applied.
fn told(commits: &[Commit]) -> Vec<Option<(String, String)>> {
    commits.iter().flat_map(|c| &c.outcomes).map(|o| o.refusal.clone()).collect()
}

async fn decided(client: &mut Client, id: &str, ops: Vec<Json>) -> Option<(String, String)> {
    client.replica.push(id, ops);
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload).await.unwrap();
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    told(&commits).pop().unwrap()
}

fn code(refusal: Option<(String, String)>) -> String {
    refusal.map_or("applied".into(), |(code, _)| code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changed_refuses_the_whole_mutation() {
    let world = World::new().await;
    world.sql.run("insert into todos values (1, 1, 'a'), (2, 1, 'b'), (3, 1, 'c')").await;
    let node = world.node().await;
    let mut client = node.join([todos(1), lists()]).await;
    world.settled(&mut client).await;
    let delete =
        |id: i64, seen: Json| json!({"op": "delete", "table": "todos", "key": {"id": id}, "if": seen});
    let insert = json!({"op": "insert", "table": "todos", "values": {"id": 9, "list_id": 1, "title": "new"}});
    for (ops, outcome) in [
        (vec![rename(1, "A", json!({"title": "a", "body": null, "done": false}))], "applied"),
        (vec![insert.clone(), rename(1, "AA", json!({"title": "a"}))], "conflict"),
        (vec![rename(1, "AA", json!({"title": "A", "body": "text"}))], "conflict"),
        (vec![rename(77, "x", json!({"title": "x"}))], "conflict"),
        (vec![delete(2, json!({"title": "x"}))], "conflict"),
        (vec![delete(2, json!({"title": "b", "list_id": "1"}))], "applied"),
        (vec![rename(1, "x", json!({"colour": "red"}))], "unknown_column"),
        (vec![rename(1, "x", json!({}))], "malformed"),
        (vec![rename(1, "x", Json::Null)], "malformed"),
        (vec![rename(1, "x", json!({"done": "perhaps"}))], "22P02"),
        (vec![json!({"op": "insert", "table": "todos", "values": {"id": 9}, "if": {"id": 9}})], "malformed"),
        // Both speak of the row as it was before the mutation.
        (vec![rename(3, "C", json!({"title": "c"})), rename(3, "CC", json!({"title": "c"}))], "applied"),
    ] {
        let refusal = decided(&mut client, "m", ops.clone()).await;
        assert_eq!(code(refusal), outcome, "{ops:?}");
    }
    world.settled(&mut client).await;
    assert_eq!(client.replica.column("0", "title"), ["A", "CC"]);
}

/// ```text
///  application: update, open ── the client's mutation waits for the row ── commit ── refused
/// ```
/// The client is told with, or after, the row that it lost to, and its message names the column and no value.
#[tokio::test(flavor = "multi_thread")]
async fn the_row_it_lost_to_is_there_when_the_refusal_comes() {
    let world = World::new().await;
    world.sql.run("insert into todos select i, 1, 'seen' from generate_series(1, 20) i").await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    world.settled(&mut client).await;
    let application = world.connect().await;
    for id in 1..=20 {
        application.run(&format!("begin; update todos set title = 'theirs' where id = {id}")).await;
        client.replica.push(format!("m{id}"), vec![rename(id, "mine", json!({"title": "seen"}))]);
        let payload = client.replica.mutate().unwrap();
        client.send("mutate", payload).await.unwrap();
        world.sql.until("select count(*) from pg_stat_activity where wait_event_type = 'Lock'", "1").await;
        application.run("commit").await;
        let key = format!("[{id}]");
        let mut early = None;
        let commits = client
            .until(|r| {
                let title = r.rows_of("0").unwrap()[&key]["title"].clone();
                early = early.take().or((r.outbox.is_empty() && title != "theirs").then_some(title));
                r.outbox.is_empty()
            })
            .await
            .unwrap();
        assert_eq!(early, None, "told before the row was there");
        let (code, message) = told(&commits).pop().unwrap().unwrap();
        assert_eq!(code, "conflict");
        assert!(message.ends_with(": title") && !message.contains("theirs"), "{message}");
    }
    world.settled(&mut client).await;
}

/// What a client got is what it may name: no value is another one only for having travelled.
#[tokio::test(flavor = "multi_thread")]
async fn values_as_they_came_are_unchanged_whatever_their_type() {
    let world = World::new().await;
    let columns = [
        ("f", "float8", "'0.1'::float8 * 3", "'NaN'"),
        ("m", "numeric", "1.10", "1.11"),
        ("b", "bytea", "'\\xdeadbeef'", "'\\x00'"),
        ("t", "timestamptz", "'2026-05-01 12:00:00.123456+02'", "now()"),
        ("i", "interval", "'1 mon 2 days 03:04:05'", "'1 day'"),
        ("j", "json", r#"'{"b": 1,  "a": [null, "é"]}'"#, "'{}'"),
        ("k", "jsonb", r#"'{"b": 1,  "a": [null, "é"]}'"#, "'[]'"),
        ("a", "int[]", "'{1,NULL,3}'", "'{1}'"),
        ("p", "point", "'(1,2)'", "'(1,3)'"),
        // Equal by `=`, which compares areas.
        ("x", "box", "'(1,1),(0,0)'", "'(2,2),(1,1)'"),
        ("q", "xml", "'<a/>'", "'<b/>'"),
        ("c", "char(5)", "'ab'", "'abc'"),
        ("e", "mood", "'ok'", "'bad'"),
        ("d", "small", "7", "8"),
        ("r", "int4range", "'[1,5)'", "'[1,6)'"),
        ("s", "text collate folding", "'Word'", "'WORD'"),
        ("w", "bit(3)", "'101'", "'111'"),
    ];
    world
        .sql
        .run(
            "create type mood as enum ('ok', 'bad'); create domain small as int check (value < 10); \
             create collation folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
        .await;
    for (name, kind, value, _) in columns {
        world
            .sql
            .run(&format!("alter table lists add column {name} {kind}; update lists set {name} = {value}"))
            .await;
    }
    let node = world.node().await;
    let mut client = node.join([lists()]).await;
    client.commit().await.unwrap();
    let seen = client.replica.rows_of("0").unwrap()["[1]"].clone();
    let edit = |seen: Json| {
        vec![
            json!({"op": "update", "table": "lists", "key": {"id": 1}, "set": {"name": "edited"}, "if": seen}),
        ]
    };
    for (name, kind, value, other) in columns {
        // A column of JSON takes any JSON, and so does its condition.
        let as_seen = match kind {
            "json" | "jsonb" => serde_json::from_str(seen[name].as_str().unwrap()).unwrap(),
            _ => seen[name].clone(),
        };
        let refusal = decided(&mut client, name, edit(json!({name: as_seen}))).await;
        assert_eq!(refusal, None, "{kind}, unchanged: {as_seen}");
        world.sql.run(&format!("update lists set {name} = {other}")).await;
        let refusal = decided(&mut client, &format!("{name} changed"), edit(json!({name: as_seen}))).await;
        assert_eq!(code(refusal), "conflict", "{kind}, changed");
        world.sql.run(&format!("update lists set {name} = null")).await;
        assert_eq!(decided(&mut client, "null", edit(json!({name: null}))).await, None, "{kind}, null");
        let refusal = decided(&mut client, "not null", edit(json!({name: as_seen}))).await;
        assert_eq!(code(refusal), "conflict", "{kind}, null now");
        world.sql.run(&format!("update lists set {name} = {value}")).await;
    }
    let beyond = decided(&mut client, "beyond the domain", edit(json!({"d": 11}))).await;
    assert_eq!(code(beyond), "conflict", "no value of the domain is none of the row");
}

/// Two clients count together: whoever loses looks again. No step is lost, and none is made twice.
#[tokio::test(flavor = "multi_thread")]
async fn steps_of_several_clients_are_never_lost() {
    let world = World::new().await;
    let (first, second) = (world.node().await, world.node().await);
    let mut clients =
        vec![first.join([lists()]).await, second.join([lists()]).await, first.join([lists()]).await];
    for client in &mut clients {
        client.commit().await.unwrap();
    }
    let each = clients.into_iter().enumerate().map(|(at, mut client)| {
        tokio::spawn(async move {
            let (mut done, mut lost) = (0, 0);
            while done < 15 {
                let total = client.replica.rows_of("0").unwrap()["[2]"]["total"].as_i64().unwrap();
                let step = json!({"op": "update", "table": "lists", "key": {"id": 2},
                    "set": {"total": total + 1}, "if": {"total": total}});
                match decided(&mut client, &format!("{at}-{done}-{lost}"), vec![step]).await {
                    None => done += 1,
                    Some((code, _)) => {
                        assert_eq!(code, "conflict");
                        lost += 1;
                    }
                }
            }
            lost
        })
    });
    let mut lost = 0;
    for client in each.collect::<Vec<_>>() {
        lost += client.await.unwrap();
    }
    assert_eq!(world.sql.one("select total from lists where id = 2").await, "45");
    assert!(lost > 0, "they met");
}
