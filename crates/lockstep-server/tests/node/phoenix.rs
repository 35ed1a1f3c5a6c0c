//! The npm package `phoenix`, unmodified, as a client.

use crate::world::{Node, World, todos};
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

struct Script {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<Json>,
}

impl Script {
    /// None where Node or the packages are missing; `cargo x test` brings them, or names what is missing.
    fn start(url: &str) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        if !root.join("node_modules/phoenix").exists() || !root.join("node_modules/ws").exists() {
            println!("skipped: the package phoenix is not here; `npm ci` brings it");
            return None;
        }
        let mut command = Command::new("node");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/phoenix.mjs")).arg(url);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_bound(command, Signal::SIGKILL).expect("node runs");
        let (out, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test has ended if nobody listens.
                let _ = out.send(serde_json::from_str(&line).unwrap_or_else(|_| line.into()));
            }
        });
        Some(Self { stdin: child.stdin.take().unwrap(), child, lines })
    }

    fn run(&mut self, step: &str) {
        writeln!(self.stdin, "{step}").unwrap();
    }

    /// The next line that says this; what came before it.
    fn until(&self, mut wanted: impl FnMut(&Json) -> bool) -> Vec<Json> {
        let mut said = Vec::new();
        loop {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(20))
                .unwrap_or_else(|e| panic!("{e} after {said:#?}"));
            let done = wanted(&line);
            said.push(line);
            if done {
                return said;
            }
        }
    }

    fn until_rows(&self, rows: &Json) -> Vec<Json> {
        self.until(|line| line["step"] == "commit" && line["rows"] == *rows)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It knows nothing of `retry_in`, and joins again by timers of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_package_is_let_in_by_a_crowded_node() {
    let world = World::new().await;
    let node = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_WAITING_SESSIONS", "1")]);
    node.until("live").await;
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    let blocker = world.connect().await;
    blocker.run("begin; lock table todos in access exclusive mode").await;
    let mut waits = node.join([todos(1)]).await;
    let Some(script) = Script::start(&node.socket()) else { return };
    assert_eq!(script.until(|line| line["step"] == "refused").last().unwrap()["code"], "crowded");
    // Others that come later do not pass it.
    blocker.run("rollback").await;
    world.settled(&mut waits).await;
    script.until(|line| line["step"] == "joined");
    script.until_rows(&json!(["a"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_package_connects_unmodified() {
    let world = World::new().await;
    let node = world.node().await;
    let Some(mut script) = Script::start(&node.socket()) else { return };
    let joined = script.until_rows(&json!([]));
    assert_eq!(
        joined[0],
        json!({"step": "joined", "client": "string", "shapes": [{"ref": "todos", "ok": true}]})
    );
    assert_eq!(joined.last().unwrap()["cursor"], "string");
    script.run("mutate");
    let mut acks = Vec::new();
    let mut taken = false;
    script.until(|line| {
        taken |= line["step"] == "taken";
        acks.extend(line["acks"].as_array().into_iter().flatten().cloned());
        taken && acks.len() == 2
    });
    assert_eq!(acks, [json!(["m1", "applied", null]), json!(["m2", "refused", "23514"])]);
    world.sql.run("insert into todos values (7, 1, 'from SQL')").await;
    script.until_rows(&json!(["from SQL", "from phoenix"]));
    script.run("nonsense");
    assert_eq!(script.until(|l| l["step"] == "refused").last().unwrap()["code"], "malformed");
    world.sql.run("delete from todos where id = 1").await;
    script.until_rows(&json!(["from SQL"]));
    script.run("reconnect");
    // It knows no cursors: all rows come again.
    script.until(|line| line["step"] == "joined");
    script.until_rows(&json!(["from SQL"]));
    world.sql.run("update todos set title = 'after it came back'").await;
    script.until_rows(&json!(["after it came back"]));
    script.run("leave");
    script.until(|line| line["step"] == "left");
    assert!(script.child.wait().unwrap().success());
}
