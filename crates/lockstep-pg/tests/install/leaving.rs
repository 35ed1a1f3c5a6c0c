//! Going away, and coming back elsewhere: what `uninstall` leaves, and what a dump takes along.

use std::path::PathBuf;
use std::process::Command;

use lockstep_pg::catalog;
use lockstep_pg::cluster::Cluster;
use lockstep_pg::doctor::{self, DoctorOptions};
use lockstep_pg::install::{self, InstallOptions, Outcome, Patience};
use lockstep_pg::target::Target;
use serde_json::json;
use tokio_postgres::{Client, NoTls};

use crate::harness::{one, request, track};
use crate::mirror::Mirror;

const TABLES: &str = r#"
    create schema "It's ours";
    create type kind as enum ('a', 'b');
    create table items (id int primary key, list int not null, title text default 'x', k kind, made int generated always as (id * 2) stored);
    create index on items (list);
    create table "It's ours"."Tücke ""x"" {n}" ("from" text, "Größe {k}" int, primary key ("from", "Größe {k}"));
    create table parts (id int, list int, primary key (id, list)) partition by list (list);
    create table parts_1 partition of parts for values in (1);
    create table "parts 2" partition of parts for values in (2) partition by range (id);
    create table parts_2_all partition of "parts 2" default;
    create function touch() returns trigger language plpgsql as 'begin new.title = old.title; return new; end';
    create trigger aaa before update on items for each row execute function touch();
    create publication theirs for table items;
    alter table items enable row level security;
    grant select on items to public;
"#;

/// Debian's programs, beside the server of the same major version.
fn program(name: &str) -> PathBuf {
    let path = PathBuf::from("/usr/lib/postgresql/15/bin").join(name);
    assert!(
        path.exists(),
        "{} is not here: `apt-get install -y postgresql-client-15` brings it",
        path.display()
    );
    path
}

/// A server whose data and system identifier are its own.
fn server() -> Cluster {
    tokio::task::block_in_place(|| Cluster::builder().major(15).own_initdb().start()).expect("a server")
}

async fn session(url: &str) -> Client {
    crate::harness::keep(url);
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

fn dump(url: &str, options: &[&str]) -> String {
    let output = Command::new(program("pg_dump")).args(options).arg(url).output().expect("pg_dump runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    // Newer releases print a random key per run.
    text.lines().filter(|line| !line.contains("restrict ")).map(|line| format!("{line}\n")).collect()
}

fn restore(url: &str, dump: &str) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), dump).expect("the dump");
    let mut psql = Command::new(program("psql"));
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(file.path()).arg(url);
    let output = psql.output().expect("psql runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_leaves_the_schema_as_it_was_to_the_byte() {
    let cluster = server();
    let url = cluster.url();
    let mut client = session(&url).await;
    client.batch_execute(TABLES).await.expect("tables");
    let before = dump(&url, &["--schema-only"]);
    install::install(&mut client, &InstallOptions::default()).await.expect("installed");
    for (table, scopes) in [
        ("items", &["list", "list,k"][..]),
        (r#""It's ours"."Tücke ""x"" {n}""#, &["Größe {k}"]),
        ("parts", &["list"]),
    ] {
        let mut asked = request(table, scopes);
        asked.ignore_rls = true;
        let done = install::track(&mut client, &asked, &Patience::default()).await.expect(table);
        assert_eq!(done, Outcome::Created, "{table}");
    }
    let rows = r#"insert into items values (1, 1); insert into parts values (1, 1), (2, 2); truncate parts_1;
        insert into "It's ours"."Tücke ""x"" {n}" values ('a', 1); alter table parts detach partition parts_1;
        alter table parts attach partition parts_1 for values in (1)"#;
    client.batch_execute(rows).await.expect("written");
    assert_ne!(dump(&url, &["--schema-only"]), before);
    assert_eq!(
        install::uninstall(&mut client, &Patience::default()).await.expect("uninstalled"),
        Outcome::Removed
    );
    assert_eq!(dump(&url, &["--schema-only"]), before);
}

const ITEMS: &str = "create table other (id int primary key, list int, secret text);
    create table items (id int primary key, list int, title text);
    insert into items select i, 1 + i % 3 from generate_series(1, 30) i";

/// A server with `items` tracked, and a client that has list 1.
async fn tracked() -> (Cluster, Client, Mirror) {
    let cluster = server();
    let mut client = session(&cluster.url()).await;
    client.batch_execute(ITEMS).await.expect("a table");
    install::install(&mut client, &InstallOptions::default()).await.expect("installed");
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Created));
    let mirror = Mirror::load(&client, "items", json!({"list": 1})).await;
    client.batch_execute("update items set title = 'seen by no cursor'").await.expect("a write");
    (cluster, client, mirror)
}

