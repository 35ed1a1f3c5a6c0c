//! A private PostgreSQL with three tracked tables, and nodes beside it.

use lockstep_client::{Client, Replica};
use lockstep_pg::cluster::process::{Signal, send, spawn_bound};
use lockstep_pg::cluster::{Builder, Cluster};
use lockstep_pg::install::{self, InstallOptions, Patience, TrackRequest};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// `lists` is public; `todos` and `notes` are scoped by `list_id`.
const SCHEMA: &str = "
    create table lists (id int primary key, name text not null, total int not null default 0);
    create table todos (id int primary key, list_id int references lists on delete cascade,
        title text not null check (title <> 'forbidden'), done bool not null default false, body text);
    create table notes (id int primary key, list_id int not null, v int not null default 0);
    insert into lists (id, name) select i, 'list ' || i from generate_series(1, 3) i;
";

pub struct World {
    pub cluster: Cluster,
    pub sql: Sql,
}

/// A connection of the application.
pub struct Sql {
    pub client: tokio_postgres::Client,
}

impl Sql {
    pub async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{e:?}: {sql:.500}"));
    }

    pub async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let row = |m: SimpleQueryMessage| match m {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect::<Vec<_>>())
            }
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    /// The first column of the first row.
    pub async fn one(&self, sql: &str) -> String {
        self.rows(sql)
            .await
            .into_iter()
            .next()
            .and_then(|r| r.into_iter().next().flatten())
            .unwrap_or_default()
    }

    /// Asks again until the answer is as wanted. There is no event to wait for inside PostgreSQL.
    pub async fn until(&self, sql: &str, wanted: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let got = self.one(sql).await;
            if got == wanted {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{sql}: {got:?}, not {wanted:?}");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|b| b).await
    }

    pub async fn with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let builder = configure(Cluster::builder());
        let cluster = tokio::task::block_in_place(|| builder.start()).expect("a private PostgreSQL");
        let mut client = connect(&cluster.url()).await;
        client.batch_execute(SCHEMA).await.expect("the schema");
        install::install(&mut client, &InstallOptions::default()).await.expect("install");
        for (table, scope) in [("lists", None), ("todos", Some("list_id")), ("notes", Some("list_id"))] {
            let scopes = scope.into_iter().map(|s| vec![s.to_owned()]).collect();
            let request = TrackRequest { table: table.into(), scopes, ..TrackRequest::default() };
            install::track(&mut client, &request, &Patience::default()).await.expect("track");
        }
        Self { sql: Sql { client }, cluster }
    }

    /// Another connection.
    pub async fn connect(&self) -> Sql {
        Sql { client: connect(&self.cluster.url()).await }
    }

    /// A URL of a role that may do everything but replicate.
    pub async fn polling_url(&self) -> String {
        let mut owner = connect(&self.cluster.url()).await;
        owner.batch_execute("create role reader login password 'r'").await.expect("a role");
        let reader = || Some("reader".to_owned());
        let options =
            InstallOptions { grant_node: reader(), grant_writer: reader(), ..InstallOptions::default() };
        install::install(&mut owner, &options).await.expect("granted");
        for table in ["lists", "todos", "notes"] {
            let lacking = install::grants_lacking(&mut owner, table).await.expect("rights");
            owner.batch_execute(&lacking.concat()).await.expect("granted");
        }
        format!("postgres://reader:r@127.0.0.1:{}/postgres", self.cluster.port())
    }

    /// A node that streams.
    pub async fn node(&self) -> Node {
        let node = self.node_starting();
        node.until("live").await;
        node
    }

    /// One that keeps no recent commits: who comes back is caught up by a query, and is told in its first batch all that
    /// was committed before.
    pub async fn node_that_asks(&self) -> Node {
        let node = Node::start_with(&self.cluster.url(), &[("LOCKSTEP_WINDOW_BYTES", "0")]);
        node.until("live").await;
        node
    }

    /// A node that listens; how it is fed is left open.
    pub fn node_starting(&self) -> Node {
        Node::start(&self.cluster.url())
    }

    /// Waits until the client holds what the same SELECTs say now, all tables at once.
    pub async fn settled(&self, client: &mut Client) {
        let truth = self.truth(&client.replica).await;
        // An empty shape looks like one that has not arrived.
        let arrived =
            |replica: &Replica| replica.wanted.iter().all(|w| replica.rows_of(&w.reference).is_some());
        let held = |replica: &Replica| arrived(replica) && held(replica) == truth;
        if let Err(error) = client.until(held).await {
            panic!("{error}\nheld {:#?}\ntruth {truth:#?}", self::held(&client.replica));
        }
    }

    /// What each subscription should hold.
    pub async fn truth(&self, replica: &Replica) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for wanted in &replica.wanted {
            let table = wanted.definition["table"].as_str().unwrap_or_default();
            let mut place = match wanted.definition["scope"]["list_id"].as_i64() {
                Some(list) => format!("list_id = {list}"),
                None => "true".to_owned(),
            };
            if let Some(predicate) = wanted.definition["where"].as_str() {
                let parameter = wanted.definition["params"][0].as_str().unwrap_or_default();
                place += &format!(" and ({})", predicate.replace("$1", &format!("'{parameter}'")));
            }
            let sql = format!("select to_jsonb(t)::text from {table} t where {place}");
            all.push(sorted(self.sql.rows(&sql).await.into_iter().filter_map(|r| r[0].clone())));
        }
        all
    }
}

fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let parse = |t: String| serde_json::from_str::<Json>(&t).unwrap_or_default().to_string();
    let mut sorted: Vec<String> = texts.map(parse).collect();
    sorted.sort();
    sorted
}

/// What each subscription holds.
pub fn held(replica: &Replica) -> Vec<Vec<String>> {
    replica
        .wanted
        .iter()
        .map(|w| {
            sorted(replica.rows_of(&w.reference).unwrap_or_default().values().map(|r| json!(r).to_string()))
        })
        .collect()
}

pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// SIGSTOP, and waits until none of the process's threads runs: the kernel stops them one by one.
pub async fn pause(pid: u32) {
    send(pid, Signal::SIGSTOP).expect("it runs");
    let runs = |thread: std::fs::DirEntry| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        !status.lines().any(|line| line.starts_with("State:\tT"))
    };
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is there").flatten();
    while threads().any(runs) {
        tokio::task::yield_now().await;
    }
}

pub fn lists() -> Json {
    json!({"table": "lists", "scope": null})
}

pub fn todos(list: i64) -> Json {
    json!({"table": "todos", "scope": {"list_id": list}})
}

pub fn notes(list: i64) -> Json {
    json!({"table": "notes", "scope": {"list_id": list}})
}

/// A running `lockstep serve`.
pub struct Node {
    child: Child,
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    pub fn start(url: &str) -> Self {
        Self::start_with(url, &[])
    }

    /// With more environment.
    pub fn start_with(url: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("LOCKSTEP_DATABASE_URL", url)
            .envs(environment.iter().copied())
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = spawn_bound(command, Signal::SIGKILL).expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut port = None;
        for line in lines.by_ref().map_while(Result::ok) {
            port = line
                .rsplit_once("listening on http://127.0.0.1:")
                .and_then(|(_, p)| p.split(',').next()?.parse().ok());
            log.lock().unwrap().push(line);
            if port.is_some() {
                break;
            }
        }
        let port = port.unwrap_or_else(|| panic!("no port in {:#?}", log.lock().unwrap()));
        let kept = log.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line))
        });
        Self { child, port, log }
    }

    pub fn socket(&self) -> String {
        format!("ws://127.0.0.1:{}/socket", self.port)
    }

    pub fn http(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn join(&self, shapes: impl IntoIterator<Item = Json>) -> Client {
        self.resume(Replica::new(shapes)).await
    }

    pub async fn resume(&self, replica: Replica) -> Client {
        Client::join(&self.socket(), replica).await.unwrap_or_else(|e| panic!("{e}\n{:#?}", self.log()))
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Sends a request, head only, and returns all of the answer.
    pub async fn request(&self, head: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = tokio::net::TcpStream::connect(self.http()).await.expect("the node listens");
        socket.write_all(format!("{head}\r\n\r\n").as_bytes()).await.expect("a request");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Posts a body; the status and the answer, null if it is no JSON.
    pub async fn post(&self, path: &str, headers: &str, body: &[u8]) -> (u16, Json) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = tokio::net::TcpStream::connect(self.http()).await.expect("the node listens");
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        socket.write_all(head.as_bytes()).await.expect("a request");
        // The node may answer before it has read all of it.
        let _ = socket.write_all(body).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    /// What `/health` says.
    pub async fn health(&self) -> Json {
        let answer = self.request("GET /health HTTP/1.0\r\nHost: localhost").await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        serde_json::from_str(body).unwrap_or_default()
    }

    /// Waits until `/health` names a problem with these words.
    pub async fn until_problem(&self, words: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let health = self.health().await;
            if health["problem"].as_str().is_some_and(|p| p.contains(words)) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{health}, not {words}: {:#?}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Waits until `/health` names no problem.
    pub async fn until_no_problem(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let health = self.health().await;
            if health.get("problem").is_some_and(Json::is_null) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{health}: {:#?}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many lines of the log hold these words.
    pub async fn until_logged(&self, words: &str, times: usize) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while self.log().iter().filter(|l| l.contains(words)).count() < times {
            assert!(std::time::Instant::now() < deadline, "{words} not {times} times: {:#?}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Waits until `/health` has this status.
    pub async fn until(&self, status: &str) {
        self.until_either([status, status]).await;
    }

    /// Waits until `/health` has one of these.
    pub async fn until_either(&self, statuses: [&str; 2]) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let health = self.health().await;
            if health["status"].as_str().is_some_and(|status| statuses.contains(&status)) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{health}, not {statuses:?}: {:#?}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self, patience: std::time::Duration) -> std::process::ExitStatus {
        let deadline = std::time::Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(std::time::Instant::now() < deadline, "it goes on: {:#?}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("the node runs");
        self.child.wait().expect("the node ends");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
