//! A transaction that is too large to be held is given out in parts: the net effect of some of its operations each, in
//! their order, and nothing is kept of a part once it is given out but a hash for each key.
//!
//! ```text
//!  BEGIN ── D k ── … ──┆── … ── tombstone (s, k) ── … ──┆── COMMIT
//!             part 1      part 2: k left s; how does it end?
//! ```
//! Applied one after another, the parts' effects on a shape must end as the effect of the whole. Let a client have the
//! shape as it was before the transaction, and take a part's effect to be that of `fanout/merge.rs` on the part alone.
//!
//! * A put says what the key is at the part's end, and a later part's put or remove follows it: puts are right.
//! * A remove is right whenever the key is not in the shape at the part's end, whether or not the client has it. So all
//!   that can go wrong is a remove that is lacking, or one of a key that is there.
//! * Without scopes the row's own message removes a key, and in the part that has it. The same with a predicate.
//! * With scopes the tombstone does, and that comes behind all rows of its statement: perhaps in a later part. If that
//!   part has a row message of the key too, the part knows how it ends, and whatever came earlier does not matter.
//!   If it has none, the key is *late*: it ends as an earlier part left it. It is in scope s only if some part put it
//!   there; of none such the tombstone is a remove. If a part may have put it into s, the shapes of s are *in doubt*: they
//!   are caught up past the transaction. So deletes, moves and new keys of any number of rows pass; what was written in
//!   its scope by an earlier part, and leaves it in a later one, does not.
//! * With a predicate, a key that is new to its part needs no remove, unless an earlier part deleted it and its tombstone
//!   comes only now: such keys are not taken for new. A row as it was before the part is believed only while all earlier
//!   parts had one for each key: then each of them removed by itself what it took out of the shape.
//! * An unchanged large value is what the client has, if it has the row in the shape: with scopes only the tombstone says
//!   that it moved, and may still come. So the row is taken for one that moved.
//! * Of a table that was truncated, or cannot be read by the catalog, nothing is told.
//!
//! Two keys may have one hash. Then a shape is in doubt, or a key is not taken for new, and nothing is lost.

use super::{Final, Key, NetChanges, TableNet, Text, Value};
use crate::catalog::{Catalog, Oid, Table};
use crate::position::Xid;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher};

/// Scope columns in ascending order, and their values.
type Scope = Vec<(usize, Text)>;

/// The net effect of some of a transaction's operations.
#[derive(Debug)]
pub struct Part {
    /// The transaction.
    pub xid: Xid,
    /// What these operations do. A late key is among the rows, as gone, with the scopes that it left.
    pub net: NetChanges,
    /// Rows that these operations changed: late keys were counted with an earlier part.
    pub rows: u64,
    /// Late keys, and the scopes that they may be in again.
    doubts: BTreeMap<Oid, BTreeMap<Key, Vec<Scope>>>,
}

impl Part {
    /// Whether nobody knows if a key that left a scope is in it at the part's end.
    pub fn doubts(&self, table: Oid, scope: &[(usize, Text)], key: &Key) -> bool {
        let scopes = self.doubts.get(&table).and_then(|keys| keys.get(key));
        scopes.is_some_and(|scopes| scopes.iter().any(|other| other == scope))
    }

    /// Whether there is no doubt about any key of the table.
    pub fn is_certain(&self, table: Oid) -> bool {
        !self.doubts.contains_key(&table)
    }
}

/// Hashes need no hashing.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What the later parts of a transaction must know of the earlier ones.
#[derive(Debug)]
pub(super) struct Earlier {
    /// Of each key that a part left in a scope, and of each that one left gone.
    hashes: HashSet<u64, BuildHasherDefault<Same>>,
    most: usize,
    /// There were too many: all that is asked for may be among them.
    full: bool,
    /// Tables with a key of which a part could not tell what it was before.
    blind: BTreeSet<Oid>,
}

fn put_hash(table: Oid, scope: &[(usize, Text)], key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("put", table, scope, key).hash(&mut hasher);
    hasher.finish()
}

fn gone_hash(table: Oid, key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("gone", table, key).hash(&mut hasher);
    hasher.finish()
}

/// The values of each of the table's scopes. None of one with NULL, which no shape has, or with a value that was not
/// repeated: of such a row no shape is told.
fn scopes_of<'v>(table: &Table, value: impl Fn(usize) -> Option<&'v Value>) -> Vec<Scope> {
    let scope = |columns: &Vec<usize>| {
        let mut columns = columns.clone();
        columns.sort_unstable();
        columns.into_iter().map(|c| Some((c, Text::from(value(c)?.text()?)))).collect::<Option<Scope>>()
    };
    table.scopes.iter().filter_map(scope).collect()
}

impl Earlier {
    /// Nothing yet; so many hashes are kept.
    pub(super) fn new(most: usize) -> Self {
        Self { hashes: HashSet::default(), most, full: false, blind: BTreeSet::new() }
    }

    /// Whether there were more keys than are remembered.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    fn may_have(&self, hash: u64) -> bool {
        self.full || self.hashes.contains(&hash)
    }

    fn note(&mut self, hash: u64) {
        if self.full {
            return;
        }
        if self.hashes.len() >= self.most {
            self.full = true;
            self.hashes = HashSet::default();
            return;
        }
        self.hashes.insert(hash);
    }

    /// Makes a part of a net effect: see the module's text.
    pub(super) fn part(&mut self, xid: Xid, mut net: NetChanges, catalog: &Catalog) -> Part {
        let (mut doubts, changed) = (BTreeMap::new(), net.rows());
        for (oid, rows) in &mut net.tables {
            rows.unreadable |= rows.truncated;
            let Some(table) = catalog.table(*oid).filter(|t| !rows.unreadable && !t.scopes.is_empty()) else {
                continue;
            };
            self.before(*oid, rows);
            let mut doubtful: BTreeMap<Key, Vec<Scope>> = BTreeMap::new();
            // What the part's own rows say comes first: a late key is in doubt by earlier parts only, and has no row here.
            for (key, net) in &mut rows.keys {
                match &net.end {
                    Some(Final::Row(row)) => {
                        net.rekeyed |= row.contains(&Value::Unchanged);
                        for scope in scopes_of(table, |column| row.get(column)) {
                            self.note(put_hash(*oid, &scope, key));
                        }
                    }
                    Some(Final::Gone) => self.note(gone_hash(*oid, key)),
                    None => {
                        let at = |column: usize| table.scope_columns.iter().position(|c| *c == column);
                        let left = net.left.iter();
                        let left = left
                            .flat_map(|old| scopes_of(table, |column| at(column).and_then(|at| old.get(at))));
                        let again: Vec<Scope> =
                            left.filter(|scope| self.may_have(put_hash(*oid, scope, key))).collect();
                        if !again.is_empty() {
                            doubtful.insert(key.clone(), again);
                        }
                        net.end = Some(Final::Gone);
                    }
                }
            }
            if !doubtful.is_empty() {
                doubts.insert(*oid, doubtful);
            }
        }
        Part { xid, net, rows: changed, doubts }
    }

    /// What is said of rows as they were before the part, as far as it can be believed.
    fn before(&mut self, oid: Oid, rows: &mut TableNet) {
        let mut blind = false;
        for (key, net) in rows.keys.iter_mut().filter(|(_, net)| net.end.is_some()) {
            blind |= !net.fresh && net.before.is_none();
            if self.blind.contains(&oid) {
                net.before = None;
            }
            net.fresh &= !self.may_have(gone_hash(oid, key));
        }
        if blind {
            self.blind.insert(oid);
        }
    }
}
