//! Catch-up: one repeatable-read transaction that reads shapes from the change logs, or in full (rule 1).

use crate::catalog::{literal, qualified, quote, tables_of, texts};
use crate::error::PgError;
use crate::lease::within;
use crate::session::SET_LOCAL;
use futures_util::{StreamExt, pin_mut};
use lockstep_core::catalog::Table;
use lockstep_core::change::{Key, Text, Tuple, Value};
use lockstep_core::fanout::hub::{CatchUpAnswer, CatchUpRequest, ReadAnswer, ReadFrom, ReadRequest};
use lockstep_core::limits;
use lockstep_core::mutation::{Outcome, Refusal};
use lockstep_core::position::{Facts, Lsn, ResetReason, Snapshot, Xid};
use lockstep_core::protocol::{Delta, rows_frames};
use lockstep_core::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

/// SQLSTATE of a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";

/// How long a large question may stay unanswered. PostgreSQL's own time-out ends the statement before; this is for a
/// server that does not keep to it.
const SILENT_READ: Duration = Duration::from_secs(11 * 60);

/// Reads everything asked for in one snapshot. `history` is of the stream's server; small questions are answered
/// within `answer`. After an error the transaction is left to the connection's [`Lease`](crate::lease::Lease).
pub async fn read(
    client: &Client,
    request: &CatchUpRequest,
    history: &[(u32, Lsn)],
    answer: Duration,
) -> Result<CatchUpAnswer, PgError> {
    let begin = async {
        begin_and_lock(client, request).await?;
        // From here on S stands: a snapshot taken before the LOCK could be older than a rewrite and read nothing.
        let facts = facts(client, history).await?;
        Ok((facts, check_schema(client, request).await?))
    };
    let (mut facts, logs) = within(answer, begin).await?;
    let mut reads = Vec::with_capacity(request.reads.len());
    for read in &request.reads {
        let delta = read_shape(client, read, &facts, &logs).await?;
        reads.push(ReadAnswer { frames: rows_frames(&read.shape, &delta, limits::ROWS_FRAME_BYTES) });
    }
    let mut clients = Vec::with_capacity(request.clients.len());
    for (subject, id) in &request.clients {
        clients.push(within(answer, outcomes(client, subject, id)).await?);
    }
    let end = async {
        client.batch_execute("commit").await?;
        // F, after S: no commit that S sees ends later.
        texts(client, "select pg_current_wal_insert_lsn()::text").await
    };
    let fence = within(answer, end).await?;
    facts.insert_lsn = fence.first().ok_or(PgError::Protocol("no insert LSN"))?.parse()?;
    Ok(CatchUpAnswer { facts, reads, clients })
}

