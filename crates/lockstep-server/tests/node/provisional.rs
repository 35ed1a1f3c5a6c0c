//! First loads that are shown before they are settled.

use crate::world::{Node, World, lists, pause, todos};
use lockstep_client::{Client, Heard, Replica};
use lockstep_pg::cluster::process::{Signal, send};
use serde_json::json;

/// A node whose stream stands still, and the process that would go on with it.
async fn stalled(world: &World) -> (Node, u32) {
    world.sql.run("insert into todos select i, 1, 't' || i from generate_series(1, 50) i").await;
    let node = world.node().await;
    let walsender = "select pid from pg_stat_activity where backend_type = 'walsender'";
    let walsender = world.sql.one(walsender).await.parse().unwrap();
    pause(walsender).await;
    world
        .sql
        .run("begin; delete from todos where id = 50; update lists set total = 49 where id = 1; commit")
        .await;
    (node, walsender)
}

/// Hears until a first load may be shown, which is that of the same SELECTs.
async fn until_provisional(world: &World, client: &mut Client) {
    while client.hear("a provisional load").await.unwrap() != Heard::Provisional {}
    let (shown, cursor) = (client.replica.provisional(), client.replica.cursor.clone());
    assert_eq!((shown.len(), cursor), (2, None));
    let rows = |reference: &str| client.replica.provisional_rows_of(reference).unwrap();
    assert_eq!(rows("0").len(), 49);
    let total = |row: &lockstep_client::Row| row["id"] == 1 && row["total"] == 49;
    assert!(rows("1").values().any(total), "all tables as of one snapshot");
    assert_eq!(world.sql.one("select count(*) from todos").await, "49");
    assert_eq!(client.replica.rows_of("0"), None, "nothing is stored");
    let reply = client.call("heartbeat", json!({})).await.unwrap();
    assert_eq!(reply, json!({"cursor": null, "age": null}), "and no cursor covers it");
}

fn able() -> Replica {
    let mut replica = Replica::new([todos(1), lists()]);
    replica.takes_provisional = true;
    replica
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_stream_lags_a_first_load_is_shown_and_made_final_later() {
    let world = World::new().await;
    let (node, walsender) = stalled(&world).await;
    let mut client = node.resume(able()).await;
    until_provisional(&world, &mut client).await;
    // Who has not asked for it hears nothing.
    let mut other = node.join([todos(1), lists()]).await;
    other.call("heartbeat", json!({})).await.unwrap();
    world
        .sql
        .run("insert into todos values (51, 1, 'after it'); update lists set total = 50 where id = 1")
        .await;
    send(walsender, Signal::SIGCONT).unwrap();
    let commit = client.commit().await.unwrap();
    assert_eq!(commit.resets.len(), 2);
    assert!(client.replica.provisional().is_empty() && client.replica.cursor.is_some());
    world.settled(&mut client).await;
    world.settled(&mut other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_of_a_reading_that_is_thrown_away_is_taken_back() {
    let world = World::new().await;
    let (node, walsender) = stalled(&world).await;
    let mut client = node.resume(able()).await;
    until_provisional(&world, &mut client).await;
    world.sql.run("delete from todos where id <= 10").await;
    // The stream breaks before it has got there.
    send(walsender, Signal::SIGTERM).unwrap();
    send(walsender, Signal::SIGCONT).unwrap();
    while !client.replica.provisional().is_empty() {
        let heard = client.hear("that it is to be forgotten").await.unwrap();
        assert!(!matches!(heard, Heard::Commit(_)), "{heard:?}");
    }
    assert_eq!((client.replica.aside(), client.replica.rows_of("0")), (0, None));
    world.settled(&mut client).await;
    assert_eq!(client.replica.column("0", "id").len(), 39);
}
