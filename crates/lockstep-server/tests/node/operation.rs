//! What an operator asks of a node: health, readiness, metrics.

use crate::world::{Node, World, lists, todos};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

async fn get(node: &Node, path: &str) -> (u16, String) {
    let answer = node.request(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close")).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// The value of a line of `/metrics`, named as it stands there.
fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

pub async fn until_metric(node: &Node, name: &str, wanted: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, text) = get(node, "/metrics").await;
        if metric(&text, name).is_some_and(&wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} in {text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_those_of_the_page_and_of_the_file() {
    let world = World::new().await;
    let node = world.node().await;
    until_metric(&node, r#"lockstep_log_bytes{table="public.todos"}"#, |bytes| bytes > 0.0).await;
    let (_, text) = get(&node, "/metrics").await;
    let served: BTreeSet<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let page = file("docs/operation.md");
    let listed: BTreeSet<&str> =
        page.lines().filter_map(|l| l.strip_prefix("| `lockstep_")?.split('`').next()).collect();
    let listed: BTreeSet<String> = listed.into_iter().map(|name| format!("lockstep_{name}")).collect();
    let source = file("crates/lockstep-server/src/metrics.rs");
    let named: BTreeSet<&str> = source
        .lines()
        .filter_map(|l| l.split(": &str = \"").nth(1)?.split('"').next())
        .filter(|n| n.starts_with("lockstep_"))
        .collect();
    assert_eq!(served, named, "served, and in the file");
    assert_eq!(
        listed.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        named,
        "on the page, and in the file"
    );
    for name in named {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} says what it is");
    }
}

/// Every bound of `limits.rs` is on the page with what happens there, and every label of the metric.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_those_of_the_page_and_of_the_file() {
    let world = World::new().await;
    let node = world.node().await;
    let page = file("docs/operation.md");
    let table = page.split("\n## Bounds").nth(1).unwrap().split("\n## ").next().unwrap();
    let cells = |line: &str, at: usize| -> Vec<String> {
        let cell = line.split('|').nth(at).unwrap_or_default();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows: Vec<&str> = table.lines().filter(|l| l.starts_with("| ")).collect();
    let listed: BTreeSet<String> = rows.iter().flat_map(|l| cells(l, 1)).collect();
    let source = file("crates/lockstep-core/src/limits.rs");
    let named: BTreeSet<String> = source
        .lines()
        .filter_map(|l| l.strip_prefix("pub const ")?.split(':').next().map(str::to_owned))
        .filter(|name| !name.ends_with("_MS") && !name.ends_with("_US"))
        .collect();
    assert_eq!(listed, named, "times apart, which bound nothing that grows");
    let (_, text) = get(&node, "/metrics").await;
    let label = |l: &str| {
        Some(l.strip_prefix("lockstep_bounds_reached_total{bound=\"")?.split('"').next()?.to_owned())
    };
    let served: BTreeSet<String> = text.lines().filter_map(label).collect();
    let named = rows.iter().flat_map(|l| cells(l, 4));
    let (metrics, labels): (BTreeSet<String>, BTreeSet<String>) =
        named.partition(|n| n.starts_with("lockstep_"));
    assert_eq!(labels, served);
    assert!(metrics.iter().all(|name| text.contains(&format!("# TYPE {name} "))), "{metrics:?}");
    let silent: Vec<_> = rows
        .iter()
        .filter(|l| l.split('|').count() > 5 && cells(l, 4).is_empty() && !l.starts_with("| bound"))
        .collect();
    assert!(silent.is_empty(), "a bound without a metric: {silent:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_too_much_waits_in_the_node_those_who_do_not_read_go() {
    let world = World::new().await;
    let node = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_NODE_QUEUE_BYTES", "2000000")]);
    node.until("live").await;
    let mut silent = node.join([todos(1)]).await;
    silent.commit().await.unwrap();
    let mut reader = node.join([todos(1)]).await;
    reader.commit().await.unwrap();
    for n in 1..=30 {
        world.sql.run(&format!("insert into todos values ({n}, 1, 't', false, repeat('x', 800000))")).await;
        reader.until(|r| r.rows_of("0").is_some_and(|rows| rows.len() == n)).await.unwrap();
    }
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="node_queue_bytes"}"#, |n| n >= 1.0).await;
    while silent.hear("the end").await.is_ok() {}
    let mut back = node.resume(silent.crash()).await;
    world.settled(&mut back).await;
    until_metric(&node, "lockstep_queue_bytes", |n| n == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1), lists()]).await;
    client.commit().await.unwrap();
    let other = node.join([todos(1)]).await;
    let row = |id: i64, title: &str| json!({"op": "insert", "table": "todos", "values": {"id": id, "list_id": 1, "title": title}});
    client.mutate("m1", vec![row(1, "a"), row(2, "b")]).await.unwrap();
    client.mutate("m2", vec![row(3, "forbidden")]).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    let again = json!({"confirmed": "0", "mutations": [{"n": "2", "id": "m2", "kind": "ops", "ops": []}]});
    client.call("mutate", again).await.unwrap();
    let gap = json!({"confirmed": "0", "mutations": [{"n": "9", "id": "m9", "kind": "ops", "ops": []}]});
    client.call("mutate", gap).await.unwrap_err();
    until_metric(&node, "lockstep_slot_active", |active| active == 1.0).await;
    let (status, text) = get(&node, "/metrics").await;
    assert_eq!(status, 200);
    for (name, value) in [
        ("lockstep_sessions", 2.0),
        ("lockstep_shapes", 2.0),
        ("lockstep_subscriptions", 3.0),
        ("lockstep_streams_total", 1.0),
        ("lockstep_rows_total", 2.0),
        (r#"lockstep_mutations_total{outcome="applied"}"#, 1.0),
        (r#"lockstep_mutations_total{outcome="refused"}"#, 1.0),
        (r#"lockstep_mutations_total{outcome="gap"}"#, 1.0),
        (r#"lockstep_mutations_total{outcome="busy"}"#, 0.0),
        (r#"lockstep_closes_total{code="1013"}"#, 0.0),
        (r#"lockstep_bounds_reached_total{bound="queue_bytes"}"#, 0.0),
        (r#"lockstep_feed{feed="live"}"#, 1.0),
        (r#"lockstep_feed{feed="polling"}"#, 0.0),
    ] {
        assert_eq!(metric(&text, name), Some(value), "{name} in {text}");
    }
    assert!(metric(&text, "lockstep_transactions_total").unwrap() >= 2.0);
    assert!(metric(&text, r#"lockstep_catch_ups_total{outcome="settled"}"#).unwrap() >= 1.0);
    assert!(metric(&text, "lockstep_lag_seconds").unwrap() < 60.0);
    drop(other);
    until_metric(&node, "lockstep_sessions", |n| n == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_while_it_can_serve_and_alive_in_any_case() {
    let mut world = World::new().await;
    let node = world.node().await;
    let body = |text: String| serde_json::from_str::<Json>(&text).unwrap();
    let (status, ready) = get(&node, "/ready").await;
    let ready = body(ready);
    assert_eq!((status, &ready["feed"], &ready["ready"]), (200, &json!("live"), &json!(true)));
    assert!(ready["lag_ms"].as_u64().is_some(), "{ready}");
    tokio::task::block_in_place(|| world.cluster.stop(lockstep_pg::cluster::StopMode::Fast)).unwrap();
    node.until("unreachable").await;
    let (status, text) = get(&node, "/ready").await;
    assert_eq!((status, &body(text)["feed"]), (503, &json!("unreachable")));
    assert_eq!(get(&node, "/health").await.0, 200);
    tokio::task::block_in_place(|| world.cluster.start_again()).unwrap();
    node.until("live").await;
    assert_eq!(get(&node, "/ready").await.0, 200);
}

/// A transaction that is open when the stream begins: sessions are brought forward by queries until it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_that_it_catches_up() {
    let world = World::new().await;
    let first = world.node().await;
    let open = world.connect().await;
    open.run("begin; insert into notes values (1, 1)").await;
    let node = world.node().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.health().await["feed"] != "catching_up" {
        assert!(Instant::now() < deadline, "{}", node.health().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(get(&node, "/ready").await.0, 200);
    open.run("commit").await;
    while node.health().await["feed"] != "live" {
        assert!(Instant::now() < deadline, "{}", node.health().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(first);
}
