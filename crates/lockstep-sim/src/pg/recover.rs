//! Restarts, promotions and rollbacks: what is left of the history, and what happens to what was under way.

use super::{Db, TxId};
use lockstep_core::position::Xid;
use std::collections::BTreeSet;

impl Db {
    /// The server ends and comes back with the WAL up to `lsn`. Ids that are in none of it are assigned again.
    ///
    /// ```text
    ///  crash:      … C C C │ C C        flushed up to │; what lies behind was never streamed
    ///  promotion:  … C C │ C C C        the standby had up to │; what lies behind may have been streamed
    ///  rollback:   … │ C C C C C        the volume as of │, on the same timeline
    /// ```
    /// Returns the commits that are lost.
    pub fn restart_at(&mut self, lsn: u64) -> usize {
        self.epoch += 1;
        let keep = self.commits.partition_point(|c| c.end_lsn <= lsn);
        let open: Vec<TxId> = self.open.keys().copied().collect();
        self.aborted.retain(|(end, _)| *end <= lsn);
        let ended = self.commits[..keep].iter().map(|c| c.highest).chain(self.aborted.iter().map(|a| a.1));
        let mut highest = ended.max().unwrap_or(0);
        // What committed is recovered as visible, in WAL order, before anything else runs.
        for index in 0..keep {
            self.make_visible(index);
        }
        for id in open {
            let Some(tx) = self.open.get(&id) else { continue };
            let survives = tx.prepared.is_some_and(|end| end <= lsn) && !tx.committing;
            match (survives, tx.xid) {
                (true, Some(xid)) => highest = highest.max(xid).max(tx.last_subxid),
                _ => self.end(id),
            }
        }
        // What recovery takes back writes nothing.
        self.aborted.retain(|(end, _)| *end <= lsn);
        let lost = self.undo(keep);
        self.insert_lsn = lsn;
        self.flush_lsn = lsn;
        let lowest: Xid = self.logs.iter().map(|l| l.horizon).max().unwrap_or(0);
        self.next_xid = if lost == 0 { self.next_xid } else { (highest + 1).min(self.next_xid) };
        if keep == 0 {
            self.next_xid = self.next_xid.max(lowest);
        }
        self.latest_completed = self.next_xid - 1;
        let next = self.next_xid;
        self.logs.iter_mut().for_each(|l| l.rewind(keep, next));
        self.floor = self.floor.min(keep);
        lost
    }

    /// Takes back every commit from `keep` on.
    fn undo(&mut self, keep: usize) -> usize {
        let mut lost = self.commits.split_off(keep);
        // Each row was written in WAL order and became visible in that order; so it is taken back in reverse.
        for commit in lost.iter().rev() {
            self.committed.remove(&commit.xid);
            if commit.visible.is_none() {
                continue;
            }
            for write in commit.writes.iter().rev() {
                match &write.before {
                    Some(row) => drop(self.visible[write.table].insert(write.key.clone(), row.clone())),
                    None => drop(self.visible[write.table].remove(&write.key)),
                }
            }
        }
        let lost_visible = lost.iter().filter(|c| c.visible.is_some()).flat_map(|c| c.deltas.iter().copied());
        let deltas: Vec<(usize, u64)> = lost_visible.collect();
        let count = lost.len();
        self.history.forked(keep, &deltas, std::mem::take(&mut lost));
        count
    }

    /// A standby with the WAL up to `lsn` becomes the primary.
    pub fn promote_at(&mut self, lsn: u64) -> usize {
        let lost = self.restart_at(lsn);
        self.ended.push((self.timeline, lsn));
        self.timeline += 1;
        lost
    }

    /// The ids of prepared transactions.
    pub fn prepared(&self) -> BTreeSet<TxId> {
        self.open.iter().filter(|(_, t)| t.prepared.is_some() && !t.committing).map(|(id, _)| *id).collect()
    }
}
