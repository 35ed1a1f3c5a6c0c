//! What a collection did and what is left.

use super::{Gone, Stop, numbers};
use crate::catalog::texts;
use lockstep_core::position::Xid;
use serde::Serialize;
use tokio_postgres::Client;

/// How a collection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GcOutcome {
    /// It ran.
    Done(GcReport),
    /// Another node is at it.
    Elsewhere,
    /// The last one began too short a time ago.
    NotDue,
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Per log.
    pub logs: Vec<LogReport>,
    /// Logs left for the next time, and why: somebody held a lock on them, or they were dropped.
    pub later: Vec<(i32, String)>,
    /// Clients forgotten.
    pub clients: u64,
    /// Outcomes that they had not confirmed.
    pub mutations: u64,
    /// Marks of node starts.
    pub marks: u64,
}

/// What a collection did with one table's logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// The log's number.
    pub log: i32,
    /// Its table.
    pub table: String,
    /// Entries that were older than the retention.
    pub expired: u64,
    /// Entries that a newer one of the same scope and key made superfluous.
    pub superseded: u64,
    /// The size of all these.
    pub bytes_removed: u64,
    /// Entries left.
    pub rows_left: u64,
    /// What the logs and their indexes occupy on disk. Deleted rows give their room back to later ones after a VACUUM.
    pub bytes_left: u64,
    /// The oldest transaction that the logs still reach back to.
    pub horizon: Xid,
    /// How long ago that was, in seconds, at least.
    pub horizon_age: u64,
}

pub(super) async fn measure(
    client: &Client,
    log: i32,
    expired: Gone,
    superseded: Gone,
) -> Result<LogReport, Stop> {
    let both = [format!("lockstep.changes_{log}"), format!("lockstep.tombstones_{log}")];
    let [changes, tombstones] = &both;
    // The horizon is as old as the newest sample at or below it, or as the log itself.
    let sql = format!(
        "select concat_ws(' ',
           (select count(*) from {changes}) + (select count(*) from {tombstones}),
           pg_total_relation_size('{changes}') + pg_total_relation_size('{tombstones}'),
           t.horizon,
           greatest(0, floor(extract(epoch from clock_timestamp() - greatest(t.tracked_at,
             (select max(c.at) from lockstep.clock c where c.xid <= t.horizon))))::bigint))
         from lockstep.tracked t where t.log = {log}"
    );
    let [rows_left, bytes_left, horizon, horizon_age] = numbers(client, &sql).await?;
    let name = format!(
        "select coalesce(format('%I.%I', n.nspname, c.relname), '') from lockstep.tracked t
         left join pg_catalog.pg_class c on c.oid = t.relation left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where t.log = {log}"
    );
    Ok(LogReport {
        log,
        table: texts(client, &name).await?.pop().unwrap_or_default(),
        expired: expired.rows,
        superseded: superseded.rows,
        bytes_removed: expired.bytes + superseded.bytes,
        rows_left,
        bytes_left,
        horizon,
        horizon_age,
    })
}
