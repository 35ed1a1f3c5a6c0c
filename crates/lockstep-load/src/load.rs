//! A first load of many rows through a node, beside COPY of the same rows.
//!
//! One client asks for a table and has all of it when the commit frame is there; the limit is a program that copies the
//! same rows and throws them away. Runs of both take turns. After each load every row is compared with SELECT.

use crate::database::Database;
use crate::figures::{Bench, Figure, Limit};
use crate::join;
use crate::machine::{Machine, Versions};
use crate::node::{Node, Process};
use crate::pairs::{Pair, median};
use crate::programs::Programs;
use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, pin_mut};
use lockstep_pg::install::{self, Patience, TrackRequest};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio_websockets::Payload;

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Major version of PostgreSQL.
    pub major: Option<u32>,
    /// Pairs of runs.
    pub pairs: usize,
    /// Rows of the table.
    pub rows: u64,
    /// Whether it works, not how fast.
    pub small: bool,
    /// Where the programs are.
    pub programs: Programs,
}

/// Rows per second below which COPY itself is not what it should be on this machine.
const PLAUSIBLE: f64 = 500_000.0;

const TABLE: &str = "create table items (id bigint primary key, org int not null, title text not null, done bool not
      null, price numeric, body text);
    insert into items select i, i / 500, 'title \"' || i || '\"', i % 3 = 0, i / 7.0, repeat('x', 60) || E'\\n\\\\' || i
      from generate_series(1, {n}) i";

/// As SELECT says it, in the order of the columns.
const ROWS: &str =
    "select id::text, jsonb_build_array(id::text, org, title, done, price::text, body)::text from items";

/// Runs it.
///
/// # Errors
/// If PostgreSQL or the node cannot be started, a row is wrong, or COPY is too slow for the figures to mean anything.
pub async fn run(options: &Options) -> Result<Bench> {
    let machine = Machine::this();
    let mut database = Database::start(options.major).await?;
    database.client.batch_execute(&TABLE.replace("{n}", &options.rows.to_string())).await?;
    let request = TrackRequest { table: "items".into(), ..TrackRequest::default() };
    install::track(&mut database.client, &request, &Patience::default()).await?;
    for sql in ["vacuum (freeze, analyze) items", "checkpoint"] {
        database.client.batch_execute(sql).await?;
    }
    let truth = truth(&database).await?;
    let node = Node::start(&options.programs.path("lockstep"), &database.cluster.url())?;
    let before = node.process().rss()?;
    let (mut times, mut copies, mut growth) = (Vec::new(), Vec::new(), Vec::new());
    // The first pair fills caches, and is thrown away.
    for number in 0..=options.pairs {
        let mut pair = [0.0; 2];
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            pair[which] = if which == 0 {
                copy(options, &database)?
            } else {
                let peak = Peak::begin(node.process())?;
                let (frames, took) = load(node.port()).await?;
                growth.push((peak.end()? - before).max(0.0) / 1024.0);
                verify(&frames, &truth)?;
                took
            };
        }
        if number > 0 {
            times.push(Pair { base: pair[0], with: pair[1] });
            copies.push(options.rows as f64 / pair[0]);
        }
    }
    let rate = median(&copies);
    if !options.small && rate < PLAUSIBLE {
        bail!("COPY brought {rate:.0} rows/s: the machine is busy, and no figure would mean anything");
    }
    let limit = |limit| (!options.small).then_some(limit);
    let figures = vec![
        Figure::of_pairs("time", "s", &times, limit(Limit::RatioAtMost(2.0))),
        Figure::of_runs("node_memory_growth_mb", "MB", &growth[1..], limit(Limit::ValueAtMost(64.0)))
            .highest(),
        Figure::of_runs("copy", "rows/s", &copies, None),
    ];
    let versions = Versions::with(database.one("current_setting('server_version')").await?);
    Ok(Bench { name: "load", runs: options.pairs, figures, machine, versions })
}

/// By the key: a hash of the row.
async fn truth(database: &Database) -> Result<HashMap<String, u64>> {
    let rows = database.client.query_raw(ROWS, std::iter::empty::<&str>()).await?;
    pin_mut!(rows);
    let mut truth = HashMap::new();
    while let Some(row) = rows.next().await {
        let row = row?;
        truth.insert(row.get(0), hash(&serde_json::from_str(row.get(1))?));
    }
    Ok(truth)
}

fn hash(row: &Json) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.to_string().hash(&mut hasher);
    hasher.finish()
}

fn copy(options: &Options, database: &Database) -> Result<f64> {
    let limit = options.programs.path("copy_limit");
    let output = Command::new(&limit)
        .args([&database.cluster.url(), "copy items to stdout"])
        .output()
        .with_context(|| format!("cannot run {}", limit.display()))?;
    let text = String::from_utf8(output.stdout)?;
    let (rows, seconds) = text.trim().split_once(' ').context("the limit's answer")?;
    ensure!(rows.parse::<u64>()? == options.rows, "COPY brought {rows} rows");
    Ok(seconds.parse()?)
}

/// Everything up to the first commit, and how long it took from the join on.
async fn load(port: u16) -> Result<(Vec<Payload>, f64)> {
    let mut socket = join::upgrade(TcpStream::connect(("127.0.0.1", port)).await?, port).await?;
    let shapes = json!([{"ref": "0", "table": "items"}]);
    let begun = Instant::now();
    let frames =
        join::join(&mut socket, json!({"protocol": 1, "client": null, "cursor": null, "shapes": shapes}))
            .await?;
    Ok((frames, begun.elapsed().as_secs_f64()))
}

/// Every row of the frames is one of the table, and every one of the table is there once.
fn verify(frames: &[Payload], truth: &HashMap<String, u64>) -> Result<()> {
    type Frame<'a> = (Option<&'a str>, Option<&'a str>, &'a str, &'a str, &'a RawValue);
    #[derive(serde::Deserialize)]
    struct Rows {
        #[serde(default)]
        put: Vec<Vec<Json>>,
    }
    let (mut seen, mut aside) = (HashSet::new(), 0);
    for frame in frames {
        let (_, _, _, event, payload): Frame<'_> = serde_json::from_slice(frame)?;
        match event {
            "rows" | "load" => {
                aside += usize::from(event == "load");
                let rows: Rows = serde_json::from_str(payload.get())?;
                for row in rows.put {
                    let key = row.first().and_then(Json::as_str).context("a key")?.to_owned();
                    ensure!(
                        truth.get(&key) == Some(&hash(&Json::Array(row))),
                        "the row {key} is not as SELECT says"
                    );
                    ensure!(seen.insert(key), "a row came twice");
                }
            }
            "loaded" => aside = 0,
            "unload" => bail!("the reading broke off: this run measures nothing"),
            _ => {}
        }
    }
    ensure!(aside == 0, "{aside} frames are of no batch");
    ensure!(seen.len() == truth.len(), "{} rows came of {}", seen.len(), truth.len());
    Ok(())
}

/// The most memory that a process has had since.
struct Peak(Process);

impl Peak {
    fn begin(process: Process) -> Result<Self> {
        std::fs::write(format!("/proc/{}/clear_refs", process.0), "5").context("clear_refs")?;
        Ok(Self(process))
    }

    /// In kB.
    fn end(self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.0))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("VmHWM")?;
        Ok(line.split_whitespace().nth(1).context("VmHWM")?.parse()?)
    }
}
