//! Catch-ups and polls: the answers that `lockstep-pg` would read from PostgreSQL.

use super::Db;
use crate::schema::{APP_TABLES, CLIENTS, Key, MARKS, MUTATIONS, Row};
use lockstep_core::change::{Text, Value};
use lockstep_core::fanout::hub::{CatchUpAnswer, CatchUpError, CatchUpRequest, ReadAnswer, ReadFrom};
use lockstep_core::mutation::{Outcome, Refusal};
use lockstep_core::position::{Facts, Lsn, ResetReason, Snapshot};
use lockstep_core::protocol::{Delta, Frame, LoadId, load_frames, rows_frames};
use lockstep_core::shape::Shape;
use std::collections::{BTreeSet, VecDeque};

/// `system_identifier`.
pub const SYSTEM: u64 = 7_300_000_000_000_000_001;
/// Oid of the database.
pub const DATABASE: u32 = 5;
/// Bytes of a frame of rows: small, so that catch-ups have several.
const FRAME_BYTES: usize = 1024;

/// Rows that go ahead: of which read, and a few frames.
pub type Chunks = VecDeque<(usize, Vec<Frame>)>;

/// A row as the core has it.
fn values(row: &Row) -> Vec<Value> {
    row.iter().map(|v| v.clone().map_or(Value::Null, Value::Text)).collect()
}

impl Db {
    /// The transaction of rule 1: LOCK, S, facts, rows. F is read later and goes into `facts.insert_lsn` then.
    pub fn catch_up(
        &self,
        request: &CatchUpRequest,
        history: &[(u32, Lsn)],
    ) -> Result<CatchUpAnswer, CatchUpError> {
        let (mut answer, deltas) = self.read(request, history)?;
        let frames = request
            .reads
            .iter()
            .zip(deltas)
            .map(|(read, delta)| rows_frames(&read.shape, &delta, FRAME_BYTES));
        answer.reads = frames.map(|frames| ReadAnswer { frames }).collect();
        Ok(answer)
    }

    /// The same; reads from `inline` on go ahead in chunks: which of them, and a few of its frames.
    pub fn catch_up_in_chunks(
        &self,
        request: &CatchUpRequest,
        history: &[(u32, Lsn)],
        inline: usize,
    ) -> Result<(CatchUpAnswer, Chunks), CatchUpError> {
        let (mut answer, deltas) = self.read(request, history)?;
        let mut chunks = VecDeque::new();
        for (at, (read, delta)) in request.reads.iter().zip(deltas).enumerate() {
            let mut frames = Vec::new();
            if at < inline {
                frames = rows_frames(&read.shape, &delta, FRAME_BYTES);
            } else {
                let load = LoadId { catch_up: request.id, read: at };
                let parts = load_frames(&read.shape, &delta, FRAME_BYTES / 4, load);
                chunks.extend(parts.chunks(2).map(|frames| (at, frames.to_vec())));
            }
            answer.reads.push(ReadAnswer { frames });
        }
        Ok((answer, chunks))
    }

    /// What was read, not yet encoded.
    fn read(
        &self,
        request: &CatchUpRequest,
        history: &[(u32, Lsn)],
    ) -> Result<(CatchUpAnswer, Vec<Delta>), CatchUpError> {
        let table_of = |shape: &Shape| {
            self.schema.tables[..APP_TABLES].iter().position(|t| t.table.oid == shape.table.oid)
        };
        let mut tables = Vec::with_capacity(request.reads.len());
        for read in &request.reads {
            let Some(table) = table_of(&read.shape) else { return Err(CatchUpError::SchemaChanged) };
            if read.shape.table.schema_id != self.schema.tables[table].table.schema_id
                && !self.is_table_locked(table)
            {
                return Err(CatchUpError::SchemaChanged);
            }
            if self.is_table_locked(table) {
                return Err(CatchUpError::Passing("canceling statement due to lock timeout".into()));
            }
            tables.push(table);
        }
        let snapshot = self.snapshot();
        let mark = |row: &Row| {
            let (mark, at) = (row[1].as_deref()?, row[2].as_deref()?);
            Some((mark.parse().ok()?, Lsn(at.parse().ok()?)))
        };
        let facts = Facts {
            system: SYSTEM,
            timeline: self.timeline,
            history: history.to_vec(),
            database: DATABASE,
            snapshot,
            insert_lsn: Lsn(self.insert_lsn),
            incarnations: self.visible[MARKS].values().filter_map(mark).collect(),
        };
        let reads = request.reads.iter().zip(&tables);
        let deltas =
            reads.map(|(read, table)| self.read_shape(&read.shape, &read.from, *table, &facts)).collect();
        let clients = request.clients.iter().map(|(_, client)| self.outcomes(client)).collect();
        Ok((CatchUpAnswer { facts, reads: Vec::new(), clients }, deltas))
    }

