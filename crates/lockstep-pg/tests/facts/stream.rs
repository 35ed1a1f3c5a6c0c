//! What pgoutput says of each change.

use lockstep_core::change::Value;
use lockstep_core::pgoutput::Message;
use tokio_postgres::Client;

use crate::tap::{Tap, cluster, database, fails, one, run};

async fn tapped(name: &str, statements: &[&str]) -> (Client, Tap) {
    let client = database(name).await;
    run(&client, statements).await;
    let tap = Tap::open(&cluster().url_for(name), name).await;
    (client, tap)
}

fn texts(tuple: &[Value]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Null => "null".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Text(text) if text.len() > 20 => "long".to_owned(),
        Value::Text(text) => text.to_string(),
    };
    tuple.iter().map(text).collect()
}

/// What each message says, in short: `U old [..] new [..]`.
fn said(messages: &[Message]) -> Vec<String> {
    let say = |message: &Message| match message {
        Message::Relation(relation) => format!("R {} {}", relation.name, relation.identity as char),
        Message::Insert { new, .. } => format!("I {}", texts(new).join(",")),
        Message::Update { old: None, new, .. } => format!("U {}", texts(new).join(",")),
        Message::Update { old: Some((old, full)), new, .. } => {
            format!("U {} {} > {}", if *full { "O" } else { "K" }, texts(old).join(","), texts(new).join(","))
        }
        Message::Delete { old, full, .. } => {
            format!("D {} {}", if *full { "O" } else { "K" }, texts(old).join(","))
        }
        Message::Truncate { relations } => format!("T {}", relations.len()),
        other => format!("{other:?}"),
    };
    messages.iter().map(say).collect()
}

/// By the replica identity: DEFAULT names the old key only where it changed, FULL sends the old row always, an INDEX
/// names its own columns and says nothing when the primary key changes; NOTHING makes the application's UPDATE fail. A
/// large value that did not change is not sent, under any of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_update_says_of_the_old_row() {
    let (client, mut tap) = tapped(
        "stream_identity",
        &[
            "create table t (id int primary key, u int not null unique, big text)",
            "alter table t alter big set storage external",
            "create publication p for table t",
            "insert into t select i, i, repeat('x', 10000) from generate_series(1, 4) i",
        ],
    )
    .await;
    tap.changes(&client, "start").await;
    run(
        &client,
        &[
            "update t set u = 11 where id = 1",
            "update t set id = 12 where id = 2",
            "delete from t where id = 3",
        ],
    )
    .await;
    let default = said(&tap.changes(&client, "default").await);
    assert_eq!(default[1..], ["U 1,11,unchanged", "U K 2,null,null > 12,2,unchanged", "D K 3,null,null"]);
    run(&client, &["alter table t replica identity full", "update t set u = 21 where id = 1"]).await;
    let full = said(&tap.changes(&client, "full").await);
    assert_eq!(full, ["R t f", "U O 1,11,long > 1,21,unchanged"]);
    run(
        &client,
        &[
            "alter table t replica identity using index t_u_key",
            "update t set id = 31 where id = 1",
            "update t set u = 41 where id = 31",
        ],
    )
    .await;
    let index = said(&tap.changes(&client, "index").await);
    assert_eq!(index, ["R t i", "U 31,21,unchanged", "U K null,21,null > 31,41,unchanged"]);
    run(&client, &["alter table t replica identity nothing"]).await;
    assert_eq!(fails(&client, "update t set u = 0").await, "55000");
    assert_eq!(fails(&client, "delete from t").await, "55000");
}

/// A table without a primary key refuses updates as soon as it is published: no table is published that was not looked
/// at.
#[tokio::test(flavor = "multi_thread")]
async fn a_published_table_without_a_key_refuses_updates() {
    let (client, _tap) = tapped(
        "stream_no_key",
        &["create table t (id int)", "insert into t values (1)", "update t set id = 2"],
    )
    .await;
    run(&client, &["create publication p for table t", "insert into t values (3)"]).await;
    assert_eq!(fails(&client, "update t set id = 4").await, "55000");
}

