//! Large first loads and catch-ups: in chunks, bounded in memory, shown at once.

use crate::proxy::Proxy;
use crate::world::{Node, World, lists, todos};
use lockstep_client::{Client, Heard, Wanted};
use serde_json::{Value as Json, json};

/// About 40 MB in one list: more than is held for an answer.
const MANY: &str = "insert into todos select i, 1, repeat('t', 300), i % 3 = 0, E'a \"body\"\\n\\\\' || repeat('b', 1600) \
    from generate_series(1, 20000) i";

/// As much, and hardly smaller when it is deflated: more than fits between PostgreSQL and a client that does not read.
const DENSE: &str = "insert into todos select i, 1, 't', false, \
    (select string_agg(encode(sha512((i || ' ' || j)::bytea), 'base64'), '') from generate_series(1, 22) j) \
    from generate_series(1, 20000) i";

/// Subscribes to list 1, as shape 1.
async fn subscribe(client: &mut Client) {
    let mut shape = todos(1);
    shape["ref"] = "1".into();
    client.replica.wanted.push(Wanted { reference: "1".into(), definition: todos(1) });
    client.call("subscribe", json!({"shapes": [shape]})).await.unwrap();
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
    let node = world.node_that_asks().await;
    let mut client = node.join([lists(), todos(1)]).await;
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
    assert_eq!(commit.rows, 20_003);
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
    assert_eq!((commit.resets.len(), commit.rows), (0, 10_200), "{:?}", commit.resets);
    world.settled(&mut client).await;
}

/// Its other shapes are live while a session loads.
#[tokio::test(flavor = "multi_thread")]
async fn while_one_shape_is_loaded_the_others_are_live() {
    let world = World::new().await;
    world.sql.run(MANY).await;
    let (proxy, node) = Proxy::node(&world, &[]).await;
    let mut client = node.join([lists()]).await;
    world.settled(&mut client).await;
    // The load begins, and cannot end before it is let.
    proxy.hold_after(4 << 20);
    subscribe(&mut client).await;
    until_aside(&mut client).await;
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
    proxy.release();
    client.until(|r| r.rows_of("1").is_some_and(|rows| rows.len() == 20_000)).await.unwrap();
    world.settled(&mut client).await;
}

/// What is not read waits in PostgreSQL, and nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_not_read_holds_up_a_bounded_number_of_bytes() {
    let world = World::new().await;
    world.sql.run(DENSE).await;
    let node = world.node().await;
    let (mut client, mut bystander) = (node.join([lists()]).await, node.join([lists()]).await);
    world.settled(&mut client).await;
    world.settled(&mut bystander).await;
    let before = resident_kb(node.pid());
    subscribe(&mut client).await;
    world.sql.until(WAITING_COPY, "1").await;
    for total in 1..=50 {
        world.sql.run(&format!("update lists set total = {total} where id = 1")).await;
        world.settled(&mut bystander).await;
    }
    let grown = resident_kb(node.pid()).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} kB for what one client does not read");
    // It has not come to its end.
    world.sql.until(WAITING_COPY, "1").await;
    client.until(|r| r.rows_of("1").is_some_and(|rows| rows.len() == 20_000)).await.unwrap();
    world.settled(&mut client).await;
}

/// What was sent of a reading that broke off is never shown, and all of it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_breaks_off_is_told_and_begins_anew() {
    let world = World::new().await;
    world.sql.run(DENSE).await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
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
    assert_eq!((forgotten, commit.rows), (2, 19_900));
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
        clients.push(node.join([todos(1)]).await);
    }
    let read = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            client.until(|r| r.rows_of("0").is_some_and(|rows| rows.len() == 20_000)).await.unwrap();
            client
        })
    });
    for client in read.collect::<Vec<_>>() {
        let mut client = client.await.unwrap();
        world.settled(&mut client).await;
    }
}

/// How many COPYs the server was asked for since `from` in its log.
fn copies(world: &World, from: u64) -> usize {
    let log = std::fs::read(world.cluster.log_path()).unwrap();
    let log = String::from_utf8_lossy(&log[usize::try_from(from).unwrap()..]).into_owned();
    log.lines().filter(|line| line.contains("statement: copy (")).count()
}

