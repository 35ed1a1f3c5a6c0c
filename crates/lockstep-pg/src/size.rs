//! How many rows a first load has, about: what the planner expects of the very query.
//!
//! It is asked on another connection while the rows are on their way, and only when there are more of them than are held
//! for an answer: small loads cost nothing. A transaction that reads has locked the tables and taken its snapshot by then.

use crate::error::PgError;
use crate::session::ask;
use lockstep_core::limits;
use serde_json::Value as Json;
use tokio_postgres::GenericClient;

/// What is to be estimated.
#[derive(Debug, Clone)]
pub struct Size {
    pub(crate) sql: String,
    /// The table's name, as SQL.
    pub(crate) table: String,
    /// Not all of the table is read: without statistics the planner takes a fixed share of it, which says nothing.
    pub(crate) narrowed: bool,
    /// Rows that have come already.
    pub(crate) so_far: u64,
}

/// The estimate; None if there is no honest one: the columns that choose the rows were never analysed, or more rows have
/// come than the planner expects in all.
///
/// # Errors
/// If PostgreSQL does not answer, or a lock is not granted in time.
pub async fn about<C: GenericClient>(client: &C, size: &Size) -> Result<Option<u64>, PgError> {
    let (table, sql, millis) = (&size.table, &size.sql, limits::ESTIMATE_MS);
    // A partitioned table itself has no statistics, its partitions have.
    let analysed = format!(
        "select (c.relkind = 'p' or c.reltuples >= 0)::text from pg_class c where c.oid = {}::regclass",
        crate::catalog::literal(table)
    );
    let answers = ask(
        client,
        &format!(
            "set local lock_timeout = '200ms'; set local statement_timeout = {millis}; {analysed}; \
             explain (format json) {sql}"
        ),
    )
    .await?;
    let [analysed, plan] = &answers[..] else { return Err(PgError::Protocol("an estimate")) };
    if size.narrowed && analysed != "true" {
        return Ok(None);
    }
    let plan: Json = serde_json::from_str(plan).map_err(|_| PgError::Protocol("a plan"))?;
    let rows = plan[0]["Plan"]["Plan Rows"].as_u64().ok_or(PgError::Protocol("a plan without rows"))?;
    Ok(Some(rows).filter(|rows| *rows > size.so_far))
}
