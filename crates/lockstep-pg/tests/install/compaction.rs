//! Compaction: the log follows rows changed, not changes made, and no cursor misses anything.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_pg::gc::{self, GcOptions, GcOutcome};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio_postgres::Client;

use crate::harness::{connect, entries, one, request, settled, tracked_and_settled};
use crate::mirror::Mirror;
use crate::retention::collect;
use lockstep_pg::install;

const ITEMS: &str = "create table items (id int primary key, list int, title text);";
const MONTH: u64 = 30 * 24 * 3600;

#[tokio::test]
async fn one_key_updated_often_leaves_one_entry() {
    let client =
        tracked_and_settled("compact_often", &format!("{ITEMS} insert into items values (1, 1)"), &["list"])
            .await;
    let mut away = Mirror::load(&client, "items", json!({"list": 1})).await;
    client.batch_execute("set synchronous_commit = off").await.expect("a setting");
    // Alone in its message, so that it may commit.
    let updates = "do $$ begin for i in 1..20000 loop update items set title = i where id = 1; commit; end loop; end $$";
    client.batch_execute(updates).await.expect("20,000 updates");
    assert_eq!(one(&client, "select count(*) from lockstep.changes_1").await, "20000");
    let log = collect(&client, MONTH).await.logs.remove(0);
    assert_eq!((log.superseded, log.expired, log.rows_left), (19_999, 0, 1));
    assert_eq!(away.resume(&client).await, (None, 1));
    assert_eq!(away.rows, away.truth(&client).await);
    // Nothing new: nothing is done, and nothing is lost.
    assert_eq!(collect(&client, MONTH).await.logs[0].superseded, 0);
    assert_eq!(one(&client, "select compacted > horizon from lockstep.tracked").await, "true");
}

/// Statistics are of the moment after a collection, when the log was nearly empty; the next collection must not believe
/// them. It did: each entry was looked for in all of the log.
#[tokio::test]
async fn a_log_that_grew_since_its_statistics_were_taken_is_collected_in_one_go() {
    const MANY: u64 = 3000;
    let client = tracked_and_settled("compact_statistics", ITEMS, &["list"]).await;
    client
        .batch_execute("insert into items select i, 1 from generate_series(1, 3000) i")
        .await
        .expect("rows");
    client.batch_execute("alter table lockstep.changes_1 set (autovacuum_enabled = off)").await.expect("set");
    // The last entry keeps the file as long as it is: one row on many pages.
    let nearly = "delete from lockstep.changes_1 where id < (select max(id) from lockstep.changes_1)";
    client.batch_execute(nearly).await.expect("nearly empty");
    client.batch_execute("vacuum analyze lockstep.changes_1").await.expect("statistics");
    client.batch_execute("update items set title = 'x'; update items set title = 'y'").await.expect("writes");
    settled(&client).await;
    let read = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0) + (
          select sum(idx_tup_read) from pg_stat_user_indexes i where i.relid = t.relid))
        from pg_stat_user_tables t where t.relid = 'lockstep.changes_1'::regclass";
    let deleted = "select n_tup_del from pg_stat_user_tables where relid = 'lockstep.changes_1'::regclass";
    // A session tells its counts when it ends.
    let counted = async |wanted: &str| {
        while one(&client, deleted).await != wanted {}
        one(&client, read).await.parse::<u64>().expect("a number")
    };
    let before: u64 = one(&client, read).await.parse().expect("a number");
    let collector = connect("compact_statistics").await;
    collect(&collector, MONTH).await;
    drop(collector);
    let after = counted(&(2 * MANY).to_string()).await;
    assert!(after - before < 100 * MANY, "{} entries were read to collect {MANY}", after - before);
}

