//! The join of catch-up and stream, while writers write.

use crate::world::{Node, Sql, World, lists, notes, todos};
use lockstep_client::{Client, Replica};
use lockstep_pg::install::{self, Patience, TrackRequest};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A small generator: the test's own, so that a seed means the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Transactions that keep `lists.total` equal to the number of the list's notes, with savepoints that are rolled
/// back, aborts, two-phase commits and mixed durability.
async fn write(sql: Sql, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut dice = Dice(seed);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let list = 1 + dice.roll(3);
        let durability = ["on", "off", "local"][dice.roll(3) as usize];
        let id = dice.roll(40) as i64 * 10 + seed as i64;
        let change = match dice.roll(4) {
            0 => format!("delete from notes where id = {id}"),
            1 => format!("update notes set list_id = {list} where id = {id}"),
            2 => format!(
                "update notes set v = v + 1 where id = {id}; savepoint s; delete from notes where id = {id}; rollback to s"
            ),
            _ => format!(
                "insert into notes values ({id}, {list}) on conflict (id) do update set list_id = excluded.list_id"
            ),
        };
        let end = match dice.roll(10) {
            0 => "rollback".to_owned(),
            1 => format!("prepare transaction 'w{seed}'"),
            _ => "commit".to_owned(),
        };
        // The lock on the lists makes the sums right under concurrency.
        sql.run(&format!(
            "begin; set local synchronous_commit = {durability}; select from lists order by id for update; {change}; \
             update lists set total = (select count(*) from notes where list_id = lists.id) \
             where total <> (select count(*) from notes where list_id = lists.id); {end}"
        ))
        .await;
        if end.starts_with("prepare") {
            sql.run(&format!("commit prepared 'w{seed}'")).await;
        }
        written += 1;
    }
    written
}

/// The shapes of a client are at one commit if each list's total is the number of its notes.
fn check(replica: &Replica) {
    for (reference, list) in [("0", 1), ("1", 2), ("2", 3)] {
        let (Some(notes), Some(lists)) = (replica.rows_of(reference), replica.rows_of("3")) else { continue };
        let total = lists[&format!("[{list}]")]["total"].as_u64();
        assert_eq!(Some(notes.len() as u64), total, "list {list}: a state that never was");
    }
}

async fn watch(node: &Node, client: &mut Client, commits: usize) {
    for _ in 0..commits {
        if let Err(error) = client.commit().await {
            panic!("{error}: {:#?}", node.log());
        }
        check(&client.replica);
    }
}

async fn write_and_join(world: &World, nodes: &[Node], rounds: usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for seed in 1..=4 {
        writers.push(tokio::spawn(write(world.connect().await, seed, stop.clone())));
    }
    let shapes = || [notes(1), notes(2), notes(3), lists()];
    let mut away: Vec<Replica> = Vec::new();
    let mut resumed = 0;
    for round in 0..rounds {
        let node = &nodes[round % nodes.len()];
        let mut client = if round % 2 == 1 && !away.is_empty() {
            let mut client = node.resume(away.remove(0)).await;
            let first = client.commit().await.expect("a commit");
            resumed += usize::from(first.resets.is_empty());
            check(&client.replica);
            client
        } else {
            node.join(shapes()).await
        };
        watch(node, &mut client, 3).await;
        away.push(client.crash());
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("the writer");
    }
    assert_eq!(resumed, rounds / 2, "every return was a resume");
    assert!(written > 100, "only {written} transactions");
    for replica in away {
        let mut client = nodes[0].resume(replica).await;
        world.settled(&mut client).await;
        check(&client.replica);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_resumes_under_writers_show_only_states_that_were() {
    let world = World::with(|b| b.setting("max_prepared_transactions", "10")).await;
    let nodes = [world.node_that_asks().await];
    write_and_join(&world, &nodes, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_returns_to_another_node() {
    let world = World::with(|b| b.setting("max_prepared_transactions", "10")).await;
    let nodes = [world.node().await, world.node().await];
    write_and_join(&world, &nodes, 40).await;
}

/// Nodes whose role may not replicate: polling alone must be as exact.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_by_polling_alone_at_two_nodes() {
    let world = World::with(|b| b.setting("max_prepared_transactions", "10")).await;
    let url = world.polling_url().await;
    let nodes = [Node::start(&url), Node::start(&url)];
    for node in &nodes {
        node.until("polling").await;
    }
    write_and_join(&world, &nodes, 12).await;
    for node in &nodes {
        assert_eq!(node.health().await["status"], "polling");
        assert_eq!(world.sql.one("select count(*) from pg_replication_slots").await, "0");
    }
}

/// A shape added while live appears in one commit, in step with those that are there.
#[tokio::test(flavor = "multi_thread")]
async fn a_shape_added_under_writers_is_in_step_at_once() {
    let world = World::with(|b| b.setting("max_prepared_transactions", "10")).await;
    let node = world.node().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(world.connect().await, 1, stop.clone()));
    for _ in 0..15 {
        let mut client = node.join([notes(1)]).await;
        client.commit().await.unwrap();
        for (reference, definition) in [("1", notes(2)), ("2", notes(3)), ("3", lists())] {
            let mut request = definition.clone();
            request["ref"] = reference.into();
            client.replica.wanted.push(lockstep_client::Wanted { reference: reference.into(), definition });
            client.call("subscribe", serde_json::json!({"shapes": [request]})).await.unwrap();
        }
        client
            .until(|r| {
                check(r);
                r.rows_of("3").is_some() && r.rows_of("1").is_some() && r.rows_of("2").is_some()
            })
            .await
            .unwrap();
        watch(&node, &mut client, 2).await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}

/// Slot creation waits for a writing transaction that is open anywhere in the cluster. Until then the node polls,
/// and the same holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_an_open_transaction_polls_and_then_streams() {
    let world = World::with(|b| b.setting("max_prepared_transactions", "10")).await;
    let open = world.connect().await;
    open.run("begin; insert into lists values (50, 'late')").await;
    let node = world.node_starting();
    node.until("polling").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(world.connect().await, 1, stop.clone()));
    let mut client = node.join([notes(1), notes(2), notes(3), lists()]).await;
    watch(&node, &mut client, 5).await;
    assert_eq!(node.health().await["status"], "polling");
    open.run("commit").await;
    node.until("live").await;
    watch(&node, &mut client, 5).await;
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    world.settled(&mut client).await;
    assert!(client.replica.column("3", "name").contains(&"late".to_owned()));
}

/// A sibling's slot is copied although a writing transaction is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_starts_behind_an_open_transaction() {
    let world = World::new().await;
    let _first = world.node().await;
    let open = world.connect().await;
    open.run("begin; insert into todos values (1, 1, 'open')").await;
    let second = world.node().await;
    let mut client = second.join([todos(1)]).await;
    world.settled(&mut client).await;
    open.run("commit").await;
    world.settled(&mut client).await;
    assert_eq!(client.replica.column("0", "title"), ["open"]);
}

