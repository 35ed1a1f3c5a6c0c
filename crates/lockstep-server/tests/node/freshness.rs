//! Whatever keeps news from a client, it is told that it is behind, and never that it has what it does not have.

use crate::proxy::Proxy;
use crate::world::{Node, World, pause, todos};
use lockstep_client::Client;
use lockstep_pg::cluster::StopMode;
use lockstep_pg::cluster::process::{Signal, send};
use std::time::Instant;

/// A client that has everything, and knows it.
async fn level(world: &World, node: &Node) -> Client {
    let mut client = node.join([todos(1)]).await;
    world.settled(&mut client).await;
    let now = Instant::now();
    client.watch(|c| c.freshness.proven() > now).await.unwrap();
    client
}

/// Watches until the client says that it is behind. It must not claim to have `title`, committed at `at`, before it
/// shows it.
async fn until_behind(client: &mut Client, title: &str, at: Instant) {
    let shown = |c: &Client| c.replica.column("0", "title").iter().any(|t| t == title);
    let mut wrong = None;
    let watched = client.watch(|c| {
        if c.freshness.proven() >= at && !shown(c) {
            wrong = Some(c.freshness.proven());
        }
        wrong.is_some() || c.freshness.behind(Instant::now()).is_some()
    });
    watched.await.unwrap();
    assert_eq!(wrong, None, "a claim to have what was never shown");
    assert!(!shown(client), "there was nothing to be behind with");
}

async fn until_level(client: &mut Client, title: &str) {
    let done = |c: &Client| {
        c.freshness.behind(Instant::now()).is_none()
            && c.replica.column("0", "title").iter().any(|t| t == title)
    };
    client.watch(done).await.unwrap();
}

async fn write(world: &World, id: i64, title: &str) -> Instant {
    world.sql.run(&format!("insert into todos values ({id}, 1, '{title}')")).await;
    Instant::now()
}

/// The node answers all the while, and everything that it is asked about the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_is_told() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = level(&world, &node).await;
    let walsender = "select pid from pg_stat_activity where backend_type = 'walsender'";
    let walsender: u32 = world.sql.one(walsender).await.parse().unwrap();
    pause(walsender).await;
    let at = write(&world, 1, "a").await;
    until_behind(&mut client, "a", at).await;
    send(walsender, Signal::SIGCONT).unwrap();
    until_level(&mut client, "a").await;
}

/// No packet comes from PostgreSQL and none is refused: nobody tells the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_database_falls_silent_says_so() {
    let world = World::new().await;
    let (proxy, node) = Proxy::node(&world, &[("LOCKSTEP_DATABASE_TIMEOUT", "1")]).await;
    let mut client = level(&world, &node).await;
    proxy.hold_after(0);
    let at = write(&world, 1, "a").await;
    until_behind(&mut client, "a", at).await;
    proxy.release();
    until_level(&mut client, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_database_says_so() {
    let mut world = World::new().await;
    let node = world.node().await;
    let mut client = level(&world, &node).await;
    tokio::task::block_in_place(|| world.cluster.stop(StopMode::Fast)).unwrap();
    client.watch(|c| c.freshness.behind(Instant::now()).is_some()).await.unwrap();
    tokio::task::block_in_place(|| world.cluster.start_again()).unwrap();
    world.sql = world.connect().await;
    write(&world, 1, "a").await;
    until_level(&mut client, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_is_noticed() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = level(&world, &node).await;
    pause(node.pid()).await;
    let at = write(&world, 1, "a").await;
    until_behind(&mut client, "a", at).await;
    send(node.pid(), Signal::SIGCONT).unwrap();
    until_level(&mut client, "a").await;
}

/// By polling alone the same is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_polled_knows_it_too() {
    let world = World::new().await;
    let node = Node::start(&world.polling_url().await);
    node.until("polling").await;
    let mut client = level(&world, &node).await;
    let locker = world.connect().await;
    // Catch-ups wait for this table, polls and writers do not.
    locker.run("begin; lock table lockstep.tracked in access exclusive mode").await;
    let at = write(&world, 1, "a").await;
    until_behind(&mut client, "a", at).await;
    locker.run("commit").await;
    until_level(&mut client, "a").await;
}
