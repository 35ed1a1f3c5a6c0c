//! Queries and writes through a real PgBouncer in transaction mode, replication beside it.

use crate::world::{Node, World, held, lists, notes, todos};
use lockstep_pg::cluster::free_port;
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use lockstep_pg::install::{self, Patience, TrackRequest};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// `nobody`: PgBouncer does not run as root.
const NOBODY: u32 = 65534;

/// A pooler that lends two sessions to everybody.
struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pooler {
    /// None where PgBouncer is not installed; `cargo x test` installs it, or names what is missing.
    async fn start(world: &World, more: &str) -> Option<Self> {
        let Some(program) =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].iter().find(|p| fs::exists(p).unwrap())
        else {
            println!("skipped: there is no PgBouncer; `apt-get install -y pgbouncer` brings one");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (file, users) = (folder.path().join("pgbouncer.ini"), folder.path().join("users"));
        fs::write(&users, format!("\"postgres\" \"{}\"\n", world.cluster.password())).unwrap();
        let port = free_port().unwrap();
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 2\nmax_client_conn = 200\n{more}\n",
            world.cluster.port(),
            users.display()
        );
        fs::write(&file, ini).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if world
            .cluster
            .data_dir()
            .metadata()
            .is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == NOBODY)
        {
            command.uid(NOBODY).gid(NOBODY);
        }
        let child = spawn_bound(command, Signal::SIGKILL).unwrap();
        let pooler = Self { child, port, _folder: folder };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while tokio_postgres::connect(&pooler.url(world), tokio_postgres::NoTls).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "PgBouncer does not answer");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Some(pooler)
    }

    fn url(&self, world: &World) -> String {
        world.cluster.url().replace(&format!(":{}/", world.cluster.port()), &format!(":{}/", self.port))
    }

    fn node(&self, world: &World) -> Node {
        Node::start_with(
            &self.url(world),
            &[("LOCKSTEP_REPLICATION_URL", &world.cluster.url()), ("LOCKSTEP_WINDOW_BYTES", "0")],
        )
    }
}

/// Settings under which values print otherwise, and names lead elsewhere.
const HOSTILE: &str = "set datestyle = 'German, DMY'; set intervalstyle = 'sql_standard'; set timezone = 'Asia/Tokyo'; \
    set bytea_output = 'escape'; set extra_float_digits = -10; set search_path = hostile, pg_catalog";

/// An application in the same pool leaves its settings in the sessions.
async fn set_all_sessions(world: &World, pooler: &Pooler) {
    let url = pooler.url(world);
    let mut held = Vec::new();
    for _ in 0..2 {
        let client = crate::world::connect(&url).await;
        client
            .batch_execute(&format!("begin; {HOSTILE}; select hostile.pg_current_snapshot()"))
            .await
            .unwrap();
        held.push(client);
    }
    // Two transactions at once: two sessions.
    for client in held {
        client.batch_execute("commit").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_served_through_a_pooler_with_the_same_bytes() {
    let world = World::new().await;
    world
        .sql
        .run(
            "create schema hostile; create function hostile.pg_current_snapshot() returns text language sql as \
             $$ select 'nonsense' $$; create function hostile.now() returns timestamptz language sql as \
             $$ select 'epoch'::timestamptz $$; \
             create table every (id int primary key, at timestamptz, d date, i interval, f float8, b bytea, m money)",
        )
        .await;
    let mut owner = crate::world::connect(&world.cluster.url()).await;
    let request = TrackRequest { table: "every".into(), ..TrackRequest::default() };
    install::track(&mut owner, &request, &Patience::default()).await.unwrap();
    let Some(pooler) = Pooler::start(&world, "").await else { return };
    let node = pooler.node(&world);
    node.until("live").await;
    set_all_sessions(&world, &pooler).await;
    let every = || json!({"table": "every", "scope": null});
    let mut live = node.join([every()]).await;
    live.commit().await.unwrap();
    world
        .sql
        .run(
            "insert into every values (1, '2024-02-29 12:00:00.5+00', '2024-02-29', '1 mon 2 days 03:04:05.6', \
             0.1::float8 + 0.2::float8, '\\x00ff5c', 1234.5)",
        )
        .await;
    live.until(|r| r.rows_of("0").is_some_and(|rows| rows.len() == 1)).await.unwrap();
    let mut later = node.join([every()]).await;
    later.until(|r| r.rows_of("0").is_some_and(|rows| rows.len() == 1)).await.unwrap();
    assert_eq!(held(&live.replica)[0], held(&later.replica)[0], "the stream's bytes and the catch-up's");
    let row = &later.replica.rows_of("0").unwrap()["[1]"];
    assert_eq!(
        (&row["at"], &row["i"], &row["b"]),
        (&json!("2024-02-29 12:00:00.5+00"), &json!("P1M2DT3H4M5.6S"), &json!("\\x00ff5c"))
    );

    let mut live = node.join([todos(1), lists()]).await;
    live.commit().await.unwrap();
    // Writes, with an application's transactions between them, and a return to another node.
    for n in 1..=10 {
        set_all_sessions(&world, &pooler).await;
        let row = json!({"id": n, "list_id": 1, "title": format!("t{n}"), "done": n % 2 == 0});
        live.mutate(&format!("m{n}"), vec![json!({"op": "insert", "table": "todos", "values": row})])
            .await
            .unwrap();
        live.until(|r| r.outbox.is_empty()).await.unwrap();
    }
    world.settled(&mut live).await;
    node.kill();
    let away = live.crash();
    world.sql.run("delete from todos where id = 1; update todos set title = 'x' where id in (2, 3)").await;
    let second = pooler.node(&world);
    let third = pooler.node(&world);
    second.until("live").await;
    third.until("live").await;
    set_all_sessions(&world, &pooler).await;
    for node in [&second, &third] {
        let mut resumed = node.resume(away.clone()).await;
        let commit = resumed.commit().await.unwrap();
        assert_eq!((commit.resets.len(), commit.rows), (0, 3), "{commit:?}");
        world.settled(&mut resumed).await;
    }
    let mut refused = second.join([notes(1), todos(1)]).await;
    refused.commit().await.unwrap();
    let row = json!({"id": 50, "list_id": 1, "title": "forbidden"});
    refused.mutate("bad", vec![json!({"op": "insert", "table": "todos", "values": row})]).await.unwrap();
    refused.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut refused).await;
}

/// The node says what to do, and serves by polling meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_for_replication_is_called_one() {
    let world = World::new().await;
    // Told to pass over the parameter, PgBouncer opens an ordinary session.
    for more in [
        "",
        "ignore_startup_parameters = replication,intervalstyle,bytea_output,extra_float_digits,lc_monetary,search_path,jit",
    ] {
        let Some(pooler) = Pooler::start(&world, more).await else { return };
        let node = Node::start(&pooler.url(&world));
        node.until_problem("--replication-url").await;
        node.until("polling").await;
        let mut client = node.join([todos(1)]).await;
        world.settled(&mut client).await;
        world.sql.run("delete from todos; insert into todos values (1, 1, 'polled')").await;
        client.until(|r| r.column("0", "title") == ["polled"]).await.unwrap();
    }
}
