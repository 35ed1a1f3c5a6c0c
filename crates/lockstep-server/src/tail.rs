//! `lockstep tail`: what the stream brings, as JSON lines. Nothing is held: a line is written when its row comes.

use anyhow::{Context, Result};
use lockstep_core::change::{Relation, Tuple, Value};
use lockstep_core::pgoutput::{Message, StreamFrame, decode};
use lockstep_core::position::{Lsn, Xid, widen};
use lockstep_pg::replication_stream::{self, Feedback};
use lockstep_pg::target::Target;
use lockstep_pg::{PgError, connect, poll};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// How long PostgreSQL may leave a question unanswered.
const ANSWER: Duration = Duration::from_secs(10);
/// Messages between the socket and the printer; TCP holds the rest back.
const MESSAGES: usize = 256;
/// The schema of Lockstep's own tables.
const OWN: &str = "lockstep";

/// Which tables are printed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// `todos` or `app.todos`; none: all.
    pub tables: Vec<String>,
    /// Also Lockstep's own.
    pub internal: bool,
}

impl Filter {
    fn wants(&self, relation: &Relation) -> bool {
        let named = |t: &String| is_called(&relation.schema, &relation.name, t);
        match &self.tables[..] {
            [] => self.internal || relation.schema != OWN,
            tables => tables.iter().any(named),
        }
    }
}

fn is_called(schema: &str, name: &str, wanted: &str) -> bool {
    wanted == format!("{schema}.{name}") || schema == "public" && wanted == name
}

/// Turns messages into lines.
struct Printer {
    filter: Filter,
    reference: Xid,
    relations: BTreeMap<u32, Relation>,
    xid: Xid,
    lsn: Lsn,
    rows: u64,
    /// In a transaction.
    open: bool,
    /// Nobody reads any more.
    unread: bool,
}

impl Printer {
    /// Prints what a message of the stream says; how far the slot may advance after it.
    fn print(&mut self, bytes: &[u8]) -> Result<Option<Lsn>> {
        match StreamFrame::parse(bytes).map_err(PgError::from)? {
            StreamFrame::Keepalive { wal_end, .. } => Ok(Some(wal_end).filter(|_| !self.open)),
            StreamFrame::Data(message) => {
                let message = decode(message).map_err(PgError::from)?;
                match message {
                    Message::Begin { .. } => self.open = true,
                    Message::Commit { .. } => self.open = false,
                    _ => {}
                }
                let (lines, done) = self.take(message)?;
                self.unread |= !print(&lines)?;
                Ok(done.filter(|_| !self.unread))
            }
        }
    }

    /// The lines that a message makes, and how far the slot may advance after them.
    fn take(&mut self, message: Message) -> Result<(Vec<Json>, Option<Lsn>), PgError> {
        let mut lines = Vec::new();
        match message {
            Message::Begin { final_lsn, xid } => {
                self.xid = widen(self.reference, xid);
                self.reference = self.reference.max(self.xid);
                (self.lsn, self.rows) = (final_lsn, 0);
            }
            Message::Relation(relation) => drop(self.relations.insert(relation.oid, relation)),
            Message::Insert { relation, new } => {
                lines.extend(self.line(relation, "insert", |r, line| put(line, "new", r, &new))?);
            }
            Message::Update { relation, old, new } => {
                lines.extend(self.line(relation, "update", |r, line| {
                    if let Some((old, full)) = &old {
                        put_old(line, r, old, *full);
                    }
                    put(line, "new", r, &new);
                })?)
            }
            Message::Delete { relation, old, full } => {
                lines.extend(self.line(relation, "delete", |r, line| put_old(line, r, &old, full))?);
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    lines.extend(self.line(relation, "truncate", |_, _| {})?);
                }
            }
            Message::Commit { end_lsn, .. } => {
                if self.rows > 0 {
                    let (xid, lsn) = (self.xid.to_string(), self.lsn.to_string());
                    lines.push(json!({"xid": xid, "lsn": lsn, "op": "commit", "rows": self.rows}));
                }
                return Ok((lines, Some(end_lsn)));
            }
            Message::Type | Message::Origin | Message::Logical { .. } => {}
        }
        Ok((lines, None))
    }

    fn line(
        &mut self,
        relation: u32,
        op: &str,
        fill: impl FnOnce(&Relation, &mut Map<String, Json>),
    ) -> Result<Option<Json>, PgError> {
        let undescribed = PgError::Protocol("a row of a relation that was not described");
        let relation = self.relations.get(&relation).ok_or(undescribed)?;
        if !self.filter.wants(relation) {
            return Ok(None);
        }
        self.rows += 1;
        let mut line = Map::new();
        line.insert("xid".into(), self.xid.to_string().into());
        line.insert("lsn".into(), self.lsn.to_string().into());
        line.insert("op".into(), op.into());
        line.insert("table".into(), format!("{}.{}", relation.schema, relation.name).into());
        fill(relation, &mut line);
        Ok(Some(line.into()))
    }
}

