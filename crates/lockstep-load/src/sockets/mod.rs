//! Benches of a running node: a private PostgreSQL, `lockstep serve`, and clients in a third process.
//!
//! Rows are `[id, scope, v, "body"]` of a table that is tracked by `scope`. Whatever is measured, at its end every
//! client's rows must be those of a SELECT; otherwise there are no figures.

pub mod decode;
pub mod diverse;
pub mod fanout;
pub mod hold;
pub mod latency;
pub mod memory;

use crate::database::Database;
use crate::generator::{Answer, Crowd, Delivery, Generator};
use crate::machine::{Machine, Versions};
use crate::node::Node;
use crate::programs::Programs;
use anyhow::{Context, Result, ensure};
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bound on every wait: a failure, never a schedule.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What all of these benches are told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Major version of PostgreSQL.
    pub major: Option<u32>,
    /// Runs, or pairs of runs.
    pub runs: usize,
    /// A hundredth of everything: whether it works, not how fast.
    pub small: bool,
    /// Length of a run, where it is a length.
    pub seconds: Option<u64>,
    /// The programs.
    pub programs: Programs,
}

impl Options {
    /// A number, or with `--small` another one.
    pub fn or<T>(&self, full: T, small: T) -> T {
        if self.small { small } else { full }
    }
}

/// A database with a node and clients.
#[derive(Debug)]
pub struct World {
    /// The clients. Dropped first.
    pub clients: Generator,
    /// The node.
    pub node: Node,
    /// The database.
    pub database: Database,
    /// The machine as it was before.
    pub machine: Machine,
}

impl World {
    /// With so many scopes, and rows in each. Row `i` lies in scope `(i - 1) % scopes + 1`.
    pub async fn start(options: &Options, scopes: usize, rows: usize) -> Result<Self> {
        let machine = Machine::this();
        let mut database = Database::start(options.major).await?;
        let sql = format!(
            "create table items (id int primary key, scope int not null, v int not null, body text not null)
               with (fillfactor = 50);
             insert into items select i, (i - 1) % {scopes} + 1, 0, rpad('row ' || i, 60, '.')
               from generate_series(1, {}) i;
             create index on items (scope);",
            scopes * rows
        );
        database.client.batch_execute(&sql).await?;
        database.track("items", "scope").await?;
        for sql in ["vacuum analyze items", "checkpoint"] {
            database.client.batch_execute(sql).await?;
        }
        let node = Node::start(&options.programs.path("lockstep"), &database.cluster.url())?;
        let clients = Generator::start(&options.programs.path("lockstep-load"))?;
        Ok(Self { clients, node, database, machine })
    }

    /// Clients of the node with so many shapes each; `share` of them have the same.
    pub fn crowd(&self, sockets: usize, shapes: usize, share: usize) -> Crowd {
        Crowd {
            port: self.node.port(),
            sockets,
            shapes,
            table: "items".into(),
            scope: Some("scope".into()),
            first: 1,
            share,
            source: 0,
            bare: false,
            unruly: false,
        }
    }

    /// Connects them and waits until all are in step.
    pub fn connect(&mut self, crowd: &Crowd) -> Result<Answer> {
        let before = self.clients.connect(crowd)?;
        // Not before: a first wait for nothing would count those that are in step already.
        self.clients.wait(before.established.max(crowd.sockets), 0, PATIENCE)
    }

    /// The rows as they are, as the generator wants them.
    pub async fn rows(&self) -> Result<String> {
        let sql =
            "select scope || E'\\t[' || id || ',' || scope || ',' || v || ',\"' || body || '\"]' from items";
        let rows = self.database.client.query(sql, &[]).await?;
        let mut text = String::new();
        for row in &rows {
            text.push_str(row.get::<_, &str>(0));
            text.push('\n');
        }
        Ok(text)
    }

