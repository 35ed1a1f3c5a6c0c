//! Those who say nothing, take nothing or do not come to an end: each is ended at its time, and nobody else notices.

use crate::bytes::{TEXT, frame, socket};
use crate::operation::until_metric;
use crate::world::{Node, World, lists, todos};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing comes for a minute.
async fn says_nothing(node: &Node) {
    let (mut socket, began) = (socket(node).await, Instant::now());
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(90), socket.read_to_end(&mut all)).await;
    assert!(read.is_ok() && began.elapsed() > Duration::from_secs(55), "{:?}", began.elapsed());
    assert_eq!(all[..4], [0x88, all[1], 0x03, 0xE9], "1001");
}

/// It says that it is there, and takes nothing of what waits for it.
async fn takes_nothing(node: &Node) -> TcpStream {
    let mut socket = socket(node).await;
    let join = json!(["1", "1", "sync", "phx_join", {"protocol": 1, "shapes":
        [{"ref": "0", "table": "todos", "scope": {"list_id": 1}}]}]);
    socket.write_all(&frame(TEXT, join.to_string().as_bytes())).await.unwrap();
    let heartbeat = frame(TEXT, br#"[null,"2","phoenix","heartbeat",{"cursor":false}]"#);
    let mut every = tokio::time::interval(Duration::from_secs(5));
    let deadline = Instant::now() + Duration::from_secs(100);
    loop {
        every.tick().await;
        let metrics = node.request("GET /metrics HTTP/1.0\r\nHost: localhost").await;
        if metrics.contains("lockstep_bounds_reached_total{bound=\"unread\"} 1") {
            return socket;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        socket.write_all(&heartbeat).await.unwrap();
    }
}

/// A request whose body does not come.
async fn never_ends(node: &Node) {
    let mut socket = TcpStream::connect(node.http()).await.unwrap();
    let head = "POST /v1/mutations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 400];
    let n = tokio::time::timeout(Duration::from_secs(40), socket.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("too_slow"), "{answer}");
}

/// A request that is not asked: nothing of it comes, or half of its head. Or it is no further one, for which a proxy that
/// keeps its connections for a minute is waited for longer.
async fn never_asks(node: &Node, said: &str) {
    let (mut connection, began) = (TcpStream::connect(node.http()).await.unwrap(), Instant::now());
    connection.write_all(said.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(100), connection.read_to_string(&mut answer)).await;
    assert!(read.is_ok(), "{said:?} is kept for ever");
    let asked = said.ends_with("\r\n\r\n");
    assert_eq!(answer.starts_with("HTTP/1.1 200"), asked, "{said:?}: {answer}");
    assert_eq!(began.elapsed() > Duration::from_secs(60), asked, "{said:?}: {:?}", began.elapsed());
}

/// A minute, which is what the limits are.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_silent_for_a_minute_is_ended() {
    let world = World::new().await;
    let node = world.node().await;
    // More than the kernel's buffers hold between two sockets.
    world
        .sql
        .run("insert into todos select i, 1, 't', false, repeat('x', 900000) from generate_series(1, 40) i")
        .await;
    let mut bystander = node.join([lists()]).await;
    world.settled(&mut bystander).await;
    let half = "GET /health HTTP/1.1\r\nHost: loc";
    let asked = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (_unread, ..) = tokio::join!(
        takes_nothing(&node),
        says_nothing(&node),
        never_ends(&node),
        never_asks(&node, ""),
        never_asks(&node, half),
        never_asks(&node, asked),
    );
    until_metric(&node, r#"lockstep_closes_total{code="1001"}"#, |n| n >= 1.0).await;
    until_metric(&node, r#"lockstep_closes_total{code="1013"}"#, |n| n == 1.0).await;
    node.until_logged("does not read", 1).await;
    let mut comer = node.join([todos(1)]).await;
    world.settled(&mut comer).await;
}

/// A body that breaks off is nothing that the operator should raise a bound for.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_no_bound_reached() {
    let world = World::new().await;
    let node = world.node().await;
    let mut socket = TcpStream::connect(node.http()).await.unwrap();
    let head = "POST /v1/mutations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="client_frame_bytes"}"#, |n| n == 0.0).await;
}
