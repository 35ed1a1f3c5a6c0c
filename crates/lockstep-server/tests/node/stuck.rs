//! What hangs, floods or does not read must not take anyone else along.

use crate::operation::until_metric;
use crate::proxy::Proxy;
use crate::world::{Node, World, lists, todos};
use lockstep_client::ClientError;
use lockstep_pg::cluster::process::{Signal, send};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn insert(id: i64, title: &str) -> Json {
    json!({"op": "insert", "table": "todos", "values": {"id": id, "list_id": 1, "title": title}})
}

/// A firewall that forgot the connections: no packet comes, none is refused.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_postgresql_that_fall_silent_are_replaced() {
    let world = World::new().await;
    let (proxy, node) = Proxy::node(&world, &[("LOCKSTEP_DATABASE_TIMEOUT", "1")]).await;
    let mut client = node.join([todos(1)]).await;
    client.mutate("m1", vec![insert(1, "before")]).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    proxy.freeze();
    world.sql.run("insert into todos values (2, 1, 'meanwhile')").await;
    client.mutate("m2", vec![insert(3, "written meanwhile")]).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut client).await;
    node.until_logged("streaming", 2).await;
}

/// While a slot is being made the server waits for an open transaction and does not look at its socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_while_it_makes_its_slot_leaves_none() {
    let world = World::new().await;
    let open = world.connect().await;
    open.run("begin; insert into lists values (50, 'open')").await;
    let node = world.node_starting();
    world.sql.until("select count(*) from pg_replication_slots", "1").await;
    node.kill();
    world.sql.until("select count(*) from pg_replication_slots", "0").await;
    open.run("commit").await;
}

/// A client that sends faster than PostgreSQL takes it is slowed down: nothing grows, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_held_back_at_its_own_socket() {
    const FRAMES: usize = 60;
    let world = World::new().await;
    let node = world.node().await;
    let mut bystander = node.join([lists()]).await;
    world.settled(&mut bystander).await;
    let blocker = world.connect().await;
    blocker.run("begin; lock table todos in exclusive mode").await;
    let mut client = node.join([lists()]).await;
    client.commit().await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let flood = tokio::spawn(async move {
        let body = "x".repeat(900_000);
        for n in 1..=FRAMES {
            let op = json!({"op": "insert", "table": "todos", "values": {"id": n, "list_id": 1, "title": "t", "body": body}});
            let mutation = json!({"n": n.to_string(), "id": format!("m{n}"), "kind": "ops", "ops": [op]});
            client.send("mutate", json!({"confirmed": "0", "mutations": [mutation]})).await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
        }
        client
    });
    for n in 0..100 {
        world.sql.run(&format!("update lists set total = {n} where id = 1")).await;
        world.settled(&mut bystander).await;
    }
    let taken = sent.load(Ordering::SeqCst);
    assert!(taken < FRAMES, "54 MB were read while nothing could be written");
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="unserved_bytes"}"#, |n| n >= 1.0).await;
    blocker.run("rollback").await;
    let mut client = flood.await.unwrap();
    world.sql.until("select count(*) from todos", &FRAMES.to_string()).await;
    client.call("heartbeat", json!({})).await.unwrap();
}

/// A client that does not read is closed at the queue's bound, said so once, and resumes where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_and_resumes() {
    let world = World::new().await;
    let node = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_QUEUE_BYTES", "1000000")]);
    node.until("live").await;
    let mut client = node.join([todos(1)]).await;
    // An empty shape looks settled before it has come.
    client.commit().await.unwrap();
    for n in 1..=30 {
        world.sql.run(&format!("insert into todos values ({n}, 1, 't', false, repeat('x', 800000))")).await;
    }
    node.until_logged("does not read", 1).await;
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="queue_bytes"}"#, |n| n >= 1.0).await;
    let end = loop {
        match client.hear("the end").await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(!matches!(end, ClientError::Late(_)), "{end}");
    let mut away = client.crash();
    let mut resets = Vec::new();
    // What is missed may be more than the bound again: every return brings it further.
    let mut client = loop {
        let mut client = node.resume(away).await;
        match client.until(|r| r.rows_of("0").is_some_and(|rows| rows.len() == 30)).await {
            Ok(commits) => {
                resets.extend(commits.into_iter().flat_map(|c| c.resets));
                break client;
            }
            Err(ClientError::Late(what)) => panic!("{what}"),
            Err(_) => away = client.crash(),
        }
    };
    assert_eq!(resets, [], "resumed, not loaded anew");
    world.settled(&mut client).await;
}

/// SIGTERM among writes: what was answered is kept, what was not is sent again, to another node.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_told_to_stop_under_load_loses_no_write() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    for n in 1..=80 {
        client.replica.push(format!("m{n}"), vec![insert(n, "t")]);
    }
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload).await.unwrap();
    world.sql.until("select (count(*) > 3)::text from todos", "true").await;
    send(node.pid(), Signal::SIGTERM).unwrap();
    while client.hear("the end").await.is_ok() {}
    world.sql.until("select count(*) from pg_replication_slots", "0").await;
    let second = world.node().await;
    let mut client = second.resume(client.crash()).await;
    if let Some(payload) = client.replica.mutate() {
        client.call("mutate", payload).await.unwrap();
    }
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut client).await;
    assert_eq!(world.sql.one("select count(*) from todos").await, "80");
}

/// The database was restored from a copy older than this node's mark: the node makes a new one, or every cursor it
/// hands out from then on would be refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_mark_is_gone_makes_another() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    world.settled(&mut client).await;
    world
        .sql
        .run("delete from lockstep.incarnations; select pg_terminate_backend(pid) from pg_stat_replication")
        .await;
    node.until_logged("streaming", 2).await;
    node.until("live").await;
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    world.settled(&mut client).await;
    let mut fresh = node.join([todos(1)]).await;
    fresh.commit().await.unwrap();
    let mut resumed = node.resume(fresh.crash()).await;
    let commit = resumed.commit().await.unwrap();
    assert_eq!(commit.resets, [], "its cursor is good");
}
