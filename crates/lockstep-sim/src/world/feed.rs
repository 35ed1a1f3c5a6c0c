//! A node's replication connection: identify, mark, slot, stream.

use super::{Event, Sync, Waiter, World};
use crate::node::{Feed, Step};
use crate::pg::{Message, Op, encode};
use crate::plant::Plant;
use crate::schema::MARKS;
use bytes::Bytes;
use lockstep_core::fanout::hub::Identity;
use lockstep_core::position::Lsn;

/// Commits in one delivery.
const CHUNK: usize = 24;

impl World {
    /// The next step of a stream's life.
    pub(super) fn feed(&mut self, at: usize, generation: u64) {
        if !self.nodes[at].alive || self.nodes[at].feed.generation != generation {
            return;
        }
        if self.now < self.up_at || self.now < self.nodes[at].stalled_until {
            let wait = self.back_off(at);
            self.after(wait, Event::Feed(at, generation));
            return;
        }
        let wait = self.pg_delay(at);
        match self.nodes[at].feed.step {
            Step::Connect => self.connect(at, generation),
            Step::Marking | Step::Streaming => {}
            Step::Slot => {
                let sibling = (0..self.nodes.len()).find(|other| {
                    let feed = &self.nodes[*other].feed;
                    *other != at
                        && self.nodes[*other].alive
                        && feed.step == Step::Streaming
                        && feed.confirmed > 0
                });
                match sibling.filter(|_| !self.rng.one_in(5)) {
                    Some(other) => {
                        self.fault("slot_copied");
                        self.nodes[at].feed.confirmed = self.nodes[other].feed.confirmed;
                        self.nodes[at].feed.step = Step::Start;
                        self.plant_in_copied_slot(at);
                    }
                    None => {
                        self.nodes[at].feed.waits_for = self.db.running.clone();
                        self.nodes[at].feed.step = Step::Creating;
                    }
                }
                self.after(wait, Event::Feed(at, generation));
            }
            Step::Creating => {
                let running = &self.db.running;
                self.nodes[at].feed.waits_for.retain(|x| running.contains(x));
                if self.nodes[at].feed.waits_for.is_empty() {
                    self.fault("slot_created");
                    self.nodes[at].feed.confirmed = self.db.insert_lsn;
                    self.nodes[at].feed.step = Step::Start;
                }
                self.after(wait.max(500), Event::Feed(at, generation));
            }
            Step::Start => self.start(at),
        }
    }

    #[cfg_attr(not(feature = "plants"), allow(clippy::unused_self, unused_variables))]
    fn plant_in_copied_slot(&mut self, at: usize) {
        #[cfg(feature = "plants")]
        if self.plant == Some(Plant::FlushPastRing) {
            self.nodes[at].hub.plant(Some(lockstep_core::plant::Plant::UnsureXid));
        }
    }

    fn back_off(&mut self, at: usize) -> u64 {
        let feed = &mut self.nodes[at].feed;
        let wait = feed.back_off * 1000;
        feed.back_off = (feed.back_off * 2).min(5_000);
        wait
    }

    fn connect(&mut self, at: usize, generation: u64) {
        let Some(mark) = self.db.mark() else {
            let mark = (self.rng.number() >> 1) as i64;
            let texts = [self.db.epoch.to_string(), mark.to_string(), self.db.insert_lsn.to_string()];
            let tx = self.db.begin();
            let row = texts.into_iter().map(|t| Some(t.into())).collect();
            if self.db.statement(tx, MARKS, &[Op::Insert(row)]).is_ok() {
                self.nodes[at].feed.step = Step::Marking;
                self.commit(tx, Sync::Local, Waiter::Mark(at, generation));
            } else {
                // Another node leaves it just now.
                self.db.end(tx);
                self.after(500, Event::Feed(at, generation));
            }
            return;
        };
        self.unmarked = false;
        let identity = Identity {
            system: crate::pg::SYSTEM,
            timeline: self.db.timeline,
            database: crate::pg::DATABASE,
            incarnation: mark,
        };
        self.trace(|| format!("node {at} knows the database, timeline {}", identity.timeline));
        let catalog = self.db.schema.catalog();
        self.nodes[at].version = self.db.versions.len();
        self.nodes[at].hub.handle_database(identity, catalog);
        self.nodes[at].feed.step = Step::Slot;
        let wait = self.pg_delay(at);
        self.after(wait, Event::Feed(at, generation));
        self.drive(at);
    }

    pub(super) fn marked(&mut self, at: usize, generation: u64) {
        let node = &mut self.nodes[at];
        if node.alive && node.feed.generation == generation && node.feed.step == Step::Marking {
            node.feed.step = Step::Connect;
            self.after(100, Event::Feed(at, generation));
        }
    }

    fn start(&mut self, at: usize) {
        let reference = self.db.snapshot().xmax();
        let ended = self.db.ended.iter().map(|(timeline, lsn)| (*timeline, Lsn(*lsn))).collect();
        let node = &mut self.nodes[at];
        node.history = ended;
        node.feed.next = self.db.first_from(node.feed.confirmed);
        node.feed.step = Step::Streaming;
        node.feed.back_off = 100;
        node.feed.ready_at = self.now;
        node.hub.handle_stream_started(reference);
        let confirmed = node.feed.confirmed;
        self.trace(|| format!("node {at} streams from {}", Lsn(confirmed)));
        self.pump_soon(at);
        self.drive(at);
    }

