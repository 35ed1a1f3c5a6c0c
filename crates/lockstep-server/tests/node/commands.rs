//! `lockstep status` and `lockstep tail`, as somebody types them.

use crate::world::{World, lists, todos};
use lockstep_pg::cluster::process::{Signal, send, spawn_bound};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn lockstep(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command.args(arguments).current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_sessions_and_shapes() {
    let world = World::new().await;
    let node = world.node().await;
    let mut first = node.join([todos(1), lists()]).await;
    let filtered = json!({"table": "todos", "scope": {"list_id": 1}, "where": "title = 's3cr3t'"});
    let mut second = node.join([todos(1), filtered]).await;
    first.commit().await.unwrap();
    second.commit().await.unwrap();
    world.sql.run("insert into todos values (1, 1, 's3cr3t')").await;
    world.settled(&mut first).await;
    world.settled(&mut second).await;
    let address = format!("http://{}", node.http());
    let run = |more: &[&str]| {
        let output = lockstep(&[&["status", "--node", &address], more].concat()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let status: Json = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(
        (&status["feed"], &status["sessions"], &status["subscriptions"]),
        (&json!("live"), &json!(2), &json!(4))
    );
    let shapes = status["shapes"].as_array().unwrap();
    let shared =
        shapes.iter().find(|s| s["table"] == json!(["public", "todos"]) && s["where"] == false).unwrap();
    assert_eq!(
        (&shared["subscribers"], &shared["frames"], &shared["scope"]),
        (&json!(2), &json!(2), &json!(["list_id"]))
    );
    assert!(shared["bytes"].as_u64().unwrap() > 100, "{shared}");
    let connections = status["connections"].as_array().unwrap();
    assert!(
        connections.iter().all(|c| c["live"] == true && c["age_ms"].is_u64() && c["shapes"] == 2),
        "{status}"
    );
    assert_eq!(connections[0]["client"].as_str(), first.replica.client.as_deref());
    let text = run(&[]);
    assert!(
        text.contains("live, level as of")
            && text.contains("2 sessions (0 wait for rows, 0 more are to come again), 4 subscriptions")
            && text.contains("public.todos")
            && text.contains("list_id where …"),
        "{text}"
    );
    assert!(!text.contains("s3cr3t") && !status.to_string().contains("s3cr3t"), "no values of rows");

    let nobody = lockstep(&["status", "--node", "http://127.0.0.1:1"]).output().unwrap();
    let error = String::from_utf8(nobody.stderr).unwrap();
    assert!(!nobody.status.success() && error.contains("choose --node"), "{error}");
}

/// A running `lockstep tail`.
struct Tail {
    child: Child,
    lines: Receiver<Json>,
}

impl Tail {
    async fn start(world: &World, arguments: &[&str]) -> Self {
        let mut command = lockstep(&[&["tail"], arguments].concat());
        command
            .env("LOCKSTEP_DATABASE_URL", world.cluster.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn_bound(command, Signal::SIGKILL).unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("printing")), "it says when it begins");
        let (out, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .for_each(|line| drop(out.send(serde_json::from_str(&line).unwrap())));
        });
        Self { child, lines }
    }

    fn next(&self) -> Json {
        self.lines.recv_timeout(Duration::from_secs(20)).expect("a line in time")
    }

    /// Lines up to the next commit, without what differs from run to run.
    fn transaction(&self) -> Vec<Json> {
        let mut lines = Vec::new();
        loop {
            let mut line = self.next();
            assert!(line["xid"].is_string() && line["lsn"].is_string(), "{line}");
            line.as_object_mut().unwrap().retain(|name, _| name != "xid" && name != "lsn");
            let done = line["op"] == "commit";
            lines.push(line);
            if done {
                return lines;
            }
        }
    }

    fn end(mut self, signal: Signal) -> Option<i32> {
        send(self.child.id(), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_what_is_committed() {
    let world = World::new().await;
    world.sql.run("alter table todos alter body set storage external").await;
    let all = Tail::start(&world, &[]).await;
    let some = Tail::start(&world, &["notes", "public.lists"]).await;
    let large = "x".repeat(9_000);
    world.sql.run(&format!("begin; insert into todos values (1, 1, 'a', true, '{large}'); insert into notes values (7, 1); commit")).await;
    world.sql.run("begin; insert into todos values (99, 1, 'rolled back'); rollback").await;
    world.sql.run("update todos set title = 'b', id = 2 where id = 1").await;
    world.sql.run("delete from todos; ").await;
    world.sql.run("truncate notes").await;
    let row = |title: &str, id: &str| json!({"id": id, "list_id": "1", "title": title, "done": "t"});
    let mut first = row("a", "1");
    first["body"] = large.into();
    let note = json!({"op": "insert", "table": "public.notes", "new": {"id": "7", "list_id": "1", "v": "0"}});
    assert_eq!(
        all.transaction(),
        [
            json!({"op": "insert", "table": "public.todos", "new": first}),
            note.clone(),
            json!({"op": "commit", "rows": 2})
        ]
    );
    let update = json!({"op": "update", "table": "public.todos", "key": {"id": "1"}, "new": row("b", "2"), "unchanged": ["body"]});
    assert_eq!(all.transaction(), [update, json!({"op": "commit", "rows": 1})]);
    let delete = json!({"op": "delete", "table": "public.todos", "key": {"id": "2"}});
    assert_eq!(all.transaction(), [delete, json!({"op": "commit", "rows": 1})]);
    let truncate = json!({"op": "truncate", "table": "public.notes"});
    assert_eq!(all.transaction(), [truncate.clone(), json!({"op": "commit", "rows": 1})]);
    assert_eq!(some.transaction(), [note, json!({"op": "commit", "rows": 1})]);
    assert_eq!(some.transaction(), [truncate, json!({"op": "commit", "rows": 1})]);
    assert_eq!(all.end(Signal::SIGTERM), Some(0));
    assert_eq!(some.end(Signal::SIGINT), Some(0));
    world.sql.until("select count(*) from pg_replication_slots", "0").await;
}
