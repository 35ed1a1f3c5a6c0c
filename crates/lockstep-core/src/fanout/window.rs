//! The window: transactions that left the ring, kept in memory for clients that come back after a moment.
//!
//! ```text
//!  floor B ──── evicted ────┆──── the window ────┆──── the ring ────► W
//!  (a snapshot)                    ▲ the cursor's fence: what ends after it is told, in commit order
//! ```
//! A client's state can be brought to the present without PostgreSQL if it is one that this stream went through: it has
//! every transaction that ends at or before its fence, and no other. Then what live sessions were told since is what it
//! lacks. So a cursor (P, fence) is answered only if
//!
//! 1. P sees all that B sees. B sees everything committed that is neither here nor in the ring: what lies before the
//!    stream's start, and what was evicted;
//! 2. of what is here, P sees everything that ends at or before the fence.
//!
//! The second is not so of a snapshot taken between a commit record and its visibility, nor of a shortened cursor: those
//! are asked of PostgreSQL, as is all that is in doubt.
//!
//! Entries are found by the places where they do something: a table's scope with its values, a table as a whole, a client
//! of an acknowledged mutation. They hold the operations only, from which the net effect is made again when it is needed.

use super::RingEntry;
use crate::catalog::{Catalog, Oid, Table};
use crate::change::{Change, Final, NetChanges, TableNet, Value};
use crate::position::{CursorHead, Lsn, Snapshot, Xid};
use crate::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// Where an entry does something, as a hash: two places of one hash are looked at twice, and nothing is lost.
type Place = u64;

/// Bytes of an entry besides its operations, and of each of its places, about.
const ENTRY_BYTES: usize = 320;
/// See [`ENTRY_BYTES`].
const PLACE_BYTES: usize = 40;
/// One transaction has at most such a part of the window; of a larger one only the tables are known.
const LARGEST_PART: usize = 8;

/// A transaction.
#[derive(Debug)]
struct Kept {
    xid: Xid,
    /// No transaction that the stream brought up to here has a greater id.
    highest: Xid,
    /// The poll that saw it, by its number.
    seen: (u64, Arc<Snapshot>),
    /// Its operations; None if they are not held.
    changes: Option<Vec<Change>>,
    /// Tables that it touched, and of which nothing can be said.
    untold: BTreeSet<Oid>,
    places: Box<[Place]>,
    bytes: usize,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Window {
    /// By the end of the commit record.
    entries: BTreeMap<Lsn, Kept>,
    places: BTreeSet<(Place, Lsn)>,
    bytes: usize,
    most: usize,
    /// B, and the number of the poll that it is of. None before the first poll of a stream has settled.
    floor: Option<(u64, Arc<Snapshot>)>,
    /// The newest poll whose snapshot is counted in `bytes`.
    counted: u64,
    /// A fault built in on purpose.
    #[cfg(feature = "plants")]
    pub plant: Option<crate::plant::Plant>,
}

fn place(kind: &str, of: impl std::hash::Hash) -> Place {
    let mut hasher = DefaultHasher::new();
    (kind, of).hash(&mut hasher);
    hasher.finish()
}

fn table_place(table: Oid) -> Place {
    place("table", table)
}

fn xid_place(xid: Xid) -> Place {
    place("xid", xid)
}

fn client_place(subject: &str, client: &str) -> Place {
    place("client", (subject, client))
}

/// `scope` in the order of the columns.
fn scope_place<'v>(table: Oid, scope: impl Iterator<Item = (usize, &'v str)>) -> Place {
    let mut hasher = DefaultHasher::new();
    ("scope", table).hash(&mut hasher);
    scope.for_each(|part| part.hash(&mut hasher));
    hasher.finish()
}

impl Window {
    /// Empty, with room for `most` bytes; of none nobody is answered.
    pub fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// A stream's first poll has settled: what lies before is seen by it.
    pub fn begin(&mut self, poll: u64, snapshot: &Snapshot) {
        self.clear();
        self.floor = (self.most > 0).then(|| (poll, Arc::new(snapshot.clone())));
    }

    /// The stream ended.
    pub fn close(&mut self) {
        self.clear();
        self.floor = None;
    }

