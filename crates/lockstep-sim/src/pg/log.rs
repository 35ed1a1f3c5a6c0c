//! A table's change logs: what was changed, what is gone, and how far back they reach.

use crate::schema::{Key, Row};
use lockstep_core::position::{Snapshot, Xid};
use std::collections::{BTreeMap, HashMap};

/// An entry, of `changes` if it has no kind, else of `tombstones`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Table.
    pub table: usize,
    /// Values of the scope columns.
    pub scope: Row,
    /// None for a truncation.
    pub key: Option<Key>,
    /// `d`, `m` or `t`.
    pub kind: Option<char>,
}

#[derive(Debug, Clone)]
struct Kept {
    commit: usize,
    entry: Entry,
}

/// Both logs of a table.
#[derive(Debug, Clone)]
pub struct Log {
    by_xid: BTreeMap<Xid, Vec<Kept>>,
    /// The oldest id that the logs reach back to.
    pub horizon: Xid,
}

impl Log {
    /// Empty, from `horizon` on.
    pub fn new(horizon: Xid) -> Self {
        Self { by_xid: BTreeMap::new(), horizon }
    }

    /// An entry became visible.
    pub fn insert(&mut self, xid: Xid, commit: usize, entry: Entry) {
        self.by_xid.entry(xid).or_default().push(Kept { commit, entry });
    }

    /// Entries that a state does not include: `xid >= xmax or xid = any(xip)`.
    pub fn unseen<'a>(&'a self, state: &'a Snapshot) -> impl Iterator<Item = &'a Entry> {
        let open = state.xip().iter().filter_map(|x| self.by_xid.get(x));
        open.chain(self.by_xid.range(state.xmax()..).map(|(_, e)| e)).flatten().map(|k| &k.entry)
    }

    /// Deletes what is older than `below`, and moves the horizon there in the same transaction.
    pub fn collect(&mut self, below: Xid, move_horizon: bool) {
        self.by_xid = self.by_xid.split_off(&below);
        if move_horizon {
            self.horizon = self.horizon.max(below);
        }
    }

    /// Keeps the newest committed entry per scope and key, which is the one written last: later writers of a row
    /// wait for earlier ones, whatever their ids. Only below commit number `floor`.
    pub fn compact(&mut self, floor: usize, by_xid: bool) {
        let mut newest: HashMap<(Row, Key), (usize, Xid)> = HashMap::new();
        let place = |k: &Kept| k.entry.key.clone().map(|key| (k.entry.scope.clone(), key));
        for (xid, kept) in &self.by_xid {
            for kept in kept.iter().filter(|k| k.commit < floor) {
                let Some(place) = place(kept) else { continue };
                let best = newest.entry(place).or_insert((kept.commit, *xid));
                let newer = if by_xid { *xid >= best.1 } else { kept.commit >= best.0 };
                if newer {
                    *best = (kept.commit, *xid);
                }
            }
        }
        for (xid, kept) in &mut self.by_xid {
            kept.retain(|k| {
                k.commit >= floor
                    || place(k).is_none_or(|place| newest.get(&place) == Some(&(k.commit, *xid)))
            });
        }
        self.by_xid.retain(|_, kept| !kept.is_empty());
    }

    /// Entries of commits from number `keep` on never were; ids from `next` on never were assigned.
    pub fn rewind(&mut self, keep: usize, next: Xid) {
        for kept in self.by_xid.values_mut() {
            kept.retain(|k| k.commit < keep);
        }
        self.by_xid.retain(|_, kept| !kept.is_empty());
        self.horizon = self.horizon.min(next);
    }

    /// All entries, each with its transaction.
    pub fn entries(&self) -> impl Iterator<Item = (Xid, &Entry)> {
        self.by_xid.iter().flat_map(|(xid, kept)| kept.iter().map(|k| (*xid, &k.entry)))
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.by_xid.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_xid.is_empty()
    }
}
