//! Garbage collection of the change logs, and of what clients and nodes leave behind.
//!
//! Expired entries go together with a rise of the table's horizon, so that a catch-up sees both or neither. Entries
//! that a newer one of the same scope and key makes superfluous go at once (`compact`); why that loses nothing is in
//! `docs/decisions/0011-compaction.md`. Storage is only ever DELETEd from: after TRUNCATE, DROP or DETACH a running
//! catch-up would read the old horizon and an empty log.
//!
//! One node at a time, elected by an advisory lock that each transaction takes anew: a lock of the session would stay
//! on a pooled connection when the task is cancelled, and does not exist behind a pooler in transaction mode.

mod compact;
mod report;

use crate::catalog::texts;
use crate::error::PgError;
use lockstep_core::position::Xid;
use std::time::Duration;
use tokio_postgres::Client;

pub use report::{GcOutcome, GcReport, LogReport};

/// The election. Installing uses the number before.
const LOCK: i64 = 7_811_887_294_822;

/// SQLSTATEs that only mean "not now": a lock timeout, a deadlock, and a log that was dropped meanwhile.
const LATER: [&str; 3] = ["55P03", "40P01", "42P01"];

/// What to keep.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// A cursor that is younger can be resumed.
    pub retention: Duration,
    /// A client that wrote within this time keeps its number; longer than any client keeps its outbox.
    pub client_retention: Duration,
    /// Rows deleted per transaction.
    pub batch: u32,
    /// Do nothing if a collection, by whatever node, began within this time.
    pub at_most_every: Option<Duration>,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(30 * 24 * 3600),
            client_retention: Duration::from_secs(60 * 24 * 3600),
            batch: 5_000,
            at_most_every: None,
        }
    }
}

/// Rows deleted, and the bytes they had.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    rows: u64,
    bytes: u64,
}

impl std::ops::AddAssign for Gone {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// Ends a collection early: the error, or somebody else's turn.
enum Stop {
    Elsewhere,
    Failed(PgError),
}

impl<E: Into<PgError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Collects once.
///
/// # Errors
/// If the database cannot be reached or something in it is not ours to delete. What was deleted before stays
/// deleted; the next collection goes on from there.
pub async fn run(client: &Client, options: &GcOptions) -> Result<GcOutcome, PgError> {
    let ended = collect(client, options).await;
    if ended.is_err() {
        // The first error is the one that matters; a dead connection has rolled back.
        let _ = client.batch_execute("rollback").await;
    }
    match ended {
        Ok(Some(report)) => Ok(GcOutcome::Done(report)),
        Ok(None) => Ok(GcOutcome::NotDue),
        Err(Stop::Elsewhere) => Ok(GcOutcome::Elsewhere),
        Err(Stop::Failed(error)) => Err(error),
    }
}

async fn collect(client: &Client, options: &GcOptions) -> Result<Option<GcReport>, Stop> {
    let Some(horizon) = tick(client, options).await? else { return Ok(None) };
    let mut report = GcReport::default();
    let logs = texts(client, "select log::text from lockstep.tracked order by log").await?;
    for log in logs.iter().filter_map(|log| log.parse().ok()) {
        match collect_log(client, log, horizon, options).await {
            Ok(done) => report.logs.push(done),
            Err(Stop::Failed(error)) if error.sqlstate().is_some_and(|code| LATER.contains(&code)) => {
                client.batch_execute("rollback").await?;
                report.later.push((log, error.to_string()));
            }
            Err(stop) => return Err(stop),
        }
    }
    forget_clients(client, options, &mut report).await?;
    report.marks = forget_marks(client, options).await?;
    Ok(Some(report))
}

/// Begins a transaction if it is our turn.
///
/// Nobody needs these commits to be durable: what is lost in a crash is collected again. So none waits for a disk or
/// for a synchronous standby.
async fn begin(client: &Client) -> Result<(), Stop> {
    client
        .batch_execute(
            "begin isolation level read committed, read write; set local lock_timeout = '1s'; \
             set local statement_timeout = '10min'; set local synchronous_commit = off; \
             set local search_path = pg_catalog, pg_temp; set local jit = off",
        )
        .await?;
    let turn = texts(client, &format!("select pg_try_advisory_xact_lock({LOCK})::text")).await?;
    if turn.first().is_some_and(|t| t == "true") { Ok(()) } else { Err(Stop::Elsewhere) }
}

/// Entries are found by their places, whatever the statistics say. Those are of the moment after the last collection,
/// when a log was nearly empty: by them PostgreSQL would take each entry's turn and look through the whole log for it.
/// In one statement a place is safe to go by: nothing that its snapshot sees is vacuumed away.
async fn by_place(client: &Client) -> Result<(), Stop> {
    let only =
        "set local enable_seqscan = off; set local enable_indexscan = off; set local enable_bitmapscan = off";
    Ok(client.batch_execute(only).await?)
}

async fn commit(client: &Client) -> Result<(), Stop> {
    Ok(client.batch_execute("commit").await?)
}

/// The numbers of the one row that `sql` gives as one text, separated by blanks.
async fn numbers<const N: usize>(client: &Client, sql: &str) -> Result<[u64; N], PgError> {
    let text = texts(client, sql).await?.pop().unwrap_or_default();
    let all: Vec<u64> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
    all.try_into().map_err(|_| PgError::Protocol("an answer during garbage collection"))
}

/// An interval as SQL writes it. Whole seconds: nobody keeps a log for less.
fn seconds(duration: Duration) -> String {
    // A century; the subtraction from now() must not leave the range of timestamps.
    format!("interval '{} seconds'", duration.as_secs().min(3_155_760_000))
}

/// Takes a sample of the clock and says which transaction id the retention reaches back to: the newest sample that
/// is old enough. 0: none is. `None`: it is not time yet.
async fn tick(client: &Client, options: &GcOptions) -> Result<Option<Xid>, Stop> {
    begin(client).await?;
    if let Some(every) = options.at_most_every {
        let recent = format!(
            "select count(*)::text from lockstep.clock where at > clock_timestamp() - {} and at <= clock_timestamp()",
            seconds(every)
        );
        if numbers::<1>(client, &recent).await? != [0] {
            client.batch_execute("rollback").await?;
            return Ok(None);
        }
    }
    // The snapshot of the statement is taken first and the time read then: what is below xmin had ended by then.
    client
        .batch_execute(
            "insert into lockstep.clock (xid) values (pg_snapshot_xmin(pg_current_snapshot())::text::bigint)",
        )
        .await?;
    // After a restore into another cluster the samples are ahead of its transactions.
    let reach = format!(
        "select least(coalesce(max(xid), 0), pg_snapshot_xmin(pg_current_snapshot())::text::bigint)::text \
         from lockstep.clock where at <= clock_timestamp() - {}",
        seconds(options.retention)
    );
    let [horizon] = numbers(client, &reach).await?;
    client.batch_execute(&format!("delete from lockstep.clock where xid < {horizon}")).await?;
    commit(client).await?;
    Ok(Some(horizon))
}

async fn collect_log(
    client: &Client,
    log: i32,
    horizon: Xid,
    options: &GcOptions,
) -> Result<LogReport, Stop> {
    let mut expired = Gone::default();
    for table in [format!("lockstep.changes_{log}"), format!("lockstep.tombstones_{log}")] {
        expired += expire(client, log, &table, horizon, options.batch).await?;
    }
    let superseded = compact::run(client, log, options.batch).await?;
    report::measure(client, log, expired, superseded).await
}

/// Deletes what is below the horizon, in batches. The first also raises it: no transaction ever shows a log that
/// lacks entries at or above its horizon.
async fn expire(client: &Client, log: i32, table: &str, horizon: Xid, batch: u32) -> Result<Gone, Stop> {
    let mut all = Gone::default();
    // Going on behind the last place keeps later batches from wading through what earlier ones deleted. What is written
    // meanwhile is above the horizon, wherever it is put; what is skipped goes with the next collection.
    let mut after = String::from("(0,0)");
    loop {
        begin(client).await?;
        client
            .batch_execute(&format!(
                "update lockstep.tracked set horizon = {horizon} where log = {log} and horizon < {horizon}"
            ))
            .await?;
        by_place(client).await?;
        let sql = format!(
            "with gone as (
               delete from {table} e where ctid = any(array(
                 select ctid from {table} where ctid > '{after}'
                   and xid < (select horizon from lockstep.tracked where log = {log}) limit {batch}))
               returning e.ctid, pg_column_size(e.*) as bytes)
             select concat_ws(' ', count(*), coalesce(sum(bytes), 0), coalesce(max(ctid), '(0,0)')) from gone"
        );
        let answer = texts(client, &sql).await?.pop().unwrap_or_default();
        let mut words = answer.split(' ');
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let (Some(rows), Some(bytes)) = (number(), number()) else {
            return Err(PgError::Protocol("an answer during garbage collection").into());
        };
        after = words.next().unwrap_or_default().to_owned();
        commit(client).await?;
        all += Gone { rows, bytes };
        if rows < u64::from(batch) {
            return Ok(all);
        }
    }
}

