//! Large first loads and catch-ups: in chunks, bounded in memory, shown at once.

use crate::world::{Node, World, lists, todos};
use lockstep_client::{Client, Heard};
use serde_json::{Value as Json, json};

/// About 20 MB in one list: more than is held for an answer, and than waits for a socket.
const MANY: &str = "insert into todos select i, 1, repeat('t', 100), i % 3 = 0, E'a \"body\"\\n\\\\' || repeat('b', 200) \
    from generate_series(1, 60000) i";

/// Joins that nobody reads further than this.
async fn joined(node: &Node, shapes: impl IntoIterator<Item = Json>) -> Client {
    node.join(shapes).await
}

/// Hears until rows are set aside.
async fn until_aside(client: &mut Client) {
    while client.replica.aside() == 0 {
        client.hear("rows").await.unwrap();
    }
}

fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A COPY that waits for its client, which waits for a socket.
const WAITING_COPY: &str =
    "select count(*) from pg_stat_activity where query like 'copy (%' and wait_event = 'ClientWrite'";

#[tokio::test(flavor = "multi_thread")]
async fn a_large_load_goes_ahead_in_chunks_and_is_shown_at_once() {
    let world = World::new().await;
    world.sql.run(MANY).await;
    let node = world.node().await;
    let mut client = joined(&node, [lists(), todos(1)]).await;
    until_aside(&mut client).await;
    assert_eq!(client.replica.rows_of("1"), None, "before the commit nothing is shown");
    let mut most = 0;
    let commit = loop {
        if let Heard::Commit(commit) = client.hear("a commit").await.unwrap() {
            break commit;
        }
        most = most.max(client.replica.aside());
    };
    assert!(most > 100, "{most} frames");
    assert_eq!(commit.rows, 60_003);
    world.settled(&mut client).await;
    // A catch-up too, with rows that are gone.
    let away = client.crash();
    world
        .sql
        .run("update todos set title = 'changed' where id % 2 = 0; delete from todos where id % 100 = 1")
        .await;
    let mut client = node.resume(away).await;
    until_aside(&mut client).await;
    let commit = client.commit().await.unwrap();
    assert_eq!((commit.resets.len(), commit.rows), (0, 30_600), "{:?}", commit.resets);
    world.settled(&mut client).await;
}

/// Its other shapes are live while a session loads; a client that does not read holds up a bounded number of bytes.
#[tokio::test(flavor = "multi_thread")]
async fn while_one_shape_is_loaded_the_others_are_live() {
    let world = World::new().await;
    world.sql.run(MANY).await;
    let node = world.node().await;
    let mut client = joined(&node, [lists()]).await;
    world.settled(&mut client).await;
    let before = resident_kb(node.pid());
    let mut shape = todos(1);
    shape["ref"] = "1".into();
    client.replica.wanted.push(lockstep_client::Wanted { reference: "1".into(), definition: todos(1) });
    client.call("subscribe", json!({"shapes": [shape]})).await.unwrap();
    world.sql.until(WAITING_COPY, "1").await;
    let grown = resident_kb(node.pid()).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} kB for what one client does not read");
    world.sql.run("update lists set name = 'meanwhile'").await;
    let live = loop {
        match client.hear("the lists' rows").await.unwrap() {
            Heard::Commit(commit) => break commit,
            _ => assert_eq!(client.replica.rows_of("1"), None),
        }
    };
    assert_eq!(live.rows, 3, "the lists alone");
    assert!(client.replica.aside() > 0, "and the load goes on");
    assert_eq!(client.replica.rows_of("1"), None);
    client.until(|r| r.rows_of("1").is_some_and(|rows| rows.len() == 60_000)).await.unwrap();
    world.settled(&mut client).await;
}

/// What was sent of a reading that broke off is never shown, and all of it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_breaks_off_is_told_and_begins_anew() {
    let world = World::new().await;
    world.sql.run(MANY).await;
    let node = world.node().await;
    let mut client = joined(&node, [todos(1)]).await;
    world.sql.until(WAITING_COPY, "1").await;
    world
        .sql
        .run("delete from todos where id <= 100; select pg_terminate_backend(pid) from pg_stat_activity where query like 'copy (%'")
        .await;
    let (mut forgotten, mut aside) = (0, 0);
    let commit = loop {
        match client.hear("a commit").await.unwrap() {
            Heard::Commit(commit) => break commit,
            _ => {
                forgotten += usize::from(client.replica.aside() == 0 && aside > 1);
                aside = client.replica.aside();
            }
        }
    };
    // Once because it was forgotten, and once because the batch took it.
    assert_eq!((forgotten, commit.rows), (2, 59_900));
    world.settled(&mut client).await;
}

/// Identical first loads that are asked for while one waits are read once; each client gets all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_shared_by_those_who_wait_for_it() {
    let world = World::new().await;
    world.sql.run(MANY).await;
    let node = world.node().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(joined(&node, [todos(1)]).await);
    }
    let read = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            client.until(|r| r.rows_of("0").is_some_and(|rows| rows.len() == 60_000)).await.unwrap();
            client
        })
    });
    for client in read.collect::<Vec<_>>() {
        let mut client = client.await.unwrap();
        world.settled(&mut client).await;
    }
}
