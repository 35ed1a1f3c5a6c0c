//! From the commit record to visibility, and what COMMIT returns to.

use super::{Event, Sync, Waiter, World};
use crate::pg::TxId;

impl World {
    /// Writes the commit record; the rest follows in its time.
    pub(crate) fn commit(&mut self, tx: TxId, sync: Sync, waiter: Waiter) {
        let epoch = self.db.epoch;
        let Some(index) = self.db.commit(tx) else {
            self.returned(waiter, None);
            return;
        };
        for decided in self.db.commits[index].decided.clone() {
            let (count, at) = self.decisions.entry(decided.id.clone()).or_default();
            *count += u32::from(decided.applied);
            *at = index;
            if *count > 1 && !self.may_repeat(&decided.id) {
                self.violate(format!("mutation {} was applied twice", decided.id));
            }
        }
        if waiter != Waiter::Nobody {
            self.waiters.insert(tx, waiter);
        }
        if sync == Sync::Off {
            let wait = self.rng.between(20, 200);
            self.fault("async_commit");
            self.after(wait, Event::Visible(epoch, index));
        } else {
            let wait = self.rng.between(80, 500);
            if sync == Sync::Local {
                self.db.commits[index].confirmed = true;
            }
            self.after(wait, Event::Flushed(epoch, index));
        }
        // Some of WAL's pages end in a header that belongs to nobody: F may then lie where no commit ends.
        if self.rng.one_in(25) {
            self.db.write_wal(24);
        }
    }

    pub(super) fn flushed(&mut self, epoch: u64, index: usize) {
        if epoch != self.db.epoch {
            return;
        }
        let end = self.db.commits[index].end_lsn;
        self.flush_to(end);
        let local = std::mem::replace(&mut self.db.commits[index].confirmed, false);
        if !self.standby || local {
            self.becomes_visible(index);
        } else if self.standby_silent {
            self.unconfirmed.push(index);
        } else {
            let late =
                if self.rng.one_in(20) { self.rng.between(2_000, 60_000) } else { self.rng.between(50, 900) };
            self.after(late, Event::Confirmed(epoch, index));
        }
    }

    pub(crate) fn flush_to(&mut self, lsn: u64) {
        if lsn > self.db.flush_lsn {
            self.db.flush(lsn);
            for node in 0..self.nodes.len() {
                self.pump_soon(node);
            }
        }
    }

    pub(super) fn confirmed(&mut self, epoch: u64, index: usize) {
        if epoch != self.db.epoch {
            return;
        }
        if self.standby_silent {
            self.unconfirmed.push(index);
            return;
        }
        self.db.commits[index].confirmed = true;
        self.becomes_visible(index);
    }

    fn becomes_visible(&mut self, index: usize) {
        let wait = if self.rng.one_in(40) { self.rng.between(500, 6_000) } else { self.rng.below(150) };
        self.after(wait, Event::Visible(self.db.epoch, index));
    }

    pub(super) fn visible(&mut self, epoch: u64, index: usize) {
        if epoch != self.db.epoch {
            return;
        }
        self.db.make_visible(index);
        let (id, xid) = (self.db.commits[index].id, self.db.commits[index].xid);
        if let Some(waiter) = self.waiters.remove(&id) {
            self.returned(waiter, Some(xid));
        }
    }

    fn returned(&mut self, waiter: Waiter, xid: Option<u64>) {
        match waiter {
            Waiter::Writer(writer) => self.writer_free(writer),
            Waiter::Mutation(ask) => self.mutation_committed(ask, xid),
            Waiter::Push(ask) => self.answer_soon(ask),
            Waiter::Mark(node, generation) => self.marked(node, generation),
            Waiter::Nobody => {}
        }
    }

    /// The standby answers again: all that waited is confirmed.
    pub(super) fn standby_answers(&mut self) {
        self.standby_silent = false;
        for index in std::mem::take(&mut self.unconfirmed) {
            let wait = self.rng.below(400);
            self.after(wait, Event::Confirmed(self.db.epoch, index));
        }
    }

    /// Every so often WAL is flushed though nobody asked for it.
    pub(super) fn wal_writer(&mut self) {
        let lsn = self.db.insert_lsn;
        if self.now >= self.up_at {
            self.flush_to(lsn);
        }
        let wait = self.rng.between(20_000, 200_000);
        self.after(wait, Event::WalWriter);
    }
}
