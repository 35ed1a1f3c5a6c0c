//! A schema that changes while clients are served: only sessions with a shape of the table concerned notice.
//!
//! ```text
//!  DDL commits ──► a sign of it ──► catalog read in C ──► shapes resolved anew ──► S of their catch-ups (checked again)
//! ```
//! Signs: a relation described otherwise than the catalog does, a message of the event trigger, a catch-up that finds
//! another schema under its locks, and a look every few seconds. Until one of them clients may be stale.
//!
//! The stream and the catalog are not in step: a transaction that C does not see may bring rows, or texts of an enum's
//! labels, from before. So of every table that changed, transactions below C's xmax are never told from the stream:
//! sessions catch up past them. One at or above it began after the change was visible.

use super::{Batch, CatchUpId, Hub, Mode, Output, ReadFrom, SessionId, SubState, Undo};
use crate::catalog::{Catalog, Oid};
use crate::change::{Delivered, NetChanges};
use crate::limits;
use crate::position::{Lsn, ResetReason, Xid};
use crate::protocol::{TOPIC, commit_frame};
use crate::shape::{Fingerprint, Shape};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of how far the catalog can be believed.
#[derive(Debug, Default)]
pub(super) struct Schema {
    /// Of tables that changed: what earlier transactions brought may be of the earlier schema. And what the stream had
    /// brought before the change was known was taken for rows of the earlier one, or for none of ours.
    since: BTreeMap<Oid, (Xid, Lsn)>,
    /// A look at the catalog is under way.
    asked: bool,
    /// Another one is wanted.
    wanted: bool,
    /// Not before then.
    pub(super) not_before: super::Millis,
    /// The catalog is known to be outdated: catch-ups by it would fail.
    stale: bool,
    /// Whoever said that the schema changes must be visible to the look.
    by: Option<Xid>,
}

impl Schema {
    /// Whether a look waits for its time.
    pub(super) fn waits(&self) -> bool {
        self.wanted && !self.asked
    }

    /// Whether catch-ups wait for a look.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether a table's rows of this transaction, which was delivered, may be of an earlier schema, or were taken so.
    pub(super) fn is_before(&self, table: Oid, xid: Xid, end: Lsn) -> bool {
        self.since.get(&table).is_some_and(|(since, delivered)| xid < *since || end <= *delivered)
    }

    /// All that a new stream brings is read by what is known now.
    pub(super) fn stream_started(&mut self) {
        self.since.values_mut().for_each(|(_, delivered)| *delivered = Lsn(0));
    }
}

impl Hub {
    pub(super) fn ask_for_catalog(&mut self) {
        let schema = &mut self.schema;
        if self.mode != Mode::Starting && schema.waits() && self.now >= schema.not_before {
            schema.wanted = false;
            schema.asked = true;
            schema.not_before = self.now + limits::CATALOG_MS;
            self.outputs.push_back(Output::ReadCatalog);
        }
    }

    /// A catch-up found another schema than the catalog's.
    pub(super) fn outdated(&mut self, id: CatchUpId) {
        self.discard_catch_up(id);
        self.schema.stale = true;
        self.schema.wanted = true;
    }

    /// The stream showed that the schema changed, or is about to be seen to.
    pub(super) fn heed(&mut self, delivered: &mut Delivered) {
        let xid = delivered.transaction.xid;
        if let Some(net) = &mut delivered.net {
            self.heed_rows(xid, net);
        }
        let truncates = delivered.net.as_ref().is_some_and(NetChanges::truncates);
        if delivered.schema_changed || truncates {
            self.look_for(xid);
        }
    }

    /// The catalog is looked at, as this transaction left it. A truncated table has other storage, and is loaded anew for
    /// it: the sooner, the fewer rows.
    pub(super) fn look_for(&mut self, xid: Xid) {
        self.schema.wanted = true;
        self.schema.by = Some(self.schema.by.map_or(xid, |by| by.max(xid)));
    }

    /// Of a table whose schema changed, rows of a transaction from before are not told.
    pub(super) fn heed_rows(&self, xid: Xid, net: &mut NetChanges) {
        for (oid, table) in &mut net.tables {
            table.unreadable |= self.schema.since.get(oid).is_some_and(|(since, _)| xid < *since);
        }
    }

    /// The look failed; it is taken again.
    pub fn handle_catalog_failed(&mut self) {
        self.schema.asked = false;
        self.schema.wanted = true;
        self.schema.not_before = self.now + limits::POLL_IDLE_MS;
    }

    /// What a look at the catalog saw; whether asked for or not.
    pub fn handle_catalog(&mut self, catalog: Arc<Catalog>) {
        self.schema.asked = false;
        if self.mode == Mode::Starting || catalog.as_of.xmax() < self.catalog.as_of.xmax() {
            self.schema.wanted |= self.schema.stale;
            return;
        }
        self.schema.stale = false;
        if let Some(by) = self.schema.by {
            let seen = catalog.as_of.sees(by);
            self.schema.by = (!seen).then_some(by);
            self.schema.wanted |= !seen;
        }
        if !catalog.same_installation(&self.catalog) {
            self.restart("Lockstep was installed anew".into());
            return;
        }
        if catalog.same(&self.catalog) {
            self.catalog = catalog;
            return;
        }
        let other =
            |shape: &Arc<Shape>| catalog.table(shape.table.oid).is_none_or(|t| !t.same_schema(&shape.table));
        let concerned = |r: &super::Running| r.request.reads.iter().any(|read| other(&read.shape));
        let outdated: Vec<CatchUpId> =
            self.running.iter().filter(|(_, r)| concerned(r)).map(|(id, _)| *id).collect();
        outdated.into_iter().for_each(|id| self.discard_catch_up(id));
        let changed = self.adopt(catalog);
        self.catch_up_from_here(&changed);
    }

