//! Everybody at once: the first load of the same rows, and the return of all clients to another node after theirs died.
//!
//! Clients are in a process of their own ([`clients`]), with several source addresses. Each compares its rows with SELECT.

pub mod clients;

use crate::database::Database;
use crate::figures::{Bench, Figure, Limit};
use crate::machine::{Machine, Versions};
use crate::node::Node;
use crate::programs::{Player, Programs};
use anyhow::{Result, ensure};
use clients::{Answer, Order};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::path::{Path, PathBuf};

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Major version of PostgreSQL.
    pub major: Option<u32>,
    /// Runs.
    pub runs: usize,
    /// Clients that load the same rows.
    pub loading: usize,
    /// Clients that return, each with a scope of its own.
    pub returning: usize,
    /// Whether it works, not how fast.
    pub small: bool,
    /// Where the programs are.
    pub programs: Programs,
}

/// Scope 0 has the rows that all load; the others have five each.
const TABLE: &str = "create table items (id bigint primary key, org int not null, v int not null, body text not null);
    insert into items select i, 0, 0, 'body \"' || i || '\" ' || repeat('x', 60) from generate_series(1, 500) i;
    insert into items select 500 + i, 1 + (i - 1) / 5, 0, repeat('y', 60) from generate_series(1, {n} * 5) i";

/// Statements that read rows, logs or outcomes for a catch-up.
const READING: [&str; 3] =
    ["statement: copy (", "join lockstep.mutations", "select xid::text from lockstep.tombstones_"];

/// Runs it.
///
/// # Errors
/// If PostgreSQL or a node cannot be started, or a client does not hold what SELECT says.
pub async fn run(options: &Options) -> Result<Bench> {
    // For the node and the clients, which inherit it.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let machine = Machine::this();
    let mut database = Database::start(options.major).await?;
    database.client.batch_execute(&TABLE.replace("{n}", &options.returning.to_string())).await?;
    database.track("items", "org").await?;
    database.client.batch_execute("vacuum (analyze) items").await?;
    let (mut loads, mut resumes, mut queries, mut refetches) = (vec![], vec![], vec![], 0);
    for _ in 0..options.runs {
        let mut clients = Player::start(&options.programs.path("lockstep-load"), "storm-clients")?;
        let node = Node::start(&options.programs.path("lockstep"), &database.cluster.url())?;
        let truth = truth(&database, clients.folder()).await?;
        let order =
            |resume, count, same| Order { port: node.port(), count, same, resume, truth: truth.clone() };
        loads.push(tell(&mut clients, &order(false, options.loading, true))?.seconds);
        tell(&mut clients, &order(false, options.returning, false))?;
        drop(node);
        database.client.batch_execute("update items set v = v + 1 where org > 0").await?;
        let truth = self::truth(&database, clients.folder()).await?;
        let node = Node::start(&options.programs.path("lockstep"), &database.cluster.url())?;
        database.cluster.set("log_statement", "all")?;
        let before = fs::metadata(database.cluster.log_path())?.len();
        let order = Order { port: node.port(), count: options.returning, same: false, resume: true, truth };
        let answer = tell(&mut clients, &order)?;
        let log = fs::read(database.cluster.log_path())?;
        let log =
            String::from_utf8_lossy(log.get(usize::try_from(before)?..).unwrap_or_default()).into_owned();
        database.cluster.set("log_statement", "none")?;
        resumes.push(answer.seconds);
        refetches += answer.resets;
        queries.push(log.lines().filter(|line| READING.iter().any(|r| line.contains(r))).count() as f64);
    }
    let limit = |limit| (!options.small).then_some(Limit::ValueAtMost(limit));
    let figures = vec![
        Figure::of_runs("first_load_s", "s", &loads, limit(1.5)),
        Figure::of_runs("resume_s", "s", &resumes, limit(10.0)),
        Figure {
            limit: Some(Limit::ValueAtMost(0.0)),
            ..Figure::told("full_refetches", "shapes", refetches as f64)
        },
        Figure::of_runs("resume_queries", "queries", &queries, limit(200.0)),
    ];
    let versions = Versions::with(database.one("current_setting('server_version')").await?);
    Ok(Bench { name: "storm", runs: options.runs, figures, machine, versions })
}

/// A file with what every scope holds: `scope`, a tab, and the row as JSON.
async fn truth(database: &Database, folder: &Path) -> Result<PathBuf> {
    let sql = "select org || E'\\t' || jsonb_build_array(id::text, org, v, body) from items";
    let mut text = String::new();
    for row in database.client.query(sql, &[]).await? {
        text += row.get(0);
        text.push('\n');
    }
    let path = folder.join("truth");
    fs::write(&path, text)?;
    Ok(path)
}

/// Tells the clients' process; it compares what they hold with the truth before it answers.
fn tell(clients: &mut Player, order: &Order) -> Result<Answer> {
    let answer: Answer = clients.order(order, clients::PATIENCE * 3)?;
    ensure!(answer.error.is_none(), "a client failed: {}", answer.error.unwrap_or_default());
    Ok(answer)
}
