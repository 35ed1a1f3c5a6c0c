//! What a node's operator wants to know of the database: the slot, and how large the change logs are.

use crate::catalog::literal;
use crate::error::PgError;
use crate::session::ask;
use serde::Deserialize;
use tokio_postgres::GenericClient;

/// A node's replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SlotFigures {
    /// A stream reads from it.
    pub active: bool,
    /// WAL that PostgreSQL keeps for it.
    pub retained_bytes: u64,
}

/// A table's change log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogFigures {
    /// Schema and table.
    pub table: String,
    /// Entries, as PostgreSQL's statistics estimate them.
    pub rows: u64,
    /// On disk, with indexes.
    pub bytes: u64,
    /// How long ago the oldest transaction was that it reaches back to, in seconds, at least.
    pub horizon_age: u64,
}

/// The slot of this name; None if there is none.
pub async fn slot<C: GenericClient>(client: &C, name: &str) -> Result<Option<SlotFigures>, PgError> {
    let sql = format!(
        "select json_build_object('active', active, 'retained_bytes', \
         greatest(0, pg_current_wal_insert_lsn() - restart_lsn)::bigint)::text \
         from pg_replication_slots where slot_name = {} and restart_lsn is not null",
        literal(name)
    );
    ask(client, &sql).await?.pop().map(|json| read(&json)).transpose()
}

/// Every log whose table is there still.
pub async fn logs<C: GenericClient>(client: &C) -> Result<Vec<LogFigures>, PgError> {
    let sql = "select json_build_object('table', n.nspname || '.' || c.relname, \
         'rows', pg_stat_get_live_tuples(l.changes) + pg_stat_get_live_tuples(l.tombstones), \
         'bytes', pg_total_relation_size(l.changes) + pg_total_relation_size(l.tombstones), \
         'horizon_age', greatest(0, floor(extract(epoch from clock_timestamp() - greatest(t.tracked_at, \
           (select max(k.at) from lockstep.clock k where k.xid <= t.horizon))))::bigint))::text \
         from lockstep.tracked t \
         join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace \
         cross join lateral (select to_regclass('lockstep.changes_' || t.log)::oid, \
           to_regclass('lockstep.tombstones_' || t.log)::oid) l (changes, tombstones) \
         where l.changes is not null and l.tombstones is not null order by t.log";
    ask(client, sql).await?.iter().map(|json| read(json)).collect()
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, PgError> {
    serde_json::from_str(json).map_err(|_| PgError::Protocol("figures"))
}
