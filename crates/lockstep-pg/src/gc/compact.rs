//! Compaction: of the entries of one scope and key only the last written one is needed.
//!
//! "Last written" is by `id`, not by transaction id: a transaction that began early may write a row after a younger
//! one has committed. The proof is in `docs/decisions/0011-compaction.md`.

use super::{Gone, Stop, begin, by_id, commit, numbers};
use crate::catalog::texts;
use tokio_postgres::Client;

/// Ids fetched at a time; 8 bytes each.
const AT_ONCE: usize = 500_000;

pub(super) async fn run(client: &Client, log: i32, batch: u32) -> Result<Gone, Stop> {
    let mut all = Gone::default();
    loop {
        begin(client).await?;
        let Some((since, settled)) = bounds(client, log).await? else {
            commit(client).await?;
            return Ok(all);
        };
        // Equality of k1 hashes, "is not distinct from" does not; a nested loop would compare everything with everything.
        client.batch_execute("set local enable_nestloop = off").await?;
        let found = texts(client, &superseded(client, log, since).await?).await?;
        commit(client).await?;
        for table in ["changes", "tombstones"] {
            let prefix = &table[..1];
            let ids: Vec<&str> = found.iter().filter_map(|id| id.strip_prefix(prefix)).collect();
            for some in ids.chunks(batch.max(1) as usize) {
                begin(client).await?;
                by_id(client).await?;
                let sql = format!(
                    "with gone as (
                       delete from lockstep.{table}_{log} e where id = any('{{{}}}'::bigint[])
                       returning pg_column_size(e.*) as bytes)
                     select concat_ws(' ', count(*), coalesce(sum(bytes), 0)) from gone",
                    some.join(",")
                );
                let [rows, bytes] = numbers(client, &sql).await?;
                commit(client).await?;
                all += Gone { rows, bytes };
            }
        }
        if found.len() < AT_ONCE {
            begin(client).await?;
            // The table may have been tracked anew meanwhile: then its new log starts at 0 again, which is below.
            let sql = format!(
                "update lockstep.tracked set compacted = {settled} where log = {log} and compacted = {since}"
            );
            client.batch_execute(&sql).await?;
            commit(client).await?;
            return Ok(all);
        }
    }
}

/// Up to which transaction everything was compacted before, and up to which it will be now: what is below the
/// snapshot's xmin is visible, and no entry is added to it.
async fn bounds(client: &Client, log: i32) -> Result<Option<(u64, u64)>, Stop> {
    let sql = format!(
        "select concat_ws(' ', compacted, pg_snapshot_xmin(pg_current_snapshot())) from lockstep.tracked where log = {log}"
    );
    if texts(client, &sql).await?.is_empty() {
        return Ok(None);
    }
    let [since, settled] = numbers(client, &sql).await?;
    Ok(Some((since, settled)))
}

/// The query for entries with a later one of the same scope and key. Only an entry that is new since the last time
/// can make others superfluous.
async fn superseded(client: &Client, log: i32, since: u64) -> Result<String, Stop> {
    let columns = format!(
        "select attname::text from pg_attribute where attrelid = 'lockstep.changes_{log}'::regclass
           and attname ~ '^[sk][0-9]+$' and not attisdropped order by attnum"
    );
    let columns = texts(client, &columns).await?;
    let names = columns.join(", ");
    let same: Vec<String> = columns
        .iter()
        .map(|c| {
            // A key is never null.
            if c.starts_with('k') {
                format!("e.{c} = f.{c}")
            } else {
                format!("e.{c} is not distinct from f.{c}")
            }
        })
        .collect();
    let same = same.join(" and ");
    Ok(format!(
        "with f as (
           select {names}, max(id) as newest from (
             select {names}, id from lockstep.changes_{log} where xid >= {since}
             union all
             select {names}, id from lockstep.tombstones_{log} where xid >= {since} and k1 is not null) fresh
           group by {names})
         select 'c' || e.id from lockstep.changes_{log} e join f on {same} where e.id < f.newest
         union all
         select 't' || e.id from lockstep.tombstones_{log} e join f on {same} where e.id < f.newest
         union all
         select 't' || id from lockstep.tombstones_{log}
         where kind = 't' and id < (select max(id) from lockstep.tombstones_{log} where kind = 't')
         limit {AT_ONCE}"
    ))
}