/// Between finding entries and deleting them the table is tracked anew: its new log has entries with the same ids, which
/// must stay. Locks stop the collection before it looks for entries, and again before it deletes them.
#[tokio::test]
async fn a_log_that_is_built_anew_meanwhile_is_left_alone() {
    let database = "compact_anew";
    let mut client =
        tracked_and_settled(database, &format!("{ITEMS} insert into items values (1, 1)"), &["list"]).await;
    client
        .batch_execute("update items set title = 'a'; update items set title = 'b'")
        .await
        .expect("two entries");
    settled(&client).await;
    // What `track` will run, for the trigger is missing; in a transaction that a reader of the log does not wait for yet.
    client.batch_execute("alter table items disable trigger lockstep_update").await.expect("broken");
    let anew = install::track_sql(&mut client, &request("items", &["list"])).await.expect("a script");
    let anew = anew.trim_start().trim_start_matches("begin;").trim_end().trim_end_matches("commit;");
    let first = connect(database).await;
    first.batch_execute("begin; lock table lockstep.tombstones_1 in share mode").await.expect("a lock");
    let collector = connect(database).await;
    let collecting = tokio::spawn(async move { collect(&collector, MONTH).await });
    let waits = async |log: &str| {
        let sql = format!(
            "select count(*) from pg_locks where relation = 'lockstep.{log}_1'::regclass and not granted"
        );
        while one(&client, &sql).await != "1" {}
    };
    waits("tombstones").await;
    client.batch_execute("begin; lock table lockstep.changes_1 in share mode").await.expect("a lock");
    first.batch_execute("commit").await.expect("go on");
    waits("changes").await;
    let rest = format!(
        "{anew}; set local search_path = public; update items set title = 'c'; update items set title = 'd'; commit"
    );
    client.batch_execute(&rest).await.expect("tracked anew");
    let report = collecting.await.expect("collected");
    assert!(report.later.is_empty(), "{report:?}");
    let left = "select string_agg(id::text, ' ' order by id) from lockstep.changes_1";
    assert_eq!(one(&client, left).await, "1 2", "{report:?}");
}

/// By scope and key, over both logs; NULL is a scope like others, and a truncation supersedes only truncations.
#[tokio::test]
async fn the_last_written_entry_of_each_scope_and_key_stays() {
    let client = tracked_and_settled("compact_which", ITEMS, &["list"]).await;
    let sql = "insert into items values (1, 7), (2, 7), (3, null), (4, null);
        truncate items; insert into items values (1, 7), (2, 7), (3, null), (4, null); truncate items;
        insert into items values (1, 7), (2, 7), (3, null), (4, null);
        update items set title = 'x' where id in (1, 3); delete from items where id = 2;
        update items set list = 8 where id = 1; update items set list = 7 where id = 1;
        update items set id = 5 where id = 4; insert into items values (2, 7); delete from items where id = 2";
    client.batch_execute(sql).await.expect("writes");
    collect(&client, MONTH).await;
    let left = [
        "put s1=- k1=3",
        "put s1=- k1=5",
        "put s1=7 k1=1",
        "d s1=7 k1=2",
        "m s1=- k1=4",
        "m s1=8 k1=1",
        "t s1=- k1=-",
    ];
    assert_eq!(entries(&client).await, left);
}

/// A transaction that began first writes the row last. Whoever keeps the entry with the highest transaction id would
/// lose this change.
#[tokio::test]
async fn the_last_writer_need_not_be_the_youngest_transaction() {
    let client = tracked_and_settled(
        "compact_old_writer",
        &format!("{ITEMS} insert into items values (1, 1), (2, 1)"),
        &["list"],
    )
    .await;
    let long = connect("compact_old_writer").await;
    long.batch_execute("begin; update items set title = 'long' where id = 2").await.expect("it has an id");
    client.batch_execute("update items set title = 'short' where id = 1").await.expect("the younger writes");
    let mut away = Mirror::load(&client, "items", json!({"list": 1})).await;
    long.batch_execute("update items set title = 'long' where id = 1; commit")
        .await
        .expect("the older writes");
    let order = "select (array_agg(xid order by id))[1] > (array_agg(xid order by id))[2] from lockstep.changes_1 where k1 = 1";
    assert_eq!(one(&client, order).await, "true");
    assert_eq!(collect(&client, MONTH).await.logs[0].superseded, 1);
    assert_eq!(away.resume(&client).await, (None, 2));
    assert_eq!(away.rows, away.truth(&client).await);
}

/// A writer in progress: what it will supersede stays until it has committed, and goes for good then.
#[tokio::test]
async fn an_uncommitted_entry_supersedes_nothing() {
    let client =
        tracked_and_settled("compact_open", &format!("{ITEMS} insert into items values (1, 1)"), &["list"])
            .await;
    let mut away = Mirror::load(&client, "items", json!({"list": 1})).await;
    client.batch_execute("update items set title = 'a' where id = 1").await.expect("written");
    let writer = connect("compact_open").await;
    writer.batch_execute("begin; update items set title = 'b' where id = 1").await.expect("open");
    assert_eq!(collect(&client, MONTH).await.logs[0].rows_left, 1);
    writer.batch_execute("rollback").await.expect("undone");
    assert_eq!(collect(&client, MONTH).await.logs[0].superseded, 0);
    assert_eq!(away.clone().resume(&client).await, (None, 1));
    writer.batch_execute("begin; update items set title = 'c' where id = 1").await.expect("open");
    client
        .batch_execute("insert into items values (9, 1); update items set title = 'x' where id = 9")
        .await
        .expect("others go on");
    assert_eq!(collect(&client, MONTH).await.logs[0].superseded, 1);
    writer.batch_execute("commit").await.expect("committed");
    // It began before the last compaction and is found all the same.
    assert_eq!(collect(&client, MONTH).await.logs[0].superseded, 1);
    away.resume(&client).await;
    assert_eq!(away.rows, away.truth(&client).await);
}

