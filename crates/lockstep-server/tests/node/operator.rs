//! What whoever runs a node reads: once, with what to do about it, and never a row or a password.

use crate::world::{Node, World, lists, todos};
use lockstep_pg::install::{self, InstallOptions};
use serde_json::json;
use std::process::Command;

fn said(node: &Node, words: &str) -> usize {
    node.log().iter().filter(|l| l.contains("WARN") && l.contains(words)).count()
}

/// Every mistake of the first day, mended while the node runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_said_once_and_waited_for() {
    let world = World::new().await;
    world.sql.run("create role app login superuser password 'right'").await;
    let port = world.sql.one("show port").await;
    let url = |database: &str| format!("postgres://app:hunter2@127.0.0.1:{port}/{database}");
    let node = Node::start(&url("notyet"));
    node.until_problem("check user and password").await;
    world.sql.run("alter role app password 'hunter2'").await;
    node.until_problem("create the database").await;
    assert_eq!(node.health().await["status"], "starting");
    let answer = node.request("GET /ready HTTP/1.0").await;
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    world.sql.run("create database notyet").await;
    node.until_problem("lockstep install").await;
    node.until_logged("lockstep install", 1).await;
    let mut other = crate::world::connect(&url("notyet")).await;
    install::install(&mut other, &InstallOptions::default()).await.unwrap();
    node.until("live").await;
    assert_eq!(said(&node, "lockstep install"), 1, "{:#?}", node.log());
    assert_eq!(node.health().await["problem"], json!(null));
    assert!(!node.log().iter().any(|l| l.contains("hunter2") || l.contains('\u{1b}')), "{:#?}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_from_one_that_polls() {
    let mut world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    world.settled(&mut client).await;
    tokio::task::block_in_place(|| world.cluster.stop(lockstep_pg::cluster::StopMode::Fast)).unwrap();
    node.until("unreachable").await;
    node.until_problem("refused").await;
    tokio::task::block_in_place(|| world.cluster.start_again()).unwrap();
    node.until("live").await;
    world.sql = world.connect().await;
    world.settled(&mut client).await;
}

/// No walsender to be had: clients are served by polling, and the operator knows why.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_may_not_replicate_polls_and_says_why() {
    let world = World::with(|b| b.setting("max_wal_senders", "0")).await;
    let node = world.node_starting();
    node.until_problem("max_wal_senders").await;
    let mut client = node.join([lists()]).await;
    for n in 0..20 {
        world.sql.run(&format!("update lists set total = {n}")).await;
        world.settled(&mut client).await;
    }
    assert_eq!(node.health().await["status"], "polling");
    assert_eq!(said(&node, "max_wal_senders"), 1, "{:#?}", node.log());
}

/// An application's triggers may say anything, to whom they like; the driver logs parameters when it may.
#[tokio::test(flavor = "multi_thread")]
async fn logs_hold_no_row_values() {
    let world = World::new().await;
    world
        .sql
        .run(
            "create function loud() returns trigger language plpgsql as $$ begin raise warning 'row %', new.title; \
             if new.id = 2 then raise exception 'row %', new.title using errcode = 'LS001'; end if; \
             if new.id = 3 then raise exception 'row %', new.title using errcode = '40001'; end if; \
             return new; end $$; create trigger loud before insert on todos for each row execute function loud()",
        )
        .await;
    let settings = [("LOCKSTEP_LOG", "trace"), ("LOCKSTEP_LOG_FORMAT", "json")];
    let node = Node::start_with(&world.cluster.url(), &settings);
    node.until("live").await;
    let mut client = node.join([json!({"table": "todos", "scope": {"list_id": 1}})]).await;
    for id in [1, 2] {
        let row = json!({"id": id, "list_id": 1, "title": "s3cr3t"});
        client.replica.push(format!("m{id}"), vec![json!({"op": "insert", "table": "todos", "values": row})]);
    }
    let payload = client.replica.mutate().unwrap();
    client.call("mutate", payload).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut client).await;
    let password = world.cluster.password();
    let leaks: Vec<_> =
        node.log().into_iter().filter(|l| l.contains("s3cr3t") || l.contains(password)).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    for line in node.log() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}

fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    let output = command.args(arguments).envs(environment.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_command_line_that_cannot_work_ends_at_once_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lockstep.toml");
    std::fs::write(&file, "database-url = \"postgres://u:hunter2@h/x\nlisten = 1").unwrap();
    let url = [("LOCKSTEP_DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/x")];
    for (arguments, environment, says) in [
        (vec!["serve", "--listen", &address], &url[..], "choose --listen"),
        (vec!["serve", "--listen", "127.0.0.1:0"], &[], "--database-url"),
        (vec!["serve", "--static", "/nowhere"], &url, "build the web app"),
        (vec!["serve", "--config", file.to_str().unwrap()], &[], "line 1"),
        (vec!["serve", "--listen", "0.0.0.0:0"], &url, "loopback"),
        (vec!["install"], &url, "Connection refused"),
        (vec!["serve"], &[("LOCKSTEP_DATABASE_URL", "postgres://u:hunter2@h/x?sslmode=on")], "verify-full"),
        (
            vec!["serve"],
            &[url[0], ("LOCKSTEP_REPLICATION_URL", "postgres://u:hunter2@h/x?x=1")],
            "--replication-url",
        ),
        (
            vec!["serve"],
            &[url[0], ("LOCKSTEP_WRITE_URL", "postgres://u:hunter2@h/x?schema=a")],
            "--write-url",
        ),
        (vec!["serve"], &[url[0], ("LOCKSTEP_LOG", "lots=of=noise")], "LOCKSTEP_LOG"),
    ] {
        let error = refused(&arguments, environment);
        assert!(error.contains(says) && !error.contains("hunter2"), "{arguments:?}: {error}");
    }
}

/// Text for people and one object for programs; the exit code says whether something has to be mended.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_wrong() {
    let world = World::new().await;
    let url = [("LOCKSTEP_DATABASE_URL", world.cluster.url())];
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        let output = command.arg("doctor").args(arguments).envs(url.iter().cloned()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("public.todos: about") && text.ends_with("0 to mend, 0 to know\n"), "{text}");
    world.sql.run("drop trigger lockstep_update on todos").await;
    let (code, text) = run(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("MEND [triggers]") && text.contains("→ lockstep track public.todos"), "{text}");
    let (code, text) = run(&["--json", "--nodes", "11"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["ok"], &json["nodes_allowed"]), (Some(1), &json!(false), &json!(20)));
    let codes: Vec<_> = json["findings"].as_array().unwrap().iter().map(|f| f["code"].clone()).collect();
    assert_eq!(codes, [json!("triggers"), json!("room")]);
    assert!(!text.contains(&world.cluster.password().to_owned()), "no password");
}

/// Every statement and every command of the page on installing, in its order, on a server as it comes.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_on_installing_works() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/install.md")).unwrap();
    let plain = lockstep_pg::cluster::Cluster::builder().setting("wal_level", "replica");
    let mut cluster = tokio::task::block_in_place(|| plain.start()).unwrap();
    let url = cluster.url();
    let sql = crate::world::connect(&url).await;
    let tables =
        "create table lists (id int primary key); create table todos (id int primary key, list_id int)";
    sql.batch_execute(tables).await.unwrap();
    drop(sql);
    let mut ran = 0;
    for block in page.split("\n```").skip(1).step_by(2) {
        let (kind, text) = block.split_once('\n').unwrap();
        for line in text.lines() {
            ran += usize::from(kind == "sql" || kind == "sh");
            if kind == "sql" {
                let sql = crate::world::connect(&url).await;
                sql.batch_execute(line).await.unwrap_or_else(|error| panic!("{line}: {error:?}"));
            } else if kind == "sh" {
                let arguments: Vec<&str> = line.strip_prefix("lockstep ").unwrap().split(' ').collect();
                let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
                let output = command.args(arguments).env("LOCKSTEP_DATABASE_URL", &url).output().unwrap();
                assert!(output.status.success(), "{line}: {output:?}");
            }
        }
        if text.contains("wal_level = 'logical'") && kind == "sql" {
            tokio::task::block_in_place(|| cluster.restart(lockstep_pg::cluster::StopMode::Fast)).unwrap();
        }
    }
    assert_eq!(ran, 11, "the page's statements and commands");
    let sql = crate::world::connect(&url).await;
    let gone = sql.query_one("select to_regnamespace('lockstep') is null", &[]).await.unwrap();
    assert!(gone.get::<_, bool>(0));
}