    /// What is held is of no use any more. The newest poll saw all of it.
    pub fn forget(&mut self, poll: u64, snapshot: &Snapshot) {
        if self.floor.is_some() {
            self.begin(poll, snapshot);
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.places.clear();
        self.bytes = 0;
        self.counted = 0;
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Transactions held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes what left the ring. `before` says of a table whether the transaction is from before its present schema.
    pub fn take(&mut self, entry: RingEntry, catalog: &Catalog, before: impl Fn(Oid) -> bool) {
        if self.floor.is_none() {
            return;
        }
        let Some(seen) = entry.seen_by_poll.clone() else { return };
        let (xid, end) = (entry.xid(), entry.delivered.transaction.end_lsn);
        let large = entry.delivered.transaction.bytes > self.most / LARGEST_PART;
        let net = entry.delivered.net.as_ref().filter(|_| !large);
        let untold = untold(&entry, net, catalog, before);
        let mut places: Vec<Place> = untold.iter().map(|table| table_place(*table)).collect();
        for (oid, table) in net.iter().flat_map(|net| &net.tables) {
            if let Some(known) = catalog.table(*oid).filter(|_| !untold.contains(oid)) {
                table_places(known, table, &mut places);
            }
        }
        for ack in net.iter().flat_map(|net| &net.acknowledged) {
            places.push(client_place(&ack.subject, &ack.client));
        }
        if places.is_empty() {
            return;
        }
        places.push(xid_place(xid));
        places.sort_unstable();
        places.dedup();
        let held = !large && net.is_some();
        let (mut changes, bytes) = match Arc::try_unwrap(entry.delivered) {
            Ok(delivered) => (delivered.transaction.changes, delivered.transaction.bytes),
            Err(shared) => (shared.transaction.changes.clone(), shared.transaction.bytes),
        };
        changes = changes.filter(|_| held);
        changes.iter_mut().for_each(Vec::shrink_to_fit);
        let mut bytes = if held { bytes } else { 0 } + ENTRY_BYTES + places.len() * PLACE_BYTES;
        if seen.0 > self.counted {
            self.counted = seen.0;
            bytes += std::mem::size_of_val(seen.1.xip());
        }
        self.bytes += bytes;
        self.places.extend(places.iter().map(|place| (*place, end)));
        let kept = Kept { xid, highest: entry.highest, seen, changes, untold, places: places.into(), bytes };
        self.entries.insert(end, kept);
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.most
            && let Some((end, kept)) = self.entries.pop_first()
        {
            self.bytes -= kept.bytes;
            for place in &kept.places {
                self.places.remove(&(*place, end));
            }
            // Of two polls the later one sees what the earlier one saw.
            if self.floor.as_ref().is_some_and(|(poll, _)| *poll < kept.seen.0) {
                self.floor = Some(kept.seen);
            }
        }
    }

    /// Whether a client in this state lacks nothing but what ends after its fence.
    pub fn reaches(&self, head: &CursorHead) -> bool {
        let Some((_, floor)) = &self.floor else { return false };
        let above = || head.snapshot.lacks(floor).is_none();
        #[cfg(feature = "plants")]
        let above = || self.plant == Some(crate::plant::Plant::WindowFloor) || above();
        let whole = || self.sees_up_to_fence(head);
        #[cfg(feature = "plants")]
        let whole = || self.plant == Some(crate::plant::Plant::WindowFence) || whole();
        above() && whole()
    }

    /// An id that a snapshot does not see is in its list, or at or above its xmax.
    fn sees_up_to_fence(&self, head: &CursorHead) -> bool {
        let (snapshot, fence) = (&head.snapshot, head.fence);
        let newest = self.entries.range(..=fence).next_back();
        let below = newest.is_none_or(|(_, kept)| kept.highest < snapshot.xmax());
        let kept = |xid: &Xid| {
            let place = xid_place(*xid);
            let mut same = self.places.range((place, Lsn(0))..=(place, fence));
            same.any(|(_, end)| self.entries.get(end).is_some_and(|kept| kept.xid == *xid))
        };
        below && !snapshot.xip().iter().any(kept)
    }

    fn after(&self, place: Place, fence: Lsn) -> impl Iterator<Item = Lsn> {
        let after =
            (std::ops::Bound::Excluded((place, fence)), std::ops::Bound::Included((place, Lsn(u64::MAX))));
        self.places.range(after).map(|(_, end)| *end)
    }

    /// Transactions that end after the fence and may concern the shape; some of them may be named twice.
    pub fn of_shape(&self, shape: &Shape, fence: Lsn) -> impl Iterator<Item = Lsn> {
        let table = shape.table.oid;
        let scope = shape.scope().iter().map(|(column, value)| (*column, &**value));
        let scoped = (!shape.scope().is_empty()).then(|| scope_place(table, scope));
        let scoped = scoped.into_iter().flat_map(move |place| self.after(place, fence));
        self.after(table_place(table), fence).chain(scoped)
    }

    /// Transactions that end after the fence and may acknowledge mutations of the client.
    pub fn of_client(
        &self,
        clients: Oid,
        subject: &str,
        client: &str,
        fence: Lsn,
    ) -> impl Iterator<Item = Lsn> {
        self.after(table_place(clients), fence).chain(self.after(client_place(subject, client), fence))
    }

    /// A transaction whose operations are held.
    pub fn held(&self, end: Lsn) -> Option<Held<'_>> {
        let kept = self.entries.get(&end)?;
        Some(Held { kept, changes: kept.changes.as_ref()? })
    }
}

/// See [`Window::held`].
#[derive(Debug, Clone, Copy)]
pub struct Held<'w> {
    kept: &'w Kept,
    changes: &'w [Change],
}

