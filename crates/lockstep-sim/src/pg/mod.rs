//! A model PostgreSQL: what matters of it to an engine that reads its stream, its snapshots and its change logs.
//!
//! ```text
//!  COMMIT:  record written ──► flushed ──► streamed ──► standby confirms ──► visible ──► row locks released
//!  async:   record written ──► visible ──► … ──► flushed by the WAL writer ──► streamed      (or lost in a crash)
//! ```
//! The model is passive: [`crate::world`] decides what happens when.

pub mod encode;
mod log;
mod migrate;
mod read;
mod recover;
mod tx;

pub use log::{Entry, Log};
pub use migrate::{Change, Migration};
pub use read::{DATABASE, SYSTEM};
pub use recover::VolumeCopy;
pub use tx::{Message, Op, Stuck, Tx};

use crate::history::History;
use crate::schema::{Key, Row, Schema, TABLES};
use bytes::Bytes;
use lockstep_core::position::{Snapshot, Xid};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names an open transaction in the model; never used again.
pub type TxId = u64;

/// A row that a transaction changed.
#[derive(Debug, Clone)]
pub struct Write {
    /// Table.
    pub table: usize,
    /// Key.
    pub key: Key,
    /// Before the transaction.
    pub before: Option<Row>,
    /// After it.
    pub after: Option<Row>,
}

/// A mutation that a transaction decided.
#[derive(Debug, Clone)]
pub struct Decided {
    /// Random id of the mutation.
    pub id: String,
    /// Its operations were applied; else the refusal was stored.
    pub applied: bool,
}

/// A commit record, with all that it stands for.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Top-level id.
    pub xid: Xid,
    /// The highest id among it and its savepoints'.
    pub highest: Xid,
    /// Start of the record.
    pub commit_lsn: u64,
    /// Its end.
    pub end_lsn: u64,
    /// Rows.
    pub writes: Vec<Write>,
    /// Entries of the change logs.
    pub logs: Vec<log::Entry>,
    /// Messages of published relations, in their order.
    pub messages: Vec<Message>,
    /// What it does to each shape's digest.
    pub deltas: Vec<(usize, u64)>,
    /// The visibility sequence number at which snapshots began to see it.
    pub visible: Option<usize>,
    /// A synchronous standby has it, or none was asked.
    pub confirmed: bool,
    /// The mutations that it decided.
    pub decided: Vec<Decided>,
    /// It changes the schema.
    pub migration: Option<Box<Migration>>,
    /// Some client received it.
    pub received: bool,
    /// Its transaction in the model.
    pub id: TxId,
}

/// The server.
#[derive(Debug)]
pub struct Db {
    /// What is tracked.
    pub schema: Schema,
    /// What was, from which commit on.
    pub versions: Vec<(usize, Schema)>,
    /// Timeline.
    pub timeline: u32,
    /// Where earlier timelines ended.
    pub ended: Vec<(u32, u64)>,
    /// End of WAL.
    pub insert_lsn: u64,
    /// WAL up to here survives a crash, and is streamed.
    pub flush_lsn: u64,
    /// The next id.
    pub next_xid: Xid,
    latest_completed: Xid,
    /// Ids of transactions in progress.
    pub running: BTreeSet<Xid>,
    /// What a snapshot sees now.
    pub visible: Vec<BTreeMap<Key, Row>>,
    /// Change logs of tracked tables.
    pub logs: Vec<Log>,
    /// Open transactions, prepared and committing ones included.
    pub open: BTreeMap<TxId, Tx>,
    next_tx: TxId,
    locks: HashMap<(usize, Key), TxId>,
    table_locks: Vec<Option<TxId>>,
    lock_counts: Vec<usize>,
    /// Commit records in their order.
    pub commits: Vec<Commit>,
    /// By id, of commits.
    pub committed: HashMap<Xid, usize>,
    /// The judge's memory.
    pub history: History,
    /// Ends of abort records, and the highest ids that they name: those are never assigned again.
    aborted: Vec<(u64, Xid)>,
    next_log_id: u64,
    /// Rises with every restart; whatever was under way before is void.
    pub epoch: u64,
    /// Commits below this number are never lost any more: logs may be compacted so far.
    pub floor: usize,
}

impl Db {
    /// An empty database whose next transaction is `first_xid`.
    pub fn new(first_xid: Xid) -> Self {
        let schema = Schema::new();
        let history = History::new(schema.shapes.len());
        let logs = schema.tables.iter().map(|_| Log::new(first_xid)).collect();
        Self {
            versions: vec![(0, schema.clone())],
            schema,
            timeline: 1,
            ended: Vec::new(),
            insert_lsn: 0x0150_0000,
            flush_lsn: 0x0150_0000,
            next_xid: first_xid,
            latest_completed: first_xid - 1,
            running: BTreeSet::new(),
            visible: vec![BTreeMap::new(); TABLES],
            logs,
            open: BTreeMap::new(),
            next_tx: 1,
            locks: HashMap::new(),
            table_locks: vec![None; TABLES],
            lock_counts: vec![0; TABLES],
            commits: Vec::new(),
            committed: HashMap::new(),
            history,
            aborted: Vec::new(),
            next_log_id: 1,
            epoch: 0,
            floor: 0,
        }
    }

