//! Open transactions: statements with their triggers, savepoints, locks.

use super::encode::{self, Sent};
use super::log::Entry;
use super::{Db, Decided, TxId};
use crate::schema::{CLIENTS, CLIENTS_OID, Key, LARGE, Row};
use bytes::Bytes;
use lockstep_core::catalog::Oid;
use lockstep_core::position::Xid;
use std::collections::BTreeMap;

/// What a statement does to one row.
#[derive(Debug, Clone)]
pub enum Op {
    /// A new row.
    Insert(Row),
    /// Another row in the place of the one with this key.
    Update(Key, Row),
    /// No row under this key.
    Delete(Key),
}

/// Why a statement cannot go on now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// A lock is held by somebody else.
    Locked,
    /// 23505.
    Duplicate,
}

/// What a savepoint goes back to.
#[derive(Debug, Clone)]
struct Savepoint {
    writes: BTreeMap<(usize, Key), Option<Row>>,
    messages: usize,
    logs: usize,
}

/// What the stream says, and the relations that it must have described before.
pub type Message = (Vec<Oid>, Bytes);

/// An open transaction.
#[derive(Debug, Clone, Default)]
pub struct Tx {
    /// Its top-level id, once it wrote.
    pub xid: Option<Xid>,
    pub(super) last_subxid: Xid,
    /// Rows as it sees them.
    pub(super) writes: BTreeMap<(usize, Key), Option<Row>>,
    pub(super) messages: Vec<Message>,
    pub(super) logs: Vec<Entry>,
    pub(super) locks: Vec<(usize, Key)>,
    savepoints: Vec<Savepoint>,
    /// It changes the schema.
    pub(super) migration: Option<Box<super::Migration>>,
    /// Its commit record is written.
    pub committing: bool,
    /// PREPARE TRANSACTION ended here.
    pub prepared: Option<u64>,
    /// Mutations it decides.
    pub decided: Vec<Decided>,
}

impl Tx {
    /// Operations on published relations so far. TRUNCATE of several has several in one message.
    pub fn operations(&self) -> usize {
        self.messages.iter().map(|(relations, _)| relations.len()).sum()
    }
}

impl Db {
    /// BEGIN.
    pub fn begin(&mut self) -> TxId {
        let id = self.next_tx;
        self.next_tx += 1;
        self.open.insert(id, Tx::default());
        id
    }

    /// Its id is assigned by its first write.
    pub fn assign(&mut self, id: TxId) -> Xid {
        let next = &mut self.next_xid;
        let Some(tx) = self.open.get_mut(&id) else { return 0 };
        *tx.xid.get_or_insert_with(|| {
            let xid = *next;
            *next += 1;
            self.running.insert(xid);
            xid
        })
    }

    /// SAVEPOINT. Its id, if it comes to write, lies above the transaction's.
    pub fn savepoint(&mut self, id: TxId) {
        let xid = self.next_xid;
        if let Some(tx) = self.open.get_mut(&id) {
            if tx.xid.is_some() {
                self.next_xid += 1;
                tx.last_subxid = xid;
            }
            let (messages, logs) = (tx.messages.len(), tx.logs.len());
            tx.savepoints.push(Savepoint { writes: tx.writes.clone(), messages, logs });
        }
    }

    /// ROLLBACK TO the newest savepoint.
    pub fn rollback_to(&mut self, id: TxId) {
        if let Some(tx) = self.open.get_mut(&id)
            && let Some(savepoint) = tx.savepoints.pop()
        {
            tx.writes = savepoint.writes;
            tx.messages.truncate(savepoint.messages);
            tx.logs.truncate(savepoint.logs);
        }
    }

    /// A row as the transaction sees it.
    pub fn row(&self, id: TxId, table: usize, key: &Key) -> Option<&Row> {
        let own = self.open.get(&id).and_then(|t| t.writes.get(&(table, key.clone())));
        own.map_or_else(|| self.visible[table].get(key), Option::as_ref)
    }

    fn lock(&mut self, id: TxId, table: usize, key: &Key) {
        if self.locks.insert((table, key.clone()), id).is_none() {
            self.lock_counts[table] += 1;
            if let Some(tx) = self.open.get_mut(&id) {
                tx.locks.push((table, key.clone()));
            }
        }
    }

