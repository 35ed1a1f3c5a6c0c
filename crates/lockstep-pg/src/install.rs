//! Putting Lockstep into a database and taking it out again: `install`, `track`, `untrack`, `uninstall`.
//!
//! Each command is one transaction (`uninstall`: one per table and one for the rest) and may be repeated: what is
//! already as asked for is reported as [`Outcome::Unchanged`]. Everything lives in schema `lockstep`; an application's
//! table gets four statement triggers and nothing else. The `*_sql` functions give the statements that would run.
//!
//! The SQL is in `sql/*.sql`. Names are quoted by PostgreSQL, which alone knows its reserved words, and pasted into
//! these templates here; so what is installed can be read as SQL, and printed exactly as it runs.

mod error;
mod patience;
mod script;
mod table;

use tokio_postgres::{Client, IsolationLevel, Transaction};

pub use error::{Blocker, InstallError, Refusal};
pub use patience::Patience;
use patience::{Attempts, Wanted};
use script::Design;
use table::Table;

/// The layout this release writes and reads.
const FORMAT: i32 = 1;

/// Concurrent installs wait for each other: two CREATE SCHEMA at once end in a unique violation.
const INSTALL_LOCK: &str = "select pg_advisory_xact_lock(7811887294821);\n";

const SCHEMA: &str = include_str!("../sql/install.sql");

const PUBLICATIONS: [(&str, &str); 2] = [
    ("lockstep_tables", include_str!("../sql/publication_tables.sql")),
    ("lockstep_tombstones", include_str!("../sql/publication_tombstones.sql")),
];

/// How to install.
#[derive(Debug, Default, Clone)]
pub struct InstallOptions {
    /// Install although a publication FOR ALL TABLES ships the change logs to its subscribers as well.
    pub allow_foreign_publications: bool,
}

