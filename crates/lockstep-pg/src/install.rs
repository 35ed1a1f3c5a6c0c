//! Putting Lockstep into a database and taking it out again: `install`, `track`, `untrack`, `uninstall`.
//!
//! Each command is one transaction (`uninstall`: one per table and one for the rest) and may be repeated: what is
//! already as asked for is reported as [`Outcome::Unchanged`]. Everything lives in schema `lockstep`; an application's
//! table gets five triggers (a partition of a tracked table too) and nothing else. The `*_sql` functions give the
//! statements that would run.
//!
//! The SQL is in `sql/*.sql`. Names are quoted by PostgreSQL, which alone knows its reserved words, and pasted into
//! these templates here; so what is installed can be read as SQL, and printed exactly as it runs.

mod error;
mod patience;
mod plan;
mod script;
mod table;

use crate::rights::{self, Kind};
use table::Table;
use tokio_postgres::{Client, IsolationLevel, Transaction};

pub use error::{Blocker, InstallError, Refusal};
pub use patience::Patience;
use patience::{Attempts, Wanted};
use plan::{Locks, Step, plan, touched_tables};
pub use table::TriggerKind;

/// The layout this release writes and reads.
const FORMAT: i32 = 1;

/// Concurrent installs wait for each other: two CREATE SCHEMA at once end in a unique violation.
const INSTALL_LOCK: &str = "select pg_advisory_xact_lock(7811887294821);\n";

const SCHEMA: &str = include_str!("../sql/install.sql");

const PUBLICATIONS: [(&str, &str); 2] = [
    ("lockstep_tables", include_str!("../sql/publication_tables.sql")),
    ("lockstep_tombstones", include_str!("../sql/publication_tombstones.sql")),
];

/// There is no event trigger of ours, and this role can create one.
const MAY_HAVE_EVENT_TRIGGER: &str = "select from pg_roles where rolname = current_user and rolsuper \
    and not exists (select from pg_event_trigger where evtname = 'lockstep_schema')";

const EVENT_TRIGGER: &str = include_str!("../sql/event_trigger.sql");

/// How to install.
#[derive(Debug, Default, Clone)]
pub struct InstallOptions {
    /// Install although a publication FOR ALL TABLES ships the change logs to its subscribers as well.
    pub allow_foreign_publications: bool,
    /// A role that is to be a node.
    pub grant_node: Option<String>,
    /// A role that is to run clients' mutations.
    pub grant_writer: Option<String>,
}

impl InstallOptions {
    fn grants(&self) -> String {
        let node = self.grant_node.as_ref().map(|role| rights::grants(Kind::Node, role));
        let writer = self.grant_writer.as_ref().map(|role| rights::grants(Kind::Writer, role));
        node.unwrap_or_default() + &writer.unwrap_or_default()
    }
}

/// A table to track.
#[derive(Debug, Default, Clone)]
pub struct TrackRequest {
    /// Its name as SQL writes it: `items`, `app.items`, `"Weird name"`.
    pub table: String,
    /// The columns of each scope; none: the table is public. For a table that has scopes already these are added;
    /// a scope is taken away only by untracking, since that may show the table to more people.
    pub scopes: Vec<Vec<String>>,
    /// Track although row level security is enabled. Replication ignores it.
    pub ignore_rls: bool,
}

/// What a command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Installed, or tracked.
    Created,
    /// It was there, and scopes were added or something broken was made whole. The table's horizon was raised.
    Changed,
    /// Everything was as asked for.
    Unchanged,
    /// Untracked, or uninstalled.
    Removed,
}