/// What has to be so of a database that a dump was restored into: nothing that was dumped is served as it is; `track`
/// makes it whole, the cursor of before loads anew, and from then on clients get what changed.
async fn comes_back(client: &mut Client, mut away: Mirror, reason: &[&str]) {
    assert!(catalog::tables(client).await.expect("read").is_empty(), "no table is served by its old number");
    assert_eq!(track(client, "items", &["list"]).await, Ok(Outcome::Created));
    let fresh = Mirror::load(client, "items", json!({"list": 1})).await;
    assert_eq!(fresh.rows, fresh.truth(client).await);
    away.reshape(client).await;
    let (told, _) = away.resume(client).await;
    assert!(told.as_deref().is_some_and(|told| reason.contains(&told)), "{told:?}, not {reason:?}");
    assert_eq!(away.rows, fresh.rows);
    client
        .batch_execute("update items set title = 'after' where id = 3; delete from items where id = 6")
        .await
        .expect("writes");
    assert_eq!(away.resume(client).await, (None, 2));
    assert_eq!(away.rows, away.truth(client).await);
}

/// Ids of transactions in the logs are of the other server, which has gone further.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_into_another_cluster() {
    let (cluster, client, away) = tracked().await;
    let burn = "do $$ begin for i in 1..3000 loop perform pg_current_xact_id(); commit; end loop; end $$";
    client.batch_execute(burn).await.expect("ids");
    client.batch_execute("update items set title = 'in the future' where id < 10").await.expect("a write");
    let text = dump(&cluster.url(), &[]);
    let other = server();
    restore(&other.url(), &text);
    let mut there = session(&other.url()).await;
    let ahead =
        "select max(xid) > pg_snapshot_xmax(pg_current_snapshot())::text::bigint from lockstep.changes_1";
    assert_eq!(one(&there, ahead).await, "true");
    comes_back(&mut there, away, &["other_database"]).await;
}

/// The number under which the table was tracked is that of another table there, which nobody tracked: it must not be
/// served in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_got_the_number_of_a_tracked_one_is_not_served() {
    let (_cluster, client, _) = tracked().await;
    assert_eq!(catalog::tables(&client).await.expect("read").len(), 1);
    client
        .batch_execute("update lockstep.tracked set relation = 'other'::regclass")
        .await
        .expect("as after a restore");
    assert!(catalog::tables(&client).await.expect("read").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_into_the_same_cluster() {
    let (cluster, client, away) = tracked().await;
    let text = dump(&cluster.url(), &[]);
    client.batch_execute("create database copy").await.expect("a database");
    restore(&cluster.url_for("copy"), &text);
    let mut there = session(&cluster.url_for("copy")).await;
    comes_back(&mut there, away, &["other_database"]).await;
}

/// Back to the dump in the same database: what the client has seen since is undone, and its mark is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_over_the_same_database() {
    let (cluster, mut client, mut away) = tracked().await;
    let text = dump(&cluster.url(), &["--clean", "--if-exists"]);
    client.batch_execute("update items set title = 'undone'").await.expect("a write");
    away.resume(&client).await;
    restore(&cluster.url(), &text);
    assert_eq!(one(&client, "select count(*) from items where title = 'undone'").await, "0");
    // `comes_back` tracks it: until then doctor says so.
    let target = Target::parse(&cluster.url()).expect("a URL");
    let report = doctor::examine(&client, &target, &DoctorOptions::default()).await.expect("examined");
    assert!(report.findings.iter().any(|finding| finding.code == "table_gone"), "{:?}", report.findings);
    comes_back(&mut client, away, &["horizon", "rolled_back"]).await;
}
