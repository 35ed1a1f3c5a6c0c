//! Transactions that are in neither the first snapshot nor the stream.

use crate::world::{World, lists, todos};
use lockstep_pg::target::Target;
use lockstep_pg::{connect, replication_stream};
use std::time::Duration;
use tokio::sync::mpsc;

const WAITS_FOR_XID: &str = "select count(*) from pg_stat_activity where backend_type = 'walsender' and \
    wait_event = 'transactionid'";
const WAITS_FOR_STANDBY: &str = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";

/// ```text
///  A open ──────────┐                        slot creation: waits for A, then for B, then is consistent
///        B open ────┼───────────────────┐
///                   │   T: commit record │ (waits for a standby)  …………………………► visible
///                   └ phase 2 begins     └ the stream begins: T's record lies before it
/// ```
/// T is not in the stream, and no snapshot sees it until the standby is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_before_the_start_of_a_new_stream_that_becomes_visible_after_it() {
    let world = World::new().await;
    world.cluster.set("synchronous_standby_names", "nobody").unwrap();
    let (a, b, t) = (world.connect().await, world.connect().await, world.connect().await);
    a.run("set synchronous_commit = local; begin; insert into lists values (101, 'A')").await;
    let node = world.node_starting();
    world.sql.until(WAITS_FOR_XID, "1").await;
    b.run("set synchronous_commit = local; begin; insert into lists values (102, 'B')").await;
    let first = world.sql.one("select pid from pg_stat_activity where wait_event = 'transactionid'").await;
    a.run("commit").await;
    // The same walsender waits again, now for B.
    let waits_for_b = format!(
        "select count(*) from pg_locks l join pg_locks h using (transactionid) where l.pid = {first} \
         and not l.granted and h.granted and h.pid = {}",
        b.one("select pg_backend_pid()").await
    );
    world.sql.until(&waits_for_b, "1").await;
    let writing = tokio::spawn(async move {
        t.run("begin; insert into todos values (1, 1, 'T'); update lists set total = 1 where id = 1; commit")
            .await;
    });
    world.sql.until(WAITS_FOR_STANDBY, "1").await;
    b.run("commit").await;
    node.until("live").await;

    let mut client = node.join([todos(1), lists()]).await;
    client.commit().await.unwrap();
    assert_eq!(client.replica.column("0", "title"), [] as [&str; 0], "T is neither streamed nor visible");
    world.cluster.set("synchronous_standby_names", "").unwrap();
    writing.await.unwrap();
    let commits = client.until(|r| r.column("0", "title") == ["T"]).await;
    let commits = commits.unwrap_or_else(|e| panic!("{e}: {:#?}", node.log()));
    assert!(commits.iter().all(|c| c.resets.is_empty()), "caught up, not loaded anew: {commits:?}");
    world.settled(&mut client).await;
}

/// A sibling that acknowledges more than it should: its copy starts beyond T's commit record.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_before_the_position_of_a_copied_slot() {
    let world = World::new().await;
    let target = Target::parse(&world.cluster.url()).unwrap();
    let mut wire = connect::replication(&target, Duration::from_secs(10)).await.unwrap();
    let slot = "lockstep_00000000000000aa";
    replication_stream::create_slot(&mut wire, slot).await.unwrap();
    replication_stream::start(&mut wire, slot).await.unwrap();
    let (feedback, feedback_in) = mpsc::unbounded_channel();
    let (bytes_out, mut bytes) = mpsc::channel(1000);
    tokio::spawn(replication_stream::run(wire, bytes_out, feedback_in, Duration::from_secs(60)));

    world.cluster.set("synchronous_standby_names", "nobody").unwrap();
    let writer = world.connect().await;
    let writing = tokio::spawn(async move {
        writer.run("begin; insert into todos values (1, 1, 'T'); update lists set total = 1 where id = 1; commit").await;
    });
    world.sql.until(WAITS_FOR_STANDBY, "1").await;
    world.sql.run("set synchronous_commit = local; insert into lists values (50, 'past T')").await;
    let past = world.sql.one("select pg_current_wal_flush_lsn()").await;
    feedback.send(replication_stream::Feedback { flush: past.parse().unwrap(), reply: true }).unwrap();
    bytes.recv().await.expect("the sibling streams");
    let confirmed = format!(
        "select confirmed_flush_lsn >= '{past}' from pg_replication_slots where slot_name = '{slot}'"
    );
    world.sql.until(&confirmed, "t").await;

    let node = world.node().await;
    // It says from where it copied its slot.
    node.until_logged(slot, 1).await;
    let mut client = node.join([todos(1), lists()]).await;
    client.commit().await.unwrap();
    assert_eq!(client.replica.column("0", "title"), [] as [&str; 0]);
    let away = client.replica.clone();
    world.cluster.set("synchronous_standby_names", "").unwrap();
    writing.await.unwrap();
    let commits = client.until(|r| r.column("0", "title") == ["T"]).await.unwrap();
    assert!(commits.iter().all(|c| c.resets.is_empty()), "{commits:?}");
    world.settled(&mut client).await;
    // The cursor from before kept T unseen.
    let mut resumed = node.resume(away).await;
    assert_eq!(resumed.commit().await.unwrap().resets, []);
    world.settled(&mut resumed).await;
}
