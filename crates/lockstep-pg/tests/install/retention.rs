//! Garbage collection: the horizon, what is below it, and what clients and nodes leave behind.

use std::time::Duration;

use lockstep_pg::gc::{self, GcOptions, GcOutcome, GcReport};
use lockstep_pg::{catalog, poll};
use serde_json::json;
use tokio_postgres::Client;

use crate::harness::{connect, one, settled, track, tracked_and_settled};
use crate::mirror::Mirror;

const ITEMS: &str = "create table items (id int primary key, list int, title text);
    insert into items select i, 1 + i % 3 from generate_series(1, 30) i;";

/// Collects, keeping cursors for `seconds`.
pub async fn collect(client: &Client, seconds: u64) -> GcReport {
    let options = GcOptions { retention: Duration::from_secs(seconds), batch: 7, ..GcOptions::default() };
    match gc::run(client, &options).await.expect("collected") {
        GcOutcome::Done(report) => report,
        other => panic!("{other:?}"),
    }
}

async fn horizon(client: &Client) -> u64 {
    one(client, "select horizon from lockstep.tracked where log = 1").await.parse().expect("a number")
}

#[tokio::test]
async fn a_time_becomes_a_transaction_and_only_what_is_older_goes() {
    let client = tracked_and_settled("gc_horizon", ITEMS, &["list"]).await;
    client.batch_execute("update items set title = 'old' where id <= 20").await.expect("old writes");
    let old = Mirror::load(&client, "items", json!({"list": 1})).await;
    client.batch_execute("update items set title = 'old' where id = 20").await.expect("one more");
    settled(&client).await;
    // The sample that is two hours old was taken between the old writes and the new ones.
    let before = collect(&client, 3600).await;
    assert_eq!((before.logs[0].expired, before.logs[0].rows_left), (0, 20), "no sample is old enough");
    client
        .batch_execute("update lockstep.clock set at = at - interval '2 hours'; update lockstep.tracked set tracked_at = 'yesterday'")
        .await
        .expect("time passes");
    let young = Mirror::load(&client, "items", json!({"list": 1})).await;
    client
        .batch_execute("update items set title = 'new' where id > 15; delete from items where id = 30")
        .await
        .expect("new writes");
    let low = horizon(&client).await;
    let after = collect(&client, 3600).await;
    // 20 are old, 5 of them were written again; 30's change is superfluous beside its tombstone.
    let log = &after.logs[0];
    assert_eq!((log.expired, log.superseded, log.rows_left), (20, 1, 15), "{after:?}");
    assert!(log.horizon > low && log.bytes_removed > 21 * 30 && log.bytes_left > 0, "{after:?}");
    assert!((7200..7300).contains(&log.horizon_age), "{after:?}");
    assert_eq!((log.horizon, log.table.as_str()), (horizon(&client).await, "public.items"));
    let (mut old, mut young) = (old, young);
    assert_eq!(old.resume(&client).await.0.as_deref(), Some("horizon"));
    assert_eq!(young.resume(&client).await, (None, 5));
    assert_eq!(young.rows, young.truth(&client).await);
    assert_eq!(old.rows, young.rows);
    // Nothing is lowered when the retention grows.
    let again = collect(&client, 30 * 24 * 3600).await;
    assert_eq!((again.logs[0].horizon, again.logs[0].expired), (log.horizon, 0));
}

#[tokio::test]
async fn collecting_changes_no_schema_id_and_tracking_anew_does() {
    let mut client = tracked_and_settled("gc_schema", ITEMS, &["list"]).await;
    let id = async |client: &Client| {
        let table = catalog::tables(client).await.expect("tables").remove(0);
        (table.schema_id, table.log_id, table.storage_id)
    };
    let (before, low) = (id(&client).await, horizon(&client).await);
    client.batch_execute("update items set title = 'x'").await.expect("writes");
    settled(&client).await;
    assert_eq!(collect(&client, 0).await.logs[0].rows_left, 0);
    assert!(horizon(&client).await > low);
    assert_eq!(id(&client).await, before);
    client
        .batch_execute("alter publication lockstep_tombstones drop table lockstep.tombstones_1")
        .await
        .expect("broken");
    track(&mut client, "items", &[]).await.expect("repaired");
    assert_ne!(id(&client).await, before);
}

/// The horizon never passes what a transaction in progress may still write.
/// The logs have no primary key, and somebody else's publication of all tables makes DELETE ask for an identity.
#[tokio::test]
async fn it_works_under_a_publication_of_all_tables() {
    let client = tracked_and_settled("gc_all_tables", ITEMS, &["list"]).await;
    client.batch_execute("create publication everything for all tables").await.expect("theirs");
    let twice = "update items set title = 'a' where id = 1; update items set title = 'b' where id = 1;
        delete from items where id = 2; insert into items values (2, 1); delete from items where id = 2";
    client.batch_execute(twice).await.expect("writes");
    settled(&client).await;
    let log = collect(&client, 30 * 24 * 3600).await.logs.remove(0);
    // Of key 2, which was in scope 3 before, each scope keeps its last.
    assert_eq!((log.superseded, log.rows_left), (2, 3), "{log:?}");
    assert_eq!(collect(&client, 0).await.logs[0].rows_left, 0);
}

