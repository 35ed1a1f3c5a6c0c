//! What goes wrong, and when.

use super::{Event, Sync, Waiter, World};
use crate::pg::Change;
use crate::plant::Plant;
use crate::schema::APP_TABLES;

impl World {
    /// One fault; the next one follows by itself until it is quiet.
    pub(super) fn strike(&mut self) {
        if self.quiet {
            return;
        }
        let wait = self.rng.between(60_000, 800_000);
        self.after(wait, Event::Fault);
        self.end_prepared(false);
        let node = self.rng.index(self.nodes.len());
        let client = self.rng.index(self.clients.len());
        if self.migrates && !self.recorded {
            self.migrate();
        }
        if self.promotes && self.rng.one_in(8) && self.now >= self.up_at {
            self.promote();
            return;
        }
        match self.rng.below(100) {
            0..=13 => {
                if let Some(session) = self.clients[client].session {
                    self.fault("client_cut");
                    self.hang_up(session);
                }
            }
            14..=25 => {
                let long = self.rng.between(5_000, 400_000);
                if let Some(link) = self.clients[client].session.and_then(|s| self.links.get_mut(&s)) {
                    link.stalled_until = self.now + long;
                    self.fault("client_stall");
                }
            }
            26..=32 => self.half_open(client),
            33..=46 => {
                let most = if self.rng.one_in(3) { 4_000_000 } else { 300_000 };
                let long = self.rng.between(1_000, most);
                self.fault("client_offline");
                self.go_offline(client, long);
            }
            47..=52 => self.kill_client(client),
            53..=58 if self.nodes[node].alive => {
                self.fault("node_killed");
                self.kill_node(node);
            }
            59..=66 if self.nodes[node].alive => {
                self.fault("node_pg_cut");
                self.cut_pg(node, true);
            }
            67..=72 => {
                let long = self.rng.between(5_000, 600_000);
                self.fault("node_pg_stall");
                self.nodes[node].stalled_until = self.now + long;
                self.after(long + 1, Event::Unstall(node));
            }
            73..=80 if self.standby && !self.standby_silent => {
                self.fault("standby_silent");
                self.standby_silent = true;
                let long = self.rng.between(20_000, 900_000);
                self.after(long, Event::Standby);
            }
            81..=83 => {
                let other = self.rng.index(self.clients.len());
                self.copy_profile(client, other, false);
            }
            84..=85 => self.copy_profile(self.clients.len(), client, true),
            86..=87 => self.kept_profile = Some(self.clients[client].profile()),
            88..=89 if self.now >= self.up_at => self.roll_back(),
            90..=92 if self.now >= self.up_at => self.restart(),
            94..=95 if self.now >= self.up_at => self.promote(),
            96..=99 => self.clear_client(client),
            _ => {}
        }
    }

    /// The client takes the connection for dead; the node still believes in it.
    fn half_open(&mut self, client: usize) {
        let Some(session) = self.clients[client].session else { return };
        let long = self.rng.between(50_000, 2_000_000);
        if let Some(link) = self.links.get_mut(&session) {
            link.stalled_until = self.now + long;
        }
        self.fault("half_open");
        self.clients[client].disconnected();
        self.after(long, Event::Hangup(session));
    }

    /// PostgreSQL stops, in good order or at once.
    fn restart(&mut self) {
        if self.rng.one_in(2) || self.migrates {
            self.fault("pg_restart");
            self.db.flush(self.db.insert_lsn);
            let lsn = self.db.insert_lsn;
            self.db.restart_at(lsn);
        } else {
            self.fault("crash");
            let lsn = self.db.flush_lsn;
            if self.db.restart_at(lsn) > 0 {
                self.volume = None;
                self.fault("async_lost");
            }
        }
        self.db.history.was_silent();
        self.server_was_down();
    }

    /// The standby becomes the primary, with all of WAL or without its end. What it confirmed it has.
    fn promote(&mut self) {
        if self.migrates {
            return;
        }
        self.volume = None;
        if self.rng.one_in(2) {
            self.fault("promotion_clean");
            self.db.flush(self.db.insert_lsn);
            let lsn = self.db.insert_lsn;
            self.db.promote_at(lsn);
        } else {
            let flushed = self.db.flushed_from(0).len();
            let confirmed =
                self.db.commits.iter().rposition(|c| c.confirmed && self.standby).map_or(0, |at| at + 1);
            let least = confirmed.max(self.db.floor).max(flushed.saturating_sub(40)).min(flushed);
            let keep = usize::try_from(self.rng.between(least as u64, flushed as u64)).unwrap_or(flushed);
            let lsn = keep.checked_sub(1).and_then(|at| self.db.commits.get(at)).map_or(0, |c| c.end_lsn);
            if self.db.promote_at(lsn) > 0 {
                self.fault("promotion_lost_commits");
            }
        }
        self.server_was_down();
        // What takes a primary down may take a node down: its clients go elsewhere with what they have seen.
        for node in 0..self.nodes.len() {
            if self.nodes[node].alive && self.rng.one_in(3) {
                self.fault("node_killed");
                self.kill_node(node);
            }
        }
    }

