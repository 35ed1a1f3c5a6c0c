//! Restarts, promotions and rollbacks: what is left of the history, and what happens to what was under way.

use super::{Db, Log, TxId};
use lockstep_core::position::Xid;
use std::collections::BTreeSet;

/// What a copy of the volume holds that the history alone does not tell.
#[derive(Debug)]
pub struct VolumeCopy {
    /// WAL up to here is in it.
    pub lsn: u64,
    floor: usize,
    logs: Vec<Log>,
    /// Commits in it that no snapshot saw then; they are recovered.
    invisible: Vec<usize>,
}

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

    /// A copy of the volume as of now; None while a prepared transaction waits, which would be prepared again.
    pub fn copy_volume(&self) -> Option<VolumeCopy> {
        if self.open.values().any(|t| t.prepared.is_some()) {
            return None;
        }
        let logs = self.logs.clone();
        let keep = self.commits.partition_point(|c| c.end_lsn <= self.flush_lsn);
        let invisible = (0..keep).rev().take(2_000).filter(|i| self.commits[*i].visible.is_none()).collect();
        Some(VolumeCopy { lsn: self.flush_lsn, floor: self.floor, logs, invisible })
    }

    /// The copy is restored, as by a crash at the time when it was made. Only where history has not forked since.
    pub fn roll_back(&mut self, copy: VolumeCopy) -> usize {
        let horizons: Vec<Xid> = copy.logs.iter().map(|l| l.horizon).collect();
        let lost = self.restart_at(copy.lsn);
        self.floor = copy.floor;
        self.logs = copy.logs;
        for (log, horizon) in self.logs.iter_mut().zip(horizons) {
            log.rewind(self.commits.len(), self.next_xid);
            log.horizon = horizon;
        }
        for index in copy.invisible {
            let commit = &self.commits[index];
            for entry in &commit.logs {
                self.logs[entry.table].insert(commit.xid, index, entry.clone());
            }
        }
        lost
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
