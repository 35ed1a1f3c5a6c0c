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
    seen_by_poll: Option<u64>,
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
    bytes: usize,
    most: usize,
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
            bytes: 0,
            most,
            #[cfg(feature = "plants")]
            plant: None,
        }
    }

    /// Adds the newest. Rows of the oldest are dropped where the bound is reached; their xids stay.
    pub fn push(&mut self, delivered: Arc<Delivered>) {
        self.bytes += delivered.transaction.bytes;
        let dropped = delivered.net.is_none();
        self.entries.push_back(RingEntry { delivered, frames: BTreeMap::new(), dropped, seen_by_poll: None });
        #[cfg(feature = "plants")]
        if self.plant == Some(crate::plant::Plant::RingEvicts) {
            while self.bytes > self.most
                && let Some(entry) = self.entries.pop_front()
            {
                self.bytes -= entry.delivered.transaction.bytes;
            }
        }
        let mut oldest = self.entries.iter_mut();
        while self.bytes > self.most
            && let Some(entry) = oldest.next()
        {
            self.bytes -= entry.delivered.transaction.bytes;
            entry.dropped = true;
            let transaction =
                crate::change::Transaction { changes: None, bytes: 0, ..entry.delivered.transaction.clone() };
            entry.delivered = Arc::new(Delivered { transaction, net: None, schema_changed: false });
            entry.frames.clear();
        }
    }

    /// Poll number `poll` was answered with `snapshot`.
    pub fn polled(&mut self, poll: u64, snapshot: &Snapshot) {
        for entry in &mut self.entries {
            if entry.seen_by_poll.is_none() && snapshot.sees(entry.xid()) {
                entry.seen_by_poll = Some(poll);
            }
        }
    }

    /// Lets go what no catch-up can need. `oldest` is the least poll number at which a running catch-up began.
    pub fn retire(&mut self, oldest: Option<u64>) {
        #[cfg(feature = "plants")]
        if self.plant == Some(crate::plant::Plant::RingEarly) {
            self.clear();
        }
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let needed = match (entry.seen_by_poll, oldest) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(seen), Some(oldest)) => oldest < seen,
            };
            if !needed {
                *bytes -= entry.delivered.transaction.bytes;
            }
            needed
        });
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
        self.bytes = 0;
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
