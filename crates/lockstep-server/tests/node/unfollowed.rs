//! A table that cannot be followed is withdrawn and named: a stream that leaves something out does not say so.

use crate::world::{Node, World, lists, todos};
use lockstep_client::Client;
use lockstep_pg::install::{self, InstallOptions, Outcome, Patience, TrackRequest};
use serde_json::{Value as Json, json};

async fn install_again(world: &mut World) -> Outcome {
    install::install(&mut world.sql.client, &InstallOptions::default()).await.unwrap()
}

async fn track(world: &mut World, table: &str, scope: Option<&str>) {
    let scopes = scope.into_iter().map(|s| vec![s.to_owned()]).collect();
    let request = TrackRequest { table: table.into(), scopes, ..TrackRequest::default() };
    install::track(&mut world.sql.client, &request, &Patience::default()).await.unwrap();
}

/// A client that holds something of `shape`.
async fn holder(world: &World, node: &Node, shape: Json) -> Client {
    let mut client = node.join([lists(), shape]).await;
    world.settled(&mut client).await;
    client
}

/// The shape is taken from a client that holds it, and one that comes is not given it.
async fn withdrawn(node: &Node, client: &mut Client, what: &str) {
    if let Err(error) = client.until(|r| r.rows_of("1").is_none()).await {
        panic!("{what}: {error} {:#?}", node.log());
    }
    let shape = client.replica.wanted[1].definition.clone();
    let mut late = node.join([lists(), shape]).await;
    late.commit().await.unwrap();
    assert_eq!(late.replica.rows_of("1"), None, "{what}");
}

/// Nothing is named any more, and whoever comes is served.
async fn served(world: &World, node: &Node, shape: Json) {
    node.until("live").await;
    node.until_no_problem().await;
    let mut client = holder(world, node, shape).await;
    world.sql.run("update lists set total = total + 1; update todos set title = title || '!'").await;
    world.settled(&mut client).await;
}

/// Before 18 the stream ends with an error at the next change, and the next stream lives until the next one; from 18 on it
/// goes on without what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_gone_is_named_and_made_again() {
    let mut world = World::new().await;
    let node = world.node().await;
    for name in ["lockstep_tombstones", "lockstep_tables"] {
        let mut client = holder(&world, &node, todos(1)).await;
        world.sql.run(&format!("drop publication {name}; insert into todos values (1, 1, 'a')")).await;
        withdrawn(&node, &mut client, name).await;
        node.until_problem("run `lockstep install`, and `lockstep track` for each table again").await;
        assert_eq!(install_again(&mut world).await, Outcome::Changed);
        // Its tables are not back yet.
        node.until_problem("public.lists, public.todos, public.notes; `lockstep doctor` says why").await;
        for (table, scope) in [("lists", None), ("todos", Some("list_id")), ("notes", Some("list_id"))] {
            track(&mut world, table, scope).await;
        }
        served(&world, &node, todos(1)).await;
        world.sql.run("delete from todos").await;
    }
}

/// What is left out of the publications never comes, and nothing in the stream tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_leaves_something_out_is_named() {
    let mut world = World::new().await;
    world.sql.run("insert into todos values (1, 1, 'a'), (2, 1, 'b')").await;
    let node = world.node().await;
    let (whole, of_table) = ("run `lockstep install`", "public.todos; `lockstep doctor` says why");
    let mut breakages = vec![
        ("alter publication lockstep_tables set (publish = 'insert, delete, truncate')", whole),
        ("alter publication lockstep_tombstones set (publish = 'delete')", whole),
    ];
    if world.cluster.major() >= 15 {
        breakages.extend([
            (
                "alter publication lockstep_tables drop table todos; \
                 alter publication lockstep_tables add table todos where (id > 1)",
                of_table,
            ),
            (
                "alter publication lockstep_tables drop table todos; \
                 alter publication lockstep_tables add table todos (id, list_id)",
                of_table,
            ),
        ]);
    }
    for (breakage, words) in breakages {
        let mut client = holder(&world, &node, todos(1)).await;
        world.sql.run(&format!("{breakage}; update todos set title = 'unseen'")).await;
        withdrawn(&node, &mut client, breakage).await;
        node.until_problem(words).await;
        install_again(&mut world).await;
        track(&mut world, "todos", Some("list_id")).await;
        served(&world, &node, todos(1)).await;
    }
}

/// Between two looks at the catalog nothing may be lost either.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_out_for_a_moment_is_loaded_anew() {
    let world = World::new().await;
    world.sql.run("insert into todos values (1, 1, 'a'), (2, 1, 'b')").await;
    let node = world.node().await;
    let mut client = holder(&world, &node, todos(1)).await;
    world
        .sql
        .run("alter publication lockstep_tables set (publish = 'insert'); update todos set title = 'unseen'")
        .await;
    world
        .sql
        .run("alter publication lockstep_tables set (publish = 'insert, update, delete, truncate')")
        .await;
    // A look may have come between: then the shape was withdrawn, and is asked for again.
    client
        .until(|r| r.rows_of("1").is_none() || r.column("1", "title") == ["unseen", "unseen"])
        .await
        .unwrap();
    served(&world, &node, todos(1)).await;
}

/// Acknowledgements travel with the rows of that table.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_without_acknowledgements_is_named() {
    let mut world = World::new().await;
    let node = world.node().await;
    let mut client = holder(&world, &node, todos(1)).await;
    world.sql.run("alter publication lockstep_tables drop table lockstep.clients").await;
    node.until_problem("clients' writes stay pending; run `lockstep install`").await;
    assert_eq!(install_again(&mut world).await, Outcome::Changed);
    node.until_no_problem().await;
    let insert = json!({"op": "insert", "table": "todos", "values": {"id": 1, "list_id": 1, "title": "a"}});
    client.mutate("m1", vec![insert]).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut client).await;
}

/// What is written into an unlogged partition is in no WAL; what is deleted from one whose identity is another index is
/// named by that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_partition_that_the_stream_cannot_tell_is_named() {
    let mut world = World::new().await;
    world
        .sql
        .run(
            "create table parts (id int, list_id int, v text, primary key (id, list_id)) partition by range (id);
             create table parts_1 partition of parts for values from (0) to (10);
             create unique index other on parts_1 (list_id, id);
             insert into parts values (1, 1, 'a')",
        )
        .await;
    track(&mut world, "parts", Some("list_id")).await;
    let node = world.node().await;
    let shape = json!({"table": "parts", "scope": {"list_id": 1}});
    for (breakage, mend) in [
        ("alter table parts_1 set unlogged", "alter table parts_1 set logged"),
        (
            "alter table parts_1 replica identity using index other",
            "alter table parts_1 replica identity default",
        ),
        (
            "create unlogged table parts_2 partition of parts for values from (10) to (20)",
            "alter table parts_2 set logged",
        ),
    ] {
        let mut client = holder(&world, &node, shape.clone()).await;
        world.sql.run(&format!("{breakage}; update parts set v = 'unseen'")).await;
        withdrawn(&node, &mut client, breakage).await;
        node.until_problem("public.parts; `lockstep doctor` says why").await;
        world.sql.run(mend).await;
        served(&world, &node, shape.clone()).await;
    }
}
