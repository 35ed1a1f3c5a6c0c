//! Coming back: to the same node, to another one, after everything was killed; and when that is impossible.

use crate::world::{World, lists, notes, todos};
use lockstep_client::Replica;

#[tokio::test(flavor = "multi_thread")]
async fn on_another_node_after_the_first_was_killed() {
    let world = World::new().await;
    let first = world.node().await;
    world
        .sql
        .run("insert into todos select i, 1 + i % 2, 'title ' || i from generate_series(1, 100) i")
        .await;
    let mut client = first.join([todos(1), todos(2), lists()]).await;
    world.settled(&mut client).await;
    first.kill();
    let away = client.crash();
    world.sql.until("select count(*) from pg_replication_slots", "0").await;
    world
        .sql
        .run(
            "delete from todos where id = 1; update todos set title = 'x' where id in (2, 3); \
        update todos set list_id = 3 - list_id where id = 4; insert into todos values (200, 1, 'new'); \
        update todos set title = 'again' where id = 2",
        )
        .await;
    let second = world.node().await;
    let mut resumed = second.resume(away).await;
    let commit = resumed.commit().await.unwrap();
    // 1 removed; 2 and 3 changed; 4 removed from one shape and put into the other; 200 new: exactly these.
    assert_eq!((commit.resets.len(), commit.rows), (0, 6), "{commit:?}");
    world.settled(&mut resumed).await;
}

/// Sessions stay connected when the stream breaks or PostgreSQL restarts, and miss nothing.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_survive_a_broken_stream_and_a_restart() {
    let mut world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1), lists()]).await;
    world.settled(&mut client).await;
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    world
        .sql
        .run(
            "select pg_terminate_backend(pid) from pg_stat_replication; \
        begin; insert into todos values (2, 1, 'b'); update lists set total = 2 where id = 1; commit",
        )
        .await;
    let mut resets = client.until(|r| r.column("0", "title") == ["a", "b"]).await.unwrap();
    world.settled(&mut client).await;
    for mode in [lockstep_pg::cluster::StopMode::Fast, lockstep_pg::cluster::StopMode::Immediate] {
        tokio::task::block_in_place(|| world.cluster.restart(mode)).unwrap();
        world.sql = world.connect().await;
        world.sql.run("update todos set title = title || '!'").await;
        let title = world.sql.one("select min(title) from todos").await;
        resets.extend(client.until(|r| r.column("0", "title").first() == Some(&title)).await.unwrap());
        world.settled(&mut client).await;
    }
    let loaded: Vec<_> = resets.iter().flat_map(|c| &c.resets).filter(|(_, why)| why != "first").collect();
    assert!(loaded.is_empty(), "caught up, never loaded anew: {loaded:?}");
}

async fn refused(world: &World, away: &Replica, sql: &str) -> Vec<String> {
    world.sql.run(sql).await;
    let node = world.node().await;
    let mut client = node.resume(away.clone()).await;
    let commit = client.commit().await.unwrap();
    world.settled(&mut client).await;
    commit.resets.into_iter().map(|(_, why)| why).collect()
}

/// Every refusal is a full load with its reason, and ends in the right rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_cannot_be_resumed_is_told_why() {
    let world = World::new().await;
    world.sql.run("insert into todos values (1, 1, 'a'); insert into notes values (1, 1)").await;
    let node = world.node().await;
    let mut client = node.join([todos(1), notes(1)]).await;
    world.settled(&mut client).await;
    let good = client.crash();
    drop(node);

    let mut bad = good.clone();
    bad.cursor = Some("9~nonsense".into());
    assert_eq!(refused(&world, &bad, "").await, ["bad_cursor", "bad_cursor"]);
    let mut none = good.clone();
    none.cursor = None;
    assert_eq!(refused(&world, &none, "").await, ["no_cursor", "no_cursor"]);
    let with = |field: usize, value: &str| {
        let mut changed = good.clone();
        let cursor = good.cursor.clone().unwrap();
        let mut fields: Vec<&str> = cursor.split('~').collect();
        fields[field] = value;
        changed.cursor = Some(fields.join("~"));
        changed
    };
    assert_eq!(refused(&world, &with(1, "12345"), "").await, ["other_database", "other_database"]);
    assert_eq!(refused(&world, &with(2, "7"), "").await, ["other_timeline", "other_timeline"]);
    assert_eq!(refused(&world, &with(5, "F/0"), "").await, ["future", "future"]);
    assert_eq!(refused(&world, &with(7, ""), "").await, ["not_in_cursor", "not_in_cursor"]);
    let horizon = "update lockstep.tracked set horizon = pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1 \
        where relation = 'notes'::regclass";
    assert_eq!(refused(&world, &good, horizon).await, ["horizon"]);
    let generation =
        "update lockstep.tracked set generation = generation + 1 where relation = 'notes'::regclass";
    assert_eq!(refused(&world, &good, generation).await, ["not_logged"], "the table was tracked anew");
    // What a database looks like that was rolled back to before the cursor and has moved past it since.
    let life = "insert into lockstep.incarnations (mark, server_started_at, at_lsn) \
        select 5, 'epoch', max(at_lsn) + 1 from lockstep.incarnations";
    assert_eq!(refused(&world, &good, life).await, ["rolled_back", "not_logged"]);
    assert_eq!(
        refused(&world, &good, "delete from lockstep.incarnations").await,
        ["rolled_back", "not_logged"]
    );
}

/// A table tracked, or changed, while the node runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_reloads_its_table_and_no_other() {
    let world = World::new().await;
    world.sql.run("insert into todos values (1, 1, 'a'); insert into lists values (9, 'nine')").await;
    let node = world.node().await;
    let mut client = node.join([todos(1), lists()]).await;
    world.settled(&mut client).await;
    world.sql.run("alter table todos add column extra int not null default 5").await;
    let commits =
        client.until(|r| r.rows_of("0").is_some_and(|rows| rows["[1]"].contains_key("extra"))).await.unwrap();
    let resets: Vec<_> = commits.into_iter().flat_map(|c| c.resets).collect();
    assert_eq!(resets, [], "an added column is a change");
    assert_eq!(client.replica.column("0", "extra"), ["5"]);
    world.sql.run("alter table todos drop extra; alter table todos add extra int").await;
    let mut resets = Vec::new();
    while resets.is_empty() {
        resets = client.commit().await.unwrap().resets;
    }
    assert_eq!(resets, [("0".to_owned(), "schema_changed".to_owned())]);
    world
        .sql
        .run("begin; update todos set extra = 6; update lists set name = 'x' where id = 9; commit")
        .await;
    world.settled(&mut client).await;
}