    /// A copy of PostgreSQL's volume is restored: same timeline, and ids and LSNs once more.
    ///
    /// What nobody can tell from the history before is left out, see docs/known-gaps.md: a client whose state lies
    /// between the copy and the first mark after it.
    fn roll_back(&mut self) {
        let Some(copy) = self.volume.take().filter(|_| !self.migrates) else { return };
        let near = copy.lsn..copy.lsn + 4_096;
        let fence = |client: &crate::client::Client| {
            let cursor = client.replica.cursor.as_deref()?.parse::<lockstep_core::position::Cursor>().ok()?;
            Some(cursor.head.fence.0)
        };
        let profiles = self.clients.iter().chain(&self.kept_profile);
        let lost = self.db.commits.iter().filter(|c| c.end_lsn > copy.lsn).count();
        if lost < 60 || profiles.filter_map(fence).any(|fence| near.contains(&fence)) {
            return;
        }
        self.fault("volume_rollback");
        let late: Vec<_> = self.links.iter().filter(|(_, l)| l.queue.bytes() > 0).map(|(s, _)| *s).collect();
        late.into_iter().for_each(|session| self.hang_up(session));
        self.db.roll_back(copy);
        self.unmarked = true;
        self.server_was_down();
    }

    /// ALTER TABLE, if nobody has the table.
    fn migrate(&mut self) {
        let table = self.rng.index(APP_TABLES);
        if self.now < self.up_at {
            return;
        }
        let (kind, change) = match (self.db.schema.extra_columns(table), self.rng.below(3)) {
            (0, _) => ("column_added", Change::Add(self.rng.one_in(2).then(|| "7".into()))),
            (_, 0) => ("column_dropped", Change::Drop),
            (_, 1) => ("column_renamed", Change::Rename),
            _ => ("table_rewritten", Change::Retype),
        };
        let tx = self.db.begin();
        if self.db.migrate(tx, table, change).is_ok() {
            self.fault(kind);
            self.commit(tx, Sync::On, Waiter::Nobody);
        } else {
            self.db.end(tx);
        }
    }

    /// Every two seconds a node looks at the catalog.
    fn look_at_catalog(&mut self) {
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if self.is_streaming(at) && node.version != self.db.versions.len() && self.rng.one_in(3) {
                self.stream_ends(at, 0);
                self.drive(at);
            }
        }
    }

    fn server_was_down(&mut self) {
        self.trace(|| {
            format!("the server restarts: line {}, timeline {}", self.db.history.branch(), self.db.timeline)
        });
        let lost: Vec<_> =
            self.db.history.last_lost().iter().map(|c| (c.decided.clone(), c.received)).collect();
        for (decided, received) in lost {
            self.report.received_and_lost += u64::from(received);
            for decided in decided.iter().filter(|d| d.applied) {
                if let Some(count) = self.decisions.get_mut(&decided.id) {
                    count.0 -= 1;
                }
            }
        }
        self.lost_history |= !self.db.history.last_was_silent() && !self.db.history.last_lost().is_empty();
        // The checkpoint at the end of recovery.
        self.db.write_wal(120);
        self.db.flush(self.db.insert_lsn);
        self.waiters.clear();
        self.unconfirmed.clear();
        let long = self.rng.between(10_000, 400_000);
        self.up_at = self.now + long;
        for at in 0..self.nodes.len() {
            if self.nodes[at].alive {
                self.cut_pg(at, true);
            }
        }
        self.after(long, Event::ServerUp(self.db.epoch));
    }

    pub(super) fn back_up(&mut self, _epoch: u64) {
        self.trace(|| "the server is up".into());
    }

    /// GC and compaction of the change logs.
    pub(super) fn maintain(&mut self) {
        let wait = self.rng.between(100_000, 900_000);
        self.after(wait, Event::Maintain);
        if self.now < self.up_at {
            return;
        }
        self.look_at_catalog();
        if self.volume.is_none() && self.rng.one_in(2) {
            self.volume = self.db.copy_volume();
        }
        let flushed = self.db.flushed_from(0).len();
        self.db.floor = self.db.floor.max(flushed.saturating_sub(60));
        let floor = self.db.floor;
        let most = self.db.snapshot().xmin();
        for table in 0..self.db.logs.len() {
            if self.rng.one_in(2) {
                self.fault("compaction");
                self.db.logs[table].compact(floor, self.plant == Some(Plant::CompactNewest));
            }
            if self.rng.one_in(3) {
                let horizon = self.db.logs[table].horizon;
                let below = self.rng.between(horizon.min(most), most);
                self.fault("gc");
                self.db.logs[table].collect(below, self.plant != Some(Plant::GcPastCursor));
            }
        }
    }
}