    /// The catalog was read with the database's identity.
    pub(super) fn know_catalog(&mut self, catalog: Catalog) {
        self.schema.stale = false;
        self.schema.wanted = false;
        self.schema.by = None;
        let changed = self.adopt(Arc::new(catalog));
        self.catch_up_from_here(&changed);
    }

    /// Sessions leave the stream where they are, and catch up.
    fn catch_up_from_here(&mut self, sessions: &BTreeSet<SessionId>) {
        let head = self.exact_head().map(Arc::new);
        for id in sessions {
            let Some(session) = self.sessions.get_mut(id) else { continue };
            if session.established && session.subs.is_empty() {
                self.say_withdrawn(*id);
                continue;
            }
            if session.established && session.base.is_none() {
                session.base.clone_from(&head);
            }
            self.want_again_one(*id);
        }
    }

    /// A session whose last shape was withdrawn has nothing to catch up.
    fn say_withdrawn(&mut self, id: SessionId) {
        let stream = self.stream_head();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let base = session.base.take_if(|_| self.mode == Mode::Streaming);
        let head = base.or_else(|| session.base.clone()).map(|b| (*b).clone()).or(stream);
        let Some(head) = head else { return };
        let mut frames = std::mem::take(&mut session.preface);
        // Behind a batch that waits it may have to be said again.
        let undo = self.holding.contains(&id).then(|| Undo {
            acknowledged: session.acknowledged,
            preface: frames.clone(),
            base: None,
            ..Undo::default()
        });
        frames.push(commit_frame(head.fence, None, &head.with_shapes(&session.shapes_part)));
        self.needy.remove(&id);
        self.enqueue(id, Batch::new(frames, Vec::new(), undo));
    }

    /// Takes over a catalog. Shapes of tables that changed are resolved anew: loaded again, widened by the columns that
    /// were added, or withdrawn with their tables. Returns the sessions that hold them.
    fn adopt(&mut self, catalog: Arc<Catalog>) -> BTreeSet<SessionId> {
        self.stop_passing();
        let before = std::mem::replace(&mut self.catalog, catalog);
        for table in self.catalog.tables() {
            if before.table(table.oid).is_none_or(|b| !b.same_schema(table)) {
                self.schema.since.insert(table.oid, (self.catalog.as_of.xmax(), self.watermark));
            }
        }
        self.window.forget(self.polls_answered, &self.last_poll);
        self.retold.clear();
        let mut concerned = BTreeSet::new();
        let indices: Vec<u32> = self.shapes.keys().copied().collect();
        for index in indices {
            let Some(held) = self.shapes.get_mut(&index) else { continue };
            let old = held.shape.clone();
            let subscribers: Vec<_> = held.subscribers.iter().copied().collect();
            match old.again(&self.catalog) {
                // Another name of the table makes another shape of it: what clients hold is called by the old one.
                Ok(new) if new.id != old.id => {
                    subscribers.iter().for_each(|s| self.withdraw(*s, index));
                    concerned.extend(subscribers);
                }
                Ok(new) => {
                    let new = Arc::new(new);
                    held.shape = new.clone();
                    if new.fingerprint != old.fingerprint {
                        subscribers.iter().for_each(|s| self.describe_anew(*s, index, &new, old.fingerprint));
                        concerned.extend(subscribers);
                    }
                }
                Err(_) => {
                    subscribers.iter().for_each(|s| self.withdraw(*s, index));
                    concerned.extend(subscribers);
                }
            }
            if let Some(held) = self.shapes.get(&index) {
                self.index.remove(index, &old);
                self.index.insert(index, held.shape.clone());
            }
        }
        concerned
    }

    /// A shape's rows have other columns, or cannot be kept.
    fn describe_anew(&mut self, id: SessionId, index: u32, shape: &Shape, held: Fingerprint) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let widened = shape.widens(held).filter(|_| session.widens);
        for sub in session.subs.values_mut().filter(|s| s.shape == index) {
            sub.announced = false;
            if !sub.aside.is_empty() {
                // Of the earlier columns.
                sub.unload(id, &mut self.outputs);
                let reason = shape.fingerprint.differs(held).unwrap_or(ResetReason::SchemaChanged);
                (sub.state, sub.held) = (SubState::Wanted(ReadFrom::Scratch(reason)), None);
                continue;
            }
            let fresh = matches!(
                &sub.state,
                SubState::Wanted(ReadFrom::Scratch(_)) | SubState::Reading(_, ReadFrom::Scratch(_))
            );
            match widened {
                Some(columns) => sub.held = Some(sub.held.map_or(columns, |before| before.min(columns))),
                None if fresh => {}
                None => {
                    let reason = shape.fingerprint.differs(held).unwrap_or(ResetReason::SchemaChanged);
                    sub.state = SubState::Wanted(ReadFrom::Scratch(reason));
                }
            }
        }
        self.needy.insert(id);
    }

    fn withdraw(&mut self, id: SessionId, index: u32) {
        let Some(session) = self.sessions.get(&id) else { return };
        let references: Vec<_> =
            session.subs.iter().filter(|(_, s)| s.shape == index).map(|(r, _)| r.clone()).collect();
        let Some(held) = self.shapes.get(&index) else { return };
        let frame = json!([null, null, TOPIC, "withdraw", {"shape": held.shape.id.to_string()}]).to_string();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.preface.push(frame.into());
        }
        references.iter().for_each(|r| self.unsubscribe(id, r));
    }
}
