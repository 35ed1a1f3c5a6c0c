//! Clients' mutations: each in one transaction, exactly once, in order (rule 5).

mod condition;

use crate::catalog::{qualified, quote, tables};
use crate::error::PgError;
use crate::lease::within;
use crate::poll;
use lockstep_core::catalog::{Catalog, Column, Table, Wire};
use lockstep_core::fanout::hub::{MutateRequest, MutateResult};
use lockstep_core::mutation::{Mutation, Operation, Outcome, Refusal, is_refusal};
use lockstep_core::position::{Lsn, Xid};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

/// Tries of a mutation that fails in passing, before the client is told to come back later.
const TRIES: u32 = 6;

/// How long one try may take as a whole. Each statement has its own, shorter time-out in PostgreSQL; this is for a
/// server that does not keep to it.
const TRY: Duration = Duration::from_secs(120);

/// A statement with its parameters, all as text.
#[derive(Debug, PartialEq)]
struct Statement {
    sql: String,
    values: Vec<Option<String>>,
}

/// What one try of one mutation came to.
enum Step {
    /// Decided; here, the transaction that did it, or before.
    Decided(Option<Xid>, Option<Refusal>),
    /// The request ends here.
    Stop(MutateResult),
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Ran {
    /// The transactions whose COMMIT returned, whatever came after them.
    pub committed: Vec<Xid>,
    /// What is decided, from the first mutation on: now, or when the request was sent before.
    pub outcomes: Vec<Outcome>,
    /// Applied now.
    pub applied: u64,
    /// Refused now.
    pub refused: u64,
}

/// Why a try failed.
enum Failure {
    Refused(Refusal),
    Passing(PgError),
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        match &error {
            PgError::Query(query) if query.code().is_some_and(|c| is_refusal(c.code())) => {
                let db = query.as_db_error();
                let code = query.code().map_or("", |c| c.code());
                Self::Refused(Refusal::new(code, db.map_or("refused", |d| d.message())))
            }
            _ => Self::Passing(error),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        PgError::from(error).into()
    }
}

/// Runs a request's mutations one after another, and says what is to be replied.
pub async fn run(client: &Client, request: &MutateRequest, catalog: &Catalog) -> (Ran, MutateResult) {
    let mut ran = Ran::default();
    for mutation in &request.mutations {
        match with_patience(client, request, mutation, catalog).await {
            Step::Decided(xid, refusal) => {
                if xid.is_some() {
                    let count = if refusal.is_some() { &mut ran.refused } else { &mut ran.applied };
                    *count += 1;
                }
                ran.committed.extend(xid);
                ran.outcomes.push(Outcome { n: mutation.n, id: mutation.id.as_str().into(), refusal });
            }
            Step::Stop(result) => return (ran, result),
        }
    }
    (ran, MutateResult::Decided)
}

/// A position at or behind every commit that was seen so far, once all up to it is durable: a COMMIT may return before
/// it is (`synchronous_commit = off`).
pub async fn durable(client: &Client) -> Result<Lsn, PgError> {
    let sql =
        "select pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.pg_current_wal_flush_lsn()::text";
    let rows = client.query_typed(sql, &[]).await?;
    let row = rows.first().ok_or(PgError::Protocol("where the log ends"))?;
    let (inserted, flushed): (Lsn, Lsn) =
        (row.get::<_, String>(0).parse()?, row.get::<_, String>(1).parse()?);
    if flushed < inserted {
        // A commit that is flushed takes along what was written before it.
        poll::push_fence(client).await?;
    }
    Ok(inserted)
}

/// Passing failures (deadlock, serialization, time-outs) are retried under the same number, never refused.
async fn with_patience(
    client: &Client,
    request: &MutateRequest,
    mutation: &Mutation,
    catalog: &Catalog,
) -> Step {
    let mut read: Option<Catalog> = None;
    for attempt in 0..TRIES {
        let (now, fresh) = (read.as_ref().unwrap_or(catalog), read.is_some());
        match within(TRY, once(client, request, mutation, now, fresh)).await {
            Ok(step) => return step,
            Err(error) => {
                if is_of_schema(&error) {
                    read = read_again(client, catalog).await;
                }
                let error_text = error.of_a_write();
                tracing::info!(
                    error = error_text,
                    attempt,
                    "a mutation failed in passing and is tried again"
                );
                if client.is_closed() || matches!(error, PgError::Silent(_)) {
                    break;
                }
                let jitter = rand::random::<u64>() % 10;
                tokio::time::sleep(Duration::from_millis((5 << attempt) + jitter)).await;
            }
        }
    }
    Step::Stop(MutateResult::Busy)
}

/// Whether it may be that the node has not seen a change of the schema yet.
fn is_of_schema(error: &PgError) -> bool {
    match error {
        PgError::SchemaChanged => true,
        PgError::Query(query) => query.code().is_some_and(|c| c.code().starts_with("42")),
        _ => false,
    }
}

async fn read_again(client: &Client, catalog: &Catalog) -> Option<Catalog> {
    let tables = tables(client).await.ok()?;
    Some(Catalog::new(tables, catalog.clients, catalog.installation.clone()))
}

/// `fresh`: the catalog was read for this mutation. Only by such a one is a name refused as unknown: a client may have
/// heard of a new column from another node.
async fn once(
    client: &Client,
    request: &MutateRequest,
    mutation: &Mutation,
    catalog: &Catalog,
    fresh: bool,
) -> Result<Step, PgError> {
    let refusal = match attempt(client, request, mutation, catalog, None).await {
        Ok(step) => return Ok(step),
        Err(Failure::Refused(refusal)) if !fresh && refusal.code.starts_with("unknown_") => {
            roll_back(client).await;
            return Err(PgError::SchemaChanged);
        }
        Err(Failure::Refused(refusal)) => refusal,
        Err(Failure::Passing(error)) => {
            roll_back(client).await;
            return Err(error);
        }
    };
    roll_back(client).await;
    // The refusal is decided in a transaction of its own under the same compare-and-set: if somebody else decided
    // the number meanwhile, what they stored stands.
    let stored = attempt(client, request, mutation, catalog, Some(&refusal)).await;
    if stored.is_err() {
        roll_back(client).await;
    }
    stored.map_err(|failure| match failure {
        Failure::Passing(error) => error,
        Failure::Refused(again) => PgError::Server { code: again.code, message: again.message },
    })
}

async fn roll_back(client: &Client) {
    // A dead connection has rolled back already.
    let _ = client.batch_execute("rollback").await;
}

async fn attempt(
    client: &Client,
    request: &MutateRequest,
    mutation: &Mutation,
    catalog: &Catalog,
    refusal: Option<&Refusal>,
) -> Result<Step, Failure> {
    client
        .batch_execute("begin; set local statement_timeout = '30s'; set local lock_timeout = '10s'")
        .await?;
    if !claim(client, request, mutation, refusal).await? {
        let step = stored(client, request, mutation).await?;
        client.batch_execute("rollback").await?;
        return Ok(step);
    }
    if refusal.is_none() {
        let operations = mutation.operations().map_err(Failure::Refused)?;
        // All of them first: they speak of the rows as they were before this mutation.
        for operation in &operations {
            check(client, operation, catalog).await?;
        }
        for operation in &operations {
            let statement = compile(operation, catalog).map_err(Failure::Refused)?;
            execute(client, &statement.sql, &statement.values).await?;
        }
    }
    let xid = client.query_typed("select pg_catalog.pg_current_xact_id()::text", &[]).await?;
    let xid = xid.first().and_then(|r| r.get::<_, String>(0).parse().ok());
    // Deferred constraints fail here.
    client.batch_execute("commit").await?;
    match xid {
        Some(xid) => Ok(Step::Decided(Some(xid), refusal.cloned())),
        None => Err(Failure::Passing(PgError::Protocol("no transaction id"))),
    }
}

/// Locks the operation's row, if it is conditional, and looks whether it is as it was seen.
///
/// The refusal is stored by a transaction that begins after this look, and so commits after whoever changed the row:
/// the stream, and every snapshot that sees the refusal, has that change too.
async fn check(client: &Client, operation: &Operation, catalog: &Catalog) -> Result<(), Failure> {
    let Some(Statement { sql, values }) = condition::compile(operation, catalog).map_err(Failure::Refused)?
    else {
        return Ok(());
    };
    let typed: Vec<(&(dyn ToSql + Sync), Type)> =
        values.iter().map(|v| (v as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let rows = client.query_typed(&sql, &typed).await?;
    match rows.first().map(|row| row.get::<_, String>(0)) {
        Some(changed) if changed.is_empty() => Ok(()),
        Some(changed) => Err(Failure::Refused(Refusal::new(
            "conflict",
            format!("the row has changed since it was seen: {changed}"),
        ))),
        None => Err(Failure::Refused(Refusal::new("conflict", "the row is gone"))),
    }
}

async fn execute(
    client: &Client,
    sql: &str,
    values: &[Option<String>],
) -> Result<u64, tokio_postgres::Error> {
    let typed: Vec<(&(dyn ToSql + Sync), Type)> =
        values.iter().map(|v| (v as &(dyn ToSql + Sync), Type::TEXT)).collect();
    client.execute_typed(sql, &typed).await
}

/// The compare-and-set: takes the number if it is the next one. The client's row is published, so that the
/// acknowledgement travels in the stream with the rows.
async fn claim(
    client: &Client,
    request: &MutateRequest,
    mutation: &Mutation,
    refusal: Option<&Refusal>,
) -> Result<bool, Failure> {
    let text = |t: &str| Some(t.to_owned());
    let outcome = if refusal.is_some() { "refused" } else { "applied" };
    let values = vec![
        text(&request.subject),
        text(&request.client),
        Some(mutation.n.to_string()),
        text(&mutation.id),
        text(outcome),
        refusal.map(|r| r.code.clone()),
        refusal.map(|r| r.message.clone()),
    ];
    let next = "update lockstep.clients set last = $3::bigint, id = $4, outcome = $5, code = $6, message = $7, \
                seen_at = pg_catalog.now() where subject = $1 and client = $2 and last = $3::bigint - 1";
    let mut claimed = execute(client, next, &values).await?;
    if claimed == 0 && mutation.n == 1 {
        let first = "insert into lockstep.clients (subject, client, last, id, outcome, code, message) \
                     values ($1, $2, $3::bigint, $4, $5, $6, $7) on conflict do nothing";
        claimed = execute(client, first, &values).await?;
    }
    if claimed == 0 {
        return Ok(false);
    }
    let store = "insert into lockstep.mutations (subject, client, n, id, outcome, code, message) \
                 values ($1, $2, $3::bigint, $4, $5, $6, $7)";
    execute(client, store, &values).await?;
    let confirmed = [text(&request.subject), text(&request.client), Some(request.confirmed.to_string())];
    let forget = "delete from lockstep.mutations where subject = $1 and client = $2 and n <= $3::bigint";
    execute(client, forget, &confirmed).await?;
    Ok(true)
}

/// The number was not the next one: what is known of it.
async fn stored(client: &Client, request: &MutateRequest, mutation: &Mutation) -> Result<Step, PgError> {
    let n = mutation.n.to_string();
    let sql = "select c.last::text, c.id, m.id, x.outcome, x.code, x.message from lockstep.clients c \
               left join lockstep.mutations m on m.subject = c.subject and m.client = c.client and m.n = $3::bigint \
               cross join lateral (select m.outcome, m.code, m.message where m.id is not null union all \
               select c.outcome, c.code, c.message where m.id is null) x where c.subject = $1 and c.client = $2";
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&request.subject, Type::TEXT), (&request.client, Type::TEXT), (&n, Type::TEXT)];
    let rows = client.query_typed(sql, &parameters).await?;
    let Some(row) = rows.first() else { return Ok(Step::Stop(MutateResult::UnknownClient)) };
    let last: u64 =
        row.get::<_, String>(0).parse().map_err(|_| PgError::Protocol("a client's last number"))?;
    if last < mutation.n {
        return Ok(Step::Stop(MutateResult::Gap { last }));
    }
    let newest = row.get::<_, Option<String>>(1).filter(|_| last == mutation.n);
    let id = row.get::<_, Option<String>>(2).or(newest);
    Ok(match id.as_deref() {
        Some(id) if id == mutation.id => {
            let text = |at: usize| row.get::<_, Option<String>>(at).unwrap_or_default();
            Step::Decided(None, (text(3) == "refused").then(|| Refusal::new(text(4), text(5))))
        }
        Some(_) => Step::Stop(MutateResult::Renumber { last: mutation.n - 1 }),
        // Its outcome was confirmed and forgotten, by another copy of the profile: it may well be this mutation, and
        // under another number it would run again.
        None => Step::Stop(MutateResult::UnknownClient),
    })
}

fn compile(operation: &Operation, catalog: &Catalog) -> Result<Statement, Refusal> {
    let mut values = Vec::new();
    let sql = match operation {
        Operation::Insert { table, values: given } => {
            let table = find(catalog, table)?;
            let mut names = Vec::new();
            let mut places = Vec::new();
            for (name, value) in given {
                let (name, place) = bind(table, name, value, &mut values)?;
                names.push(name);
                places.push(place);
            }
            if names.is_empty() {
                format!("insert into {} default values", qualified(table))
            } else {
                format!(
                    "insert into {} ({}) values ({})",
                    qualified(table),
                    names.join(", "),
                    places.join(", ")
                )
            }
        }
        Operation::Update { table, key, set, .. } => {
            let table = find(catalog, table)?;
            let mut changes = Vec::new();
            for (name, value) in set {
                let (name, place) = bind(table, name, value, &mut values)?;
                changes.push(format!("{name} = {place}"));
            }
            if changes.is_empty() {
                return Err(Refusal::new("malformed", "an update that sets nothing"));
            }
            let key = key_condition(table, key, &mut values)?;
            format!("update {} set {} where {key}", qualified(table), changes.join(", "))
        }
        Operation::Delete { table, key, .. } => {
            let table = find(catalog, table)?;
            let key = key_condition(table, key, &mut values)?;
            format!("delete from {} where {key}", qualified(table))
        }
    };
    Ok(Statement { sql, values })
}

fn find<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Table, Refusal> {
    let table = catalog.find(name).map(AsRef::as_ref);
    table.ok_or_else(|| {
        Refusal::new("unknown_table", format!("{name} is not tracked; run `lockstep track {name}`"))
    })
}

fn key_condition(
    table: &Table,
    key: &BTreeMap<String, Json>,
    values: &mut Vec<Option<String>>,
) -> Result<String, Refusal> {
    let wanted: Vec<&str> = table.key.iter().map(|k| table.columns[*k].name.as_str()).collect();
    if key.len() != wanted.len() || !wanted.iter().all(|w| key.contains_key(*w)) {
        return Err(Refusal::new(
            "malformed",
            format!("`key` must name the primary key: {}", wanted.join(", ")),
        ));
    }
    let mut parts = Vec::new();
    for (name, value) in key {
        let (name, place) = bind(table, name, value, values)?;
        parts.push(format!("{name} = {place}"));
    }
    Ok(parts.join(" and "))
}

/// A column and the place of its value. Parameters are text and cast to the column's type without its length, so
/// that a value that is too long is refused and not cut.
fn bind(
    table: &Table,
    name: &str,
    value: &Json,
    values: &mut Vec<Option<String>>,
) -> Result<(String, String), Refusal> {
    let column = column(table, name)?;
    values.push(parameter(column, value)?);
    Ok((quote(&column.name), format!("${}::{}", values.len(), column.type_sql)))
}

fn column<'a>(table: &'a Table, name: &str) -> Result<&'a Column, Refusal> {
    table.column(name).map(|i| &table.columns[i]).ok_or_else(|| {
        Refusal::new("unknown_column", format!("{}.{} has no column {name:?}", table.schema, table.name))
    })
}

/// A value's text, to be cast to the column's type.
fn parameter(column: &Column, value: &Json) -> Result<Option<String>, Refusal> {
    let name = &column.name;
    Ok(match value {
        Json::Null => None,
        _ if column.wire() == Wire::Json => Some(value.to_string()),
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(bool) => Some(bool.to_string()),
        Json::Array(_) | Json::Object(_) => {
            return Err(Refusal::new("malformed", format!("column {name:?} takes no JSON array or object")));
        }
    })
}
