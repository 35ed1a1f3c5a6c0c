//! Catch-up: one repeatable-read transaction that reads shapes from the change logs, or in full (rule 1).

use crate::catalog::{literal, qualified, question_for, quote, table};
use crate::connect::{Stream, for_reading};
use crate::error::PgError;
use crate::lease::within;
use crate::poll::{WHO, identified};
use crate::session::SET_LOCAL;
use crate::target::Target;
use crate::wire::Wire;
use lockstep_core::catalog::Table;
use lockstep_core::fanout::hub::{CatchUpAnswer, CatchUpRequest, ReadAnswer, ReadFrom, ReadRequest};
use lockstep_core::limits;
use lockstep_core::mutation::{Outcome, Refusal};
use lockstep_core::position::{Facts, Lsn, ResetReason, Snapshot, Xid};
use lockstep_core::protocol::{CopyRows, Frame, LoadId};
use lockstep_core::shape::Shape;
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
}

/// Where the rows go: what a request reads is in its answer up to so many bytes, and goes ahead in chunks beyond.
struct Ahead<'a, C> {
    room: usize,
    chunks: &'a mut C,
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
    let ahead = Ahead { room: limits::CATCH_UP_INLINE_BYTES, chunks };
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
    let ahead = Ahead { room: usize::MAX, chunks: &mut Nobody };
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
    let mut reads = Vec::with_capacity(request.reads.len());
    for (at, read) in request.reads.iter().enumerate() {
        let load = LoadId { catch_up: request.id, read: at };
        let question = question(wire, read, &facts, &logs).await?;
        reads.push(ReadAnswer { frames: copy(wire, &read.shape, &question, load, &mut ahead).await? });
    }
    let mut clients = Vec::with_capacity(request.clients.len());
    for (subject, id) in &request.clients {
        clients.push(within(answer, outcomes(wire, subject, id)).await?);
    }
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
    // Below deadlock_timeout, so that in any deadlock this side gives way; an ALTER TABLE that waits behind this
    // transaction makes the whole application wait.
    wire.query(&format!(
        "{}set local lock_timeout = '200ms'; set local statement_timeout = '10min'; \
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
    let sql =
        format!("select concat_ws(' ', mark, at_lsn) from lockstep.incarnations where system = '{system}'");
    let known = texts(wire, &sql).await?;
    let mark = |row: &String| {
        let (mark, at) = row.split_once(' ')?;
        Some((mark.parse().ok()?, at.parse().ok()?))
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

/// What a catch-up must know of a log.
#[derive(Clone, Copy)]
struct Log {
    horizon: Xid,
    partitioned: bool,
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

/// What is asked for one shape.
enum Question {
    /// All rows.
    Rows(ResetReason, String),
    /// What changed: whether the key has a row in the shape, the key, and the row.
    Changes(String),
}

async fn question(
    wire: &mut Wire<Stream>,
    read: &ReadRequest,
    facts: &Facts,
    logs: &BTreeMap<i32, Log>,
) -> Result<Question, PgError> {
    let shape = &read.shape;
    let log = logs.get(&shape.table.log).copied().ok_or(PgError::SchemaChanged)?;
    let reset = match &read.from {
        ReadFrom::Scratch(reason) => *reason,
        ReadFrom::Since(head) => match facts.accept(head, log.horizon) {
            Err(reason) => reason,
            Ok(()) if truncated(wire, &shape.table, &head.snapshot).await? => ResetReason::Truncated,
            Ok(()) => return Ok(Question::Changes(changed_rows(shape, &head.snapshot, log))),
        },
    };
    let (columns, rows) = (columns(shape), rows_of(&shape.table, log));
    Ok(Question::Rows(reset, format!("select {columns} from {rows} t where {}", in_shape(shape))))
}

/// Asks by COPY, in a simple query: the output functions print the text that the stream prints, and no statement is
/// prepared, which a pooler would leave behind in somebody else's session. Returns what did not go ahead.
async fn copy<C: Chunks>(
    wire: &mut Wire<Stream>,
    shape: &Shape,
    question: &Question,
    load: LoadId,
    ahead: &mut Ahead<'_, C>,
) -> Result<Vec<Frame>, PgError> {
    let (reset, sql) = match question {
        Question::Rows(reset, sql) => (Some(*reset), sql),
        Question::Changes(sql) => (None, sql),
    };
    let not_copy = |_| PgError::Protocol("a row of COPY");
    within(SILENT_READ, wire.start_copy_out(&format!("copy ({sql}) to stdout"))).await?;
    let mut rows = CopyRows::new(shape, reset, limits::ROWS_FRAME_BYTES);
    let mut goes_ahead = false;
    loop {
        let each =
            |line: &[u8]| if reset.is_some() { rows.row(line) } else { rows.change(line) }.map_err(not_copy);
        let more = within(SILENT_READ, wire.copy_rows(each)).await?;
        goes_ahead |= rows.bytes() > ahead.room;
        if !goes_ahead && !more {
            ahead.room -= rows.bytes();
            return rows.finish(None).map_err(not_copy);
        }
        if goes_ahead {
            let frames = if more { rows.take(Some(load)) } else { rows.finish(Some(load)) };
            let frames = frames.map_err(not_copy)?;
            if !frames.is_empty() {
                ahead.chunks.take(load.read, frames).await?;
            }
            if !more {
                return Ok(Vec::new());
            }
        }
    }
}

/// A partitioned table's rows are in its partitions. An ordinary one could be given children, which are tables of
/// their own: the stream names those, and they are not tracked.
fn rows_of(table: &Table, log: Log) -> String {
    format!("{}{}", if log.partitioned { "" } else { "only " }, qualified(table))
}

/// A state does not include what a log entry's transaction did: the exact set, whatever the isolation levels,
/// savepoints or length of the transactions.
fn unseen(snapshot: &Snapshot) -> String {
    let xip = snapshot.xip().iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    format!("(xid >= {} or xid = any('{{{xip}}}'::bigint[]))", snapshot.xmax())
}

async fn truncated(wire: &mut Wire<Stream>, table: &Table, snapshot: &Snapshot) -> Result<bool, PgError> {
    let sql = format!(
        "select exists (select from lockstep.tombstones_{} where kind in ('t', 'p') and {})::text",
        table.log,
        unseen(snapshot)
    );
    let answer = within(SILENT_READ, texts(wire, &sql)).await?;
    Ok(answer.first().is_some_and(|t| t == "true"))
}

/// Keys that the logs name for the scope, with the current row where it exists and lies in the scope.
fn changed_rows(shape: &Shape, snapshot: &Snapshot, log: Log) -> String {
    let of = rows_of(&shape.table, log);
    let table = &shape.table;
    let keys: Vec<String> = (1..=table.key.len()).map(|i| format!("k{i}")).collect();
    let list = keys.join(", ");
    let mut place = unseen(snapshot);
    for (column, value) in shape.scope() {
        let at = table.scope_columns.iter().position(|c| c == column).map_or(0, |i| i + 1);
        place += &format!(" and s{at} = {}", typed(table, *column, value));
    }
    let log = table.log;
    let join = table.key.iter().zip(&keys).map(|(c, k)| format!("{} = k.{k}", of_base(table, *c)));
    let join = join.collect::<Vec<_>>().join(" and ");
    let first_key = quote(&table.columns[table.key[0]].name);
    format!(
        "with k as (select {list} from lockstep.changes_{log} where {place} \
         union select {list} from lockstep.tombstones_{log} where kind not in ('t', 'p') and {place}) \
         select t.{first_key} is not null, {}, {} from k left join {of} t on {join} and {}",
        keys.iter().map(|k| format!("k.{k}")).collect::<Vec<_>>().join(", "),
        columns(shape),
        in_shape(shape),
    )
}

fn columns(shape: &Shape) -> String {
    let names = shape.columns.iter().map(|c| format!("t.{}", quote(&shape.table.columns[*c].name)));
    names.collect::<Vec<_>>().join(", ")
}

/// A column as the logs have it: a domain over an enum has no operator with the enum.
fn of_base(table: &Table, column: usize) -> String {
    let column = &table.columns[column];
    let cast = column.base_sql.as_ref().map(|base| format!("::{base}")).unwrap_or_default();
    format!("t.{}{cast}", quote(&column.name))
}

fn typed(table: &Table, column: usize, value: &str) -> String {
    // Not a domain: its checks would fail the catch-up for a value that is in no row.
    let column = &table.columns[column];
    format!("{}::{}", literal(value), column.base_sql.as_ref().unwrap_or(&column.type_sql))
}

/// The shape's condition on a row of its table, which is called `t`.
fn in_shape(shape: &Shape) -> String {
    let table = &shape.table;
    let parts = shape
        .scope()
        .iter()
        .map(|(c, v)| format!("{} = {}", of_base(table, *c), typed(table, *c, v)))
        .chain(shape.predicate.iter().map(|p| p.sql().to_owned()));
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "true".into() } else { parts.join(" and ") }
}

/// What is stored of a client's mutations, as of S.
async fn outcomes(wire: &mut Wire<Stream>, subject: &str, id: &str) -> Result<Vec<Outcome>, PgError> {
    let sql = format!(
        "select n, id, outcome, code, message from lockstep.mutations where subject = {} and client = {} order by n",
        literal(subject),
        literal(id)
    );
    let read = |row: Vec<Option<String>>| -> Result<Outcome, PgError> {
        let mut fields = row.into_iter();
        let mut text = || fields.next().flatten().unwrap_or_default();
        let n = text().parse().map_err(|_| PgError::Protocol("a mutation's number"))?;
        let (id, outcome) = (text(), text());
        let refusal = (outcome == "refused").then(|| Refusal::new(text(), text()));
        Ok(Outcome { n, id: id.into(), refusal })
    };
    wire.query(&sql).await?.into_iter().map(read).collect()
}
