//! `lockstep doctor`: what is wrong with a database and its server, why that matters, and what mends it.
//!
//! The questions are in `sql/doctor_*.sql` and only read; [`facts`] is what they answer, [`findings`] judges it without
//! asking anything, and so does `replication` with the replication connection.

mod activity;
mod facts;
mod findings;
mod replication;
mod server;
mod tables;

use crate::catalog::texts;
use crate::error::PgError;
use crate::rights::{self, Kind, Missing};
use crate::target::Target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{self, Write as _};
use std::time::Duration;
use tokio_postgres::Client;

pub use facts::{Facts, Log};
pub use findings::{Finding, Level, Mend};

/// What is expected.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// Nodes that are to run; there must be room for twice as many while one set replaces the other.
    pub nodes: u32,
    /// A transaction that is open for longer is worth a word.
    pub open_for: Duration,
    /// How long a replication connection may take.
    pub answer: Duration,
}

impl Default for DoctorOptions {
    fn default() -> Self {
        Self { nodes: 1, open_for: Duration::from_secs(60), answer: Duration::from_secs(10) }
    }
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// No finding is an error.
    pub ok: bool,
    /// How many nodes this server has room for, beside what uses its senders and slots now.
    pub nodes_allowed: i64,
    /// Nodes that stream from this database now.
    pub nodes_running: i64,
    /// What was read.
    pub facts: Facts,
    /// Errors first.
    pub findings: Vec<Finding>,
}

/// Examines a database: `client` is a session in it, `target` leads to its replication connections.
///
/// # Errors
/// If it cannot be asked at all. Whatever it says about itself is a finding.
pub async fn examine(client: &Client, target: &Target, options: &DoctorOptions) -> Result<Report, PgError> {
    client.batch_execute("begin read only; set local search_path = pg_catalog; set local jit = off").await?;
    let asked = ask(client).await;
    client.batch_execute("rollback").await?;
    let mut facts = asked?;
    if facts.server.installed {
        let lacks = |missing: Missing| missing.ours.into_iter().chain(missing.theirs).collect();
        facts.node_lacks = lacks(rights::missing(client, Kind::Node).await?);
        facts.writer_lacks = lacks(rights::missing(client, Kind::Writer).await?);
    }
    facts.replication = replication::ask(target, &facts.server.system, options.answer).await;
    let findings = findings::judge(&facts, options);
    let capacity = server::capacity(&facts.server);
    Ok(Report {
        ok: !findings.iter().any(|finding| finding.level == Level::Error),
        nodes_allowed: capacity,
        nodes_running: facts.server.nodes,
        facts,
        findings,
    })
}

async fn ask(client: &Client) -> Result<Facts, PgError> {
    let server = one(client, include_str!("../sql/doctor_server.sql")).await?;
    let mut facts = Facts { server, ..Facts::default() };
    if facts.server.installed && facts.server.usable == Some(true) {
        // A role that may not read our tables cannot be told what is in them: that is a finding, and all there is.
        match installation(client, &mut facts).await {
            Err(error) if error.sqlstate() == Some("42501") => facts.unreadable = true,
            done => done?,
        }
    }
    Ok(facts)
}

async fn installation(client: &Client, facts: &mut Facts) -> Result<(), PgError> {
    facts.installation = Some(one(client, include_str!("../sql/doctor_installation.sql")).await?);
    for json in texts(client, include_str!("../sql/doctor_tables.sql")).await? {
        facts.logs.push(parse(&json)?);
    }
    Ok(())
}

async fn one<T: DeserializeOwned>(client: &Client, sql: &str) -> Result<T, PgError> {
    let answer = texts(client, sql).await?;
    parse(answer.first().ok_or(PgError::Protocol("a question of doctor"))?)
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, PgError> {
    serde_json::from_str(json).map_err(|_| PgError::Protocol("a question of doctor"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.facts.server;
        writeln!(f, "PostgreSQL {}, database {}, as {}", server.version, server.database, server.role)?;
        writeln!(f, "room for {} nodes, {} running", self.nodes_allowed.max(0), self.nodes_running)?;
        for log in &self.facts.logs {
            let name = log.name.as_deref().unwrap_or("(dropped)");
            writeln!(
                f,
                "{name}: about {} log entries, {} bytes, reaching back {} h to transaction {}",
                log.entries,
                log.bytes,
                log.horizon_seconds / 3600,
                log.horizon
            )?;
        }
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warning));
        writeln!(f, "\n{errors} to mend, {warnings} to know")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "MEND",
            Level::Warning => "know",
        };
        writeln!(f, "{level} [{}] {}", self.code, self.what)?;
        writeln!(f, "     {}", self.why)?;
        let mut mends = String::new();
        for mend in &self.mend {
            match mend {
                Mend::Sql(sql) => writeln!(mends, "     → {sql};")?,
                Mend::Restart => writeln!(mends, "     → then restart PostgreSQL")?,
                Mend::Command(command) => writeln!(mends, "     → {command}")?,
                Mend::Advice(advice) => writeln!(mends, "     → {advice}")?,
            }
        }
        f.write_str(&mends)
    }
}