    fn is_free(&self, id: TxId, table: usize, key: &Key) -> bool {
        self.locks.get(&(table, key.clone())).is_none_or(|holder| *holder == id)
    }

    /// Whether somebody holds a table against everyone, readers included.
    pub fn is_table_locked(&self, table: usize) -> bool {
        self.table_locks[table].is_some()
    }

    /// One statement: its rows in their order, then what its triggers write.
    pub fn statement(&mut self, id: TxId, table: usize, ops: &[Op]) -> Result<(), Stuck> {
        let mut keys = Vec::new();
        for op in ops {
            match op {
                Op::Insert(row) => keys.push(self.schema.key_of(table, row)),
                Op::Update(key, row) => {
                    keys.push(key.clone());
                    keys.push(self.schema.key_of(table, row));
                }
                Op::Delete(key) => keys.push(key.clone()),
            }
        }
        let held = self.table_locks[table].is_some_and(|holder| holder != id);
        if held || !keys.iter().all(|k| self.is_free(id, table, k)) {
            return Err(Stuck::Locked);
        }
        let taken = |row: &Row| {
            let key = self.schema.key_of(table, row);
            self.row(id, table, &key).is_some()
        };
        for op in ops {
            let duplicate = match op {
                Op::Insert(row) => taken(row),
                Op::Update(key, row) => *key != self.schema.key_of(table, row) && taken(row),
                Op::Delete(_) => false,
            };
            if duplicate {
                return Err(Stuck::Duplicate);
            }
        }
        self.assign(id);
        keys.iter().for_each(|k| self.lock(id, table, k));
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for op in ops {
            self.apply(id, table, op, &mut gone, &mut come);
        }
        if table < self.logs.len() {
            self.triggers(id, table, gone, come);
        }
        self.write_wal(64 * ops.len() as u64);
        Ok(())
    }

    /// `gone` and `come` are what triggers get: old rows, each with what it became, and new rows.
    fn apply(
        &mut self,
        id: TxId,
        table: usize,
        op: &Op,
        gone: &mut Vec<(Row, Option<Row>)>,
        come: &mut Vec<Row>,
    ) {
        let oid = self.published(table);
        match op {
            Op::Insert(row) => {
                let key = self.schema.key_of(table, row);
                self.message(id, oid, |oid| encode::insert(oid, &encode::whole(row)));
                self.put(id, table, key, Some(row.clone()));
                come.push(row.clone());
            }
            Op::Update(key, row) => {
                let Some(old) = self.row(id, table, key).cloned() else { return };
                let new_key = self.schema.key_of(table, row);
                let sent: Vec<Sent<'_>> = row
                    .iter()
                    .zip(&old)
                    .map(|(new, old)| match new {
                        None => Sent::Null,
                        Some(text) if new == old && text.len() > LARGE && table < CLIENTS => Sent::Unchanged,
                        Some(text) => Sent::Text(text),
                    })
                    .collect();
                let old_key = (new_key != *key).then(|| self.key_only(table, &old));
                let old_key = old_key.as_ref().map(encode::whole);
                self.message(id, oid, |oid| encode::update(oid, old_key.as_deref(), &sent));
                if new_key != *key {
                    self.put(id, table, key.clone(), None);
                }
                self.put(id, table, new_key, Some(row.clone()));
                gone.push((old, Some(row.clone())));
                come.push(row.clone());
            }
            Op::Delete(key) => {
                let Some(old) = self.row(id, table, key).cloned() else { return };
                let key_only = self.key_only(table, &old);
                self.message(id, oid, |oid| encode::delete(oid, &encode::whole(&key_only)));
                self.put(id, table, key.clone(), None);
                gone.push((old, None));
            }
        }
    }

    fn put(&mut self, id: TxId, table: usize, key: Key, row: Option<Row>) {
        if let Some(tx) = self.open.get_mut(&id) {
            tx.writes.insert((table, key), row);
        }
    }

