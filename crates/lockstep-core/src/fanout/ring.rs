//! The ring: the node's bounded memory of recently delivered transactions.
//!
//! ```text
//!  commit record flushed ──► streamed ──► delivered ──────────► visible to new snapshots
//!                                           │ in the ring: a catch-up whose S is taken here
//!                                           │ does not see it, and would lose it without the ring
//! ```
//! A transaction leaves only when a snapshot polled after its delivery sees it, and no catch-up is running that
//! was begun before that poll was answered: such a catch-up's S may be older.

use super::match_index::ShapeIndex;
use crate::change::Delivered;
use crate::position::{Lsn, Snapshot, Xid};
use crate::protocol::Frame;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One delivered transaction.
#[derive(Debug)]
pub struct RingEntry {
    /// The transaction; its rows may have been dropped.
    pub delivered: Arc<Delivered>,
    /// Frames encoded for shapes so far; a cache.
    pub frames: BTreeMap<ShapeIndex, Option<Frame>>,
    /// The rows were dropped, or never held.
    pub dropped: bool,
    /// No transaction that the stream brought up to here has a greater id.
    pub highest: Xid,
    /// The first poll that saw it: its number, and what it saw.
    pub seen_by_poll: Option<(u64, Arc<Snapshot>)>,
}

impl RingEntry {
    /// Its id.
    pub fn xid(&self) -> Xid {
        self.delivered.transaction.xid
    }
}

/// Transactions in commit order.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<RingEntry>,
    /// So many of the oldest hold no rows any more: a full ring must not look at them again with every push.
    bare: usize,
    bytes: usize,
    most: usize,
    highest: Xid,
    #[cfg(test)]
    looked_at: usize,
    /// A fault built in on purpose.
    #[cfg(feature = "plants")]
    pub plant: Option<crate::plant::Plant>,
}

impl Default for Ring {
    fn default() -> Self {
        Self::new(crate::limits::RING_BYTES)
    }
}

