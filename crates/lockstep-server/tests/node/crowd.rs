//! Many at once: what is asked of PostgreSQL for all of them, and who waits for whom.

use crate::operation::until_metric;
use crate::world::{Node, World, lists, notes, todos};
use lockstep_client::{Client, ClientError};
use serde_json::json;

/// How many COPYs the server was asked for since `from` in its log.
fn copies(world: &World, from: usize) -> usize {
    let log = std::fs::read(world.cluster.log_path()).unwrap();
    String::from_utf8_lossy(&log[from..]).lines().filter(|line| line.contains("statement: copy (")).count()
}

fn logged(world: &World) -> usize {
    std::fs::read(world.cluster.log_path()).unwrap().len()
}

/// The same first load, asked for by all while the first one is read: it is read again for all of them together.
#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_are_answered_by_one_query() {
    let world = World::with(|b| b.setting("log_statement", "all")).await;
    world.sql.run("insert into todos select i, 1, 't' || i from generate_series(1, 500) i").await;
    let node = world.node().await;
    let blocker = world.connect().await;
    blocker.run("begin; lock table todos in access exclusive mode").await;
    let from = logged(&world);
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(node.join([todos(1)]).await);
    }
    blocker.run("rollback").await;
    for client in &mut clients {
        world.settled(client).await;
    }
    let asked = copies(&world, from);
    assert!(asked <= lockstep_core::limits::CATCH_UPS_IN_FLIGHT + 1, "{asked} questions for 40 clients");
}

/// PostgreSQL restarts under many sessions: none is closed, none loads anew, and they are read for by shape.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_all_catch_up_together_on_their_connections() {
    const CLIENTS: usize = 60;
    let mut world = World::with(|b| b.setting("log_statement", "all")).await;
    world.sql.run("insert into todos select i, 1 + i % 3, 't' || i from generate_series(1, 90) i").await;
    let node = world.node().await;
    let mut clients: Vec<Client> = Vec::new();
    for n in 0..CLIENTS {
        let mut client = node.join([todos(1 + n as i64 % 3), lists()]).await;
        world.settled(&mut client).await;
        clients.push(client);
    }
    tokio::task::block_in_place(|| world.cluster.stop(lockstep_pg::cluster::StopMode::Immediate)).unwrap();
    node.until("unreachable").await;
    let from = logged(&world);
    tokio::task::block_in_place(|| world.cluster.start_again()).unwrap();
    world.sql = world.connect().await;
    world
        .sql
        .run("begin; update todos set title = 'changed' where id % 2 = 0; update lists set total = 9; commit")
        .await;
    let mut resets = Vec::new();
    for client in &mut clients {
        let commits = client.until(|r| r.column("1", "total") == ["9", "9", "9"]).await.unwrap();
        resets.extend(commits.into_iter().flat_map(|c| c.resets).filter(|(_, why)| why != "first"));
        world.settled(client).await;
    }
    assert_eq!(resets, [], "caught up, not loaded anew");
    until_metric(&node, "lockstep_sessions", |n| n == CLIENTS as f64).await;
    until_metric(&node, r#"lockstep_closes_total{code="1012"}"#, |n| n == 0.0).await;
    node.until("live").await;
    let log = std::fs::read(world.cluster.log_path()).unwrap();
    let log = String::from_utf8_lossy(&log[from..]).into_owned();
    let catch_ups = log.lines().filter(|l| l.contains("lock table lockstep.tracked")).count().max(1);
    let asked = copies(&world, from);
    // Two tables; outcomes of mutations are asked for besides, once for all.
    assert!(
        asked <= 2 * catch_ups.max(10),
        "{asked} questions in {catch_ups} catch-ups for {CLIENTS} clients"
    );
}

async fn flood(node: &Node, from: i64) -> tokio::task::JoinHandle<Client> {
    let mut client = node.join([lists()]).await;
    client.commit().await.unwrap();
    tokio::spawn(async move {
        for n in 0..4 {
            let values = json!({"id": from + n, "list_id": 1, "title": "t", "body": "x".repeat(900_000)});
            let op = json!({"op": "insert", "table": "todos", "values": values});
            let mutation =
                json!({"n": (n + 1).to_string(), "id": format!("m{n}"), "kind": "ops", "ops": [op]});
            client.send("mutate", json!({"confirmed": "0", "mutations": [mutation]})).await.unwrap();
        }
        client
    })
}

