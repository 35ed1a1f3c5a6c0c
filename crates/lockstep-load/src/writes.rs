//! What tracking costs whoever writes: the same statements on two tables that differ in being tracked only.
//!
//! Two sessions write prepared statements as fast as they can, each in its own half of the table; a run is a fraction
//! of a second, and untracked and tracked runs take turns. The rows have some 150 bytes, an index besides the primary
//! key, and a scope of 500 rows; one update in place changes no indexed column.

use crate::database::{Database, session};
use crate::figures::{Bench, Figure, Limit};
use crate::machine::{Machine, Versions};
use crate::pairs::{Pair, compare};
use anyhow::Result;
use rand::Rng;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Major version of PostgreSQL.
    pub major: Option<u32>,
    /// Pairs per figure.
    pub pairs: usize,
    /// Length of one run.
    pub run: Duration,
    /// Only these figures; none: all.
    pub only: Vec<String>,
}

/// Rows that are updated: few enough that the first pair writes the full images of their pages after the checkpoint.
const ROWS: i64 = 50_000;
/// Rows that are there to be deleted, behind them.
const SPARE: i64 = 600_000;
/// Sessions.
const CLIENTS: i64 = 2;
/// Rows of a statement that updates many.
const MANY: i64 = 100;

const TABLE: &str = "create table {t} (id bigint primary key, org int not null, title text not null, done bool not null
      default false, v int not null default 0, body text not null) with (fillfactor = 85);
    insert into {t} select i, i / 500, 'title ' || i, false, 0, repeat('x', 90) from generate_series(1, {n}) i;
    create index on {t} (org);";

/// What a session does over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    UpdateOne,
    UpdateMany,
    Insert,
    Delete,
}

/// One comparison.
struct Case {
    name: &'static str,
    work: Work,
    sync: bool,
    limit: Option<f64>,
}

const CASES: [Case; 6] = [
    Case { name: "sync_one_row", work: Work::UpdateOne, sync: true, limit: Some(0.93) },
    Case { name: "async_one_row", work: Work::UpdateOne, sync: false, limit: Some(0.75) },
    Case { name: "sync_hundred_rows", work: Work::UpdateMany, sync: true, limit: None },
    Case { name: "async_hundred_rows", work: Work::UpdateMany, sync: false, limit: Some(0.42) },
    Case { name: "insert", work: Work::Insert, sync: false, limit: None },
    Case { name: "delete", work: Work::Delete, sync: false, limit: None },
];

impl Work {
    fn sql(self, table: &str) -> String {
        match self {
            Self::UpdateOne => format!("update {table} set v = v + 1 where id = $1"),
            Self::UpdateMany => format!("update {table} set v = v + 1 where id >= $1 and id < $1 + {MANY}"),
            Self::Insert => {
                format!(
                    "insert into {table} (id, org, title, body) values ($1::bigint, ($1::bigint / 500)::int, 'new', repeat('y', 90))"
                )
            }
            Self::Delete => format!("delete from {table} where id = $1"),
        }
    }
}

/// Where sessions stand with keys that are used once.
#[derive(Debug, Default, Clone, Copy)]
struct Used {
    inserted: i64,
    deleted: i64,
}

/// Runs it.
///
/// # Errors
/// If PostgreSQL cannot be started or asked.
pub async fn run(options: &Options) -> Result<Bench> {
    let machine = Machine::this();
    let mut database = Database::start(options.major).await?;
    for table in ["plain", "tracked"] {
        let sql = TABLE.replace("{t}", table).replace("{n}", &(ROWS + SPARE).to_string());
        database.client.batch_execute(&sql).await?;
    }
    database.track("tracked", "org").await?;
    for sql in ["vacuum analyze plain", "vacuum analyze tracked", "checkpoint"] {
        database.client.batch_execute(sql).await?;
    }
    let mut used = [Used::default(); 2];
    let mut figures = Vec::new();
    for case in CASES
        .iter()
        .filter(|case| options.only.is_empty() || options.only.iter().any(|name| name == case.name))
    {
        figures.extend(compared(&database, case, options, &mut used).await?);
    }
    let versions = Versions::with(database.one("current_setting('server_version')").await?);
    Ok(Bench { name: "writes", runs: options.pairs, figures, machine, versions })
}

