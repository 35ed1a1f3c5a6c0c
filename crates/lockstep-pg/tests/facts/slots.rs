//! When a slot can be made, and what can be copied.

use lockstep_core::pgoutput::Message;
use lockstep_pg::replication_stream;

use crate::tap::{Tap, replication, run, session, start, until};

/// A new slot waits for every transaction with an id that is open in the cluster: in another database, and prepared
/// ones too; readers do not matter.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_slot_waits_for_all_writers_of_the_cluster() {
    let cluster = tokio::task::block_in_place(start);
    let client = session(&cluster.url()).await;
    run(&client, &["create table t (id int primary key)", "create database other"]).await;
    let reader = session(&cluster.url()).await;
    run(&reader, &["begin isolation level repeatable read", "select * from t"]).await;
    let mut wire = replication(&cluster.url()).await;
    replication_stream::create_slot(&mut wire, "with_a_reader").await.expect("a reader is not waited for");

    let other = session(&cluster.url_for("other")).await;
    for (hold, release) in [
        (vec!["begin", "create table held (id int)"], "commit"),
        (
            vec!["begin", "create table two (id int)", "prepare transaction 'held'"],
            "rollback prepared 'held'",
        ),
    ] {
        run(&other, &hold).await;
        let mut wire = replication(&cluster.url()).await;
        let making = tokio::spawn(async move { replication_stream::create_slot(&mut wire, "waits").await });
        until(&client, "select exists (select from pg_stat_activity where backend_type = 'walsender' and wait_event = 'transactionid')").await;
        assert!(!making.is_finished());
        run(&other, &[release]).await;
        making.await.expect("no panic").expect("made when it has ended");
        until(&client, "select not exists (select from pg_replication_slots where slot_name = 'waits')")
            .await;
    }
}

/// The temporary slot of another session can be copied while that session streams from it and while a writer is open;
/// the copy brings what that writer has written before, and it comes at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_streaming_temporary_slot_can_be_copied_behind_an_open_writer() {
    let cluster = tokio::task::block_in_place(start);
    let client = session(&cluster.url()).await;
    run(&client, &["create table t (id int primary key)", "create publication p for table t"]).await;
    let mut theirs = Tap::open(&cluster.url(), "theirs").await;
    let writer = session(&cluster.url()).await;
    run(&writer, &["begin", "insert into t values (1)"]).await;
    run(&client, &["insert into t values (2)"]).await;
    theirs.until_mark(&client, "streams").await;
    let mut wire = replication(&cluster.url()).await;
    replication_stream::copy_slot(&mut wire, "theirs", "ours").await.expect("copied");
    let mut ours = Tap::stream(wire, "ours").await;
    run(&writer, &["insert into t values (3)", "commit"]).await;
    for tap in [&mut ours, &mut theirs] {
        let messages = tap.changes(&client, "end").await;
        let inserted = messages.iter().filter(|m| matches!(m, Message::Insert { .. })).count();
        assert!(inserted >= 2, "the writer's two rows: {messages:?}");
    }
}

/// A stream of a publication that is not there ends with an error when the first change is decoded; 18 warns and leaves
/// its rows out. So a publication that was dropped is noticed by the catalog, not by the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_publication() {
    let cluster = tokio::task::block_in_place(start);
    let client = session(&cluster.url()).await;
    run(&client, &["create table t (id int primary key)"]).await;
    let mut tap = Tap::open(&cluster.url(), "missing").await;
    run(&client, &["insert into t values (1)"]).await;
    if cluster.major() < 18 {
        let error = loop {
            if let Err(error) = tap.next().await {
                break error;
            }
        };
        assert_eq!(error.sqlstate(), Some("42704"), "{error}");
    } else {
        assert_eq!(tap.changes(&client, "end").await, []);
    }
}

/// Rows that a transaction wrote before its table was added to a publication are not in the stream, those that it wrote
/// after are. So `track` makes its triggers, which wait for writers, before it publishes, in one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_added_during_a_transaction_is_streamed_in_part() {
    let cluster = tokio::task::block_in_place(start);
    let client = session(&cluster.url()).await;
    run(&client, &["create table t (id int primary key)", "create publication p"]).await;
    let mut tap = Tap::open(&cluster.url(), "added").await;
    let writer = session(&cluster.url()).await;
    run(&writer, &["begin", "insert into t values (1)"]).await;
    run(&client, &["alter publication p add table t"]).await;
    run(&writer, &["insert into t values (2)", "commit"]).await;
    let rows: Vec<String> = tap
        .changes(&client, "end")
        .await
        .iter()
        .filter_map(|m| match m {
            Message::Insert { new, .. } => new[0].text().map(str::to_owned),
            _ => None,
        })
        .collect();
    assert_eq!(rows, ["2"]);
}

/// A role with REPLICATION receives every published row, whatever it may read and whatever row level security says.
#[tokio::test(flavor = "multi_thread")]
async fn replication_asks_for_no_right_to_read() {
    let cluster = tokio::task::block_in_place(start);
    let client = session(&cluster.url()).await;
    run(
        &client,
        &[
            "create table t (id int primary key)",
            "alter table t enable row level security",
            "create publication p for table t",
            "create role streams login replication password 'x'",
        ],
    )
    .await;
    let url = format!("postgres://streams:x@127.0.0.1:{}/postgres", cluster.port());
    let role = session(&url).await;
    assert_eq!(crate::tap::fails(&role, "select * from t").await, "42501");
    let mut tap = Tap::open(&url, "streams").await;
    run(&client, &["insert into t values (7)"]).await;
    let messages = tap.changes(&client, "end").await;
    assert!(
        messages.iter().any(|m| matches!(m, Message::Insert { new, .. } if new[0].text() == Some("7"))),
        "{messages:?}"
    );
}
