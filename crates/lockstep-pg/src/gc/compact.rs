//! Compaction: of the entries of one scope and key only the last written one is needed.
//!
//! "Last written" is by `id`, not by transaction id: a transaction that began early may write a row after a younger
//! one has committed. The proof is in `docs/decisions/0011-compaction.md`.

use super::{Gone, Stop, begin, by_place, commit, numbers};
use crate::PgError;
use crate::catalog::texts;
use futures_util::TryStreamExt;
use std::pin::pin;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Entries fetched at a time, 16 bytes each.
const AT_ONCE: usize = 500_000;

/// An entry of a log, and where it lies: block, and line in it.
struct Entry {
    id: u64,
    block: u32,
    line: u16,
}

impl Entry {
    /// Reads `12 (3,4)`.
    fn read(text: &str) -> Option<Self> {
        let (id, place) = text.split_once(" (")?;
        let (block, line) = place.strip_suffix(')')?.split_once(',')?;
        Some(Self { id: id.parse().ok()?, block: block.parse().ok()?, line: line.parse().ok()? })
    }
}

pub(super) async fn run(client: &Client, log: i32, batch: u32) -> Result<Gone, Stop> {
    let mut all = Gone::default();
    loop {
        begin(client).await?;
        let Some(Bounds { since, settled, generation }) = bounds(client, log).await? else {
            commit(client).await?;
            return Ok(all);
        };
        // Equality of k1 hashes, "is not distinct from" does not; a nested loop would compare everything with everything.
        client.batch_execute("set local enable_nestloop = off").await?;
        let found = find(client, &superseded(client, log, since).await?).await?;
        commit(client).await?;
        let count = found.iter().map(Vec::len).sum::<usize>();
        for (table, entries) in ["changes", "tombstones"].into_iter().zip(found) {
            for some in entries.chunks(batch.max(1) as usize) {
                begin(client).await?;
                by_place(client).await?;
                let [rows, bytes] = numbers(client, &delete(table, log, generation, some)).await?;
                commit(client).await?;
                all += Gone { rows, bytes };
            }
        }
        if count < AT_ONCE {
            begin(client).await?;
            let sql = format!(
                "update lockstep.tracked set compacted = {settled} where log = {log} and compacted = {since} \
                 and generation = {generation}"
            );
            client.batch_execute(&sql).await?;
            commit(client).await?;
            return Ok(all);
        }
    }
}

/// Entries of the table of changes, and of tombstones. They are read while they come: a node would keep for ever what
/// half a million rows of an answer take.
async fn find(client: &Client, sql: &str) -> Result<[Vec<Entry>; 2], Stop> {
    let mut found = [Vec::new(), Vec::new()];
    let mut messages = pin!(client.simple_query_raw(sql).await?);
    while let Some(message) = messages.try_next().await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let text = row.get(0).unwrap_or_default();
        let of = usize::from(text.starts_with('t'));
        let entry = text.get(1..).and_then(Entry::read);
        found[of].push(entry.ok_or(PgError::Protocol("an entry of a log that is not id and place"))?);
    }
    Ok(found)
}

/// The statement that deletes entries, each an id and a place. A place is where to look and the id is what is meant: in
/// this transaction another entry may lie there. And the table may have been tracked anew: then its log is another one,
/// whose ids begin at 1 again. The statement's snapshot is taken when it has the log's lock, so it sees that.
fn delete(table: &str, log: i32, generation: u64, entries: &[Entry]) -> String {
    let join = |text: &dyn Fn(&Entry) -> String| entries.iter().map(text).collect::<Vec<_>>().join(",");
    let ids = join(&|entry| entry.id.to_string());
    let places = join(&|Entry { block, line, .. }| format!("\"({block},{line})\""));
    format!(
        "with gone as (
           delete from lockstep.{table}_{log} e
           where ctid = any('{{{places}}}'::tid[]) and id = any('{{{ids}}}'::bigint[])
             and (select generation from lockstep.tracked where log = {log}) = {generation}
           returning pg_column_size(e.*) as bytes)
         select concat_ws(' ', count(*), coalesce(sum(bytes), 0)) from gone"
    )
}

/// What a compaction goes by.
struct Bounds {
    /// Every entry of a transaction below was looked at before.
    since: u64,
    /// And will be below this one: what is below the snapshot's xmin is visible, and no entry is added to it.
    settled: u64,
    /// Which log it is.
    generation: u64,
}

async fn bounds(client: &Client, log: i32) -> Result<Option<Bounds>, Stop> {
    let sql = format!(
        "select concat_ws(' ', compacted, pg_snapshot_xmin(pg_current_snapshot()), generation) \
         from lockstep.tracked where log = {log}"
    );
    if texts(client, &sql).await?.is_empty() {
        return Ok(None);
    }
    let [since, settled, generation] = numbers(client, &sql).await?;
    Ok(Some(Bounds { since, settled, generation }))
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
         select concat_ws(' ', 'c' || e.id, e.ctid) from lockstep.changes_{log} e join f on {same} where e.id < f.newest
         union all
         select concat_ws(' ', 't' || e.id, e.ctid) from lockstep.tombstones_{log} e join f on {same} where e.id < f.newest
         union all
         select concat_ws(' ', 't' || id, ctid) from lockstep.tombstones_{log}
         where kind = 't' and id < (select max(id) from lockstep.tombstones_{log} where kind = 't')
         limit {AT_ONCE}"
    ))
}