/// What all clients together have sent and PostgreSQL does not take: those that send much wait, and nobody else, not even
/// with writes of their own.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_that_is_unserved_is_too_much_only_those_wait_who_sent_it() {
    let world = World::new().await;
    let node = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_NODE_UNSERVED_BYTES", "2000000")]);
    node.until("live").await;
    let mut bystander = node.join([lists(), notes(1)]).await;
    world.settled(&mut bystander).await;
    let blocker = world.connect().await;
    blocker.run("begin; lock table todos in exclusive mode").await;
    let mut floods = Vec::new();
    for n in 0..4 {
        floods.push(flood(&node, 100 * n).await);
    }
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="node_unserved_bytes"}"#, |n| n >= 2.0).await;
    for n in 1..=20 {
        bystander.call("heartbeat", json!({})).await.unwrap();
        let op = json!({"op": "insert", "table": "notes", "values": {"id": n, "list_id": 1}});
        bystander.mutate(&format!("own{n}"), vec![op]).await.unwrap();
        bystander.until(|r| r.outbox.is_empty()).await.unwrap();
    }
    let mut comer = node.join([notes(1)]).await;
    world.settled(&mut comer).await;
    assert_eq!(world.sql.one("select count(*) from todos").await, "0", "it is full all the while");
    blocker.run("rollback").await;
    for flood in floods {
        let mut client = flood.await.unwrap();
        client.call("heartbeat", json!({})).await.unwrap();
    }
    world.sql.until("select count(*) from todos", "16").await;
    world.settled(&mut bystander).await;
}

/// Two writers at one row where transactions see one snapshot each: the later one fails, and is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_serialization_failure_and_a_lost_connection_are_never_refusals() {
    let world = World::with(|b| b.setting("default_transaction_isolation", "repeatable read")).await;
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    world.settled(&mut client).await;
    let application = world.connect().await;
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    let update =
        |title: &str| json!({"op": "update", "table": "todos", "key": {"id": 1}, "set": {"title": title}});

    application.run("begin; update todos set done = true where id = 1").await;
    client.replica.push("m1", vec![update("socket")]);
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload).await.unwrap();
    world.sql.until(waiting, "1").await;
    application.run("commit").await;
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    assert!(commits.iter().flat_map(|c| &c.outcomes).all(|o| o.refusal.is_none()), "{commits:?}");
    node.until_logged("serialization failure", 1).await;

    application.run("begin; update todos set done = false where id = 1").await;
    let body = json!({"client": client.replica.client, "mutations": [{"n": "2", "id": "m2", "kind": "ops", "ops": [update("post")]}]});
    let (node, posted) = {
        let node = std::sync::Arc::new(node);
        let (sender, body) = (node.clone(), body.to_string());
        let post = async move {
            sender.post("/v1/mutations", "Content-Type: application/json\r\n", body.as_bytes()).await
        };
        (node, tokio::spawn(post))
    };
    world.sql.until(waiting, "1").await;
    application.run("commit").await;
    let (status, answer) = posted.await.unwrap();
    assert_eq!((status, &answer["mutations"][0]["outcome"]), (200, &json!("applied")), "{answer}");
    node.until_logged("serialization failure", 2).await;

    // The connection is cut in the middle of the third.
    client.replica.last = 2;
    application.run("begin; update todos set done = true where id = 1").await;
    client.replica.push("m3", vec![update("cut")]);
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload.clone()).await.unwrap();
    world.sql.until(waiting, "1").await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event_type = 'Lock'";
    assert_eq!(world.sql.one(cut).await, "1");
    application.run("commit").await;
    while let Err(ClientError::Refused(answer)) = client.call("mutate", payload.clone()).await {
        assert_eq!(answer["code"], "busy", "{answer}");
    }
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    assert!(commits.iter().flat_map(|c| &c.outcomes).all(|o| o.refusal.is_none()), "{commits:?}");
    world.settled(&mut client).await;
    assert_eq!(client.replica.column("0", "title"), ["cut"]);
}