    /// The stream ends; another life begins after `wait` milliseconds.
    pub(crate) fn stream_ends(&mut self, at: usize, wait: u64) {
        let node = &mut self.nodes[at];
        if !node.alive {
            return;
        }
        let old = std::mem::replace(&mut node.feed, Feed::new(0));
        node.feed.generation = old.generation + 1;
        node.feed.back_off = old.back_off;
        let generation = node.feed.generation;
        node.hub.handle_stream_lost();
        let jitter = self.rng.below(3_000);
        self.after(wait * 1000 + jitter, Event::Feed(at, generation));
        if wait > 0 {
            self.drive(at);
        }
    }

    pub(crate) fn pump_soon(&mut self, at: usize) {
        let feed = &mut self.nodes[at].feed;
        if feed.step == Step::Streaming && !feed.pumping {
            feed.pumping = true;
            let generation = feed.generation;
            let wait = self.rng.between(20, 300);
            self.after(wait, Event::Pump(at, generation));
        }
    }

    /// The walsender: every flushed commit from where it stands, then a keepalive if one is due.
    pub(super) fn pump(&mut self, at: usize, generation: u64) {
        if self.nodes[at].feed.generation != generation || self.now < self.up_at {
            return;
        }
        self.nodes[at].feed.pumping = false;
        if self.now < self.nodes[at].stalled_until {
            return;
        }
        let mut frames: Vec<Bytes> = Vec::new();
        let mut skipped = false;
        let commits = self.db.flushed_from(self.nodes[at].feed.next);
        let more = commits.len() > CHUNK;
        let feed = &mut self.nodes[at].feed;
        for commit in commits.iter().take(CHUNK) {
            let (version, schema) = self.db.version_at(feed.next);
            feed.next += 1;
            skipped = commit.messages.is_empty() && !self.sends_empty;
            if skipped {
                continue;
            }
            frames.push(encode::begin(commit.commit_lsn, commit.xid));
            for (relations, message) in planted(self.plant, schema, &commit.messages) {
                for oid in relations {
                    if feed.described.insert((oid, version)) {
                        frames.push(encode::relation(schema, oid));
                    }
                }
                frames.push(message);
            }
            frames.push(encode::commit(commit.commit_lsn, commit.end_lsn));
        }
        if !more && (skipped || feed.wants_keepalive || self.rng.one_in(10)) {
            feed.wants_keepalive = false;
            frames.push(encode::keepalive(self.db.flush_lsn, self.rng.one_in(6)));
        }
        if more {
            self.pump_soon(at);
        }
        if frames.is_empty() {
            return;
        }
        let feed = &mut self.nodes[at].feed;
        let wait =
            if self.rng.one_in(50) { self.rng.between(1_000, 30_000) } else { self.rng.between(30, 400) };
        feed.ready_at = (self.now + wait).max(feed.ready_at + 1);
        let ready_at = feed.ready_at;
        // Sometimes a transaction arrives in two pieces, and the connection may break in between.
        if self.rng.one_in(8) && frames.len() > 2 {
            let cut = self.rng.index(frames.len());
            let rest = frames.split_off(cut);
            self.nodes[at].feed.ready_at += 2_000;
            self.at(ready_at + 2_000, Event::Stream(at, generation, rest));
        }
        self.at(ready_at, Event::Stream(at, generation, frames));
    }

    pub(super) fn stream(&mut self, at: usize, generation: u64, frames: &[Bytes]) {
        for frame in frames {
            if !self.nodes[at].alive || self.nodes[at].feed.generation != generation {
                return;
            }
            self.nodes[at].hub.handle_stream(frame);
            self.drive(at);
        }
    }

    pub(super) fn feedback(&mut self, at: usize, generation: u64, flush: u64, reply: bool) {
        let feed = &mut self.nodes[at].feed;
        if feed.generation == generation && feed.step == Step::Streaming {
            feed.confirmed = feed.confirmed.max(flush);
            feed.wants_keepalive |= reply;
            if reply {
                self.pump_soon(at);
            }
        }
    }
}

/// What the stream says of a transaction, with the two plants that change it.
fn planted(plant: Option<Plant>, schema: &crate::schema::Schema, messages: &[Message]) -> Vec<Message> {
    let kind = |bytes: &Bytes| bytes.get(25).copied();
    match plant {
        Some(Plant::RemovesFirst) => {
            let (mut first, rest): (Vec<_>, Vec<_>) =
                messages.iter().cloned().partition(|(_, m)| kind(m) == Some(b'D'));
            first.extend(rest);
            first
        }
        Some(Plant::ArrivalOrder) => {
            let mut out = Vec::new();
            for (relations, message) in messages {
                out.push((relations.clone(), message.clone()));
                let table = schema.tables.iter().map(|t| &t.table).find(|t| *relations == [t.tombstones]);
                if let Some(table) = table
                    && let Some(delete) = crate::pg::tombstone_as_delete(table, message)
                {
                    out.push((vec![table.oid], delete));
                }
            }
            out
        }
        _ => messages.to_vec(),
    }
}
