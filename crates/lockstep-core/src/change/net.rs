//! The net effect of a transaction: for each key what it ends as, and which scopes it left.
//!
//! Row messages alone, in their order, decide how a key ends. Tombstones only say where a row had been, for
//! routing: applied as changes, in either naive order, they lose a row or leave a ghost
//! (`delete, insert` of one key streams D, I, tombstone; `insert, delete` streams I, D, tombstone).

use super::{Change, ChangeKind, Key, Text, Tuple, Value};
use crate::catalog::{Catalog, Oid, Table};
use crate::mutation::Acknowledged;
use std::collections::{BTreeMap, BTreeSet};

/// How a key ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Final {
    /// The row as it is now; may hold `Unchanged`.
    Row(Tuple),
    /// No row has the key.
    Gone,
}

/// Values of a table's scope columns, in the log's order, that a key had before: from a tombstone.
pub type OldScope = Vec<Value>;

/// A table's part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableNet {
    /// All rows from before the transaction are gone.
    pub truncated: bool,
    /// How each touched key ends.
    pub rows: BTreeMap<Key, Final>,
    /// Keys that left a scope, and the scopes they left.
    pub moved: BTreeMap<Key, Vec<OldScope>>,
    /// Keys that another key became: a client may not hold their unchanged values.
    pub rekeyed: BTreeSet<Key>,
    /// Keys whose first operation was an insert, or an update that gave them to a row: no row had them before.
    pub fresh: BTreeSet<Key>,
    /// Rows as they were before the transaction, where the stream has them whole (REPLICA IDENTITY FULL).
    pub before: BTreeMap<Key, Tuple>,
    /// A key came as an unchanged large value: nothing can be said of the table's rows from this alone.
    pub unreadable: bool,
}

/// A transaction's effect by table, and the mutations it acknowledges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetChanges {
    /// By the table's oid.
    pub tables: BTreeMap<Oid, TableNet>,
    /// Rows of `lockstep.clients`.
    pub acknowledged: Vec<Acknowledged>,
}

impl NetChanges {
    /// The net effect of operations in their order. Relations that are not tracked are passed over.
    pub fn of(changes: &[Change], catalog: &Catalog) -> Self {
        Self::of_fitting(changes, catalog, &BTreeSet::new())
    }

    /// The same, of tables that are what the catalog says; of the others nothing can be said but that they changed.
    pub fn of_fitting(changes: &[Change], catalog: &Catalog, unfit: &BTreeSet<Oid>) -> Self {
        let mut net = Self::default();
        for oid in unfit {
            net.tables.entry(*oid).or_default().unreadable = true;
        }
        for change in changes.iter().filter(|c| !unfit.contains(&c.relation)) {
            if let Some(table) = catalog.table(change.relation) {
                net.tables.entry(table.oid).or_default().apply(&change.kind, table);
            } else if change.relation == catalog.clients {
                if let ChangeKind::Insert(new) | ChangeKind::Update { new, .. } = &change.kind {
                    net.acknowledged.extend(Acknowledged::from_tuple(new));
                }
            } else if let Some(table) = catalog.by_tombstones(change.relation)
                && let ChangeKind::Insert(row) = &change.kind
            {
                if let Some((key, scope)) = tombstone(row, table) {
                    net.tables.entry(table.oid).or_default().moved.entry(key).or_default().push(scope);
                } else if of_partition(row) {
                    net.tables.entry(table.oid).or_default().unreadable = true;
                }
            }
        }
        net
    }
}

/// `id, s1…, k1…, xid, kind`; a truncation's has no key and says nothing that the stream did not.
fn tombstone(row: &[Value], table: &Table) -> Option<(Key, OldScope)> {
    let scopes = table.scope_columns.len();
    let scope = row.get(1..1 + scopes)?.to_vec();
    let key = row.get(1 + scopes..1 + scopes + table.key.len())?;
    Some((texts(key.iter())?, scope))
}

/// One partition was truncated (`kind` is the last column). With `publish_via_partition_root` the stream does not tell.
fn of_partition(row: &[Value]) -> bool {
    row.last().and_then(Value::text) == Some("p")
}

fn texts<'a>(values: impl Iterator<Item = &'a Value>) -> Option<Key> {
    values
        .map(|v| match v {
            Value::Text(t) => Some(Text::clone(t)),
            Value::Null | Value::Unchanged => None,
        })
        .collect()
}

fn key_of(row: &Tuple, table: &Table) -> Option<Key> {
    texts(table.key.iter().map(|i| &row[*i]))
}

impl TableNet {
    fn apply(&mut self, kind: &ChangeKind, table: &Table) {
        match kind {
            ChangeKind::Insert(new) => match key_of(new, table) {
                Some(key) => {
                    self.first(&key, None);
                    self.rows.insert(key, Final::Row(new.clone()));
                }
                None => self.unreadable = true,
            },
            ChangeKind::Update { old, new } => self.update(old.as_ref(), new, table),
            ChangeKind::Delete(old, full) => match key_of(old, table) {
                Some(key) => {
                    self.first(&key, Some((old, *full)));
                    self.rows.insert(key, Final::Gone);
                }
                None => self.unreadable = true,
            },
            ChangeKind::Truncate => {
                self.truncated = true;
                self.rows.clear();
            }
        }
    }

    /// Notes what a key was before the transaction, at its first operation: nothing, or this row if it is whole.
    fn first(&mut self, key: &Key, before: Option<(&Tuple, bool)>) {
        if self.rows.contains_key(key) {
            return;
        }
        match before {
            None => drop(self.fresh.insert(key.clone())),
            Some((row, true)) if !row.contains(&Value::Unchanged) => {
                self.before.insert(key.clone(), row.clone());
            }
            Some(_) => {}
        }
    }

    fn update(&mut self, old: Option<&(Tuple, bool)>, new: &Tuple, table: &Table) {
        let Some(key) = key_of(new, table) else {
            self.unreadable = true;
            return;
        };
        let old_key = old.and_then(|(old, _)| key_of(old, table)).unwrap_or_else(|| key.clone());
        match old {
            Some((old, full)) => self.first(&old_key, Some((old, *full))),
            None => self.first(&old_key, Some((new, false))),
        }
        if old_key != key {
            self.first(&key, None);
        }
        // An unchanged value comes from where the transaction last wrote it, or from a full old tuple.
        let mut row = new.clone();
        for (i, value) in row.iter_mut().enumerate() {
            if *value != Value::Unchanged {
                continue;
            }
            if let Some((old, true)) = old
                && old[i] != Value::Unchanged
            {
                *value = old[i].clone();
            } else if let Some(Final::Row(before)) = self.rows.get(&old_key) {
                *value = before[i].clone();
            }
        }
        if old_key != key {
            self.rows.insert(old_key, Final::Gone);
            self.rekeyed.insert(key.clone());
        }
        self.rows.insert(key, Final::Row(row));
    }
}