/// A table to track.
#[derive(Debug, Default, Clone)]
pub struct TrackRequest {
    /// Its name as SQL writes it: `items`, `app.items`, `"Weird name"`.
    pub table: String,
    /// The columns of each scope; none: the table is public. For a table that has scopes already these are added;
    /// a scope is taken away only by untracking, since that may show the table to more people.
    pub scopes: Vec<Vec<String>>,
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
    if !options.allow_foreign_publications {
        refuse_foreign_publications(&tx, version).await?;
    }
    let outcome = match installed_format(&tx).await? {
        None => {
            tx.batch_execute(&install_sql()).await?;
            Outcome::Created
        }
        Some(format) => {
            check_format(format)?;
            repair_publications(&tx).await?
        }
    };
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
pub fn install_sql() -> String {
    let publications: String = PUBLICATIONS.iter().map(|(_, sql)| format!("\n{sql}")).collect();
    format!("{INSTALL_LOCK}\n{SCHEMA}{publications}")
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

/// One transaction's worth of work.
enum Step<'a> {
    Track(&'a TrackRequest),
    Untrack(&'a str),
    UntrackOid(u32),
    /// Whatever is left when no table is tracked any more.
    Remove,
}

/// The statements of a step, and what they amount to.
struct Plan {
    body: String,
    outcome: Outcome,
}

impl Plan {
    fn nothing() -> Self {
        Self { body: String::new(), outcome: Outcome::Unchanged }
    }
}

/// Whether planning takes the locks that make what it reads stay true.
enum Locks<'a> {
    /// Only looking.
    None,
    /// Taking them, and noting here what is wanted.
    Take(&'a mut Wanted),
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
    tx.batch_execute(&format!("set local lock_timeout = '{milliseconds}ms'")).await?;
    Ok(tx)
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

async fn plan(tx: &Transaction<'_>, step: &Step<'_>, locks: Locks<'_>) -> Result<Plan, InstallError> {
    check_format(installed_format(tx).await?.ok_or(InstallError::NotInstalled)?)?;
    match step {
        Step::Track(request) => plan_track(tx, request, locks).await,
        Step::Untrack(name) => match table::resolve(tx, name).await? {
            Some(oid) => plan_untrack(tx, oid, locks).await,
            None => plan_sweep(tx, name, locks).await,
        },
        Step::UntrackOid(oid) => plan_untrack(tx, *oid, locks).await,
        Step::Remove => plan_remove(tx, locks).await,
    }
}

async fn plan_track(
    tx: &Transaction<'_>,
    request: &TrackRequest,
    locks: Locks<'_>,
) -> Result<Plan, InstallError> {
    let missing = || InstallError::NoSuchTable(request.table.clone());
    let oid = table::resolve(tx, &request.table).await?.ok_or_else(missing)?;
    let mut table = Table::inspect(tx, oid).await?.ok_or_else(missing)?;
    // Before the lock, which a view or somebody else's table would refuse in other words than ours.
    refuse(&table, table.refusal())?;
    if let Locks::Take(wanted) = locks {
        wanted.from_writers =
            oids(tx, "select unnest(array[$1, 'lockstep.tracked'::regclass::oid])", oid).await?;
        wanted.from_everyone = log_oids(tx, &table).await?;
        let lock = format!(
            "lock table lockstep.tracked in share row exclusive mode; lock table {} in share row exclusive mode",
            table.quoted
        );
        tx.batch_execute(&lock).await?;
        table = inspect_again(tx, &table).await?;
        refuse(&table, table.refusal())?;
    }
    let scopes = merged_scopes(&table, request)
        .or_else(|refusal| refuse(&table, Some(refusal)).map(|()| Vec::new()))?;
    let (number, outcome) = match &table.log {
        Some(log) => {
            let same = log.whole && table.published && log.key_attnums == table.key_attnums;
            let same_scopes = log.scopes == scopes;
            (log.number, if same && same_scopes { Outcome::Unchanged } else { Outcome::Changed })
        }
        None => (next_number(tx).await?, Outcome::Created),
    };
    if outcome == Outcome::Unchanged {
        return Ok(Plan::nothing());
    }
    Ok(Plan { body: script::track(&table, &Design { number, scopes }), outcome })
}

/// The scopes that the table has, and those that are asked for.
fn merged_scopes(table: &Table, request: &TrackRequest) -> Result<Vec<Vec<i16>>, Refusal> {
    let mut scopes = table.log.as_ref().map_or_else(Vec::new, |log| log.scopes.clone());
    for scope in &scopes {
        let columns: Vec<_> = table.columns_of(scope).collect();
        if columns.len() < scope.len() {
            return Err(Refusal::ScopeColumnGone);
        }
        columns.iter().find_map(|column| column.refusal("scope")).map_or(Ok(()), Err)?;
    }
    for scope in table.resolve_scopes(&request.scopes)? {
        table::add_scope(&mut scopes, scope);
    }
    Ok(scopes)
}

async fn plan_untrack(tx: &Transaction<'_>, oid: u32, locks: Locks<'_>) -> Result<Plan, InstallError> {
    let Some(mut table) = Table::inspect(tx, oid).await? else { return Ok(Plan::nothing()) };
    let untouched = |table: &Table| table.log.is_none() && table.our_triggers.is_empty();
    if untouched(&table) {
        return Ok(Plan::nothing());
    }
    if let Locks::Take(wanted) = locks {
        wanted.from_writers =
            oids(tx, "select 'lockstep.tracked'::regclass::oid where $1 is not null", oid).await?;
        wanted.from_everyone = log_oids(tx, &table).await?;
        wanted.from_everyone.push(oid);
        let lock = format!(
            "lock table lockstep.tracked in share row exclusive mode; lock table {} in access exclusive mode",
            table.quoted
        );
        tx.batch_execute(&lock).await?;
        table = inspect_again(tx, &table).await?;
        if untouched(&table) {
            return Ok(Plan::nothing());
        }
    }
    Ok(Plan { body: script::untrack(&table), outcome: Outcome::Removed })
}

/// Drops the logs of tables that were dropped.
async fn plan_sweep(tx: &Transaction<'_>, name: &str, locks: Locks<'_>) -> Result<Plan, InstallError> {
    if let Locks::Take(_) = locks {
        tx.batch_execute("lock table lockstep.tracked in share row exclusive mode").await?;
    }
    let numbers = logs(tx, "where not exists (select from pg_catalog.pg_class where oid = relation)").await?;
    if numbers.is_empty() {
        return Err(InstallError::NoSuchTable(name.to_owned()));
    }
    Ok(Plan { body: numbers.into_iter().map(script::drop_log).collect(), outcome: Outcome::Removed })
}

async fn plan_remove(tx: &Transaction<'_>, locks: Locks<'_>) -> Result<Plan, InstallError> {
    if let Locks::Take(wanted) = locks {
        let ours = "select oid from pg_class where relnamespace = 'lockstep'::regnamespace and oid <> $1";
        wanted.from_everyone = oids(tx, ours, 0).await?;
    }
    // Printed before any table is untracked, this lists the logs whose tables are gone, and later it finds no others.
    let mut body: String =
        logs(tx, "where not exists (select from pg_catalog.pg_class where oid = relation)")
            .await?
            .into_iter()
            .map(script::drop_log)
            .collect();
    body.push_str(include_str!("../sql/uninstall.sql"));
    Ok(Plan { body, outcome: Outcome::Removed })
}

/// Reads the table again under its lock.
async fn inspect_again(tx: &Transaction<'_>, before: &Table) -> Result<Table, InstallError> {
    // The lock went by name: it is on this table only if the table still has that name.
    Table::inspect(tx, before.oid)
        .await?
        .filter(|table| table.quoted == before.quoted)
        .ok_or_else(|| InstallError::TableMoved(before.quoted.clone()))
}

fn refuse(table: &Table, refusal: Option<Refusal>) -> Result<(), InstallError> {
    refusal.map_or(Ok(()), |refusal| Err(InstallError::Refused { table: table.quoted.clone(), refusal }))
}

/// The number the next log gets; nothing is consumed. Numbers are never used twice.
async fn next_number(tx: &Transaction<'_>) -> Result<i32, InstallError> {
    let sql = "select (case when is_called then last_value + 1 else last_value end)::int from lockstep.tracked_log_seq";
    Ok(tx.query_one(sql, &[]).await?.get(0))
}

async fn logs(tx: &Transaction<'_>, condition: &str) -> Result<Vec<i32>, InstallError> {
    let sql = format!("select log from lockstep.tracked {condition} order by log");
    Ok(tx.query(&sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}

async fn oids(tx: &Transaction<'_>, sql: &str, oid: u32) -> Result<Vec<u32>, InstallError> {
    Ok(tx.query(sql, &[&oid]).await?.iter().map(|row| row.get(0)).collect())
}

/// The log tables that will be dropped.
async fn log_oids(tx: &Transaction<'_>, table: &Table) -> Result<Vec<u32>, InstallError> {
    let sql = "select c.oid from pg_class c join lockstep.tracked t \
               on c.relname in ('changes_' || t.log, 'tombstones_' || t.log) \
               where t.relation = $1 and c.relnamespace = 'lockstep'::regnamespace";
    oids(tx, sql, table.oid).await
}

/// Tables that are tracked or, after a restore from a dump, only carry our triggers.
async fn touched_tables(tx: &Transaction<'_>) -> Result<Vec<u32>, InstallError> {
    let sql = "select t.relation from lockstep.tracked t join pg_class c on c.oid = t.relation \
               union select g.tgrelid from pg_trigger g join pg_proc p on p.oid = g.tgfoid \
               where p.pronamespace = 'lockstep'::regnamespace order by 1";
    Ok(tx.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
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

async fn refuse_foreign_publications(tx: &Transaction<'_>, version: i32) -> Result<(), InstallError> {
    // Publications of whole schemas exist since 15.
    let by_schema = "union all select p.pubname from pg_publication p \
                     join pg_publication_namespace n on n.pnpubid = p.oid and n.pnnspid = to_regnamespace('lockstep')";
    let by_schema = if version >= 150_000 { by_schema } else { "" };
    let sql = format!("select quote_ident(pubname) from pg_publication where puballtables {by_schema}");
    match tx.query(&sql, &[]).await?.first() {
        Some(row) => Err(InstallError::ForeignPublication(row.get(0))),
        None => Ok(()),
    }
}

/// Creates those of our publications that somebody dropped. Their tables come back with `track`.
async fn repair_publications(tx: &Transaction<'_>) -> Result<Outcome, InstallError> {
    let mut outcome = Outcome::Unchanged;
    for (name, sql) in PUBLICATIONS {
        if tx.query_opt("select from pg_publication where pubname = $1::text", &[&name]).await?.is_none() {
            tx.batch_execute(sql).await?;
            outcome = Outcome::Changed;
        }
    }
    Ok(outcome)
}