/// First loads and returns of many scopes of one table: few questions, and every row goes where it belongs.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_of_one_table_are_read_together() {
    const CLIENTS: i64 = 60;
    let world = World::with(|b| b.setting("log_statement", "all")).await;
    world
        .sql
        .run(
            "insert into lists select i, 'list' from generate_series(4, 60) i; \
             insert into todos select i, 1 + i % 60, 't' || i from generate_series(1, 600) i",
        )
        .await;
    let blocker = world.connect().await;
    let mut away: Vec<lockstep_client::Replica> =
        (1..=CLIENTS).map(|list| lockstep_client::Replica::new([todos(list), lists()])).collect();
    for round in 0..2 {
        let node = world.node().await;
        // Nothing can be read before all have come.
        blocker.run("begin; lock table todos in access exclusive mode").await;
        let from = std::fs::metadata(world.cluster.log_path()).unwrap().len();
        let mut clients = Vec::new();
        for replica in std::mem::take(&mut away) {
            clients.push(node.resume(replica).await);
        }
        blocker.run("rollback").await;
        for client in &mut clients {
            let commit = client.commit().await.unwrap();
            assert_eq!(commit.resets.len(), if round == 0 { 2 } else { 0 }, "{:?}", commit.resets);
            world.settled(client).await;
        }
        let copies = copies(&world, from);
        assert!(copies <= 12, "{copies} questions for {CLIENTS} clients");
        away = clients.into_iter().map(Client::crash).collect();
        node.kill();
        world
            .sql
            .run(
                "update todos set title = 'changed' where id % 3 = 0; delete from todos where id % 7 = 0; \
                 update todos set list_id = 1 + list_id % 60 where id % 5 = 0",
            )
            .await;
    }
}

/// What is too large to be held is read past, in chunks; the node goes on meanwhile, and shows all of it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_above_the_bound_stops_nobody() {
    const ROWS: usize = 120_000;
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1), lists()]).await;
    world.settled(&mut client).await;
    let before = resident_kb(node.pid());
    let writer = world.connect().await;
    let large = tokio::spawn(async move {
        let sql = "insert into todos select i, 1, repeat('t', 300) from generate_series(1, 120000) i";
        writer.run(&format!("begin; {sql}; update lists set total = 120000 where id = 1; commit")).await;
    });
    let mut most = 0;
    loop {
        client.call("heartbeat", json!({})).await.unwrap();
        most = most.max(resident_kb(node.pid()).saturating_sub(before));
        let rows = client.replica.rows_of("0").unwrap_or_default().len();
        let total = client.replica.column("1", "total");
        assert!((rows == 0) == (total == ["0", "0", "0"]), "{rows} rows, {total:?}: a part of a transaction");
        if rows == ROWS {
            break;
        }
        assert_eq!(rows, 0, "a part of a transaction");
    }
    large.await.unwrap();
    assert!(most < 96 << 10, "{most} kB for a transaction of 40 MB");
    world.settled(&mut client).await;
}

/// Joins and hears the first commit; how many rows were announced, and how many came.
async fn loaded(node: &Node, shape: Json) -> (Option<u64>, usize) {
    let mut client = node.join([shape]).await;
    let mut about = None;
    loop {
        let heard = client.hear("a commit").await.unwrap();
        if let Some((here, all)) = client.replica.progress().first() {
            assert!(about.is_some() || *here == 0, "it is told before the first rows");
            about = Some(*all);
        }
        if let Heard::Commit(commit) = heard {
            assert_eq!(client.replica.progress(), []);
            return (about, commit.rows);
        }
    }
}

/// What the planner says of each kind of load, where it can be believed, and nothing where it cannot.
#[tokio::test(flavor = "multi_thread")]
async fn how_large_a_load_is_is_told_before_its_rows() {
    let world = World::with(|b| b.setting("log_statement", "all").setting("autovacuum", "off")).await;
    world.sql.run(MANY).await;
    world.sql.run("insert into todos select i, 2, 'one of few' from generate_series(20001, 20100) i").await;
    world.sql.run("insert into lists select i, repeat('n', 60) from generate_series(4, 40000) i").await;
    let node = world.node().await;
    let near = |(about, rows): (Option<u64>, usize), factor: f64| {
        println!("{about:?} for {rows}");
        let share = about.expect("an estimate") as f64 / rows as f64;
        assert!((1.0 / factor..factor).contains(&share), "{about:?} for {rows}");
    };
    // Never analysed: the planner knows the size of the file, and nothing of who is in which list.
    near(loaded(&node, lists()).await, 4.0);
    assert_eq!(loaded(&node, todos(1)).await, (None, 20_000));
    world.sql.run("analyze lists; analyze todos").await;
    near(loaded(&node, lists()).await, 1.1);
    near(loaded(&node, todos(1)).await, 1.1);
    let mut done = todos(1);
    done["where"] = "done".into();
    near(loaded(&node, done).await, 1.3);
    // Small loads ask nothing, whatever the table's size.
    let asked = || {
        std::fs::read_to_string(world.cluster.log_path()).unwrap().matches("explain (format json)").count()
    };
    assert_eq!(asked(), 5);
    assert_eq!(loaded(&node, todos(2)).await, (None, 100));
    assert_eq!(asked(), 5);
}
