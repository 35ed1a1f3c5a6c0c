//! How streams start, live and end: what keeps a slot, what takes it away, and what is left.

use crate::world::{World, lists, notes, pause, todos};
use lockstep_client::ClientError;
use lockstep_pg::cluster::process::{Signal, send};
use serde_json::json;

const SENDER: &str = "select coalesce(max(pid), 0) from pg_stat_replication";

/// A node that does not read for so long that PostgreSQL takes its slot away begins anew, and nobody loads anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_invalidated() {
    let world =
        World::with(|b| b.setting("max_slot_wal_keep_size", "1MB").setting("wal_keep_size", "0")).await;
    let node = world.node().await;
    let mut client = node.join([todos(1), lists()]).await;
    client.commit().await.unwrap();
    pause(node.pid()).await;
    for n in 1..=4 {
        world
            .sql
            .run(&format!("insert into todos values ({n}, 1, 't{n}'); select pg_switch_wal(); checkpoint"))
            .await;
    }
    world.sql.until("select count(*) from pg_replication_slots where wal_status <> 'lost'", "0").await;
    send(node.pid(), Signal::SIGCONT).unwrap();
    node.until_logged("streaming", 2).await;
    let commits = client.until(|r| r.column("0", "title") == ["t1", "t2", "t3", "t4"]).await.unwrap();
    let resets: Vec<_> = commits.into_iter().flat_map(|c| c.resets).collect();
    assert_eq!(resets, [], "caught up from the logs");
    world.settled(&mut client).await;
    node.until("live").await;
}

/// Somebody drops the slot by ending its session.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_under_a_running_stream() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    world
        .sql
        .run(
            "select pg_terminate_backend(pid) from pg_stat_replication; insert into todos values (1, 1, 'a')",
        )
        .await;
    node.until_logged("streaming", 2).await;
    let commits = client.until(|r| r.column("0", "title") == ["a"]).await.unwrap();
    assert!(commits.iter().all(|c| c.resets.is_empty()), "{commits:?}");
    assert_eq!(world.sql.one("select count(*) from pg_replication_slots").await, "1", "no other one is left");
}

/// On an idle database, and while a client does not read, the server hears from the node often enough.
#[tokio::test(flavor = "multi_thread")]
async fn feedback_while_nothing_happens_and_while_clients_are_slow() {
    let world = World::with(|b| b.setting("wal_sender_timeout", "1s")).await;
    let node = world.node().await;
    let sender = world.sql.one(SENDER).await;
    let older = |seconds: u32| {
        format!(
            "select (clock_timestamp() - backend_start > interval '{seconds} s')::text from pg_stat_replication \
             where pid = {sender}"
        )
    };
    world.sql.until(&older(3), "true").await;
    // Other databases' and untracked tables' WAL: the slot moves on though nothing is sent.
    let lag = "select (pg_current_wal_lsn() - confirmed_flush_lsn < 1000000)::text from pg_replication_slots";
    world.sql.run("create table other (t text); insert into other select repeat('x', 1000) from generate_series(1, 20000)").await;
    world.sql.until(lag, "true").await;
    let mut slow = node.join([todos(1)]).await;
    slow.commit().await.unwrap();
    for n in 1..=20 {
        world.sql.run(&format!("insert into todos values ({n}, 1, 't', false, repeat('x', 1000000))")).await;
    }
    world.sql.until(&older(6), "true").await;
    world.sql.until(lag, "true").await;
    assert_eq!(world.sql.one(SENDER).await, sender, "the same stream all the time");
    world.settled(&mut slow).await;
}

/// 300,000 rows in one transaction: others are answered meanwhile, the stream goes on, and all of it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_go_on_during_a_large_transaction() {
    let world = World::with(|b| b.setting("wal_sender_timeout", "2s")).await;
    let node = world.node().await;
    let sender = world.sql.one(SENDER).await;
    let mut large = node.join([notes(1)]).await;
    let mut small = node.join([lists()]).await;
    large.commit().await.unwrap();
    small.commit().await.unwrap();
    let writer = world.connect().await;
    let writing = tokio::spawn(async move {
        writer.run("insert into notes select i, 1, i from generate_series(1, 300000) i").await;
    });
    let arriving = tokio::spawn(async move {
        // A busy machine may take longer than a client's patience for one frame.
        for _ in 0..6 {
            match large.until(|r| r.rows_of("0").is_some_and(|rows| rows.len() == 300_000)).await {
                Ok(commits) => return commits.into_iter().flat_map(|c| c.resets).collect::<Vec<_>>(),
                Err(ClientError::Late(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("300,000 rows did not arrive");
    });
    let mut beats = 0;
    // One after the other without a pause would be a load of its own.
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(10));
    while !arriving.is_finished() {
        pace.tick().await;
        small.call("heartbeat", json!({})).await.unwrap();
        beats += 1;
    }
    assert!(beats > 10, "{beats}");
    writing.await.unwrap();
    assert_eq!(arriving.await.unwrap(), [], "changes, and nothing loaded anew");
    world.sql.run("update lists set total = 1").await;
    world.settled(&mut small).await;
    assert_eq!(world.sql.one(SENDER).await, sender, "the same stream all the time");
}

/// kill -9: no slot, and no WAL that is kept for it; nor does a node leave sessions open.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_leaves_nothing() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    client
        .mutate(
            "m",
            vec![json!({"op": "insert", "table": "todos", "values": {"id": 1, "list_id": 1, "title": "t"}})],
        )
        .await
        .unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    node.kill();
    world.sql.until("select count(*) from pg_replication_slots", "0").await;
    world.sql.until("select count(*) from pg_stat_activity where application_name = 'lockstep'", "0").await;
    world.sql.until("select count(*) from pg_prepared_xacts", "0").await;
}