/// A domain, an enum or a date as a scope: compared as its base type is, and a value that is none of them is refused
/// before it fails everybody's catch-up.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_of_domains_enums_and_dates() {
    let mut world = World::new().await;
    world
        .sql
        .run(
            "create type mood as enum ('so so', 'ok'); create domain gloom as mood; create domain tenant as int check (value > 0);
             create domain tenant_of as tenant;
             create table d (id int primary key, t tenant_of, g gloom, day date);
             insert into d values (1, 7, 'so so', '2024-02-29'), (2, 8, 'ok', '2024-02-28')",
        )
        .await;
    let scopes = ["t", "g", "day"].map(|s| vec![s.to_owned()]).to_vec();
    let request = TrackRequest { table: "d".into(), scopes, ..TrackRequest::default() };
    install::track(&mut world.sql.client, &request, &Patience::default()).await.unwrap();
    let node = world.node().await;
    let mut other = node.join([lists()]).await;
    other.commit().await.unwrap();
    let shape = |column: &str, value: serde_json::Value| json!({"table": "d", "scope": {column: value}});
    let good = [shape("t", json!("07")), shape("g", json!("so so")), shape("day", json!("2024-02-29"))];
    let mut live = node.join([]).await;
    for (i, mut shape) in good.into_iter().enumerate() {
        shape["ref"] = i.to_string().into();
        let answer = live.call("subscribe", json!({"shapes": [shape.clone()]})).await.unwrap();
        assert_eq!(answer["shapes"][0]["ok"], true, "{answer}");
        live.replica.wanted.push(lockstep_client::Wanted { reference: i.to_string(), definition: shape });
    }
    live.until(|r| (0..3).all(|i| r.column(&i.to_string(), "id") == ["1"])).await.unwrap();
    world.sql.run("update d set t = 7, g = 'so so', day = '2024-02-29'").await;
    live.until(|r| (0..3).all(|i| r.column(&i.to_string(), "id") == ["1", "2"])).await.unwrap();
    world.sql.run("update d set t = 9, g = 'ok', day = '2024-03-01' where id = 1").await;
    live.until(|r| (0..3).all(|i| r.column(&i.to_string(), "id") == ["2"])).await.unwrap();
    for (column, value) in
        [("t", json!("x")), ("g", json!("none")), ("day", json!("2023-02-29")), ("day", json!("0000-01-01"))]
    {
        let mut bad = shape(column, value);
        bad["ref"] = "bad".into();
        let answer = live.call("subscribe", json!({"shapes": [bad]})).await.unwrap();
        assert_eq!(answer["shapes"][0]["error"]["code"], "bad_scope_value", "{answer}");
    }
    // No row can have it: the check of the domain is not a reason to fail.
    let mut none = shape("t", json!(-1));
    none["ref"] = "none".into();
    live.call("subscribe", json!({"shapes": [none]})).await.unwrap();
    live.until(|r| r.rows_of("none").is_some_and(|rows| rows.is_empty())).await.unwrap();
    assert_eq!(node.log().iter().filter(|l| l.contains("a catch-up failed")).count(), 0, "{:#?}", node.log());
}
