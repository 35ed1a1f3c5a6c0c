//! Back after a moment: answered from the node's memory, without a query.

use crate::operation::until_metric;
use crate::world::{Node, World, lists, notes, todos};

/// A line of `/metrics`.
async fn metric(node: &Node, name: &str) -> f64 {
    let text = node.request("GET /metrics HTTP/1.0\r\nHost: localhost").await;
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} in {text}"))
}

const QUERIES: &str = r#"lockstep_catch_ups_total{outcome="settled"}"#;
const FROM_WINDOW: &str = r#"lockstep_resumes_total{from="window"}"#;
const TRANSACTIONS: &str = "lockstep_transactions_total";

/// Away while rows come, change, move between scopes, get another key, and go; with a mutation of its own that ran after
/// it had left. Then again, with nothing missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_absence_is_answered_without_a_query() {
    let world = World::new().await;
    world.sql.run("insert into todos select i, 1 + i % 2, 'title ' || i, false, repeat('x', 5000) from generate_series(1, 20) i").await;
    let node = world.node().await;
    let mut live = node.join([lists()]).await;
    world.settled(&mut live).await;
    let mut client = node.join([todos(1), todos(2), notes(1), lists()]).await;
    world.settled(&mut client).await;
    let queries = metric(&node, QUERIES).await;
    let mut away = client.crash();

    let insert = serde_json::json!({"op": "insert", "table": "notes", "values": {"id": 7, "list_id": 1}});
    away.push("while-away", vec![insert]);
    let payload = away.mutate().unwrap();
    let body = serde_json::json!({"client": away.client, "confirmed": payload["confirmed"],
        "mutations": payload["mutations"]});
    let (status, answer) =
        node.post("/v1/mutations", "Content-Type: application/json\r\n", body.to_string().as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    for sql in [
        "insert into todos values (100, 1, 'new')",
        "update todos set title = 'changed' where id in (2, 3)",
        "update todos set list_id = 3 - list_id, body = 'moved' where id = 4",
        "update todos set id = 200 where id = 100",
        "delete from todos where id = 6",
        "begin; delete from todos where id = 8; insert into todos values (8, 1, 'again'); commit",
        "begin; update lists set total = 9 where id = 1; insert into notes values (8, 1, 1); commit",
    ] {
        world.sql.run(sql).await;
    }
    world.settled(&mut live).await;
    // A poll sees them: they leave the ring.
    until_metric(&node, "lockstep_ring_bytes", |bytes| bytes == 0.0).await;
    let mut back = node.resume(away).await;
    let commit = back.commit().await.unwrap();
    assert_eq!(commit.resets, []);
    assert_eq!(commit.outcomes.len(), 1, "{commit:?}");
    world.settled(&mut back).await;
    assert_eq!(metric(&node, QUERIES).await, queries, "no query");
    assert_eq!(metric(&node, FROM_WINDOW).await, 1.0);

    let mut back = node.resume(back.crash()).await;
    assert_eq!(back.commit().await.unwrap().rows, 0);
    world.sql.run("update todos set title = 'live again' where id = 1").await;
    world.settled(&mut back).await;
    assert_eq!(metric(&node, QUERIES).await, queries);
    assert_eq!(metric(&node, FROM_WINDOW).await, 2.0);
    assert!(metric(&node, "lockstep_window_bytes").await > 0.0 && metric(&node, TRANSACTIONS).await >= 7.0);
}

/// What memory cannot tell is asked: a truncated table, a stream that is newer than the cursor, another column.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_doubt_is_asked_of_postgresql() {
    let world = World::new().await;
    world.sql.run("insert into todos values (1, 1, 'a'); insert into notes values (1, 1)").await;
    let node = world.node().await;
    for (change, resets) in [
        ("truncate notes", vec!["rewritten"]),
        ("alter table notes add column extra int default 5; insert into notes values (2, 1)", vec![]),
        (
            "select pg_terminate_backend(pid) from pg_stat_replication; insert into notes values (3, 1)",
            vec![],
        ),
    ] {
        let mut client = node.join([todos(1), notes(1)]).await;
        world.settled(&mut client).await;
        let away = client.crash();
        world.sql.run(change).await;
        let mut back = node.resume(away).await;
        let mut told = Vec::new();
        let truth = world.truth(&back.replica).await;
        while crate::world::held(&back.replica) != truth {
            told.extend(back.commit().await.unwrap().resets.into_iter().map(|(_, why)| why));
        }
        assert!(told.iter().all(|why| resets.contains(&why.as_str())), "{change}: {told:?}");
    }
}