/// Installs schema and publications.
///
/// # Errors
/// See [`InstallError`]; nothing was changed then.
pub async fn install(client: &mut Client, options: &InstallOptions) -> Result<Outcome, InstallError> {
    let tx = begin(client, &Patience::default()).await?;
    tx.batch_execute(INSTALL_LOCK).await?;
    let version: i32 = tx.query_one("select current_setting('server_version_num')::int", &[]).await?.get(0);
    if version < 140_000 {
        return Err(InstallError::ServerTooOld((version / 10_000).to_string()));
    }
    let allowed = options.allow_foreign_publications;
    if !allowed {
        refuse_foreign_publications(&tx).await?;
    }
    let outcome = match installed_format(&tx).await? {
        None => {
            tx.batch_execute(&install_body()).await?;
            Outcome::Created
        }
        Some(format) => {
            check_format(format)?;
            repair_publications(&tx).await?
        }
    };
    if allowed {
        // Remembered, for `track` looks as well.
        let remember = "update lockstep.installation set allow_foreign_publications = true \
                        where not allow_foreign_publications";
        tx.batch_execute(remember).await?;
    }
    let mut grants = options.grants();
    if options.grant_node.is_some() {
        grants += &plan::grants_of_logs(&tx, options.grant_node.as_slice()).await?;
    }
    tx.batch_execute(&grants).await?;
    tx.commit().await?;
    Ok(outcome)
}

/// Tracks a table.
///
/// # Errors
/// See [`InstallError`]; nothing was changed then.
pub async fn track(
    client: &mut Client,
    request: &TrackRequest,
    patience: &Patience,
) -> Result<Outcome, InstallError> {
    persist(client, &Step::Track(request), patience).await
}

/// How a tracked table's writes are logged, and how many partitions with rows it has. `None`: it is not tracked.
///
/// # Errors
/// See [`InstallError`].
pub async fn tracked_as(
    client: &mut Client,
    table: &str,
) -> Result<Option<(TriggerKind, usize)>, InstallError> {
    let tx = begin(client, &Patience::default()).await?;
    let Some(oid) = table::resolve(&tx, table).await? else { return Ok(None) };
    let table = Table::inspect(&tx, oid).await?.filter(|table| table.log.is_some());
    Ok(table.map(|table| (table.triggers(), table.leaves.len())))
}

/// The generated columns of a table that do not travel: all of them before PostgreSQL 18, later the virtual ones. Quoted.
///
/// # Errors
/// See [`InstallError`].
pub async fn left_out(client: &mut Client, table: &str) -> Result<Vec<String>, InstallError> {
    let tx = begin(client, &Patience::default()).await?;
    let Some(oid) = table::resolve(&tx, table).await? else { return Ok(Vec::new()) };
    let sql = "select quote_ident(attname) from pg_attribute a where attrelid = $1 and attnum > 0 and not attisdropped \
               and attgenerated <> '' and not (attgenerated = 's' and exists (select from pg_publication p \
               where pubname = 'lockstep_tables' and to_jsonb(p) ->> 'pubgencols' = 's')) order by attnum";
    Ok(tx.query(sql, &[&oid]).await?.iter().map(|row| row.get(0)).collect())
}

/// Removes everything that `track` made. A name that leads nowhere removes the logs of dropped tables.
///
/// # Errors
/// See [`InstallError`]; nothing was changed then.
pub async fn untrack(client: &mut Client, table: &str, patience: &Patience) -> Result<Outcome, InstallError> {
    persist(client, &Step::Untrack(table), patience).await
}

/// Untracks every table and removes the schema and the publications.
///
/// # Errors
/// See [`InstallError`]; tables that were untracked before it stay so, and the command can be repeated.
pub async fn uninstall(client: &mut Client, patience: &Patience) -> Result<Outcome, InstallError> {
    let tx = begin(client, patience).await?;
    if installed_format(&tx).await?.is_none() {
        return Ok(Outcome::Unchanged);
    }
    let oids = touched_tables(&tx).await?;
    tx.rollback().await?;
    for oid in oids {
        persist(client, &Step::UntrackOid(oid), patience).await?;
    }
    persist(client, &Step::Remove, patience).await
}

/// What [`install`] runs on a database that has nothing yet.
#[must_use]
pub fn install_sql(options: &InstallOptions) -> String {
    format!("begin;\n{INSTALL_LOCK}\n{}\n{}commit;\n", install_body(), options.grants())
}

