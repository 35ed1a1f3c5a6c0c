//! What is left of a key that is written over and over: a bounded log, and a catch-up of one row.

use crate::database::Database;
use crate::figures::{Bench, Figure, Limit};
use crate::machine::{Machine, Versions};
use anyhow::{Context, Result, anyhow, bail};
use lockstep_core::fanout::hub::{CatchUpRequest, ReadFrom, ReadRequest};
use lockstep_core::position::CursorHead;
use lockstep_core::shape::{Shape, ShapeRequest};
use lockstep_pg::gc::{self, GcOptions, GcOutcome};
use lockstep_pg::target::Target;
use lockstep_pg::{catalog, catch_up, poll};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Major version of PostgreSQL.
    pub major: Option<u32>,
    /// Updates of the one key.
    pub updates: u64,
    /// The logs are collected after so many, as a node does once an hour.
    pub collect_every: u64,
}

/// Runs it.
///
/// # Errors
/// If PostgreSQL cannot be started or asked, or a catch-up is not what it has to be.
pub async fn run(options: &Options) -> Result<Bench> {
    let machine = Machine::this();
    let mut database = Database::start(options.major).await?;
    let table = "create table items (id int primary key, org int not null, v bigint not null);
        insert into items select i, 1, 0 from generate_series(1, 100) i";
    database.client.batch_execute(table).await?;
    database.track("items", "org").await?;
    let mut away = Away::load(&database).await?;
    let (mut most_rows, mut most_bytes, mut written) = (0, 0, 0);
    let mut collecting = Duration::ZERO;
    while written < options.updates {
        let some = options.collect_every.min(options.updates - written);
        update(&database, written, some).await?;
        written += some;
        let begun = Instant::now();
        // Nothing is old enough to expire: what keeps the log short is compaction alone.
        let GcOutcome::Done(report) = gc::run(&database.client, &GcOptions::default()).await? else {
            bail!("nobody else collects here");
        };
        collecting += begun.elapsed();
        // As autovacuum does where it has the time; it gives the room of deleted entries back to new ones.
        database.client.batch_execute("vacuum lockstep.changes_1").await?;
        most_rows = most_rows.max(report.logs[0].rows_left);
        most_bytes = most_bytes.max(report.logs[0].bytes_left);
    }
    let begun = Instant::now();
    let rows = away.resume(&database).await?;
    let took = begun.elapsed();
    let now = database.number("select v from items where id = 1").await?;
    anyhow::ensure!(now as u64 == options.updates, "the row was updated {now} times");
    let figure = |name: &str, value: f64, unit: &str, limit: Option<f64>| Figure {
        name: name.into(),
        value,
        unit: unit.into(),
        limit: limit.map(Limit::ValueAtMost),
        ratio: None,
        min: None,
        max: None,
    };
    let figures = vec![
        figure("updates", written as f64, "of one key", None),
        figure("log_entries", most_rows as f64, "after a collection, at most", Some(1.0)),
        // An entry takes some hundred bytes with its indexes; the room is that of what is written between collections.
        figure(
            "log_bytes",
            most_bytes as f64,
            "bytes on disk, at most",
            Some(options.collect_every as f64 * 400.0 + 1e6),
        ),
        figure("catch_up_rows", rows as f64, "rows", Some(1.0)),
        figure("catch_up", took.as_secs_f64() * 1e3, "ms", None),
        figure("collecting", collecting.as_secs_f64() * 1e3, "ms, all together", None),
    ];
    let versions = Versions::with(database.one("current_setting('server_version')").await?);
    Ok(Bench { name: "retention", runs: 1, figures, machine, versions })
}

/// Updates the one key in so many transactions.
async fn update(database: &Database, from: u64, count: u64) -> Result<()> {
    // One call commits after each update; a million round trips would measure the network.
    let sql = format!(
        "do $$ begin for i in 1 .. {count} loop update items set v = {from} + i where id = 1; commit; end loop; end $$"
    );
    database.client.batch_execute("set synchronous_commit = off").await?;
    database.client.batch_execute(&sql).await?;
    Ok(())
}

/// A client that has everything, and then nothing of what follows.
struct Away {
    shape: Arc<Shape>,
    head: CursorHead,
}

impl Away {
    async fn load(database: &Database) -> Result<Self> {
        let client = &database.client;
        let request: ShapeRequest =
            serde_json::from_value(json!({"ref": "0", "table": "items", "scope": {"org": 1}}))?;
        let known = catalog::load(client).await?;
        let shape = Shape::resolve(&request, &known).map_err(|error| anyhow!("no shape: {error:?}"))?;
        let (system, timeline, in_database) = poll::identify(client).await?;
        let incarnation = poll::mark(client).await?;
        let polled = poll::poll(client, 0).await?;
        let head = CursorHead {
            system,
            timeline,
            database: in_database,
            incarnation,
            fence: polled.fence,
            snapshot: polled.snapshot,
            shown: Vec::new(),
        };
        Ok(Self { shape: Arc::new(shape), head })
    }

    /// Catches up by the product's own code; how many rows came.
    async fn resume(&mut self, database: &Database) -> Result<usize> {
        let from = ReadFrom::Since(Arc::new(self.head.clone()));
        let reads = vec![ReadRequest { shape: self.shape.clone(), from }];
        let request = CatchUpRequest { id: Default::default(), reads, clients: Vec::new() };
        let target = Target::parse(&database.cluster.url())?;
        let answer = catch_up::read_whole(&target, &request, &[], Duration::from_secs(60)).await?;
        let mut rows = 0;
        for frame in &answer.reads[0].frames {
            let frame: Json = serde_json::from_slice(frame).context("a frame")?;
            let body = &frame[4];
            anyhow::ensure!(body["reset"].is_null(), "loaded anew: {}", body["reset"]);
            rows +=
                body["put"].as_array().map_or(0, Vec::len) + body["remove"].as_array().map_or(0, Vec::len);
        }
        Ok(rows)
    }
}
