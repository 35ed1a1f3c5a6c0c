//! More clients than can be brought up to date at once.

use crate::operation::until_metric;
use crate::world::{Node, World, todos};
use lockstep_client::{Client, Replica};

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_to_a_crowded_node_is_told_when_to_come_again_and_let_in() {
    const LATE: usize = 20;
    let world = World::new().await;
    let node = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_WAITING_SESSIONS", "5")]);
    node.until("live").await;
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    // Nothing can be read before the table is let go.
    let blocker = world.connect().await;
    blocker.run("begin; lock table todos in access exclusive mode").await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(node.join([todos(1)]).await);
    }
    assert!(clients.iter().all(|client| client.later == 0));
    let late = (0..LATE).map(|_| {
        let url = node.socket();
        tokio::spawn(async move { Client::join(&url, Replica::new([todos(1)])).await })
    });
    let late: Vec<_> = late.collect();
    until_metric(&node, "lockstep_sessions_later", |n| n == LATE as f64).await;
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="waiting_sessions"}"#, |n| n >= LATE as f64)
        .await;
    blocker.run("rollback").await;
    for client in late {
        let client = client.await.unwrap().unwrap();
        assert!(client.later >= 1);
        clients.push(client);
    }
    for client in &mut clients {
        world.settled(client).await;
    }
    until_metric(&node, "lockstep_sessions_later", |n| n == 0.0).await;
}

/// A balancer may ask another node, and whoever asks again is told when.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_refuses_the_upgrade() {
    let world = World::new().await;
    let node = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_SESSIONS", "2")]);
    node.until("live").await;
    let mut first = node.join([todos(1)]).await;
    let second = node.join([todos(1)]).await;
    first.commit().await.unwrap();
    let upgrade = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    let refused = node.request(upgrade).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    let after = refused.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse().ok());
    assert!(after.is_some_and(|seconds: u16| (5..=15).contains(&seconds)), "{refused}");
    assert!(Client::join(&node.socket(), Replica::new([todos(1)])).await.is_err());
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="sessions"}"#, |n| n == 2.0).await;
    drop(second);
    until_metric(&node, "lockstep_sessions", |n| n == 1.0).await;
    let mut third = node.join([todos(1)]).await;
    world.sql.run("insert into todos values (1, 1, 'x')").await;
    world.settled(&mut first).await;
    world.settled(&mut third).await;
}
