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

/// What a transaction did to one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyNet {
    /// How it ends; None if nothing happened to it since a truncation, or only a tombstone names it.
    pub end: Option<Final>,
    /// The scopes that it left.
    pub left: Vec<OldScope>,
    /// The row as it was before the transaction, where the stream has it whole (REPLICA IDENTITY FULL).
    pub before: Option<Tuple>,
    /// Its first operation was an insert, or an update that gave it to a row: no row had it before.
    pub fresh: bool,
    /// Another key became this one: a client may not hold its unchanged values.
    pub rekeyed: bool,
}

/// A table's part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableNet {
    /// All rows from before the transaction are gone.
    pub truncated: bool,
    /// What was done to each touched key, all of it in one place: a transaction may have a million of them.
    pub keys: BTreeMap<Key, KeyNet>,
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
                    net.tables.entry(table.oid).or_default().keys.entry(key).or_default().left.push(scope);
                } else if of_partition(row) {
                    net.tables.entry(table.oid).or_default().unreadable = true;
                }
            }
        }
        net
    }

    /// Whether all rows of a table go.
    pub fn truncates(&self) -> bool {
        self.tables.values().any(|table| table.truncated)
    }

    /// Rows that it changed.
    pub fn rows(&self) -> u64 {
        let rows = self.tables.values().map(|table| table.ends().count()).sum::<usize>();
        u64::try_from(rows).unwrap_or(u64::MAX)
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

impl KeyNet {
    /// Notes what the key was before the transaction, at its first operation: nothing, or this row if it is whole.
    fn first(&mut self, before: Option<(&Tuple, bool)>) {
        if self.end.is_some() {
            return;
        }
        match before {
            None => self.fresh = true,
            Some((row, true)) if !row.contains(&Value::Unchanged) => self.before = Some(row.clone()),
            Some(_) => {}
        }
    }

    /// The row, with unchanged values from where the transaction last wrote them, or from a full old tuple.
    fn filled(&self, new: &Tuple, old: Option<&(Tuple, bool)>) -> Tuple {
        let mut row = new.clone();
        for (i, value) in row.iter_mut().enumerate() {
            if *value != Value::Unchanged {
                continue;
            }
            if let Some((old, true)) = old
                && old[i] != Value::Unchanged
            {
                *value = old[i].clone();
            } else if let Some(Final::Row(before)) = &self.end {
                *value = before[i].clone();
            }
        }
        row
    }
}

impl TableNet {
    /// How each touched key ends, and what else was done to it.
    pub fn ends(&self) -> impl Iterator<Item = (&Key, &Final, &KeyNet)> {
        self.keys.iter().filter_map(|(key, net)| Some((key, net.end.as_ref()?, net)))
    }

    fn apply(&mut self, kind: &ChangeKind, table: &Table) {
        match kind {
            ChangeKind::Insert(new) => match key_of(new, table) {
                Some(key) => {
                    let net = self.keys.entry(key).or_default();
                    net.first(None);
                    net.end = Some(Final::Row(new.clone()));
                }
                None => self.unreadable = true,
            },
            ChangeKind::Update { old, new } => self.update(old.as_ref(), new, table),
            ChangeKind::Delete(old, full) => match key_of(old, table) {
                Some(key) => {
                    let net = self.keys.entry(key).or_default();
                    net.first(Some((old, *full)));
                    net.end = Some(Final::Gone);
                }
                None => self.unreadable = true,
            },
            ChangeKind::Truncate => {
                self.truncated = true;
                self.keys.values_mut().for_each(|net| net.end = None);
            }
        }
    }

    fn update(&mut self, old: Option<&(Tuple, bool)>, new: &Tuple, table: &Table) {
        let Some(key) = key_of(new, table) else {
            self.unreadable = true;
            return;
        };
        let old_key = old.and_then(|(old, _)| key_of(old, table)).filter(|old_key| *old_key != key);
        let before = old.map_or((new, false), |(old, full)| (old, *full));
        let Some(old_key) = old_key else {
            let net = self.keys.entry(key).or_default();
            net.first(Some(before));
            net.end = Some(Final::Row(net.filled(new, old)));
            return;
        };
        let was = self.keys.entry(old_key).or_default();
        was.first(Some(before));
        let row = was.filled(new, old);
        was.end = Some(Final::Gone);
        let net = self.keys.entry(key).or_default();
        net.first(None);
        net.rekeyed = true;
        net.end = Some(Final::Row(row));
    }
}