/// GRANTs on a tracked table, for its owner to run, that the roles of nodes and writers lack. Commands change no rights
/// on the application's tables.
///
/// # Errors
/// See [`InstallError`].
pub async fn grants_lacking(client: &mut Client, table: &str) -> Result<Vec<String>, InstallError> {
    let tx = begin(client, &Patience::default()).await?;
    let Some(oid) = table::resolve(&tx, table).await? else { return Ok(Vec::new()) };
    let rows = tx.query(include_str!("../sql/lacking_rights.sql"), &[&oid]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What [`track`] would run now. Empty if there is nothing to do.
///
/// # Errors
/// As [`track`].
pub async fn track_sql(client: &mut Client, request: &TrackRequest) -> Result<String, InstallError> {
    print(client, &Step::Track(request)).await
}

/// What [`untrack`] would run now. Empty if there is nothing to do.
///
/// # Errors
/// As [`untrack`].
pub async fn untrack_sql(client: &mut Client, table: &str) -> Result<String, InstallError> {
    print(client, &Step::Untrack(table)).await
}

/// What [`uninstall`] would run now. Empty if there is nothing to do.
///
/// # Errors
/// As [`uninstall`].
pub async fn uninstall_sql(client: &mut Client) -> Result<String, InstallError> {
    let tx = begin(client, &Patience::default()).await?;
    if installed_format(&tx).await?.is_none() {
        return Ok(String::new());
    }
    let oids = touched_tables(&tx).await?;
    tx.rollback().await?;
    let mut out = String::new();
    for oid in oids {
        out += &print(client, &Step::UntrackOid(oid)).await?;
        out.push('\n');
    }
    Ok(out + &print(client, &Step::Remove).await?)
}

/// READ COMMITTED whatever the default is: what is read after a lock must be newer than the lock.
async fn begin<'a>(client: &'a mut Client, patience: &Patience) -> Result<Transaction<'a>, InstallError> {
    let tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .read_only(false)
        .start()
        .await?;
    let milliseconds = patience.lock_timeout.as_millis().max(1);
    // Queries of the catalog look large to the planner; compiling them takes longer than running them.
    tx.batch_execute(&format!("set local lock_timeout = '{milliseconds}ms'; set local jit = off")).await?;
    Ok(tx)
}

fn install_body() -> String {
    let parts = PUBLICATIONS.iter().map(|(_, sql)| *sql).chain([EVENT_TRIGGER]);
    parts.fold(SCHEMA.to_owned(), |body, sql| body + "\n" + sql)
}

/// Attempts a step until it has its locks or patience ends.
async fn persist(client: &mut Client, step: &Step<'_>, patience: &Patience) -> Result<Outcome, InstallError> {
    let mut attempts = Attempts::new(patience);
    loop {
        let mut wanted = Wanted::default();
        match attempt(client, step, patience, &mut wanted).await {
            Err(error) if error.is_lock() => attempts.pause(client, &wanted).await?,
            done => return done,
        }
    }
}

async fn attempt(
    client: &mut Client,
    step: &Step<'_>,
    patience: &Patience,
    wanted: &mut Wanted,
) -> Result<Outcome, InstallError> {
    let tx = begin(client, patience).await?;
    let plan = plan(&tx, step, Locks::Take(wanted)).await?;
    tx.batch_execute(&plan.body).await?;
    tx.commit().await?;
    Ok(plan.outcome)
}

async fn print(client: &mut Client, step: &Step<'_>) -> Result<String, InstallError> {
    let tx = begin(client, &Patience::default()).await?;
    let plan = plan(&tx, step, Locks::None).await?;
    tx.rollback().await?;
    Ok(if plan.body.is_empty() { plan.body } else { script::transaction(&plan.body) })
}