impl Ring {
    /// Empty, with room for `most` bytes of rows.
    pub fn new(most: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bare: 0,
            bytes: 0,
            most,
            highest: 0,
            #[cfg(test)]
            looked_at: 0,
            #[cfg(feature = "plants")]
            plant: None,
        }
    }

    /// Adds the newest. Rows of the oldest are dropped where the bound is reached; their xids stay. Says whether any
    /// were.
    pub fn push(&mut self, delivered: Arc<Delivered>) -> bool {
        let bare = self.bare;
        self.bytes += delivered.transaction.bytes;
        let dropped = delivered.net.is_none();
        self.highest = self.highest.max(delivered.transaction.xid);
        let (frames, highest) = (BTreeMap::new(), self.highest);
        self.entries.push_back(RingEntry { delivered, frames, dropped, highest, seen_by_poll: None });
        #[cfg(feature = "plants")]
        if self.plant == Some(crate::plant::Plant::RingEvicts) {
            while self.bytes > self.most
                && let Some(entry) = self.entries.pop_front()
            {
                self.bytes -= entry.delivered.transaction.bytes;
                self.bare = self.bare.saturating_sub(1);
            }
        }
        while self.bytes > self.most
            && let Some(entry) = self.entries.get_mut(self.bare)
        {
            self.bare += 1;
            #[cfg(test)]
            {
                self.looked_at += 1;
            }
            self.bytes -= entry.delivered.transaction.bytes;
            entry.dropped = true;
            let transaction =
                crate::change::Transaction { changes: None, bytes: 0, ..entry.delivered.transaction.clone() };
            entry.delivered = Arc::new(Delivered { transaction, net: None, schema_changed: false });
            entry.frames.clear();
        }
        self.bare > bare
    }

    /// Poll number `poll` was answered with `snapshot`.
    pub fn polled(&mut self, poll: u64, snapshot: &Snapshot) {
        let mut shared = None;
        for entry in &mut self.entries {
            if entry.seen_by_poll.is_none() && snapshot.sees(entry.xid()) {
                let snapshot = shared.get_or_insert_with(|| Arc::new(snapshot.clone()));
                entry.seen_by_poll = Some((poll, snapshot.clone()));
            }
        }
    }

    /// Lets go what no catch-up can need, in commit order. `oldest` is the least poll number at which a running catch-up
    /// began.
    pub fn retire(&mut self, oldest: Option<u64>) -> Vec<RingEntry> {
        #[cfg(feature = "plants")]
        if self.plant == Some(crate::plant::Plant::RingEarly) {
            self.clear();
        }
        let needed = |entry: &RingEntry| match (&entry.seen_by_poll, oldest) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((seen, _)), Some(oldest)) => oldest < *seen,
        };
        let mut retired = Vec::new();
        if self.entries.iter().all(needed) {
            return retired;
        }
        let bare = self.bare;
        for (at, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            if needed(&entry) {
                self.entries.push_back(entry);
                continue;
            }
            self.bytes -= entry.delivered.transaction.bytes;
            self.bare -= usize::from(at < bare);
            retired.push(entry);
        }
        retired
    }

    /// How far the stream may be acknowledged: short of the oldest commit record that no poll has seen.
    pub fn flush_limit(&self) -> Option<Lsn> {
        self.entries
            .iter()
            .filter(|e| e.seen_by_poll.is_none())
            .map(|e| e.delivered.transaction.commit_lsn)
            .min()
    }

    /// Whether a transaction that no poll has seen is in it.
    pub fn waits_for_poll(&self) -> bool {
        self.entries.iter().any(|e| e.seen_by_poll.is_none())
    }

    /// In commit order.
    pub fn entries(&self) -> impl Iterator<Item = &RingEntry> {
        self.entries.iter()
    }

    /// The ids, the newest commit first.
    pub fn xids_newest_first(&self) -> impl Iterator<Item = Xid> {
        self.entries.iter().rev().map(RingEntry::xid)
    }

    /// In commit order, for the frames' cache.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut RingEntry> {
        self.entries.iter_mut()
    }

    /// The newest.
    pub fn last_mut(&mut self) -> Option<&mut RingEntry> {
        self.entries.back_mut()
    }

    /// Forgets all: the stream ended.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bare = 0;
        self.bytes = 0;
        self.highest = 0;
    }

    /// Bytes of rows held.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{NetChanges, Transaction};

    fn delivered(xid: Xid) -> Arc<Delivered> {
        let transaction = Transaction {
            xid,
            commit_lsn: Lsn(xid * 100),
            end_lsn: Lsn(xid * 100 + 48),
            changes: Some(vec![]),
            touched: [7].into(),
            bytes: 10,
        };
        Arc::new(Delivered { transaction, net: Some(NetChanges::default()), schema_changed: false })
    }

    /// While a standby is silent nothing leaves, and every push drops the rows of one entry.
    #[test]
    fn a_full_ring_looks_at_each_entry_once() {
        let mut ring = Ring::new(100);
        (1..=2000).for_each(|xid| assert_eq!(ring.push(delivered(xid)), xid > 10));
        assert_eq!((ring.len(), ring.bytes(), ring.looked_at), (2000, 100, 1990));
        // Some of those without rows leave, and some with: the count goes on.
        let seen = Snapshot::new(1996, (1000..1500).collect());
        ring.polled(1, &seen);
        ring.retire(None);
        assert_eq!((ring.len(), ring.bytes(), ring.bare), (505, 50, 500));
        (3000..=3005).for_each(|xid| assert_eq!(ring.push(delivered(xid)), xid == 3005));
        assert_eq!((ring.bytes(), ring.looked_at, ring.bare), (100, 1991, 501));
        assert_eq!(ring.entries().filter(|e| e.dropped).count(), 501);
    }
}
