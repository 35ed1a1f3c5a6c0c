//! Small questions to the primary: snapshots, fences, who it is, what became of a transaction.

use crate::catalog::texts;
use crate::error::PgError;
use crate::session::{BEGIN_KEEPING, BEGIN_READING, ask};
use lockstep_core::fanout::hub::PollAnswer;
use lockstep_core::position::Xid;
use tokio_postgres::GenericClient;

/// Takes S, then F, then the flush position: three statements of one message, in this order.
pub async fn poll<C: GenericClient>(client: &C, number: u64) -> Result<PollAnswer, PgError> {
    let answers = ask(
        client,
        "select pg_current_snapshot()::text; select pg_current_wal_insert_lsn()::text; \
         select pg_current_wal_flush_lsn()::text",
    )
    .await?;
    let [snapshot, fence, flushed] = &answers[..] else { return Err(PgError::Protocol("a poll's answer")) };
    Ok(PollAnswer { number, snapshot: snapshot.parse()?, fence: fence.parse()?, flushed: flushed.parse()? })
}

/// Commits a logical message, so that the watermark passes every fence read before.
///
/// Anyone may execute it on 14 to 18.
pub async fn push_fence<C: GenericClient>(client: &C) -> Result<(), PgError> {
    client
        .batch_execute(&format!(
            "{}select pg_logical_emit_message(true, 'lockstep.fence', ''); commit",
            *BEGIN_KEEPING
        ))
        .await?;
    Ok(())
}

/// Which of these transactions, all ended, may have written to a change log.
///
/// A committed one may; so may one that is too old for PostgreSQL to say. An answer of "may" costs a catch-up.
pub async fn wrote<C: GenericClient>(client: &C, xids: &[Xid]) -> Result<Vec<(Xid, bool)>, PgError> {
    let list = xids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let sql = format!(
        "select coalesce(pg_xact_status(x::text::xid8), 'committed') from unnest('{{{list}}}'::bigint[]) with \
         ordinality u(x, n) order by n"
    );
    let status = ask(client, &sql).await?;
    Ok(xids.iter().copied().zip(status.iter().map(|s| s != "aborted")).collect())
}

/// System identifier, timeline and database, without replication rights.
pub async fn identify<C: GenericClient>(client: &C) -> Result<(u64, u32, u32), PgError> {
    client.batch_execute(&BEGIN_READING).await?;
    let identified = identify_here(client).await?;
    client.batch_execute("commit").await?;
    Ok(identified)
}

/// The same inside a transaction.
pub(crate) async fn identify_here<C: GenericClient>(client: &C) -> Result<(u64, u32, u32), PgError> {
    let answer = texts(client, WHO).await?;
    identified(answer.first().map_or("", String::as_str))
}

/// A WAL file's name begins with the insertion timeline in hexadecimal; pg_control_checkpoint() lags after a
/// promotion.
pub(crate) const WHO: &str = "select concat_ws(' ', system_identifier, \
    left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), \
    (select oid from pg_database where datname = current_database())) from pg_control_system()";

/// The answer to [`WHO`].
pub(crate) fn identified(answer: &str) -> Result<(u64, u32, u32), PgError> {
    let mut words = answer.split(' ');
    let system = words.next().and_then(|word| word.parse().ok());
    let timeline = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
    let database = words.next().and_then(|word| word.parse().ok());
    match (system, timeline, database) {
        (Some(system), Some(timeline), Some(database)) => Ok((system, timeline, database)),
        _ => Err(PgError::Protocol("who the server is")),
    }
}

/// The mark of this life of the server, left now unless another node did. A database that does not know it later was
/// rolled back; so was one that has another mark before a state that was seen under this one.
///
/// A rollback takes a restart of the server, and a restart breaks every connection: so this is asked with each.
pub async fn mark<C: GenericClient>(client: &C) -> Result<i64, PgError> {
    let mark: i64 = rand::random();
    let sql = format!(
        "{}insert into lockstep.incarnations (mark) values ({mark}) on conflict (server_started_at) do nothing; \
         select mark::text from lockstep.incarnations where server_started_at = pg_catalog.pg_postmaster_start_time(); \
         commit",
        *BEGIN_KEEPING
    );
    let mark = texts(client, &sql).await?.first().and_then(|mark| mark.parse().ok());
    mark.ok_or(PgError::Protocol("a mark"))
}

/// Says that a node still runs under this mark: garbage collection keeps it for as long as its
/// cursors. False: the database does not know the mark, so it was rolled back.
pub async fn keep_mark<C: GenericClient>(client: &C, mark: i64) -> Result<bool, PgError> {
    let sql = format!(
        "{}update lockstep.incarnations set seen_at = now() where mark = {mark} returning mark::text; commit",
        *BEGIN_KEEPING
    );
    Ok(!texts(client, &sql).await?.is_empty())
}

/// A slot of another node that streams from this database, to be copied.
pub async fn sibling_slot<C: GenericClient>(client: &C) -> Result<Option<String>, PgError> {
    let sql = "select slot_name::text from pg_replication_slots where slot_name ~ '^lockstep_[0-9a-f]+$' \
               and temporary and plugin = 'pgoutput' and database = current_database() \
               and confirmed_flush_lsn is not null order by confirmed_flush_lsn desc limit 1";
    Ok(ask(client, sql).await?.pop())
}
