//! Behind Debian's nginx: a path prefix, idle time-outs, forwarded addresses.

use crate::world::{Node, World, todos};
use lockstep_client::{Client, Replica};
use lockstep_pg::cluster::free_port;
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use serde_json::{Value as Json, json};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Nginx {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    /// `/sync/` leads to the node. None where nginx is not installed; `cargo x test` installs it, or names it.
    async fn before(node: &Node, idle: &str) -> Option<Self> {
        let named = std::env::var("NGINX").unwrap_or_else(|_| "/usr/sbin/nginx".into());
        if !fs::exists(&named).unwrap() {
            println!("skipped: there is no nginx; `apt-get install -y nginx` brings one");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        // docs/operation.md has the lines that matter.
        let page =
            fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operation.md")).unwrap();
        let location = page.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
        let location = location.replace("127.0.0.1:4000", &node.http()).replace("75s", idle);
        let here = folder.path().display();
        let conf = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off; client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f;\n\
             uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\nserver {{ listen 127.0.0.1:{port};\n{location}\n}} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, conf).unwrap();
        let mut command = Command::new(named);
        command.arg("-c").arg(&file).arg("-p").arg(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let child = spawn_bound(command, Signal::SIGKILL).unwrap();
        let nginx = Self { child, port, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "nginx does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(nginx)
    }

    async fn join(&self, replica: Replica) -> Client {
        Client::join(&format!("ws://127.0.0.1:{}/sync/socket", self.port), replica).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_taken_off_and_addresses_are_passed_on() {
    let world = World::new().await;
    let node = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_TRUST_PROXY", "true")]);
    node.until("live").await;
    let Some(nginx) = Nginx::before(&node, "75s").await else { return };
    let mut client = nginx.join(Replica::new([todos(1)])).await;
    let row = json!({"op": "insert", "table": "todos", "values": {"id": 1, "list_id": 1, "title": "a"}});
    client.mutate("m1", vec![row]).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut client).await;
    // From another address than the proxy's own, and with one that anybody could have written before it.
    let forged = "X-Forwarded-For: 203.0.113.9\r\n";
    let _forwarded = upgraded("127.0.0.2", nginx.port, "/sync/socket/websocket", forged).await;
    assert_eq!(addresses(&node, 2).await, ["127.0.0.1", "127.0.0.2"]);
    for path in ["/sync/metrics", "/sync/v1/status", "/sync/health"] {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", nginx.port)).await.unwrap();
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        socket.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

/// Opens a socket from this address.
async fn upgraded(from: &str, port: u16, path: &str, headers: &str) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let connection = socket.connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
    crate::bytes::upgraded(connection, path, headers).await
}

/// The addresses of so many connections, as `lockstep status` shows them.
async fn addresses(node: &Node, connections: usize) -> Vec<String> {
    crate::operation::until_metric(node, "lockstep_sessions", |n| n == connections as f64).await;
    let status = node.request("GET /v1/status HTTP/1.0\r\nHost: localhost").await;
    let status: Json = serde_json::from_str(status.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let connections = status["connections"].as_array().unwrap().iter();
    let mut all: Vec<_> = connections.map(|c| c["address"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

/// Without a proxy that is trusted, whoever connects cannot choose what it is called.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_anybody_could_write_is_not_looked_at() {
    let world = World::new().await;
    let node = world.node().await;
    let port = node.http().rsplit(':').next().unwrap().parse().unwrap();
    let forged = "X-Forwarded-For: 203.0.113.9\r\n";
    let _socket = upgraded("127.0.0.3", port, "/socket/websocket", forged).await;
    assert_eq!(addresses(&node, 1).await, ["127.0.0.3"]);
    let trusting = Node::start_with(&world.cluster.url(), &[("LOCKSTEP_TRUST_PROXY", "true")]);
    trusting.until("live").await;
    let port = trusting.http().rsplit(':').next().unwrap().parse().unwrap();
    let listed = "X-Forwarded-For: 10.0.0.1, 203.0.113.9\r\n";
    let _socket = upgraded("127.0.0.3", port, "/socket/websocket", listed).await;
    assert_eq!(addresses(&trusting, 1).await, ["203.0.113.9"], "what its own proxy appended");
}

/// A proxy cuts what is silent. Who asks for the age is not; who is cut resumes.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_time_out_cuts_nobody_who_asks_and_loses_nothing() {
    let world = World::new().await;
    let node = world.node().await;
    let Some(nginx) = Nginx::before(&node, "3s").await else { return };
    let mut silent = nginx.join(Replica::new([todos(1)])).await;
    silent.commit().await.unwrap();
    let mut asking = nginx.join(Replica::new([todos(1)])).await;
    asking.commit().await.unwrap();
    let cut = async {
        while silent.hear("the end").await.is_ok() {}
        silent
    };
    let alive = async {
        let until = Instant::now() + Duration::from_secs(5);
        asking.watch(|_| Instant::now() > until).await.unwrap();
        asking
    };
    let (silent, mut asking) = tokio::join!(cut, alive);
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    asking.until(|r| r.column("0", "title") == ["a"]).await.unwrap();
    let mut back = nginx.join(silent.crash()).await;
    let commit = back.commit().await.unwrap();
    assert_eq!((commit.resets.len(), commit.rows), (0, 1));
}