    fn read_shape(&self, shape: &Shape, from: &ReadFrom, table: usize, facts: &Facts) -> Delta {
        let reset = match from {
            ReadFrom::Scratch(reason) => *reason,
            ReadFrom::Since(head) => match facts.accept(head, self.logs[table].horizon) {
                Err(reason) => reason,
                Ok(()) if self.logs[table].unseen(&head.snapshot).any(|e| e.kind == Some('t')) => {
                    ResetReason::Truncated
                }
                Ok(()) => return self.changed(shape, table, &head.snapshot),
            },
        };
        let rows = self.visible[table].values().filter(|row| covers(shape, row));
        Delta { reset: Some(reset), put: rows.map(values).collect(), remove: Vec::new() }
    }

    fn changed(&self, shape: &Shape, table: usize, since: &Snapshot) -> Delta {
        let scope_columns = &self.schema.tables[table].table.scope_columns;
        let here = |scope: &Row| {
            shape.scope().iter().all(|(c, wanted)| {
                let at = scope_columns.iter().position(|s| s == c);
                at.and_then(|at| scope[at].as_ref()) == Some(wanted)
            })
        };
        let entries = self.logs[table].unseen(since).filter(|e| here(&e.scope));
        let keys: BTreeSet<&Key> = entries.filter_map(|e| e.key.as_ref()).collect();
        let mut delta = Delta::default();
        for key in keys {
            match self.visible[table].get(key).filter(|row| covers(shape, row)) {
                Some(row) => delta.put.push(values(row)),
                None => delta.remove.push(key.clone().into()),
            }
        }
        delta
    }

    fn outcomes(&self, client: &str) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let low: Key = vec!["".into(), client.into(), "".into()];
        for (key, row) in self.visible[MUTATIONS].range(low..).take_while(|(k, _)| &*k[1] == client) {
            let text = |at: usize| row[at].as_deref().unwrap_or_default();
            let refusal = (text(4) == "refused").then(|| Refusal::new(text(5), text(6)));
            outcomes.push(Outcome { n: key[2].parse().unwrap_or(0), id: text(3).into(), refusal });
        }
        outcomes.sort_by_key(|o| o.n);
        outcomes
    }

    /// The mark of this life of the server, once a node has left it.
    pub fn mark(&self) -> Option<i64> {
        let row = self.visible[MARKS].get(&vec![Text::from(self.epoch.to_string())])?;
        row[1].as_deref()?.parse().ok()
    }

    /// Where a mark was written.
    pub fn mark_at(&self, mark: i64) -> Option<u64> {
        let text = mark.to_string();
        let row = self.visible[MARKS].values().find(|row| row[1].as_deref() == Some(&text))?;
        row[2].as_deref()?.parse().ok()
    }

    /// The number and id that a client's row stands at.
    pub fn client_at(&self, id: super::TxId, client: &str) -> Option<(u64, Text)> {
        let row = self.row(id, CLIENTS, &vec!["".into(), client.into()])?;
        Some((row[2].as_deref()?.parse().ok()?, row[3].clone()?))
    }
}

fn covers(shape: &Shape, row: &Row) -> bool {
    let here = shape.scope().iter().all(|(c, wanted)| row[*c].as_ref() == Some(wanted));
    here && shape.passes(&values(row)) == Ok(true)
}