/// The LOCK is a message of its own and nothing else is sent before its reply.
async fn begin_and_lock(client: &Client, request: &CatchUpRequest) -> Result<(), PgError> {
    client.batch_execute("begin isolation level repeatable read, read only").await?;
    // Below deadlock_timeout, so that in any deadlock this side gives way; an ALTER TABLE that waits behind this
    // transaction makes the whole application wait.
    client
        .batch_execute(&format!(
            "{}set local lock_timeout = '200ms'; set local statement_timeout = '10min'; \
             set local idle_in_transaction_session_timeout = '30s'",
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
    client.batch_execute(&format!("lock table {names} in access share mode")).await.map_err(|error| {
        let gone = error.code().is_some_and(|c| c.code() == UNDEFINED_TABLE);
        if gone { PgError::SchemaChanged } else { error.into() }
    })
}

async fn facts(client: &Client, history: &[(u32, Lsn)]) -> Result<Facts, PgError> {
    let snapshot: Snapshot = texts(client, "select pg_current_snapshot()::text")
        .await?
        .first()
        .ok_or(PgError::Protocol("S"))?
        .parse()?;
    let (system, timeline, database) = crate::poll::identify_here(client).await?;
    // One for each life of this server within the retention.
    let sql =
        format!("select concat_ws(' ', mark, at_lsn) from lockstep.incarnations where system = '{system}'");
    let known = texts(client, &sql).await?;
    let mark = |row: &String| {
        let (mark, at) = row.split_once(' ')?;
        Some((mark.parse().ok()?, at.parse().ok()?))
    };
    let insert_lsn = texts(client, "select pg_current_wal_insert_lsn()::text").await?;
    Ok(Facts {
        system,
        timeline,
        history: history.to_vec(),
        database,
        snapshot,
        insert_lsn: insert_lsn.first().ok_or(PgError::Protocol("no insert LSN"))?.parse()?,
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
async fn check_schema(client: &Client, request: &CatchUpRequest) -> Result<BTreeMap<i32, Log>, PgError> {
    if request.reads.is_empty() {
        return Ok(BTreeMap::new());
    }
    let logs = request.reads.iter().map(|read| read.shape.table.log).collect();
    let now = tables_of(client, &logs).await?;
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
    Ok(texts(client, sql).await?.iter().filter_map(read).collect())
}

async fn read_shape(
    client: &Client,
    read: &ReadRequest,
    facts: &Facts,
    logs: &BTreeMap<i32, Log>,
) -> Result<Delta, PgError> {
    let shape = &read.shape;
    let log = logs.get(&shape.table.log).copied().ok_or(PgError::SchemaChanged)?;
    let reset = match &read.from {
        ReadFrom::Scratch(reason) => *reason,
        ReadFrom::Since(head) => match facts.accept(head, log.horizon) {
            Err(reason) => reason,
            Ok(()) if truncated(client, &shape.table, &head.snapshot).await? => ResetReason::Truncated,
            Ok(()) => return changed_rows(client, shape, &head.snapshot, log).await,
        },
    };
    let mut delta = Delta { reset: Some(reset), ..Delta::default() };
    let sql =
        format!("select {} from {} t where {}", columns(shape), rows_of(&shape.table, log), in_shape(shape));
    rows(client, &sql, |fields| {
        delta.put.push(widen(shape, fields));
        Ok(())
    })
    .await?;
    Ok(delta)
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

async fn truncated(client: &Client, table: &Table, snapshot: &Snapshot) -> Result<bool, PgError> {
    let sql = format!(
        "select exists (select from lockstep.tombstones_{} where kind in ('t', 'p') and {})::text",
        table.log,
        unseen(snapshot)
    );
    let answer = within(SILENT_READ, texts(client, &sql)).await?;
    Ok(answer.first().is_some_and(|t| t == "true"))
}

/// Keys that the logs name for the scope, with the current row where it exists and lies in the scope.
async fn changed_rows(
    client: &Client,
    shape: &Shape,
    snapshot: &Snapshot,
    log: Log,
) -> Result<Delta, PgError> {
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
    let sql = format!(
        "with k as (select {list} from lockstep.changes_{log} where {place} \
         union select {list} from lockstep.tombstones_{log} where kind not in ('t', 'p') and {place}) \
         select t.{first_key} is not null, {}, {} from k left join {of} t on {join} and {}",
        keys.iter().map(|k| format!("k.{k}")).collect::<Vec<_>>().join(", "),
        columns(shape),
        in_shape(shape),
    );
    let mut delta = Delta::default();
    rows(client, &sql, |mut fields| {
        let row = fields.split_off(1 + table.key.len());
        if fields[0].text() == Some("t") {
            delta.put.push(widen(shape, row));
        } else {
            let key: Option<Key> = fields[1..].iter().map(|v| v.text().map(Text::from)).collect();
            delta.remove.push(key.ok_or(PgError::Protocol("a log entry without a key"))?);
        }
        Ok(())
    })
    .await?;
    Ok(delta)
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

/// A row of the shape's columns as a row of all the table's.
fn widen(shape: &Shape, fields: Vec<Value>) -> Tuple {
    let mut row = vec![Value::Null; shape.table.columns.len()];
    for (column, value) in shape.columns.iter().zip(fields) {
        row[*column] = value;
    }
    row
}

/// Runs a query by the simple protocol: the output functions print the text that the stream prints, and no statement
/// is prepared, which a pooler would leave behind in somebody else's session.
async fn rows(
    client: &Client,
    sql: &str,
    mut each: impl FnMut(Vec<Value>) -> Result<(), PgError>,
) -> Result<(), PgError> {
    let stream = within(SILENT_READ, async { Ok(client.simple_query_raw(sql).await?) }).await?;
    pin_mut!(stream);
    while let Some(message) = within(SILENT_READ, async { Ok(stream.next().await) }).await? {
        let SimpleQueryMessage::Row(row) = message? else { continue };
        let value = |at: usize| -> Result<Value, PgError> {
            Ok(row.try_get(at)?.map_or(Value::Null, |text| Value::Text(text.into())))
        };
        each((0..row.len()).map(value).collect::<Result<_, _>>()?)?;
    }
    Ok(())
}

/// What is stored of a client's mutations, as of S.
async fn outcomes(client: &Client, subject: &str, id: &str) -> Result<Vec<Outcome>, PgError> {
    let sql = "select n::text, id, outcome, code, message from lockstep.mutations \
               where subject = $1 and client = $2 order by n";
    let rows = client.query_typed(sql, &[(&subject, Type::TEXT), (&id, Type::TEXT)]).await?;
    let read = |row: &tokio_postgres::Row| -> Result<Outcome, PgError> {
        let n: String = row.get(0);
        let n = n.parse().map_err(|_| PgError::Protocol("a mutation's number"))?;
        let (id, outcome): (String, String) = (row.get(1), row.get(2));
        let text = |at: usize| row.get::<_, Option<String>>(at).unwrap_or_default();
        Ok(Outcome {
            n,
            id: id.into(),
            refusal: (outcome == "refused").then(|| Refusal::new(text(3), text(4))),
        })
    };
    rows.iter().map(read).collect()
}
