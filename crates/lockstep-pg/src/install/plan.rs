//! What a command has to do, decided from the catalog, and under which locks.

use tokio_postgres::Transaction;

use super::error::{InstallError, Refusal};
use super::patience::Wanted;
use super::script::{self, Design};
use super::table::{self, Table};
use super::{Outcome, TrackRequest, check_format, installed_format, refuse_foreign_publications};

/// One transaction's worth of work.
pub(super) enum Step<'a> {
    Track(&'a TrackRequest),
    Untrack(&'a str),
    UntrackOid(u32),
    /// Whatever is left when no table is tracked any more.
    Remove,
}

/// The statements of a step, and what they amount to.
pub(super) struct Plan {
    pub body: String,
    pub outcome: Outcome,
}

impl Plan {
    fn nothing() -> Self {
        Self { body: String::new(), outcome: Outcome::Unchanged }
    }
}

/// Whether planning takes the locks that make what it reads stay true.
pub(super) enum Locks<'a> {
    /// Only looking.
    None,
    /// Taking them, and noting here what is wanted.
    Take(&'a mut Wanted),
}

/// Looks at the database and decides.
pub(super) async fn plan(
    tx: &Transaction<'_>,
    step: &Step<'_>,
    locks: Locks<'_>,
) -> Result<Plan, InstallError> {
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
    refuse_foreign_publications(tx).await?;
    // Before the lock, which a view or somebody else's table would refuse in other words than ours.
    refuse(&table, table.refusal())?;
    if let Locks::Take(wanted) = locks {
        wanted.from_writers = vec![oid, tracked_oid(tx).await?];
        wanted.from_writers.extend(&table.parts);
        wanted.from_everyone = log_oids(tx, &table).await?;
        table = lock(tx, &table, "share row exclusive").await?;
        refuse(&table, table.refusal())?;
    }
    if table.row_security && !request.ignore_rls {
        return Err(refused(&table, Refusal::RowSecurity));
    }
    refuse_failing_writes(tx, &table).await?;
    let scopes = merged_scopes(&table, request).map_err(|refusal| refused(&table, refusal))?;
    let (number, outcome) = match &table.log {
        Some(log) => {
            let same = log.whole
                && table.published
                && !table.restricted
                && log.key_attnums == table.key_attnums
                && log.triggers == table.triggers().to_string();
            let same_scopes = log.scopes == scopes;
            (log.number, if same && same_scopes { Outcome::Unchanged } else { Outcome::Changed })
        }
        None => (next_number(tx).await?, Outcome::Created),
    };
    if outcome == Outcome::Unchanged {
        return Ok(Plan::nothing());
    }
    let mut body = script::track(&table, &Design { number, scopes });
    let nodes = nodes(tx).await?;
    body.push_str(&script::grants(&[number], &nodes));
    Ok(Plan { body, outcome })
}

/// The roles that `install` made nodes of, quoted: only nodes may collect samples of the clock.
async fn nodes(tx: &Transaction<'_>) -> Result<Vec<String>, InstallError> {
    let sql = "select distinct quote_ident(pg_get_userbyid(a.grantee)) from pg_class c \
               cross join lateral aclexplode(c.relacl) a where c.oid = 'lockstep.clock'::regclass \
               and a.privilege_type = 'DELETE' and a.grantee not in (0, c.relowner)";
    Ok(tx.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// GRANTs on the logs of tables that are tracked already.
pub(super) async fn grants_of_logs(tx: &Transaction<'_>, roles: &[String]) -> Result<String, InstallError> {
    let roles: Vec<String> = roles.iter().map(|role| crate::catalog::quote(role)).collect();
    Ok(script::grants(&logs(tx, "").await?, &roles))
}

/// Whether UPDATE and DELETE fail, or will as soon as somebody writes, because of a publication's row filter or column
/// list. PostgreSQL checks that when a statement starts, and EXPLAIN starts it without running it.
async fn refuse_failing_writes(tx: &Transaction<'_>, table: &Table) -> Result<(), InstallError> {
    let column = table.columns_of(&table.key_attnums).next().map_or("", |column| column.quoted.as_str());
    for relation in table.leaves.iter().chain([&table.quoted]) {
        for write in [
            format!("explain update only {relation} set {column} = default where false"),
            format!("explain delete from only {relation} where false"),
        ] {
            let Err(error) = tx.simple_query(&write).await else { continue };
            return Err(match error.as_db_error() {
                Some(db) if ["42P10", "55000"].contains(&db.code().code()) => {
                    let why = db.detail().unwrap_or(db.message()).trim_end_matches('.').to_owned();
                    refused(table, Refusal::Publication(why))
                }
                _ => error.into(),
            });
        }
    }
    Ok(())
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
        wanted.from_writers = vec![tracked_oid(tx).await?];
        wanted.from_everyone = log_oids(tx, &table).await?;
        wanted.from_everyone.push(oid);
        wanted.from_everyone.extend(&table.parts);
        table = lock(tx, &table, "access exclusive").await?;
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
        let ours = "select oid from pg_class where relnamespace = 'lockstep'::regnamespace";
        wanted.from_everyone = tx.query(ours, &[]).await?.iter().map(|row| row.get(0)).collect();
    }
    // Printed before any table is untracked, this lists the logs whose tables are gone, and later it finds no others.
    let mut body: String =
        logs(tx, "where not exists (select from pg_catalog.pg_class where oid = relation)")
            .await?
            .into_iter()
            .map(script::drop_log)
            .collect();
    body.push_str(include_str!("../../sql/uninstall.sql"));
    Ok(Plan { body, outcome: Outcome::Removed })
}

/// Locks out other commands, then locks the table and reads it again.
async fn lock(tx: &Transaction<'_>, before: &Table, mode: &str) -> Result<Table, InstallError> {
    let tracked = "lock table lockstep.tracked in share row exclusive mode";
    tx.batch_execute(&format!("{tracked}; lock table {} in {mode} mode", before.quoted)).await?;
    // The lock went by name: it is on this table only if the table still has that name.
    Table::inspect(tx, before.oid)
        .await?
        .filter(|table| table.quoted == before.quoted)
        .ok_or_else(|| InstallError::TableMoved(before.quoted.clone()))
}

fn refuse(table: &Table, refusal: Option<Refusal>) -> Result<(), InstallError> {
    refusal.map_or(Ok(()), |refusal| Err(refused(table, refusal)))
}

fn refused(table: &Table, refusal: Refusal) -> InstallError {
    InstallError::Refused { table: table.quoted.clone(), refusal }
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

async fn tracked_oid(tx: &Transaction<'_>) -> Result<u32, InstallError> {
    Ok(tx.query_one("select 'lockstep.tracked'::regclass::oid", &[]).await?.get(0))
}

/// The log tables that will be dropped.
async fn log_oids(tx: &Transaction<'_>, table: &Table) -> Result<Vec<u32>, InstallError> {
    let sql = "select c.oid from pg_class c join lockstep.tracked t \
               on c.relname in ('changes_' || t.log, 'tombstones_' || t.log) \
               where t.relation = $1 and c.relnamespace = 'lockstep'::regnamespace";
    Ok(tx.query(sql, &[&table.oid]).await?.iter().map(|row| row.get(0)).collect())
}

/// Tables that are tracked or, after a restore from a dump, only carry our triggers.
pub(super) async fn touched_tables(tx: &Transaction<'_>) -> Result<Vec<u32>, InstallError> {
    let sql = "select t.relation from lockstep.tracked t join pg_class c on c.oid = t.relation \
               union select g.tgrelid from pg_trigger g join pg_proc p on p.oid = g.tgfoid \
               where p.pronamespace = 'lockstep'::regnamespace order by 1";
    Ok(tx.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}
