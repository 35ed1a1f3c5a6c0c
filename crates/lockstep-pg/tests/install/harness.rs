//! One server for this test binary, one database per test.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use lockstep_pg::cluster::Cluster;
use lockstep_pg::install::{self, InstallOptions, Outcome, Patience, TrackRequest};
use tokio_postgres::{Client, NoTls};

/// Never dropped: the server stops when this process ends.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::builder()
        .setting("wal_level", "logical")
        .setting("max_prepared_transactions", "4")
        .start()
        .expect("the cluster starts")
});

/// URLs of the servers and databases of this process, by `port/database`.
static URLS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Keeps a URL, so that whoever has a session of it can open another connection.
pub fn keep(url: &str) {
    let place = url.rsplit_once(':').expect("a port").1.split('?').next().expect("a place").to_owned();
    URLS.lock().expect("URLs").insert(place, url.to_owned());
}

/// The one kept of a port and database.
pub fn url_of(place: &str) -> String {
    URLS.lock().expect("URLs").get(place).unwrap_or_else(|| panic!("no URL of {place}")).clone()
}

/// The cluster of this binary.
pub fn cluster() -> &'static Cluster {
    &CLUSTER
}

/// A session in `database`.
pub async fn connect(database: &str) -> Client {
    keep(&cluster().url_for(database));
    let (client, connection) =
        tokio_postgres::connect(&cluster().url_for(database), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A new database, not installed.
pub async fn empty(database: &str) -> Client {
    let admin = connect("postgres").await;
    admin.batch_execute(&format!("create database {database}")).await.expect("a database");
    // The superuser's name is lockstep, and "$user" is first on the default path: it would be our schema.
    let path = format!("alter database {database} set search_path = public");
    admin.batch_execute(&path).await.expect("a search path");
    connect(database).await
}

/// A new database, installed, with what `sql` makes.
pub async fn installed(database: &str, sql: &str) -> Client {
    let mut client = empty(database).await;
    install::install(&mut client, &InstallOptions::default()).await.expect("it installs");
    client.batch_execute(sql).await.expect("the test's tables");
    client
}

/// As [`installed`], with table `items` tracked by the scopes named, such as `list` or `list,org`.
pub async fn tracked(database: &str, sql: &str, scopes: &[&str]) -> Client {
    let mut client = installed(database, sql).await;
    let outcome = install::track(&mut client, &request("items", scopes), &Patience::default()).await;
    assert_eq!(outcome.expect("tracked"), Outcome::Created);
    client
}

/// Waits until everything written so far is below every new snapshot's xmin: tests in other databases of this cluster
/// hold transactions open.
pub async fn settled(client: &Client) {
    let newest: u64 = one(client, "select pg_current_xact_id()").await.parse().expect("a number");
    let sql = format!("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint > {newest}");
    while one(client, &sql).await != "true" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// As [`tracked`], and cursors from now on are above the horizon.
pub async fn tracked_and_settled(database: &str, sql: &str, scopes: &[&str]) -> Client {
    let client = tracked(database, sql, scopes).await;
    settled(&client).await;
    client
}

/// A request for `table` with scopes such as `list,org`.
pub fn request(table: &str, scopes: &[&str]) -> TrackRequest {
    let scopes = scopes.iter().map(|scope| scope.split(',').map(str::to_owned).collect()).collect();
    TrackRequest { table: table.to_owned(), scopes, ignore_rls: false }
}

/// Tracks, with an error reduced to its code.
pub async fn track(client: &mut Client, table: &str, scopes: &[&str]) -> Result<Outcome, &'static str> {
    install::track(client, &request(table, scopes), &Patience::default()).await.map_err(|error| error.code())
}

/// The log entries of log 1 since the last call, sorted: `put s1=7 k1=1`, `d s1=7 k1=1`; `-` is NULL.
pub async fn entries(client: &Client) -> Vec<String> {
    entries_of(client, 1).await
}

/// The same of another log.
pub async fn entries_of(client: &Client, log: i32) -> Vec<String> {
    let part = |table: &str, kind: &str| {
        format!(
            "with gone as (delete from lockstep.{table}_{log} returning *)
             select {kind} || ' ' || (
               select string_agg(e.key || '=' || coalesce(e.value, '-'), ' ' order by left(e.key, 1) desc, e.key)
               from jsonb_each_text(to_jsonb(gone) - 'id' - 'xid' - 'kind') e
             ) from gone order by 1"
        )
    };
    let mut all = Vec::new();
    for sql in [part("changes", "'put'"), part("tombstones", "kind::text")] {
        let rows = client.query(&sql, &[]).await.expect("the log");
        all.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    all
}

/// Runs `sql` and expects exactly these log entries.
pub async fn writes(client: &Client, sql: &str, expected: &[&str]) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    assert_eq!(entries(client).await, expected, "{sql}");
}

/// The first column of the first row as text.
pub async fn one(client: &Client, sql: &str) -> String {
    let rows =
        client.query(&format!("select ({sql})::text"), &[]).await.unwrap_or_else(|error| panic!("{error:?}"));
    rows[0].get::<_, Option<String>>(0).unwrap_or_default()
}

/// The SQLSTATE with which `sql` fails.
pub async fn fails(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.code().expect("a SQLSTATE").code().to_owned()
}

/// Everything in the catalog that a command may leave behind on the database or on the application's tables.
pub async fn catalog(client: &Client) -> Vec<String> {
    let sql = "
        select 'schema ' || nspname from pg_namespace where nspname !~ '^pg_(toast_)?temp'
        union all select 'publication ' || pubname from pg_publication
        union all select 'member ' || p.pubname || ' ' || r.prrelid::regclass
          from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
        union all select 'relation ' || oid::regclass || ' ' || relkind::text || coalesce(relacl::text, '')
          || relreplident::text || relhasrules || relrowsecurity
          from pg_class where oid >= 16384 and relnamespace <> 'pg_toast'::regnamespace
        union all select 'trigger ' || tgrelid::regclass || ' ' || tgname || tgenabled::text from pg_trigger
          where not tgisinternal
        union all select 'event trigger ' || evtname || evtenabled::text from pg_event_trigger
        union all select 'function ' || oid::regprocedure from pg_proc where oid >= 16384
        union all select 'type ' || oid::regtype from pg_type where oid >= 16384
        union all select 'constraint ' || conrelid::regclass || ' ' || conname from pg_constraint where conrelid >= 16384
        union all select 'depend ' || pg_describe_object(classid, objid, objsubid) from pg_depend
          where objid >= 16384 and classid <> 'pg_class'::regclass
          and pg_describe_object(classid, objid, objsubid) !~ 'RI_ConstraintTrigger'
        order by 1";
    client.query(sql, &[]).await.expect("the catalog").iter().map(|row| row.get(0)).collect()
}
