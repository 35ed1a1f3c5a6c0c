//! Shapes with a `where`: what a client holds is what the same SELECT says, live and after a return.

use crate::world::{World, notes, todos};
use lockstep_client::Client;
use serde_json::{Value as Json, json};

fn filtered(mut shape: Json, predicate: &str) -> Json {
    shape["where"] = predicate.into();
    shape
}

fn shapes() -> Vec<Json> {
    let mut prefix = filtered(todos(2), "title like $1 and body is not null");
    prefix["params"] = json!(["t1%"]);
    let mut narrow = filtered(todos(2), "done is not true and id between 10 and 40");
    narrow["columns"] = json!(["id", "list_id", "title", "done", "body"]);
    vec![
        filtered(todos(1), "done"),
        filtered(todos(1), "not done or title = 'kept'"),
        todos(1),
        prefix,
        narrow,
        filtered(notes(1), "v in (1, 2, 3)"),
        filtered(notes(1), "v > 2"),
        filtered(notes(2), "v = 1"),
        filtered(json!({"table": "lists", "scope": null}), "total >= 2"),
        filtered(json!({"table": "lists", "scope": null}), "name = 'list 1'"),
    ]
}

/// One random statement; some rows have values that are stored out of line.
fn statement(dice: &mut impl FnMut(u64) -> u64) -> String {
    let (id, list, v) = (dice(50), 1 + dice(2), dice(5));
    match dice(10) {
        0 => format!(
            "insert into todos values ({id}, {list}, 't{v}', {}, null) on conflict (id) do update set done = not todos.done",
            v > 2
        ),
        1 => format!("update todos set done = not done where id % 5 = {v}"),
        2 => format!("update todos set list_id = {list}, title = 'kept' where id = {id}"),
        3 => format!("delete from todos where id = {id}"),
        4 => format!(
            "update todos set body = (select string_agg(md5(i::text || '{id}'), '') from generate_series(1, 400) i) where id = {id}"
        ),
        5 => format!("insert into notes values ({id}, {list}, {v}) on conflict (id) do update set v = {v}"),
        6 => format!("update notes set v = (v + 1) % 5, list_id = {list} where id % 4 = {}", id % 4),
        7 => format!(
            "begin; delete from notes where id = {id}; insert into notes values ({id}, {list}, {v}); update notes set v = v + 1 where id = {id}; commit"
        ),
        8 => format!("update lists set total = {v}, name = 'list {}' where id = {list}", dice(3)),
        _ => format!(
            "begin; update notes set id = id + 1000 where id = {id}; update notes set id = id - 1000 where id = {id} + 1000; update todos set title = 't1{v}' where id = {id}; commit"
        ),
    }
}

async fn watched(identity: &str) {
    let world = World::new().await;
    world.sql.run(&format!("alter table todos replica identity {identity}; alter table notes replica identity {identity}; alter table lists replica identity {identity}")).await;
    world
        .sql
        .run("insert into todos select i, 1 + i % 2, 't' || i, i % 3 = 0, null from generate_series(1, 45) i")
        .await;
    let nodes = [world.node_that_asks().await, world.node().await];
    let mut state = 11_u64;
    let mut dice = move |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let mut live = nodes[0].join(shapes()).await;
    let mut away: Option<Client> = Some(nodes[1].join(shapes()).await);
    world.settled(&mut live).await;
    world.settled(away.as_mut().expect("joined")).await;
    for round in 0..60 {
        for _ in 0..4 {
            world.sql.run(&statement(&mut dice)).await;
        }
        world.settled(&mut live).await;
        if round % 6 == 5 {
            // Another client was away for a while, and resumes on the other node.
            let replica = away.take().expect("it comes back each time").crash();
            let mut client = nodes[round / 6 % 2].resume(replica).await;
            let first = client.commit().await.expect("a commit");
            assert!(first.resets.is_empty(), "a resume, with no shape loaded anew: {:?}", first.resets);
            world.settled(&mut client).await;
            away = Some(client);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_shape_is_what_select_says() {
    watched("default").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_the_stream_has_old_rows() {
    watched("full").await;
}

/// With the old row in the stream, nothing is said of rows that a client never held.
#[tokio::test(flavor = "multi_thread")]
async fn what_never_passed_is_not_told() {
    let world = World::new().await;
    world
        .sql
        .run("alter table notes replica identity full; insert into notes values (1, 1, 0), (2, 1, 7)")
        .await;
    let node = world.node().await;
    let mut client = node.join([filtered(notes(1), "v > 5")]).await;
    world.settled(&mut client).await;
    world.sql.run("update notes set v = 1 where id = 1").await;
    world.sql.run("insert into notes values (3, 1, 2)").await;
    world.sql.run("update notes set v = 8 where id = 2").await;
    let commit = client.commit().await.expect("a commit");
    assert_eq!(commit.rows, 1, "the first commit is of the row that passes");
}