    fn message(&mut self, id: TxId, oid: Option<Oid>, encode: impl FnOnce(Oid) -> Bytes) {
        if let (Some(oid), Some(tx)) = (oid, self.open.get_mut(&id)) {
            tx.messages.push((vec![oid], encode(oid)));
        }
    }

    fn published(&self, table: usize) -> Option<Oid> {
        match table {
            CLIENTS => Some(CLIENTS_OID),
            tracked => self.schema.tables.get(tracked).map(|t| t.table.oid),
        }
    }

    fn key_only(&self, table: usize, row: &Row) -> Row {
        let key = self.schema.tables.get(table).map(|t| t.table.key.clone()).unwrap_or_default();
        row.iter().enumerate().map(|(i, v)| v.clone().filter(|_| key.contains(&i))).collect()
    }

    /// Rule 4: new rows to `changes`; where a row was that is deleted, or has moved, to `tombstones`.
    fn triggers(&mut self, id: TxId, table: usize, gone: Vec<(Row, Option<Row>)>, come: Vec<Row>) {
        let place = |row: &Row| {
            let core = &self.schema.tables[table].table;
            let scope: Row = core.scope_columns.iter().map(|c| row[*c].clone()).collect();
            (scope, self.schema.key_of(table, row))
        };
        let mut entries = Vec::new();
        for (scope, key) in come.iter().map(place) {
            entries.push(Entry { table, scope, key: Some(key), kind: None });
        }
        for (old, new) in gone {
            let (scope, key) = place(&old);
            let kind = match new.as_ref().map(place) {
                None => Some('d'),
                Some(after) if after != (scope.clone(), key.clone()) => Some('m'),
                Some(_) => continue,
            };
            entries.push(Entry { table, scope, key: Some(key), kind });
        }
        for entry in entries {
            self.log(id, entry);
        }
    }

    /// Writes a log entry; a tombstone is published.
    fn log(&mut self, id: TxId, entry: Entry) {
        let xid = self.assign(id);
        if let Some(kind) = entry.kind {
            let core = &self.schema.tables[entry.table].table;
            let keys = core.key.len();
            let mut row: Row = vec![Some(self.next_log_id.to_string().into())];
            self.next_log_id += 1;
            row.extend(entry.scope.iter().cloned());
            row.extend((0..keys).map(|k| entry.key.as_ref().map(|key| key[k].clone())));
            row.push(Some(xid.to_string().into()));
            row.push(Some(kind.to_string().into()));
            let oid = core.tombstones;
            self.message(id, Some(oid), |oid| encode::insert(oid, &encode::whole(&row)));
        }
        if let Some(tx) = self.open.get_mut(&id) {
            tx.logs.push(entry);
        }
    }

    /// TRUNCATE: needs its tables for itself, one after another. Whoever comes while it waits for one stands behind it.
    pub fn truncate(&mut self, id: TxId, tables: &[usize]) -> Result<(), Stuck> {
        for table in tables {
            if self.table_locks[*table].is_some_and(|h| h != id) {
                return Err(Stuck::Locked);
            }
            self.table_locks[*table] = Some(id);
            if self.lock_counts[*table] > 0 {
                return Err(Stuck::Locked);
            }
        }
        self.assign(id);
        for table in tables {
            let keys: Vec<Key> = self.visible[*table].keys().cloned().collect();
            for key in keys {
                self.put(id, *table, key, None);
            }
        }
        let relations: Vec<Oid> = tables.iter().filter_map(|table| self.published(*table)).collect();
        if let Some(tx) = self.open.get_mut(&id).filter(|_| !relations.is_empty()) {
            let message = encode::truncate(&relations);
            tx.messages.push((relations, message));
        }
        for table in tables {
            let scope = vec![None; self.schema.tables[*table].table.scope_columns.len()];
            self.log(id, Entry { table: *table, scope, key: None, kind: Some('t') });
        }
        Ok(())
    }

    /// PREPARE TRANSACTION: survives restarts once this is flushed.
    pub fn prepare(&mut self, id: TxId) {
        self.write_wal(80);
        let lsn = self.insert_lsn;
        if let Some(tx) = self.open.get_mut(&id) {
            tx.prepared = Some(lsn);
        }
    }
}
