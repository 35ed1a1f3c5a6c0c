//! Transactions that are too large to be held, on their way through a node.

use crate::operation::until_metric;
use crate::world::{Node, World, lists, todos};
use lockstep_client::{Client, Replica};
use serde_json::json;
use std::time::{Duration, Instant};

const ROWS: usize = 120_000;

/// Rows of list 1, rows of list 2, and what the lists say of the statements so far, list 1 the most.
fn state(replica: &Replica) -> (usize, usize, Vec<String>) {
    let rows = |reference| replica.rows_of(reference).map_or(0, |rows| rows.len());
    (rows("0"), rows("1"), replica.column("2", "total"))
}

/// Runs a statement, and hears until it is shown: nothing in between. Returns the longest wait for a heartbeat's reply.
async fn run(world: &World, client: &mut Client, sql: &str, nth: usize, after: (usize, usize)) -> Duration {
    let before = state(&client.replica);
    let after = (after.0, after.1, vec!["0".into(), "0".into(), nth.to_string()]);
    let writer = world.connect().await;
    let sql = format!("begin; {sql}; update lists set total = {nth} where id = 1; commit");
    let written = tokio::spawn(async move { writer.run(&sql).await });
    let mut longest = Duration::ZERO;
    loop {
        let asked = Instant::now();
        client.call("heartbeat", json!({})).await.unwrap();
        longest = longest.max(asked.elapsed());
        let now = state(&client.replica);
        if now == after {
            break;
        }
        assert_eq!(now, before, "a part of a transaction");
    }
    written.await.unwrap();
    world.settled(client).await;
    longest
}

/// Rows that come, move, get other keys and go, each by one statement, whose tombstones come behind all of its rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_passes_through_without_a_query() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1), todos(2), lists()]).await;
    world.settled(&mut client).await;
    let insert = format!("insert into todos select i, 1, repeat('t', 100) from generate_series(1, {ROWS}) i");
    let statements = [
        (&*insert, (ROWS, 0)),
        ("update todos set title = 'changed' || title", (ROWS, 0)),
        ("update todos set list_id = 2", (0, ROWS)),
        ("update todos set id = id + 1000000", (0, ROWS)),
        ("delete from todos", (0, 0)),
    ];
    let mut waits = Vec::new();
    for (nth, (sql, after)) in statements.into_iter().enumerate() {
        waits.push(run(&world, &mut client, sql, nth + 1, after).await);
    }
    println!("the longest waits for a reply to a heartbeat: {waits:?}");
    until_metric(&node, "lockstep_passed_transactions_total", |n| n == 5.0).await;
    until_metric(&node, "lockstep_passed_fallen_total", |n| n == 0.0).await;
    // What was changed where it is, and then moved: how it ends is not known when its tombstones come.
    let sql = format!(
        "{insert}; update todos set title = 'again' where id % 2 = 0; delete from todos where id % 2 = 0"
    );
    run(&world, &mut client, &sql, 6, (ROWS / 2, 0)).await;
    until_metric(&node, "lockstep_passed_fallen_total", |n| n == 1.0).await;
}

async fn rows_of(client: &mut Client, rows: usize) {
    client.until(|r| r.rows_of("0").is_some_and(|held| held.len() == rows)).await.unwrap();
}

/// A client that does not read is not waited for: it is caught up past the transaction when it reads again.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_caught_up_past_a_large_transaction() {
    /// About 60 MB that are hardly smaller when they are deflated.
    const DENSE: &str = "insert into todos select i, 1, 't', false, \
        (select string_agg(encode(sha512((i || ' ' || j)::bytea), 'base64'), '') from generate_series(1, 22) j) \
        from generate_series(1, 30000) i";
    let world = World::new().await;
    let node: Node = world.node().await;
    let (mut slow, mut client) = (node.join([todos(1)]).await, node.join([todos(1), lists()]).await);
    world.settled(&mut slow).await;
    world.settled(&mut client).await;
    let writer = world.connect().await;
    let written = tokio::spawn(async move { writer.run(DENSE).await });
    rows_of(&mut client, 30_000).await;
    written.await.unwrap();
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="passed_bytes"}"#, |n| n >= 1.0).await;
    rows_of(&mut slow, 30_000).await;
    world.settled(&mut slow).await;
    world.settled(&mut client).await;
}
