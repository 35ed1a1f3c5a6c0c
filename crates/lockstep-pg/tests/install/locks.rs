//! Open transactions: waited for, named, and never waited for endlessly.

use std::sync::Mutex;
use std::time::Duration;

use lockstep_pg::install::{self, InstallError, Outcome, Patience};
use tokio_postgres::Client;

use crate::harness::{connect, entries, installed, one, request, track, tracked};

const ITEMS: &str = "create table items (id int primary key, list int)";

/// Gives up soon: one attempt, and what it reports.
const IMPATIENT: Patience = Patience {
    lock_timeout: Duration::from_millis(20),
    give_up_after: Duration::from_millis(50),
    on_wait: |_| {},
};

/// Returns when somebody waits for a lock on `relation`.
async fn somebody_waits(client: &Client, relation: &str) {
    let waits = format!(
        "select exists (select from pg_locks where not granted and relation = '{relation}'::regclass)"
    );
    while one(client, &waits).await != "true" {}
}

async fn blockers(client: &mut Client) -> (String, Vec<install::Blocker>) {
    let error =
        install::track(client, &request("items", &["list"]), &IMPATIENT).await.expect_err("a writer is open");
    let sentence = error.to_string();
    match error {
        InstallError::LockTimeout { blockers, .. } => (sentence, blockers),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_open_writer_is_named() {
    let mut client = installed("locks_named", ITEMS).await;
    let writer = connect("locks_named").await;
    writer.batch_execute("begin; insert into items values (1, 7)").await.expect("a writer");
    let (sentence, blockers) = blockers(&mut client).await;
    let pid: i32 = one(&writer, "select pg_backend_pid()").await.parse().expect("a number");
    assert_eq!((blockers.len(), blockers[0].pid), (1, Some(pid)), "{sentence}");
    assert_eq!(blockers[0].state.as_deref(), Some("idle in transaction"));
    assert!(blockers[0].since.is_some(), "{sentence}");
    assert!(sentence.contains("insert into items values (1, 7)"), "{sentence}");
    // Nothing was left, and the writer never noticed.
    assert_eq!(one(&client, "select count(*) from lockstep.tracked").await, "0");
    writer.batch_execute("commit").await.expect("committed");
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Created));
}

#[tokio::test]
async fn a_prepared_transaction_is_named() {
    let mut client = installed("locks_prepared", ITEMS).await;
    let prepare = "begin; insert into items values (1, 7); prepare transaction 'left over'";
    client.batch_execute(prepare).await.expect("prepared");
    let (sentence, blockers) = blockers(&mut client).await;
    assert_eq!((blockers[0].pid, blockers[0].prepared.as_deref()), (None, Some("left over")), "{sentence}");
    client.batch_execute("rollback prepared 'left over'").await.expect("rolled back");
}

#[tokio::test]
async fn track_waits_for_a_writer_that_ends() {
    let mut client = installed("locks_waits", ITEMS).await;
    let (writer, observer) = (connect("locks_waits").await, connect("locks_waits").await);
    writer.batch_execute("begin; insert into items values (1, 7)").await.expect("a writer");
    let ends = async {
        somebody_waits(&observer, "items").await;
        // Older than the triggers, and it goes on writing while track waits.
        writer.batch_execute("insert into items values (2, 7); commit").await.expect("committed");
    };
    let (outcome, ()) = tokio::join!(track(&mut client, "items", &["list"]), ends);
    assert_eq!(outcome, Ok(Outcome::Created));
    // Its id lies below the horizon, as it must: the log does not know it.
    assert!(entries(&client).await.is_empty());
    let below = "select bool_and(xmin::text::bigint < (select horizon from lockstep.tracked)) from items";
    assert_eq!(one(&client, below).await, "true");
}

#[tokio::test]
async fn readers_are_not_waited_for() {
    let mut client = installed("locks_readers", ITEMS).await;
    let reader = connect("locks_readers").await;
    reader
        .batch_execute("begin; lock table items, lockstep.tracked in access share mode")
        .await
        .expect("a reader");
    let outcome = install::track(&mut client, &request("items", &["list"]), &IMPATIENT).await;
    assert_eq!(outcome.expect("no writer is open"), Outcome::Created);
}

#[tokio::test]
async fn a_catch_up_holds_off_the_rebuild_of_its_log() {
    let mut client = tracked("locks_catch_up", ITEMS, &[]).await;
    let reader = connect("locks_catch_up").await;
    let catch_up = "begin isolation level repeatable read, read only;
        lock table items, lockstep.tracked, lockstep.changes_1, lockstep.tombstones_1 in access share mode;
        select 1 from lockstep.changes_1";
    reader.batch_execute(catch_up).await.expect("a catch-up");
    let (sentence, blockers) = blockers(&mut client).await;
    let pid: i32 = one(&reader, "select pg_backend_pid()").await.parse().expect("a number");
    assert_eq!(blockers.first().and_then(|blocker| blocker.pid), Some(pid), "{sentence}");
    reader.batch_execute("commit").await.expect("done");
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Changed));
}

#[tokio::test]
async fn untrack_waits_for_readers_and_names_them() {
    let mut client = tracked("locks_untrack", ITEMS, &[]).await;
    let reader = connect("locks_untrack").await;
    reader.batch_execute("begin; select 1 from items").await.expect("a reader");
    let error = install::untrack(&mut client, "items", &IMPATIENT).await.expect_err("a reader is open");
    assert_eq!(error.code(), "lock_timeout");
    assert!(error.to_string().contains("select 1 from items"), "{error}");
    reader.batch_execute("commit").await.expect("done");
    let removed = install::untrack(&mut client, "items", &Patience::default()).await.expect("untracked");
    assert_eq!(removed, Outcome::Removed);
}

/// What an operator sees while waiting, told as it changes.
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Every writer gets through within a second while `track` waits for another one, and whoever waits is told for whom.
#[tokio::test]
async fn the_application_never_queues_behind_track_for_long() {
    let mut client = installed("locks_queue", ITEMS).await;
    let (open, writer, observer) =
        (connect("locks_queue").await, connect("locks_queue").await, connect("locks_queue").await);
    open.batch_execute("begin; insert into items values (0, 7)").await.expect("a writer");
    let patience = Patience {
        on_wait: |blockers| {
            TOLD.lock().expect("no panic").extend(blockers.iter().map(ToString::to_string));
        },
        ..Patience::default()
    };
    let asked = request("items", &["list"]);
    let tracking = install::track(&mut client, &asked, &patience);
    let writing = async {
        // PostgreSQL itself keeps the time: a writer that had to wait longer would fail.
        writer.batch_execute("set lock_timeout = '1s'").await.expect("a limit");
        for n in 1..=4 {
            // Each comes when `track` already waits, and so queues behind it.
            somebody_waits(&observer, "items").await;
            writer
                .batch_execute(&format!("insert into items values ({n}, 7)"))
                .await
                .expect("within a second");
        }
        open.batch_execute("commit").await.expect("committed");
    };
    let (outcome, ()) = tokio::join!(tracking, writing);
    assert_eq!(outcome.expect("tracked"), Outcome::Created);
    let told = TOLD.lock().expect("no panic").join("\n");
    let pid = one(&open, "select pg_backend_pid()").await;
    assert!(told.contains(&format!("pid {pid} (idle in transaction, since 2")), "{told}");
    assert!(told.contains("insert into items values (0, 7)"), "{told}");
}