/// Values as PostgreSQL prints them; large ones that an update did not touch are named apart.
fn put(line: &mut Map<String, Json>, field: &str, relation: &Relation, tuple: &Tuple) {
    let mut row = Map::new();
    let mut unchanged = Vec::new();
    for (column, value) in relation.columns.iter().zip(tuple) {
        match value {
            Value::Unchanged => unchanged.push(Json::from(column.name.as_str())),
            Value::Null => drop(row.insert(column.name.clone(), Json::Null)),
            Value::Text(text) => drop(row.insert(column.name.clone(), (**text).into())),
        }
    }
    line.insert(field.into(), row.into());
    if !unchanged.is_empty() {
        line.insert("unchanged".into(), unchanged.into());
    }
}

/// Of an old row only the key is there, unless the table's replica identity is FULL.
fn put_old(line: &mut Map<String, Json>, relation: &Relation, old: &Tuple, full: bool) {
    if full {
        return put(line, "old", relation, old);
    }
    let keys = relation.columns.iter().zip(old).filter(|(column, _)| column.key);
    let row: Map<_, _> = keys.map(|(column, value)| (column.name.clone(), value.text().into())).collect();
    line.insert("key".into(), row.into());
}

/// A stream from a temporary slot of its own, which is gone with the connection.
struct Tail {
    reference: Xid,
    messages: mpsc::Receiver<Vec<bytes::Bytes>>,
    feedback: mpsc::UnboundedSender<Feedback>,
    task: JoinHandle<Result<(), PgError>>,
}

/// Whether there is something to be printed: a stream of what is not tracked is silent, and does not say why.
async fn look_for(client: &Client, filter: &Filter) -> Result<(), PgError> {
    let sql = "select p.oid::text, t.schemaname::text, t.tablename::text from pg_catalog.pg_publication p left join \
               pg_catalog.pg_publication_tables t on t.pubname = p.pubname where p.pubname = 'lockstep_tables'";
    let rows = client.query_typed(sql, &[]).await?;
    if rows.is_empty() {
        let message = "Lockstep is not installed in this database; run `lockstep install`";
        return Err(PgError::NotInstalled(message.into()));
    }
    let names = rows
        .iter()
        .filter_map(|row| Some((row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?)));
    let tracked: Vec<_> = names.filter(|(schema, _)| filter.internal || schema != OWN).collect();
    for wanted in filter.tables.iter().filter(|name| !name.starts_with("lockstep.")) {
        if !tracked.iter().any(|(schema, name)| is_called(schema, name, wanted)) {
            let have = tracked
                .iter()
                .map(|(schema, name)| format!("{schema}.{name}"))
                .collect::<Vec<_>>()
                .join(", ");
            return Err(PgError::NotInstalled(format!(
                "{wanted} is not tracked; run `lockstep track {wanted}`, or name one of: {have}"
            )));
        }
    }
    Ok(())
}

async fn begin(target: &Target, filter: &Filter) -> Result<Tail, PgError> {
    let (client, _) = connect::open(target).await?;
    look_for(&client, filter).await?;
    let mut wire = connect::replication(target, ANSWER).await?;
    // Of another form than a node's: no node must copy it.
    let slot = format!("lockstep_tail_{:016x}", rand::random::<u64>());
    eprintln!("lockstep: making a temporary slot; this waits for writing transactions that are open");
    replication_stream::create_slot(&mut wire, &slot).await?;
    let reference = poll::poll(&client, 0).await?.snapshot.xmax();
    replication_stream::start(&mut wire, &slot).await?;
    eprintln!("lockstep: printing what is committed from now on; SIGINT ends it");
    let (messages_out, messages) = mpsc::channel(MESSAGES);
    let (feedback, feedback_in) = mpsc::unbounded_channel();
    let task = tokio::spawn(replication_stream::run(wire, messages_out, feedback_in, ANSWER * 6));
    Ok(Tail { reference, messages, feedback, task })
}

/// Prints until SIGINT or SIGTERM, or until nobody reads any more.
///
/// # Errors
/// If there is no stream to be had, or it ends.
pub async fn run(url: &str, filter: Filter) -> Result<()> {
    let target = Target::parse(url)?;
    let signal = crate::serve::wait_for_signal();
    tokio::pin!(signal);
    let mut tail = tokio::select! {
        tail = begin(&target, &filter) => tail.map_err(|error| {
            let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
            anyhow::anyhow!("{}: {error}{advice}", target.place())
        })?,
        signal = &mut signal => return signal,
    };
    let mut printer = Printer {
        filter,
        reference: tail.reference,
        relations: BTreeMap::new(),
        xid: 0,
        lsn: Lsn(0),
        rows: 0,
        open: false,
        unread: false,
    };
    loop {
        let messages = tokio::select! {
            messages = tail.messages.recv() => messages,
            signal = &mut signal => {
                // The stream's task says goodbye, and the slot is gone when it has.
                drop(tail.feedback);
                tail.messages.close();
                let _ = tokio::time::timeout(ANSWER, tail.task).await;
                return signal;
            }
        };
        let Some(messages) = messages else {
            tail.task.await.context("the stream's task")??;
            anyhow::bail!("the stream ended");
        };
        for bytes in &messages {
            let Some(flush) = printer.print(bytes)? else { continue };
            // A stream that has ended says so by itself.
            let _ = tail.feedback.send(Feedback { flush, reply: false });
        }
        if printer.unread {
            return Ok(());
        }
    }
}

/// False when nobody reads any more.
fn print(lines: &[Json]) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}