    /// `pg_current_snapshot()`: ids above the newest completed one are beyond xmax, running or not.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.latest_completed + 1, self.running.iter().copied().collect())
    }

    /// Flushes WAL up to `lsn`.
    pub fn flush(&mut self, lsn: u64) {
        self.flush_lsn = self.flush_lsn.max(lsn.min(self.insert_lsn));
    }

    /// WAL that belongs to no transaction, or to one that is still open.
    pub fn write_wal(&mut self, bytes: u64) {
        self.insert_lsn += bytes;
    }

    /// Writes the commit record. Returns the commit's index; None if the transaction wrote nothing.
    pub fn commit(&mut self, id: TxId) -> Option<usize> {
        let tx = self.open.get_mut(&id)?;
        let Some(xid) = tx.xid else {
            self.end(id);
            return None;
        };
        tx.committing = true;
        let tx = tx.clone();
        let commit_lsn = self.insert_lsn;
        let end_lsn = commit_lsn + 48;
        self.insert_lsn = end_lsn;
        let mut writes = Vec::with_capacity(tx.writes.len());
        for ((table, key), after) in tx.writes {
            let before = self.visible[table].get(&key).cloned();
            writes.push(Write { table, key, before, after });
        }
        let mut deltas = self.history.deltas(&self.schema, &writes);
        if let Some(migration) = &tx.migration {
            deltas = self.migration_deltas(migration);
        }
        let index = self.commits.len();
        self.history.committed(end_lsn, &deltas);
        if tx.migration.is_some() {
            self.history.migrated(&deltas);
        }
        self.committed.insert(xid, index);
        self.commits.push(Commit {
            xid,
            highest: xid.max(tx.last_subxid),
            commit_lsn,
            end_lsn,
            writes,
            logs: tx.logs,
            messages: tx.messages,
            deltas,
            visible: None,
            confirmed: false,
            decided: tx.decided,
            migration: tx.migration,
            received: false,
            id,
        });
        Some(index)
    }

    /// From now on snapshots see it, and its row locks are free.
    pub fn make_visible(&mut self, index: usize) {
        let Some(commit) = self.commits.get(index).filter(|c| c.visible.is_none()) else { return };
        let (xid, id) = (commit.xid, commit.id);
        for write in &commit.writes {
            match &write.after {
                Some(row) => drop(self.visible[write.table].insert(write.key.clone(), row.clone())),
                None => drop(self.visible[write.table].remove(&write.key)),
            }
        }
        for entry in &commit.logs {
            self.logs[entry.table].insert(xid, index, entry.clone());
        }
        if let Some(migration) = self.commits[index].migration.take() {
            self.migrated(&migration, index);
        }
        let commit = &self.commits[index];
        let seen = self.history.became_visible(index, &commit.deltas);
        self.commits[index].visible = Some(seen);
        self.end(id);
    }

    /// Ends a transaction: its id is no longer in progress, its locks are free.
    pub fn end(&mut self, id: TxId) {
        let Some(tx) = self.open.remove(&id) else { return };
        if let Some(xid) = tx.xid {
            self.running.remove(&xid);
            if !tx.committing {
                self.insert_lsn += 32;
                self.aborted.push((self.insert_lsn, xid.max(tx.last_subxid)));
            }
            self.latest_completed = self.latest_completed.max(xid).max(tx.last_subxid);
        }
        for lock in tx.locks {
            self.lock_counts[lock.0] -= 1;
            self.locks.remove(&lock);
        }
        for lock in self.table_locks.iter_mut().filter(|l| **l == Some(id)) {
            *lock = None;
        }
    }

    /// Commits whose record is flushed, from `next` on.
    pub fn flushed_from(&self, next: usize) -> &[Commit] {
        let from = next.min(self.commits.len());
        let to = self.commits.partition_point(|c| c.end_lsn <= self.flush_lsn).max(from);
        &self.commits[from..to]
    }

    /// The first commit whose record starts at or after `lsn`.
    pub fn first_from(&self, lsn: u64) -> usize {
        self.commits.partition_point(|c| c.commit_lsn < lsn)
    }

    /// Which of these may have written, as `pg_xact_status` says: all but the aborted ones.
    pub fn wrote(&self, xids: &[Xid]) -> Vec<(Xid, bool)> {
        let ended = |x: &Xid| self.committed.contains_key(x) || self.running.contains(x);
        xids.iter().map(|x| (*x, ended(x))).collect()
    }
}

/// A tombstone's INSERT as the DELETE that it must not be taken for. Only for a plant.
pub fn tombstone_as_delete(table: &lockstep_core::catalog::Table, message: &[u8]) -> Option<Bytes> {
    use lockstep_core::pgoutput::{Message, StreamFrame, decode};
    let Ok(StreamFrame::Data(data)) = StreamFrame::parse(message) else { return None };
    let Ok(Message::Insert { new, .. }) = decode(data) else { return None };
    let mut row: Row = vec![None; table.columns.len()];
    for (nth, column) in table.key.iter().enumerate() {
        row[*column] = Some(new.get(1 + table.scope_columns.len() + nth)?.text()?.into());
    }
    Some(encode::delete(table.oid, &encode::whole(&row)))
}
