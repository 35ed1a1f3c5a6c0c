//! Live changes.

use crate::world::{World, lists, notes, todos};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_any_sql_client_arrives_as_one_commit() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([lists(), todos(1), notes(1)]).await;
    let first = client.commit().await.unwrap();
    assert_eq!(first.resets.len(), 3, "{first:?}");
    world
        .sql
        .run(
            "begin; insert into todos values (1, 1, 'a'); insert into notes values (1, 1, 7);
        update lists set total = 1 where id = 1; commit",
        )
        .await;
    let commit = client.commit().await.unwrap();
    assert_eq!((commit.rows, commit.resets.len()), (3, 0), "{commit:?}");
    world.settled(&mut client).await;
    world.sql.run("update todos set title = 'b', done = true; delete from notes").await;
    world.settled(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_move_between_scopes_and_keys_change() {
    let world = World::new().await;
    let node = world.node().await;
    let mut one = node.join([todos(1), lists()]).await;
    let mut two = node.join([todos(2), lists()]).await;
    for sql in [
        "insert into todos values (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
        "update todos set list_id = 2 where id = 1",
        "update todos set id = 10 where id = 2",
        "begin; update todos set id = -1 where id = 1; update todos set id = 1 where id = 3; \
         update todos set id = 3 where id = -1; commit",
        "update todos set list_id = 3 - list_id where list_id in (1, 2)",
        "update todos set list_id = null where id = 10",
        "delete from lists where id = 2",
    ] {
        world.sql.run(sql).await;
        world.settled(&mut one).await;
        world.settled(&mut two).await;
    }
}

/// `delete, insert` of one key streams D, I, tombstone; `insert, delete` streams I, D, tombstone. Applying
/// tombstones as changes, before or after the rows, gets one of the two wrong.
#[tokio::test(flavor = "multi_thread")]
async fn delete_and_insert_of_one_key_in_one_transaction() {
    let world = World::new().await;
    let node = world.node_that_asks().await;
    world.sql.run("insert into todos values (1, 1, 'old'), (2, 1, 'old')").await;
    let mut live = node.join([todos(1), todos(2)]).await;
    world.settled(&mut live).await;
    let away = live.replica.clone();

    world
        .sql
        .run(
            "with d as (delete from todos where id = 1) select; begin; delete from todos where id = 2; \
        insert into todos values (2, 1, 'new'); commit",
        )
        .await;
    world
        .sql
        .run("begin; insert into todos values (3, 1, 'ghost'); delete from todos where id = 3; commit")
        .await;
    world
        .sql
        .run("begin; delete from todos where id = 2; insert into todos values (2, 2, 'moved'); commit")
        .await;
    world
        .sql
        .run(
            "begin; insert into todos values (4, 1, 'x'); update todos set list_id = 2 where id = 4; \
        delete from todos where id = 4; insert into todos values (4, 1, 'y'); commit",
        )
        .await;
    world.settled(&mut live).await;
    assert_eq!(live.replica.column("0", "title"), ["y"]);
    assert_eq!(live.replica.column("1", "title"), ["moved"]);

    let mut resumed = node.resume(away).await;
    let commit = resumed.commit().await.unwrap();
    assert_eq!(commit.resets, [], "resumed, not loaded anew");
    world.settled(&mut resumed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_empties_a_shape_live_and_after_absence() {
    let world = World::new().await;
    let node = world.node().await;
    world.sql.run("insert into notes select i, 1 from generate_series(1, 10) i").await;
    let mut live = node.join([notes(1), lists()]).await;
    world.settled(&mut live).await;
    let away = live.replica.clone();
    world.sql.run("begin; truncate notes; insert into notes values (99, 1); commit").await;
    world.settled(&mut live).await;
    let mut resumed = node.resume(away).await;
    let commit = resumed.commit().await.unwrap();
    assert_eq!(commit.resets, [("0".to_owned(), "rewritten".to_owned())]);
    world.settled(&mut resumed).await;
}

/// A row that enters a shape by an update brings a large untouched value as "unchanged": it must be read again,
/// never shown as NULL, and everything else of that transaction must come with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_follows_its_row_into_another_scope() {
    let world = World::new().await;
    let node = world.node().await;
    world
        .sql
        .run(
            "alter table todos alter body set storage external; insert into todos values \
        (1, 1, 'a', false, repeat('x', 20000))",
        )
        .await;
    let mut one = node.join([todos(1), lists()]).await;
    let mut two = node.join([todos(2), lists()]).await;
    world.settled(&mut one).await;
    world.settled(&mut two).await;
    world.sql.run("update todos set title = 'b' where id = 1").await;
    world.settled(&mut one).await;
    world.sql.run("begin; update todos set list_id = 2 where id = 1; update lists set total = 5 where id = 2; commit")
        .await;
    world.settled(&mut one).await;
    world.settled(&mut two).await;
    assert_eq!(two.replica.rows_of("0").unwrap()["[1]"]["body"], json!("x".repeat(20000)));
    world.sql.run("update todos set id = 5 where id = 1").await;
    world.settled(&mut two).await;
}

/// All columns of every shape that a test compares come from one SELECT each, at one time: if two tables arrived
/// at different commits, `total` would not be the number of rows at some commit.
#[tokio::test(flavor = "multi_thread")]
async fn at_every_commit_two_tables_agree() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([notes(1), lists()]).await;
    let writer = world.connect().await;
    let writing = tokio::spawn(async move {
        for i in 1..=200 {
            writer
                .run(&format!("begin; insert into notes values ({i}, 1); update lists set total = total + 1 where id = 1; commit"))
                .await;
        }
    });
    let mut states = 0;
    client
        .until(|replica| {
            let rows = replica.rows_of("0").map_or(0, |r| r.len());
            let total = replica.rows_of("1").and_then(|r| r["[1]"]["total"].as_u64()).unwrap_or(0);
            assert_eq!(rows as u64, total, "a state that never was");
            states += 1;
            total == 200
        })
        .await
        .unwrap();
    writing.await.unwrap();
    assert!(states > 20, "only {states} states seen");
}