    /// Fails unless every client holds what SELECT says.
    pub async fn verify(&mut self) -> Result<Answer> {
        let rows = self.rows().await?;
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.clients.verify(&rows)?;
            if answer.wrong == 0 {
                ensure!(answer.rows > 0, "no client holds a row");
                return Ok(answer);
            }
            ensure!(Instant::now() < until, "{} clients hold other rows than SELECT says", answer.wrong);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Adds one to `v` of these rows in one transaction; returns its id.
    pub async fn touch(&self, ids: &[i32]) -> Result<u64> {
        touch(&self.database.client, ids).await
    }

    /// What took part.
    pub async fn versions(&self) -> Result<Versions> {
        Ok(Versions::with(self.database.one("current_setting('server_version')").await?))
    }
}

/// Adds one to `v` of these rows in one transaction; returns its id, which a replication stream has in 32 bits.
pub async fn touch(client: &tokio_postgres::Client, ids: &[i32]) -> Result<u64> {
    let sql = "with u as (update items set v = v + 1 where id = any($1) returning 1)
               select pg_current_xact_id()::text, count(*) from u";
    let row = client.query_one(sql, &[&ids]).await?;
    ensure!(row.get::<_, i64>(1) == i64::try_from(ids.len())?, "a row is missing");
    Ok(row.get::<_, &str>(0).parse()?)
}

/// A reader of the same stream that does nothing with it: when each commit came.
#[derive(Debug)]
pub struct RawReader {
    child: Child,
    commits: Arc<Mutex<HashMap<u64, u64>>>,
}

impl RawReader {
    /// Starts one with a slot of its own.
    pub fn start(options: &Options, database: &Database) -> Result<Self> {
        let (mut child, stdout) = raw_reader(options, database, "temporary", &[])?;
        let commits: Arc<Mutex<HashMap<u64, u64>>> = Arc::default();
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next().transpose()?;
        if first.as_deref() != Some("ready") {
            child.kill()?;
            anyhow::bail!("the raw reader does not read");
        }
        let kept = commits.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let numbers =
                    line.split_once(' ').and_then(|(x, t)| Some((x.parse().ok()?, t.parse().ok()?)));
                let Some((xid, at)) = numbers else { continue };
                kept.lock().unwrap_or_else(PoisonError::into_inner).insert(xid, at);
            }
        });
        Ok(Self { child, commits })
    }

    /// By how many milliseconds each delivery came later than here, sorted.
    pub fn added(&self, deliveries: &[Delivery]) -> Result<Vec<f64>> {
        let until = Instant::now() + Duration::from_secs(10);
        let mut added = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let raw = loop {
                let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(raw) = commits.get(&(delivery.xid & 0xffff_ffff)) {
                    break *raw;
                }
                // Its line may still be in the pipe.
                drop(commits);
                ensure!(Instant::now() < until, "the raw reader missed a commit");
                std::thread::sleep(Duration::from_millis(5));
            };
            #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
            added.push((i128::from(delivery.at) - i128::from(raw)) as f64 / 1e6);
        }
        added.sort_by(f64::total_cmp);
        Ok(added)
    }
}

impl Drop for RawReader {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `raw_reader` on a slot.
pub fn raw_reader(
    options: &Options,
    database: &Database,
    slot: &str,
    more: &[String],
) -> Result<(Child, std::process::ChildStdout)> {
    let url = database.cluster.url();
    let config: tokio_postgres::Config = url.parse()?;
    let password = config.get_password().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    let user = config.get_user().context("a URL without a user")?.to_owned();
    let name = config.get_dbname().context("a URL without a database")?.to_owned();
    let publications = lockstep_pg::replication_stream::PUBLICATIONS;
    let mut command = Command::new(options.programs.path("raw_reader"));
    command.arg(database.cluster.port().to_string()).args([&user, &password, &name, slot, publications]);
    command.args(more).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = spawn_bound(command, Signal::SIGKILL).context("cannot run raw_reader")?;
    let stdout = child.stdout.take().context("no pipe")?;
    Ok((child, stdout))
}

/// The value below which so many hundredths of sorted ones lie.
pub fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    let at = (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// A count as a number to calculate with.
pub fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Calls `act` so often a second, for so long; a late one is made up for.
pub async fn at_rate<F: Future<Output = Result<()>>>(
    per_second: f64,
    length: Duration,
    mut act: impl FnMut(usize) -> F,
) -> Result<usize> {
    let began = Instant::now();
    let mut done = 0;
    loop {
        let due = Duration::from_secs_f64(number(done) / per_second);
        if due >= length {
            return Ok(done);
        }
        tokio::time::sleep_until((began + due).into()).await;
        act(done).await?;
        done += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (100.0, 198.0));
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert!(percentile(&[], 50).is_nan());
    }
}