/// Transactions per second and the WAL of each, tracked against not.
async fn compared(
    database: &Database,
    case: &Case,
    options: &Options,
    used: &mut [Used; 2],
) -> Result<Vec<Figure>> {
    let mut rates = Vec::new();
    let mut wal = Vec::new();
    // The first pair fills caches of plans and pages, and is thrown away.
    for number in 0..=options.pairs {
        let mut rate = [0.0; 2];
        let mut bytes = [0.0; 2];
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let table = ["plain", "tracked"][which];
            (rate[which], bytes[which]) =
                measure(database, case, table, options.run, &mut used[which]).await?;
        }
        if number > 0 {
            rates.push(Pair { base: rate[0], with: rate[1] });
            wal.push(Pair { base: bytes[0], with: bytes[1] });
        }
    }
    let figure = |name: String, unit: &str, pairs: &[Pair], limit: Option<f64>| {
        let compared = compare(pairs);
        Figure {
            name,
            value: compared.value,
            unit: unit.to_owned(),
            limit: limit.map(Limit::RatioAtLeast),
            ratio: Some(compared.ratio),
            min: Some(compared.min),
            max: Some(compared.max),
        }
    };
    Ok(vec![
        figure(case.name.to_owned(), "transactions/s", &rates, case.limit),
        figure(format!("{}_wal", case.name), "bytes/transaction", &wal, None),
    ])
}

/// One run: transactions per second, and bytes of WAL per transaction.
async fn measure(
    database: &Database,
    case: &Case,
    table: &str,
    length: Duration,
    used: &mut Used,
) -> Result<(f64, f64)> {
    let mut sessions = Vec::new();
    for _ in 0..CLIENTS {
        let client = session(&database.cluster.url()).await?;
        let sync = if case.sync { "on" } else { "off" };
        client.batch_execute(&format!("set synchronous_commit = {sync}")).await?;
        // Plans and relation caches of a session are made by its first statement.
        client.batch_execute("begin").await?;
        client.execute(&case.work.sql(table).replace("$1", "(-1)"), &[]).await?;
        client.batch_execute("rollback").await?;
        sessions.push(client);
    }
    let lsn = "pg_current_wal_insert_lsn() - '0/0'";
    let before = database.number(lsn).await?;
    let until = Instant::now() + length;
    let began = Instant::now();
    let first = match case.work {
        Work::Insert => ROWS + SPARE + 1 + used.inserted,
        Work::Delete => ROWS + 1 + used.deleted,
        _ => 1,
    };
    let mut tasks = Vec::new();
    for (number, client) in (0..CLIENTS).zip(sessions) {
        tasks.push(tokio::spawn(write(client, case.work, case.work.sql(table), first + number, until)));
    }
    let mut done = 0;
    let mut most = 0;
    for task in tasks {
        let did = task.await??;
        done += did;
        most = most.max(did);
    }
    let took = began.elapsed().as_secs_f64();
    let bytes = database.number(lsn).await? - before;
    match case.work {
        Work::Insert => used.inserted += most * CLIENTS,
        Work::Delete => used.deleted += most * CLIENTS,
        _ => {}
    }
    anyhow::ensure!(used.deleted < SPARE, "no rows are left to delete: choose fewer pairs or shorter runs");
    let done = f64::from(i32::try_from(done)?);
    Ok((done / took, bytes / done.max(1.0)))
}

/// One session until the time is up; how many transactions it committed.
async fn write(client: Client, work: Work, sql: String, first: i64, until: Instant) -> Result<i64> {
    let statement = client.prepare(&sql).await?;
    let half = ROWS / CLIENTS;
    let mut done = 0;
    while Instant::now() < until {
        let key = match work {
            // Its own half: two statements over many rows that overlap would wait for each other.
            Work::UpdateOne => (first - 1) * half + rand::rng().random_range(1..=half),
            Work::UpdateMany => (first - 1) * half + rand::rng().random_range(1..=half - MANY),
            Work::Insert | Work::Delete => first + done * CLIENTS,
        };
        client.execute(&statement, &[&key]).await?;
        done += 1;
    }
    Ok(done)
}
