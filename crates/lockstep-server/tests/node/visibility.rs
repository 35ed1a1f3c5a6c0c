//! Commit order, visibility and durability are three different things.

use crate::world::{World, held, lists, notes, todos};
use serde_json::json;

/// ```text
///  T: commit record flushed ──► streamed ──► (waits for a standby that never answers) ……► visible
///                                   live client shows T │ S of the next client does not see T
/// ```
/// The proof of concept, and any rule that compares LSNs, loses T here.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_streamed_before_it_is_visible_is_not_lost() {
    let world = World::new().await;
    let node = world.node().await;
    let mut live = node.join([todos(1), lists()]).await;
    world.settled(&mut live).await;

    world.cluster.set("synchronous_standby_names", "nobody").unwrap();
    let writer = world.connect().await;
    let writing = tokio::spawn(async move {
        writer.run("begin; insert into todos values (1, 1, 'T'); update lists set total = 1 where id = 1; commit").await;
    });
    live.until(|r| r.column("0", "title") == ["T"]).await.unwrap();
    assert_eq!(world.sql.one("select count(*) from todos").await, "0", "T is streamed and not visible");

    let mut joined = node.join([todos(1), lists()]).await;
    joined.commit().await.unwrap();
    assert_eq!(held(&joined.replica), held(&live.replica), "first load and ring together show T");
    let mut resumed = node.resume(live.crash()).await;
    resumed.commit().await.unwrap();
    assert_eq!(resumed.replica.column("0", "title"), ["T"]);

    // Later transactions that are visible at once do not change that.
    world.sql.run("set synchronous_commit = local; insert into todos values (2, 1, 'U')").await;
    joined.until(|r| r.column("0", "title") == ["T", "U"]).await.unwrap();

    world.cluster.set("synchronous_standby_names", "").unwrap();
    writing.await.unwrap();
    world.settled(&mut joined).await;
    world.settled(&mut resumed).await;
}

/// An asynchronous commit is visible long before it is flushed, let alone streamed. Nothing may be handed out that
/// a crash could take back, and nothing is shown twice when the stream brings it.
#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_commit_is_shown_only_when_it_is_durable() {
    let world =
        World::with(|b| b.setting("wal_writer_delay", "10s").setting("wal_writer_flush_after", "0")).await;
    let node = world.node().await;
    world.sql.run("insert into notes values (1, 1, 1)").await;
    let mut live = node.join([notes(1)]).await;
    world.settled(&mut live).await;
    world.sql.run("set synchronous_commit = off").await;
    for v in 2..12 {
        world.sql.run(&format!("update notes set v = {v}")).await;
        let mut joined = node.join([notes(1)]).await;
        let mut last = 0;
        let mut grows = |replica: &lockstep_client::Replica| {
            let now = replica.rows_of("0").map_or(0, |r| r["[1]"]["v"].as_i64().unwrap_or(0));
            assert!(now >= last, "back from {last} to {now}");
            last = now;
            now == v
        };
        joined.until(&mut grows).await.unwrap();
        let shown = world.sql.one("select pg_current_wal_flush_lsn()").await;
        let cursor = joined.replica.cursor.clone().unwrap();
        let fence = cursor.split('~').nth(5).unwrap_or_default().to_owned();
        assert_eq!(
            world.sql.one(&format!("select '{fence}'::pg_lsn <= '{shown}'::pg_lsn")).await,
            "t",
            "a cursor at {fence}, flushed up to {shown}"
        );
    }
    world.settled(&mut live).await;
}

/// ```text
///  L ─────────────┬ commits
///      T: inserts │ (its snapshot's xmin is L) ─────┬ commits
///                 └ the client's state is taken here┘ and must not skip T, which began below it
/// ```
/// With `_snapmin >= pointer`, as in the proof of concept, T's row is never returned.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_began_before_the_cursor_is_caught_up() {
    let world = World::new().await;
    let node = world.node().await;
    let (long, writer) = (world.connect().await, world.connect().await);
    long.run("begin; insert into notes values (1, 2)").await;
    writer.run("begin; insert into todos values (1, 1, 'T')").await;
    long.run("commit").await;
    let mut client = node.join([todos(1), notes(2)]).await;
    world.settled(&mut client).await;
    let away = client.crash();
    writer.run("commit").await;
    let mut resumed = node.resume(away).await;
    let commit = resumed.commit().await.unwrap();
    assert_eq!((commit.resets.len(), commit.rows), (0, 1), "{commit:?}");
    assert_eq!(resumed.replica.column("0", "title"), ["T"]);
}

/// The client forgets a mutation when it is acknowledged, so a synchronous standby must have it by then.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_waits_for_the_standby() {
    let world = World::new().await;
    let node = world.node().await;
    let mut writer = node.join([todos(1)]).await;
    let mut reader = node.join([todos(1)]).await;
    world.settled(&mut writer).await;
    world.settled(&mut reader).await;
    world.cluster.set("synchronous_standby_names", "nobody").unwrap();
    writer.replica.push(
        "m1",
        vec![json!({"op": "insert", "table": "todos", "values": {"id": 1, "list_id": 1, "title": "x"}})],
    );
    let payload = writer.replica.mutate().unwrap();
    writer.send("mutate", payload).await.unwrap();
    reader.until(|r| r.column("0", "title") == ["x"]).await.unwrap();
    // Everything that the node has for the writer by now is before this reply.
    writer.call("heartbeat", json!({})).await.unwrap();
    assert_eq!(writer.replica.outbox.len(), 1, "not acknowledged before the standby has it");
    world.cluster.set("synchronous_standby_names", "").unwrap();
    let commits = writer.until(|r| r.outbox.is_empty()).await.unwrap();
    assert_eq!(writer.replica.column("0", "title"), ["x"], "{commits:?}");
}