/// The format of the installation, if there is one.
async fn installed_format(tx: &Transaction<'_>) -> Result<Option<i32>, InstallError> {
    let sql =
        "select to_regnamespace('lockstep') is not null, to_regclass('lockstep.installation') is not null";
    let row = tx.query_one(sql, &[]).await?;
    match (row.get(0), row.get(1)) {
        (false, _) => Ok(None),
        (true, false) => Err(InstallError::SchemaTaken),
        (true, true) => {
            let row = tx.query_opt("select format from lockstep.installation", &[]).await?;
            row.map(|row| row.get(0)).map(Some).ok_or(InstallError::SchemaTaken)
        }
    }
}

fn check_format(found: i32) -> Result<(), InstallError> {
    if found > FORMAT { Err(InstallError::FormatNewer { found, known: FORMAT }) } else { Ok(()) }
}

/// Publications of others that would ship the change logs, unless `install` was told that they may.
async fn refuse_foreign_publications(tx: &Transaction<'_>) -> Result<(), InstallError> {
    if installed_format(tx).await?.is_some() {
        let allowed = "select allow_foreign_publications from lockstep.installation";
        if tx.query_one(allowed, &[]).await?.get(0) {
            return Ok(());
        }
    }
    // Publications of whole schemas exist since 15.
    let by_schema = "union all select p.pubname from pg_publication p \
                     join pg_publication_namespace n on n.pnpubid = p.oid and n.pnnspid = to_regnamespace('lockstep')";
    let known =
        tx.query_one("select to_regclass('pg_catalog.pg_publication_namespace') is not null", &[]).await?;
    let by_schema = if known.get(0) { by_schema } else { "" };
    let sql = format!("select quote_ident(pubname) from pg_publication where puballtables {by_schema}");
    match tx.query(&sql, &[]).await?.first() {
        Some(row) => Err(InstallError::ForeignPublication(row.get(0))),
        None => Ok(()),
    }
}

/// Creates those of our publications that somebody dropped, and makes whole what they send. Tables of dropped ones come
/// back with `track`.
async fn repair_publications(tx: &Transaction<'_>) -> Result<Outcome, InstallError> {
    let mut outcome = Outcome::Unchanged;
    for (name, sql) in PUBLICATIONS {
        if tx.query_opt("select from pg_publication where pubname = $1::text", &[&name]).await?.is_none() {
            tx.batch_execute(sql).await?;
            outcome = Outcome::Changed;
        }
    }
    // Since 18; of a database that came from an earlier version it is not set.
    let generated = "select from pg_publication p where pubname = 'lockstep_tables' and to_jsonb(p) ->> 'pubgencols' = 'n'";
    if tx.query_opt(generated, &[]).await?.is_some() {
        tx.batch_execute("alter publication lockstep_tables set (publish_generated_columns = stored)")
            .await?;
        outcome = Outcome::Changed;
    }
    if tx.query_opt(MAY_HAVE_EVENT_TRIGGER, &[]).await?.is_some() {
        tx.batch_execute(EVENT_TRIGGER).await?;
        outcome = Outcome::Changed;
    }
    for (wanting, sql) in [
        (
            "select from pg_publication where pubname = 'lockstep_tables' and not \
             (pubviaroot and pubinsert and pubupdate and pubdelete and pubtruncate)",
            "alter publication lockstep_tables \
             set (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)",
        ),
        (
            "select from pg_publication where pubname = 'lockstep_tombstones' and not pubinsert",
            "alter publication lockstep_tombstones set (publish = 'insert')",
        ),
        (
            "select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid \
             where p.pubname = 'lockstep_tables' and r.prrelid = 'lockstep.clients'::regclass \
             and num_nonnulls(to_jsonb(r) ->> 'prqual', to_jsonb(r) ->> 'prattrs') > 0",
            "alter publication lockstep_tables drop table lockstep.clients",
        ),
        (
            "select where not exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid \
             where p.pubname = 'lockstep_tables' and r.prrelid = 'lockstep.clients'::regclass)",
            "alter publication lockstep_tables add table lockstep.clients",
        ),
    ] {
        if tx.query_opt(wanting, &[]).await?.is_some() {
            tx.batch_execute(sql).await?;
            outcome = Outcome::Changed;
        }
    }
    Ok(outcome)
}