impl Held<'_> {
    /// Its id.
    pub fn xid(&self) -> Xid {
        self.kept.xid
    }

    /// What it counts for in the window.
    pub fn bytes(&self) -> usize {
        self.kept.bytes
    }

    /// Its net effect, made anew.
    pub fn net(&self, catalog: &Catalog) -> NetChanges {
        NetChanges::of_fitting(self.changes, catalog, &self.kept.untold)
    }
}

/// Tables of which the entry can say nothing: its rows are not held, are of another schema, or cannot be read. A truncated
/// one has other storage, and is loaded anew.
fn untold(
    entry: &RingEntry,
    net: Option<&NetChanges>,
    catalog: &Catalog,
    before: impl Fn(Oid) -> bool,
) -> BTreeSet<Oid> {
    let touched = &entry.delivered.transaction.touched;
    let clients = touched.get(&catalog.clients).copied();
    let tables = catalog.among(touched).map(|table| table.oid).chain(clients);
    let mut untold: BTreeSet<Oid> = tables.filter(|oid| net.is_none() || before(*oid)).collect();
    let unreadable = |(_, table): &(&Oid, &TableNet)| table.unreadable || table.truncated;
    untold.extend(net.iter().flat_map(|net| &net.tables).filter(unreadable).map(|(oid, _)| *oid));
    untold
}

/// Where a table's part of a transaction may change a shape: see `merge.rs` for what it does there.
fn table_places(table: &Table, net: &TableNet, places: &mut Vec<Place>) {
    if table.scopes.is_empty() {
        places.push(table_place(table.oid));
        return;
    }
    for scope in &table.scopes {
        let mut columns = scope.clone();
        columns.sort_unstable();
        let mut add = |value: &dyn Fn(usize) -> Option<Value>| {
            let values: Option<Vec<Value>> = columns.iter().map(|column| value(*column)).collect();
            let Some(values) = values else { return };
            if values.contains(&Value::Unchanged) {
                // It may be in any scope.
                places.push(table_place(table.oid));
                return;
            }
            let texts: Option<Vec<&str>> = values.iter().map(Value::text).collect();
            // No shape has a scope with NULL.
            let Some(texts) = texts else { return };
            places.push(scope_place(table.oid, columns.iter().copied().zip(texts)));
        };
        for key in net.keys.values() {
            if let Some(Final::Row(row)) = &key.end {
                add(&|column| row.get(column).cloned());
            }
            if let Some(row) = &key.before {
                add(&|column| row.get(column).cloned());
            }
            for old in &key.left {
                add(&|column| {
                    let at = table.scope_columns.iter().position(|c| *c == column)?;
                    old.get(at).cloned()
                });
            }
        }
    }
}