#[tokio::test]
async fn an_open_transaction_holds_the_horizon() {
    let client = tracked_and_settled("gc_open", ITEMS, &["list"]).await;
    let writer = connect("gc_open").await;
    writer.batch_execute("begin; update items set title = 'early' where id = 1").await.expect("it writes");
    let mut away = Mirror::load(&client, "items", json!({"list": 2})).await;
    client.batch_execute("update items set title = 'x' where id = 4").await.expect("another");
    let report = collect(&client, 0).await;
    let oldest: u64 = one(&writer, "select pg_current_xact_id()").await.parse().expect("a number");
    assert!(report.logs[0].horizon <= oldest, "{report:?} {oldest}");
    writer.batch_execute("update items set title = 'late' where id = 7; commit").await.expect("it commits");
    // 1 and 7 by the long transaction, 4 by the other: all in the scope, all still in the log.
    assert_eq!(away.resume(&client).await, (None, 3));
    assert_eq!(away.rows, away.truth(&client).await);
}

#[tokio::test]
async fn one_collects_at_a_time_and_not_too_often() {
    let client = tracked_and_settled("gc_elected", ITEMS, &["list"]).await;
    let other = connect("gc_elected").await;
    other.batch_execute("begin; select pg_advisory_xact_lock(7811887294822)").await.expect("the lock");
    assert_eq!(gc::run(&client, &GcOptions::default()).await.expect("elsewhere"), GcOutcome::Elsewhere);
    assert_eq!(one(&client, "select count(*) from lockstep.clock").await, "0");
    other.batch_execute("commit").await.expect("done");
    let hourly = GcOptions { at_most_every: Some(Duration::from_secs(3600)), ..GcOptions::default() };
    assert!(matches!(gc::run(&client, &hourly).await.expect("due"), GcOutcome::Done(_)));
    assert_eq!(gc::run(&other, &hourly).await.expect("not due"), GcOutcome::NotDue);
    client.batch_execute("update lockstep.clock set at = at - interval '1 hour'").await.expect("time passes");
    assert!(matches!(gc::run(&other, &hourly).await.expect("due"), GcOutcome::Done(_)));
}

/// A log that somebody has locked is left for later; the others are collected.
#[tokio::test]
async fn a_lock_on_one_log_does_not_stop_the_others() {
    let mut client = tracked_and_settled("gc_locked", ITEMS, &["list"]).await;
    client.batch_execute("create table other (id int primary key)").await.expect("a table");
    track(&mut client, "other", &[]).await.expect("tracked");
    client.batch_execute("insert into other values (1); update items set title = 'x'").await.expect("writes");
    settled(&client).await;
    let holder = connect("gc_locked").await;
    holder.batch_execute("begin; lock table lockstep.changes_1 in share mode").await.expect("a lock");
    let report = collect(&client, 0).await;
    assert_eq!((report.logs.len(), report.logs[0].expired, report.later[0].0), (1, 1, 1), "{report:?}");
    holder.batch_execute("commit").await.expect("released");
    assert_eq!(collect(&client, 0).await.logs[0].expired, 30);
}

#[tokio::test]
async fn clients_and_marks_that_are_gone_for_long_are_forgotten() {
    let client = tracked_and_settled("gc_clients", ITEMS, &["list"]).await;
    let rows = "insert into lockstep.clients (subject, client, last, seen_at)
          select 's', 'old' || i, 2, now() - interval '61 days' from generate_series(1, 20) i
          union all select 's', 'young', 2, now() - interval '59 days';
        insert into lockstep.mutations (subject, client, n, id, outcome)
          select subject, client, 2, 'x', 'applied' from lockstep.clients;
        insert into lockstep.incarnations (mark, server_started_at, at_lsn, seen_at) values
          (1, now() - interval '93 days', '0/1', now() - interval '32 days'),
          (2, now() - interval '92 days', '0/2', now() - interval '30 days'),
          (3, now() - interval '91 days', '0/3', now() - interval '40 days')";
    client.batch_execute(rows).await.expect("rows");
    let report = collect(&client, 30 * 24 * 3600).await;
    // The third mark is the newest: without it the database would look rolled back.
    assert_eq!((report.clients, report.mutations, report.marks), (20, 20, 1));
    assert_eq!(one(&client, "select string_agg(client, ' ') from lockstep.clients").await, "young");
    assert_eq!(one(&client, "select string_agg(client, ' ') from lockstep.mutations").await, "young");
    assert_eq!(
        one(&client, "select string_agg(mark::text, ' ' order by mark) from lockstep.incarnations").await,
        "2 3"
    );
    // A node says that it still runs, and learns if it is not known any more.
    assert!(poll::keep_mark(&client, 2).await.expect("kept"));
    assert!(!poll::keep_mark(&client, 1).await.expect("gone"));
    assert_eq!(
        one(
            &client,
            "select seen_at > now() - interval '1 minute' from lockstep.incarnations where mark = 2"
        )
        .await,
        "true"
    );
}
