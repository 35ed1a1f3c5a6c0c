//! What keeps a node from being fed: a word, a sentence that says what to do, and the node goes on when it is done.

use crate::promotion::standby;
use crate::world::{Node, Sql, World, connect, lists, todos};
use lockstep_pg::cluster::StopMode;
use lockstep_pg::install::{self, InstallOptions};
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits until `/health` has this code; its sentence.
async fn until_code(node: &Node, code: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let health = node.health().await;
        if health["code"] == code {
            return health["problem"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "{health}, not {code}: {:#?}", node.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One node, started before anything is right.
#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_has_a_word_and_says_what_mends_it() {
    let mut world = World::new().await;
    let port = world.cluster.port();
    tokio::task::block_in_place(|| world.cluster.stop(StopMode::Fast)).unwrap();
    let node = Node::start(&format!("postgres://app:hunter2@127.0.0.1:{port}/notyet"));
    let said = until_code(&node, "unreachable").await;
    assert!(said.contains("refused") && said.contains("is PostgreSQL running"), "{said}");
    assert_eq!(node.health().await["status"], "starting");
    tokio::task::block_in_place(|| world.cluster.start_again()).unwrap();
    world.sql = world.connect().await;
    let said = until_code(&node, "login").await;
    assert!(said.contains("check user and password"), "{said}");
    world.sql.run("create role app login superuser password 'hunter2'").await;
    let said = until_code(&node, "no_database").await;
    assert!(said.contains("create the database"), "{said}");
    world.sql.run("create database notyet").await;
    let said = until_code(&node, "not_installed").await;
    assert!(said.contains("run `lockstep install`"), "{said}");
    let url = format!("postgres://app:hunter2@127.0.0.1:{port}/notyet");
    let mut other = connect(&url).await;
    install::install(&mut other, &InstallOptions::default()).await.unwrap();
    node.until("live").await;
    let health = node.health().await;
    assert_eq!((&health["code"], &health["problem"]), (&json!(null), &json!(null)));
    let warned = node.log().into_iter().filter(|l| l.contains("WARN")).count();
    assert!((4..=6).contains(&warned), "each is said once: {:#?}", node.log());
    assert!(!node.log().iter().any(|l| l.contains("hunter2")), "{:#?}", node.log());
}

/// Settings that keep the stream away: clients are served by polling meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_give_a_stream_is_polled_and_named() {
    for (setting, value, code, says) in [
        ("wal_level", "replica", "wal_level", "set wal_level = logical in postgresql.conf and restart"),
        ("max_replication_slots", "0", "slots", "raise max_replication_slots"),
        ("max_wal_senders", "0", "connections", "max_wal_senders"),
    ] {
        let world = World::with(|b| b.setting(setting, value)).await;
        let node = world.node_starting();
        let said = until_code(&node, code).await;
        assert!(said.contains(says), "{said}");
        let mut client = node.join([todos(1)]).await;
        world.sql.run("insert into todos values (1, 1, 'a')").await;
        world.settled(&mut client).await;
        assert_eq!(node.health().await["feed"], "polling");
    }
    let world = World::new().await;
    let node = Node::start(&world.polling_url().await);
    let said = until_code(&node, "rights").await;
    assert!(said.contains("alter role … replication"), "{said}");
}

/// A node that is given a standby waits for a primary, or for the standby to become one.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_named_and_waited_for() {
    let mut world = World::new().await;
    let (standby, _folder) = standby(&mut world).await;
    let lost = Node::start(&standby.url());
    let said = until_code(&lost, "read_only").await;
    assert!(said.contains("name the primary"), "{said}");
    assert!(lost.request("GET /ready HTTP/1.0").await.starts_with("HTTP/1.0 503"));

    tokio::task::block_in_place(|| world.cluster.stop(StopMode::Fast)).unwrap();
    world.sql = Sql { client: connect(&standby.url()).await };
    world.sql.run("select pg_promote()").await;
    lost.until("live").await;
    assert_eq!(lost.health().await["code"], json!(null));
    let mut client = lost.join([lists()]).await;
    world.sql.run("update lists set total = 1").await;
    world.settled(&mut client).await;
}