/// Under `publish_via_partition_root` rows travel under the partitioned table's name, a move between partitions as
/// delete and insert; TRUNCATE of the root is sent, TRUNCATE of one partition is not: partitions need a trigger for it.
#[tokio::test(flavor = "multi_thread")]
async fn truncating_one_partition_is_not_in_the_stream() {
    let (client, mut tap) = tapped(
        "stream_leaf",
        &[
            "create table t (id int primary key) partition by range (id)",
            "create table t1 partition of t for values from (0) to (10)",
            "create table t2 partition of t for values from (10) to (20)",
            "create publication p for table t with (publish_via_partition_root = true)",
        ],
    )
    .await;
    run(&client, &["insert into t1 values (1)", "update t set id = 11 where id = 1"]).await;
    let moved = said(&tap.changes(&client, "moved").await);
    let rows: Vec<_> = moved.iter().filter(|m| !m.starts_with('R')).collect();
    assert_eq!(rows, ["I 1", "D K 1", "I 11"]);
    assert!(moved.contains(&"R t d".to_owned()), "{moved:?}");
    run(&client, &["truncate t2"]).await;
    assert_eq!(said(&tap.changes(&client, "leaf").await), [""; 0]);
    run(&client, &["truncate t"]).await;
    let root = said(&tap.changes(&client, "root").await);
    assert_eq!(root.iter().filter(|m| m.starts_with('T')).collect::<Vec<_>>(), ["T 1"]);
}

/// The Relation message comes before the first change, and again after DDL and before the next change; DDL alone, and a
/// rewrite that changes every row, send nothing. So nodes look at the catalog too.
#[tokio::test(flavor = "multi_thread")]
async fn ddl_is_told_with_the_next_change_only() {
    let (client, mut tap) = tapped(
        "stream_ddl",
        &[
            "create table t (id int primary key, v int)",
            "create publication p for table t",
            "insert into t values (1, 1)",
        ],
    )
    .await;
    run(&client, &["update t set v = 2", "update t set v = 3"]).await;
    assert_eq!(said(&tap.changes(&client, "first").await), ["R t d", "U 1,2", "U 1,3"]);
    run(
        &client,
        &[
            "alter table t add column r float default random()",
            "alter table t alter v type text using 'rewritten'",
        ],
    )
    .await;
    assert_eq!(said(&tap.changes(&client, "ddl").await), [""; 0]);
    run(
        &client,
        &["begin", "update t set r = 0", "alter table t drop column r", "update t set v = 'b'", "commit"],
    )
    .await;
    assert_eq!(said(&tap.changes(&client, "both").await), ["R t d", "U 1,rewritten,0", "R t d", "U 1,b"]);
}

/// Transactions that changed nothing published are framed on 14 and skipped from 15 on.
#[tokio::test(flavor = "multi_thread")]
async fn empty_transactions_are_skipped_since_15() {
    let (client, mut tap) = tapped(
        "stream_empty",
        &[
            "create table t (id int primary key)",
            "create table unpublished (id int)",
            "create publication p for table t",
        ],
    )
    .await;
    run(&client, &["insert into unpublished values (1)"]).await;
    let begun =
        tap.until_mark(&client, "end").await.iter().filter(|m| matches!(m, Message::Begin { .. })).count();
    assert_eq!(begun, if cluster().major() == 14 { 2 } else { 1 });
}

/// Stored generated columns are not in the stream, on 18 unless the publication says so.
#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_do_not_travel() {
    let (client, mut tap) = tapped(
        "stream_generated",
        &[
            "create table t (id int primary key, g int generated always as (id + 1) stored)",
            "create publication p for table t",
        ],
    )
    .await;
    run(&client, &["insert into t values (1)"]).await;
    assert_eq!(said(&tap.changes(&client, "end").await), ["R t d", "I 1"]);
    assert_eq!(one(&client, "select g from t").await, "2");
}