/// Clients that have not written for long, with the outcomes they never confirmed. Their row goes only if they do
/// not write at this moment: the condition is checked again behind their lock.
async fn forget_clients(client: &Client, options: &GcOptions, report: &mut GcReport) -> Result<(), Stop> {
    let (batch, old) =
        (options.batch, format!("seen_at < clock_timestamp() - {}", seconds(options.client_retention)));
    loop {
        begin(client).await?;
        let sql = format!(
            "with old as (select subject, client from lockstep.clients where {old} limit {batch}),
             gone as (
               delete from lockstep.clients c using old o
               where c.subject = o.subject and c.client = o.client and c.{old} returning c.subject, c.client),
             forgotten as (
               delete from lockstep.mutations m using gone g
               where m.subject = g.subject and m.client = g.client returning 1)
             select concat_ws(' ', (select count(*) from gone), (select count(*) from forgotten))"
        );
        let [clients, mutations] = numbers(client, &sql).await?;
        commit(client).await?;
        report.clients += clients;
        report.mutations += mutations;
        if clients < u64::from(batch) {
            return Ok(());
        }
    }
}

/// Marks that no cursor within the retention can carry: a node says every hour that it still runs, so what it hands
/// out is at most that much younger. The newest mark stays in any case.
async fn forget_marks(client: &Client, options: &GcOptions) -> Result<u64, Stop> {
    begin(client).await?;
    let kept = seconds(options.retention.saturating_add(Duration::from_secs(24 * 3600)));
    let sql = format!(
        "with gone as (
           delete from lockstep.incarnations where seen_at < clock_timestamp() - {kept}
             and mark <> (select mark from lockstep.incarnations order by at_lsn desc, mark limit 1)
           returning 1)
         select count(*)::text from gone"
    );
    let [marks] = numbers(client, &sql).await?;
    commit(client).await?;
    Ok(marks)
}