/// Writers for a random time, with long transactions, savepoints, rollbacks, key changes and scope moves.
async fn write(client: &Client, seed: u64, stop: &AtomicBool) {
    let mut rng = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let mut sql = String::from(
            "begin; set local deadlock_timeout = '10ms'; set local lock_timeout = '200ms'; select pg_current_xact_id();",
        );
        // It has its id and writes later: so the last writer of a row is often not the youngest transaction.
        sql += &format!("select pg_sleep({});", rng.random_range(0.0..0.05));
        for _ in 0..rng.random_range(1..5) {
            let (id, other) = (rng.random_range(1..12), rng.random_range(1..12));
            let list = ["1", "2", "3", "null"][rng.random_range(0..4)];
            sql += &match rng.random_range(0..13) {
                0..3 => format!(
                    "insert into items values ({id}, {list}, 'i') on conflict (id) do update set list = excluded.list;"
                ),
                3..5 => format!("update items set title = title || {other} where id = {id};"),
                5 => format!("update items set list = {list} where id between {id} and {id} + 3;"),
                6 => format!("delete from items where id = {id};"),
                7 => format!("savepoint s; delete from items where id = {id}; rollback to s;"),
                8 => format!(
                    "update items set id = {other} where id = {id} and not exists (select from items where id = {other});"
                ),
                _ => format!("select pg_sleep(0.0{});", rng.random_range(1..6)),
            };
        }
        sql += if rng.random_bool(0.85) { "commit" } else { "rollback" };
        // A deadlock, a timeout, or a key that somebody else took meanwhile.
        if client.batch_execute(&sql).await.is_err() {
            client.batch_execute("rollback").await.expect("rolled back");
        }
    }
}

/// A cursor for each scope.
async fn load(client: &Client, kept: &mut Vec<(usize, Mirror)>) {
    for list in 1..=3 {
        kept.push((list, Mirror::load(client, "items", json!({"list": list})).await));
    }
}

/// Cursors taken at any moment, compaction and a moving horizon all the while: each cursor, however old, ends with
/// what a fresh load gives, and those above the horizon without a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cursor_ends_with_the_truth() {
    let database = "compact_random";
    let client = tracked_and_settled(database, ITEMS, &["list"]).await;
    let rounds = if std::env::var_os("LOCKSTEP_QUICK").is_some() { 3 } else { 8 };
    let mut kept: Vec<(usize, Mirror)> = Vec::new();
    let (mut superseded, mut resumed, mut resets) = (0, 0, 0);
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for n in 0..4 {
            let (writer, stop) = (connect(database).await, stop.clone());
            writers.push(tokio::spawn(async move { write(&writer, round * 10 + n, &stop).await }));
        }
        for moment in 0..4 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            // Once the table is truncated, and once the horizon moves up to here.
            if (round, moment) == (rounds / 2, 1) {
                client.batch_execute("truncate items").await.expect("truncated");
            }
            load(&client, &mut kept).await;
            let horizon = (round, moment) == (rounds - 1, 1);
            let retention = Duration::from_secs(if horizon { 0 } else { MONTH });
            let options = GcOptions { retention, batch: 50, ..GcOptions::default() };
            if let GcOutcome::Done(report) = gc::run(&client, &options).await.expect("collected") {
                superseded += report.logs.iter().map(|log| log.superseded).sum::<u64>();
            }
        }
        // What is in progress now writes the last entries of its rows, after these cursors and before the compaction.
        load(&client, &mut kept).await;
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("it wrote");
        }
        superseded += collect(&client, MONTH).await.logs[0].superseded;
        let mut truth = BTreeMap::new();
        let mut good = Vec::new();
        for (list, mirror) in kept {
            let mut caught_up = mirror.clone();
            let (reset, _) = caught_up.resume(&client).await;
            if let Entry::Vacant(place) = truth.entry(list) {
                place.insert(mirror.truth(&client).await);
            }
            assert_eq!(&caught_up.rows, &truth[&list], "round {round}, {:?}", mirror.head);
            match reset.as_deref() {
                None => {
                    resumed += 1;
                    good.push((list, mirror));
                }
                Some("truncated" | "horizon") => resets += 1,
                other => panic!("{other:?}"),
            }
        }
        kept = good;
    }
    println!("{superseded} entries compacted; {resumed} cursors resumed, {resets} loaded anew");
    assert!(superseded > 50 && resumed > 24, "{superseded} {resumed} {resets}");
}