/// While it runs: clients stay connected, and nothing that was accepted is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_and_a_publication_that_is_dropped() {
    let mut world = World::new().await;
    world.sql.run("create role app login superuser password 'first'").await;
    let node = Node::start(&format!("postgres://app:first@127.0.0.1:{}/postgres", world.cluster.port()));
    node.until("live").await;
    let mut client = node.join([lists(), todos(1)]).await;
    world.settled(&mut client).await;
    let insert = json!({"op": "insert", "table": "todos", "values": {"id": 1, "list_id": 1, "title": "a"}});
    client.mutate("m1", vec![insert]).await.unwrap();
    world
        .sql
        .run("alter role app password 'second'; select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'")
        .await;
    until_code(&node, "login").await;
    world.sql.run("alter role app password 'first'; insert into todos values (2, 1, 'b')").await;
    client.until(|r| r.outbox.is_empty() && r.column("1", "title") == ["a", "b"]).await.unwrap();
    world.sql.run("drop publication lockstep_tables; update lists set total = 1").await;
    let said = until_code(&node, "not_followed").await;
    assert!(said.contains("run `lockstep install`"), "{said}");
    install::install(&mut world.sql.client, &InstallOptions::default()).await.unwrap();
    for (table, scope) in [("lists", None), ("todos", Some("list_id")), ("notes", Some("list_id"))] {
        let scopes = scope.into_iter().map(|s| vec![s.to_owned()]).collect();
        let request =
            install::TrackRequest { table: table.into(), scopes, ..install::TrackRequest::default() };
        install::track(&mut world.sql.client, &request, &install::Patience::default()).await.unwrap();
    }
    node.until_no_problem().await;
    let mut back = node.resume(client.crash()).await;
    world.settled(&mut back).await;
}

/// docs/operation.md lists every word, and no other.
#[test]
fn the_words_are_those_of_the_page() {
    let file =
        |path: &str| std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let page = file("docs/operation.md");
    let table = page.split("| `code` |").nth(1).unwrap().split("\n\n").next().unwrap();
    let listed: BTreeSet<&str> =
        table.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let source = file("crates/lockstep-pg/src/error.rs");
    let function = source.split("pub fn code(").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let mut named: BTreeSet<&str> =
        function.split("=> \"").skip(1).filter_map(|t| t.split('"').next()).collect();
    named.insert("not_followed");
    assert_eq!(listed, named);
}

/// What a command cannot do is said in one line, with what to do, and without the password.
#[tokio::test(flavor = "multi_thread")]
async fn commands_say_what_to_do() {
    let world = World::new().await;
    world.sql.run("create database bare").await;
    let run = |arguments: &[&str], url: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        let output = command.args(arguments).env("LOCKSTEP_DATABASE_URL", url).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let (good, bare) = (world.cluster.url(), world.cluster.url_for("bare"));
    let wrong = good.replace(world.cluster.password(), "hunter2");
    let nowhere = "postgres://u:hunter2@127.0.0.1:1/x";
    for (arguments, url, says) in [
        (&["tail", "nothing"][..], good.as_str(), "nothing is not tracked; run `lockstep track nothing`"),
        (&["tail"], &bare, "run `lockstep install`"),
        (&["tail"], nowhere, "is PostgreSQL running"),
        (&["tail"], &wrong, "check user and password"),
        (&["track", "lists"], &bare, "lockstep install"),
        (&["track", "nothing"], &good, "nothing"),
        (&["track", "lists", "--scope", "colour"], &good, "colour"),
        (&["types"], &bare, "run `lockstep install`"),
        (&["gc"], &bare, "install"),
        (&["doctor"], nowhere, "is PostgreSQL running"),
        (&["install"], &wrong, "check user and password"),
        (&["status", "--node", "localhost:4000"], &good, "http://"),
    ] {
        let said = run(arguments, url);
        assert!(said.contains(says) && said.lines().count() <= 3, "{arguments:?}: {said}");
        assert!(!said.contains("hunter2") && !said.contains(world.cluster.password()), "{said}");
    }
}
