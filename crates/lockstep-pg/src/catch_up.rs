//! Catch-up: one repeatable-read transaction that reads shapes from the change logs, or in full (rule 1).

use crate::catalog::{qualified, question_for, table};
use crate::connect::{Stream, for_reading};
use crate::error::PgError;
use crate::lease::within;
use crate::poll::{WHO, identified};
use crate::question::{Log, Question, outcomes_of, questions, truncations_of};
use crate::session::SET_LOCAL;
use crate::size::Size;
use crate::target::Target;
use crate::wire::Wire;
use lockstep_core::fanout::hub::{CatchUpAnswer, CatchUpRequest, ReadAnswer};
use lockstep_core::limits;
use lockstep_core::mutation::{Outcome, Refusal};
use lockstep_core::position::{Facts, Lsn, Xid};
use lockstep_core::protocol::{CopyRows, Frame, LoadId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// SQLSTATE of a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";

/// How long a large question may stay unanswered. PostgreSQL's own time-out ends the statement before; this is for a
/// server that does not keep to it.
const SILENT_READ: Duration = Duration::from_secs(11 * 60);

/// Takes the rows of large reads while they are read.
pub trait Chunks: Send {
    /// Frames of one of the request's reads. The next ones are read when this returns.
    fn take(&mut self, read: usize, frames: Vec<Frame>) -> impl Future<Output = Result<(), PgError>> + Send;

    /// Rows of a shape that is loaded whole will be taken, and more than a few: whoever takes them may say how many.
    fn expect(&mut self, _read: usize, _size: Size) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Where the rows go: what a request reads is in its answer up to so many bytes, and goes ahead in chunks beyond.
struct Ahead<'a, C> {
    room: usize,
    chunks: &'a mut C,
    /// The last read that went ahead.
    begun: Option<usize>,
    /// How many more may be estimated.
    estimates: usize,
}

impl<'a, C: Chunks> Ahead<'a, C> {
    fn new(room: usize, chunks: &'a mut C) -> Self {
        Self { room, chunks, begun: None, estimates: limits::ESTIMATES_PER_CATCH_UP }
    }

    /// Before the first rows of a read go ahead, while more of them come.
    async fn begin(&mut self, at: usize, size: Option<Size>) {
        if self.begun.replace(at) != Some(at)
            && let Some(size) = size
            && let Some(left) = self.estimates.checked_sub(1)
        {
            self.estimates = left;
            self.chunks.expect(at, size).await;
        }
    }
}

/// Reads everything asked for in one snapshot. `history` is of the stream's server; small questions are answered
/// within `answer`. After an error the transaction is left to the connection's [`Reader`](crate::readers::Reader).
pub async fn read<C: Chunks>(
    wire: &mut Wire<Stream>,
    request: &CatchUpRequest,
    history: &[(u32, Lsn)],
    answer: Duration,
    chunks: &mut C,
) -> Result<CatchUpAnswer, PgError> {
    let ahead = Ahead::new(limits::CATCH_UP_INLINE_BYTES, chunks);
    read_ahead(wire, request, history, answer, ahead).await
}

/// The same on a connection of its own, with all rows in the answer: for tests and benches, where they are few.
pub async fn read_whole(
    target: &Target,
    request: &CatchUpRequest,
    history: &[(u32, Lsn)],
    answer: Duration,
) -> Result<CatchUpAnswer, PgError> {
    struct Nobody;
    impl Chunks for Nobody {
        async fn take(&mut self, _: usize, _: Vec<Frame>) -> Result<(), PgError> {
            Err(PgError::Protocol("rows beyond all bounds"))
        }
    }
    let (mut wire, _) = for_reading(target, answer).await?;
    let mut nobody = Nobody;
    let ahead = Ahead::new(usize::MAX, &mut nobody);
    let read = read_ahead(&mut wire, request, history, answer, ahead).await;
    wire.terminate().await;
    read
}

async fn read_ahead<C: Chunks>(
    wire: &mut Wire<Stream>,
    request: &CatchUpRequest,
    history: &[(u32, Lsn)],
    answer: Duration,
    mut ahead: Ahead<'_, C>,
) -> Result<CatchUpAnswer, PgError> {
    let begin = async {
        begin_and_lock(wire, request).await?;
        // From here on S stands: a snapshot taken before the LOCK could be older than a rewrite and read nothing.
        let facts = facts(wire, history).await?;
        Ok((facts, check_schema(wire, request).await?))
    };
    let (mut facts, logs) = within(answer, begin).await?;
    let truncations = truncations(wire, request, &facts, &logs).await?;
    let mut reads = vec![ReadAnswer { frames: Vec::new() }; request.reads.len()];
    for question in questions(&request.reads, &facts, &logs, &truncations)? {
        copy(wire, request, &question, &mut reads, &mut ahead).await?;
    }
    let clients = within(answer, outcomes(wire, &request.clients)).await?;
    let end = async {
        wire.query("commit").await?;
        // F, after S: no commit that S sees ends later.
        texts(wire, "select pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text").await
    };
    let fence = within(answer, end).await?;
    facts.insert_lsn = fence.first().ok_or(PgError::Protocol("no insert LSN"))?.parse()?;
    Ok(CatchUpAnswer { facts, reads, clients })
}

/// The first column of every row.
async fn texts(wire: &mut Wire<Stream>, sql: &str) -> Result<Vec<String>, PgError> {
    Ok(wire.query(sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// The LOCK is a message of its own and nothing else is sent before its reply.
async fn begin_and_lock(wire: &mut Wire<Stream>, request: &CatchUpRequest) -> Result<(), PgError> {
    wire.query("begin isolation level repeatable read, read only").await?;
    // A policy that chooses rows is an error: the stream has them all. The lock_timeout is below deadlock_timeout, so
    // that in any deadlock this side gives way; an ALTER TABLE that waits behind this transaction makes the whole
    // application wait.
    wire.query(&format!(
        "{}set local row_security = off; set local lock_timeout = '200ms'; set local statement_timeout = '10min'; \
         set local idle_in_transaction_session_timeout = '5min'",
        *SET_LOCAL
    ))
    .await?;
    let mut names = BTreeSet::from(["lockstep.tracked".to_owned()]);
    for read in &request.reads {
        let table = &read.shape.table;
        names.insert(qualified(table));
        names.insert(format!("lockstep.changes_{}", table.log));
        names.insert(format!("lockstep.tombstones_{}", table.log));
    }
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let locked = wire.query(&format!("lock table {names} in access share mode")).await;
    locked.map(drop).map_err(|error| {
        if error.sqlstate() == Some(UNDEFINED_TABLE) { PgError::SchemaChanged } else { error }
    })
}

async fn facts(wire: &mut Wire<Stream>, history: &[(u32, Lsn)]) -> Result<Facts, PgError> {
    let sql = format!("select pg_current_snapshot()::text; {WHO}; select pg_current_wal_insert_lsn()::text");
    let answers = texts(wire, &sql).await?;
    let [snapshot, who, insert_lsn] = &answers[..] else { return Err(PgError::Protocol("S")) };
    let (system, timeline, database) = identified(who)?;
    // One for each life of this server within the retention.
    let sql = format!(
        "select concat_ws(' ', mark, at_lsn, server_started_at = pg_postmaster_start_time()) \
         from lockstep.incarnations where system = '{system}'"
    );
    let known = texts(wire, &sql).await?;
    // A state that was read before this life's mark, and whose F lies behind it, would name a mark that is not the
    // newest before its F: it would look rolled back.
    if !known.iter().any(|row| row.ends_with(" t")) {
        return Err(PgError::NoMark);
    }
    let mark = |row: &String| {
        let mut words = row.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    Ok(Facts {
        system,
        timeline,
        history: history.to_vec(),
        database,
        snapshot: snapshot.parse()?,
        insert_lsn: insert_lsn.parse()?,
        incarnations: known.iter().filter_map(mark).collect(),
    })
}

/// The tables must still be what the shapes were resolved with. Returns the logs by number.
async fn check_schema(
    wire: &mut Wire<Stream>,
    request: &CatchUpRequest,
) -> Result<BTreeMap<i32, Log>, PgError> {
    if request.reads.is_empty() {
        return Ok(BTreeMap::new());
    }
    let logs = request.reads.iter().map(|read| read.shape.table.log).collect();
    let now = texts(wire, &question_for(&logs)).await?;
    let now = now.iter().map(|json| table(json)).collect::<Result<Vec<_>, _>>()?;
    for read in &request.reads {
        let table = &read.shape.table;
        if !now.iter().any(|t| t.same_schema(table)) {
            return Err(PgError::SchemaChanged);
        }
    }
    let sql = "select concat_ws(' ', t.log, t.horizon, c.relkind = 'p') from lockstep.tracked t \
               join pg_catalog.pg_class c on c.oid = t.relation";
    let read = |row: &String| -> Option<(i32, Log)> {
        let mut words = row.split(' ');
        let (log, horizon) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((log, Log { horizon, partitioned: words.next()? == "t" }))
    };
    Ok(texts(wire, sql).await?.iter().filter_map(read).collect())
}

/// The transactions that truncated, by log, as far as somebody may not have seen them.
async fn truncations(
    wire: &mut Wire<Stream>,
    request: &CatchUpRequest,
    facts: &Facts,
    logs: &BTreeMap<i32, Log>,
) -> Result<BTreeMap<i32, Vec<Xid>>, PgError> {
    let mut truncations = BTreeMap::new();
    for (log, sql) in truncations_of(&request.reads, facts, logs) {
        let xids = within(SILENT_READ, texts(wire, &sql)).await?;
        let xids = xids.iter().map(|xid| xid.parse().map_err(|_| PgError::Protocol("an xid")));
        truncations.insert(log, xids.collect::<Result<_, _>>()?);
    }
    Ok(truncations)
}

/// Asks by COPY, in a simple query: the output functions print the text that the stream prints, and no statement is
/// prepared, which a pooler would leave behind in somebody else's session. What does not go ahead is put into `answers`.
async fn copy<C: Chunks>(
    wire: &mut Wire<Stream>,
    request: &CatchUpRequest,
    question: &Question,
    answers: &mut [ReadAnswer],
    ahead: &mut Ahead<'_, C>,
) -> Result<(), PgError> {
    let not_copy = |_| PgError::Protocol("a row of COPY");
    within(SILENT_READ, wire.start_copy_out(&format!("copy ({}) to stdout", question.sql))).await?;
    let mut reads = question.reads.iter();
    let Some((mut at, reset)) = reads.next().copied() else { return Ok(()) };
    let rows_of = |at: usize, reset| CopyRows::new(&request.reads[at].shape, reset, limits::ROWS_FRAME_BYTES);
    let mut rows = rows_of(at, reset);
    let (mut goes_ahead, mut ended) = (false, Vec::new());
    loop {
        let each = |line: &[u8]| {
            let (number, line) = numbered(line).ok_or(PgError::Protocol("a row of COPY"))?;
            // Rows come in the order of the reads; a read without rows has none.
            while number != at {
                let (next, reset) = reads.next().copied().ok_or(PgError::Protocol("a row of no read"))?;
                ended.push((at, std::mem::replace(&mut rows, rows_of(next, reset)), goes_ahead));
                (at, goes_ahead) = (next, false);
            }
            if question.whole { rows.row(line) } else { rows.change(line) }.map_err(not_copy)
        };
        let more = within(SILENT_READ, wire.copy_rows(each)).await?;
        if !more {
            ended.push((at, std::mem::replace(&mut rows, rows_of(at, None)), goes_ahead));
            for (next, reset) in reads.by_ref() {
                ended.push((*next, rows_of(*next, *reset), false));
            }
        }
        for (read, mut rows, mut goes_ahead) in ended.drain(..) {
            let load = LoadId { catch_up: request.id, read };
            goes_ahead |= rows.bytes() > ahead.room;
            if goes_ahead {
                let frames = rows.finish(Some(load)).map_err(not_copy)?;
                ahead.chunks.take(read, frames).await?;
            } else {
                ahead.room -= rows.bytes();
                answers[read].frames = rows.finish(None).map_err(not_copy)?;
            }
        }
        if !more {
            return Ok(());
        }
        goes_ahead |= rows.bytes() > ahead.room;
        if goes_ahead {
            let frames = rows.take(Some(LoadId { catch_up: request.id, read: at })).map_err(not_copy)?;
            if !frames.is_empty() {
                let size = || question.size_of(at, &request.reads[at], rows.rows());
                let size = if ahead.begun == Some(at) { None } else { size() };
                ahead.begin(at, size).await;
                ahead.chunks.take(at, frames).await?;
            }
        }
    }
}

/// Which read a row is of, and the rest of the line.
fn numbered(line: &[u8]) -> Option<(usize, &[u8])> {
    let tab = line.iter().position(|b| *b == b'\t')?;
    let number = std::str::from_utf8(&line[..tab]).ok()?.parse().ok()?;
    Some((number, &line[tab + 1..]))
}

/// What is stored of the clients' mutations, as of S; in the order of the clients.
async fn outcomes(
    wire: &mut Wire<Stream>,
    clients: &[(String, String)],
) -> Result<Vec<Vec<Outcome>>, PgError> {
    let mut outcomes = vec![Vec::new(); clients.len()];
    if clients.is_empty() {
        return Ok(outcomes);
    }
    for row in wire.query(&outcomes_of(clients)).await? {
        let mut fields = row.into_iter();
        let mut text = || fields.next().flatten().unwrap_or_default();
        let bad = || PgError::Protocol("a mutation's outcome");
        let client: usize = text().parse().map_err(|_| bad())?;
        let n = text().parse().map_err(|_| bad())?;
        let (id, outcome) = (text(), text());
        let refusal = (outcome == "refused").then(|| Refusal::new(text(), text()));
        outcomes.get_mut(client).ok_or_else(bad)?.push(Outcome { n, id: id.into(), refusal });
    }
    Ok(outcomes)
}
