//! A transaction that is too large to be held is passed through: each part is told as it comes, as rows that clients set
//! aside, and its commit makes them one batch.
//!
//! ```text
//!  BEGIN ── part ──── part ──── rest, COMMIT
//!            └ load    └ load    └ loaded, rows, commit
//! ```
//! What a part says of a shape is in `change/part.rs`. A session *takes* the transaction if it followed the stream with
//! all its live shapes before the first part, and does so until the commit. It is the same state then as if the
//! transaction had been held: what it set aside, in the order of the parts, and the rest.
//!
//! A session that cannot be told *falls*: what it set aside is forgotten at once, it gets no more of it, and is caught up
//! past the transaction as of one that is dropped. So does each session with a shape in doubt, each that takes rows too
//! slowly, and each that became live between two parts and has a shape of a table that is touched. Where a session leaves
//! the stream, what it set aside goes with that. If the catalog changes meanwhile, nobody is told any more, and everyone
//! with a shape of a table that is touched is caught up.
//!
//! The names of what is set aside are of the transaction and shape: never used again, and the same for all sessions.

use super::deliver::{Parts, frame_of, misplaced, split};
use super::few::FewSet;
use super::{Bound, Hub, Output, SessionId, SubState};
use crate::catalog::Oid;
use crate::change::{Delivered, Part};
use crate::fanout::Touch;
use crate::fanout::match_index::ShapeIndex;
use crate::limits;
use crate::mutation::Acknowledged;
use crate::protocol::{Frame, LoadId, touches_load};
use crate::shape::Shape;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A transaction of which a part was told.
#[derive(Debug)]
pub(super) struct Passing {
    /// For the names of what is set aside.
    number: u64,
    /// Sessions that have set something aside.
    takers: BTreeSet<SessionId>,
    /// Sessions that are caught up past it.
    fallen: BTreeSet<SessionId>,
    /// Sessions of which a shape became live since the first part.
    late: BTreeSet<SessionId>,
    /// What is still to be given out, one frame after another: whoever falls meanwhile gets no more of it.
    told: VecDeque<Told>,
    acknowledged: Vec<Acknowledged>,
    /// There were more of these than are remembered.
    forgot: bool,
    /// It truncates a table.
    truncates: bool,
    /// The catalog changed: nothing more is told.
    untold: bool,
}

/// What its commit brings.
pub(super) struct Passed {
    pub(super) parts: BTreeMap<SessionId, Parts>,
    /// Whoever is caught up past it, if it follows the stream.
    pub(super) fallen: BTreeSet<SessionId>,
}

/// What a part has for a shape, and who follows it.
#[derive(Debug)]
struct Told {
    shape: ShapeIndex,
    frames: Vec<Frame>,
    followers: Vec<SessionId>,
    /// Frames that the last of them got.
    given: usize,
}

impl Hub {
    fn passing(&mut self) -> &mut Passing {
        let next = &mut self.next_catch_up;
        self.passing.get_or_insert_with(|| {
            *next += 1;
            Passing {
                number: *next - 1,
                takers: BTreeSet::new(),
                fallen: BTreeSet::new(),
                late: BTreeSet::new(),
                told: VecDeque::new(),
                acknowledged: Vec::new(),
                forgot: false,
                truncates: false,
                untold: false,
            }
        })
    }

    /// A part of a transaction whose commit is still to come.
    pub(super) fn pass(&mut self, part: Part) {
        while self.pass_frame() {}
        let number = self.passing().number;
        let told = self.follow(part, |shape, index, touches| {
            let load = LoadId { catch_up: number, read: index as usize };
            let misplaced = misplaced(shape, touches);
            let (remove, put) = split(shape, touches, &misplaced);
            touches_load(shape, limits::ROWS_FRAME_BYTES, load, remove, put)
        });
        self.passing().told = told.into();
    }

    /// Gives out what is next of a part, if there is nothing else to do first.
    pub(super) fn pass_on(&mut self) {
        while self.outputs.is_empty() && self.pass_frame() {}
    }

    /// Gives out a frame, or finds that somebody gets no more; false if all is given out.
    fn pass_frame(&mut self) -> bool {
        let Some(passing) = &mut self.passing else { return false };
        let Some(told) = passing.told.front_mut() else { return false };
        let Some(id) = told.followers.last().copied() else {
            passing.told.pop_front();
            return true;
        };
        let Some(frame) = told.frames.get(told.given).filter(|_| !passing.fallen.contains(&id)).cloned()
        else {
            told.followers.pop();
            told.given = 0;
            return true;
        };
        told.given += 1;
        let load = LoadId { catch_up: passing.number, read: told.shape as usize };
        let session = self.sessions.get_mut(&id).filter(|s| s.base.is_none() && !passing.late.contains(&id));
        let mut subs = session.into_iter().flat_map(|session| session.subs.values_mut());
        if let Some(sub) = subs.find(|sub| sub.shape == told.shape && sub.state == SubState::Live) {
            if sub.aside.is_empty() {
                sub.aside.push(load);
                passing.takers.insert(id);
            }
            self.outputs.push_back(Output::Send(id, frame));
        }
        true
    }

    /// Its commit, with the rest of its rows.
    pub(super) fn end_passing(&mut self, delivered: &Delivered, rest: Part) -> Passed {
        while self.pass_frame() {}
        let told = self.follow(rest, |shape, _, touches| frame_of(shape, touches).into_iter().collect());
        let (mut parts, mut fallen) = (BTreeMap::<_, Parts>::new(), BTreeSet::new());
        let Some(mut passing) = self.passing.take() else { return Passed { parts, fallen } };
        fallen.append(&mut passing.fallen);
        if passing.truncates {
            // Not before: with another catalog nobody would be told of the other tables.
            self.look_for(delivered.transaction.xid);
        }
        let touched = &delivered.transaction.touched;
        if passing.untold {
            let shapes = self.catalog.among(touched).flat_map(|table| self.index.of_table(table.oid));
            let held = shapes.filter_map(|shape| self.shapes.get(&shape));
            fallen.extend(held.flat_map(|held| held.subscribers.iter().copied()));
        }
        // Whoever was established meanwhile was not there when what is forgotten came.
        let lacks = |id: &SessionId| passing.forgot || self.has_shape_of(*id, touched);
        fallen.extend(passing.late.iter().copied().filter(lacks));
        for id in passing.takers.iter().filter(|id| !fallen.contains(id)) {
            let Some(session) = self.sessions.get_mut(id).filter(|s| s.base.is_none()) else { continue };
            let live = session.subs.values_mut().filter(|s| s.state == SubState::Live);
            let loads: Vec<LoadId> = live.flat_map(|sub| std::mem::take(&mut sub.aside)).collect();
            if !loads.is_empty() {
                parts.entry(*id).or_default().loads = loads;
            }
        }
        for Told { frames, followers, .. } in told {
            for id in followers.into_iter().filter(|id| !fallen.contains(id)) {
                parts.entry(id).or_default().rows.extend(frames.iter().cloned());
            }
        }
        for ack in passing.acknowledged {
            for id in self.of_client(&ack) {
                let follows = self.sessions.get(&id).is_some_and(|s| s.established && s.base.is_none());
                if follows && !fallen.contains(&id) {
                    parts.entry(id).or_default().acknowledged.push(ack.outcome.clone());
                }
            }
        }
        self.counters.passed += 1;
        self.counters.passed_fallen += u64::try_from(fallen.len()).unwrap_or(u64::MAX);
        Passed { parts, fallen }
    }

    /// Of each shape that a part touches what it has for it, and who follows. Whoever cannot be told falls.
    fn follow(
        &mut self,
        mut part: Part,
        frames: impl Fn(&Shape, ShapeIndex, &[(ShapeIndex, Touch<'_>)]) -> Vec<Frame>,
    ) -> Vec<Told> {
        self.heed_rows(part.xid, &mut part.net);
        self.counters.rows += part.rows;
        self.passing().truncates |= part.net.truncates();
        self.note_acknowledged(&part);
        if self.passing().untold {
            return Vec::new();
        }
        let mut told = Vec::new();
        let mut lost = BTreeSet::new();
        let routed = self.index.route(&part.net);
        for (index, touches) in routed.shapes() {
            let Some(held) = self.shapes.get_mut(&index) else { continue };
            let Some(passing) = &self.passing else { continue };
            let follows = |id: &SessionId| {
                !passing.fallen.contains(id)
                    && !passing.late.contains(id)
                    && self.sessions.get(id).is_some_and(|s| s.base.is_none() && s.is_live(index))
            };
            let followers: Vec<SessionId> = held.subscribers.iter().copied().filter(follows).collect();
            if followers.is_empty() {
                continue;
            }
            let certain = touches.ok().filter(|touches| !is_in_doubt(&part, &held.shape, touches));
            #[cfg(feature = "plants")]
            let certain = match self.ring.plant {
                Some(crate::plant::Plant::LateTombstone) => touches.ok(),
                _ => certain,
            };
            let Some(touches) = certain else {
                lost.extend(followers);
                continue;
            };
            let frames = frames(&held.shape, index, touches);
            let sent = u64::try_from(followers.len()).unwrap_or(u64::MAX);
            let bytes = u64::try_from(frames.iter().map(|f| f.len()).sum::<usize>()).unwrap_or(u64::MAX);
            held.frames += sent * u64::try_from(frames.len()).unwrap_or(u64::MAX);
            held.bytes += sent * bytes;
            if !frames.is_empty() {
                told.push(Told { shape: index, frames, followers, given: 0 });
            }
        }
        lost.into_iter().for_each(|id| self.fall(id));
        told
    }

    /// Outcomes of mutations are told with the commit.
    fn note_acknowledged(&mut self, part: &Part) {
        for ack in &part.net.acknowledged {
            if self.passing().acknowledged.len() < limits::PART_ACKNOWLEDGEMENTS {
                self.passing().acknowledged.push(ack.clone());
            } else {
                self.passing().forgot = true;
                self.reached_bound(Bound::PartAcknowledgements);
                self.of_client(ack).into_iter().for_each(|id| self.fall(id));
            }
        }
    }

    fn of_client(&self, ack: &Acknowledged) -> Vec<SessionId> {
        let sessions = self.by_client.get(&(ack.subject.clone(), ack.client.clone()));
        sessions.into_iter().flat_map(FewSet::iter).copied().collect()
    }

    fn has_shape_of(&self, id: SessionId, touched: &BTreeSet<Oid>) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let mut held = session.subs.values().filter_map(|sub| self.shapes.get(&sub.shape));
        held.any(|h| h.shape.table.is_among(touched))
    }

    /// The session is not told of the transaction, and is caught up past it.
    fn fall(&mut self, id: SessionId) {
        self.passing().fallen.insert(id);
        self.forget_passed(id);
    }

    /// What a session has set aside of the transaction is of no use.
    fn forget_passed(&mut self, id: SessionId) {
        if let Some(passing) = &mut self.passing {
            passing.takers.remove(&id);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for sub in session.subs.values_mut().filter(|s| s.state == SubState::Live) {
            sub.unload(id, &mut self.outputs);
        }
    }

    /// A shape of the session is about to become live: parts may have been told before.
    pub(super) fn follows_from_now(&mut self, id: SessionId) {
        if let Some(passing) = &mut self.passing {
            passing.late.insert(id);
            self.forget_passed(id);
        }
    }

    /// The catalog changes: what was told may be of another schema.
    pub(super) fn stop_passing(&mut self) {
        let Some(passing) = &mut self.passing else { return };
        passing.untold = true;
        passing.told.clear();
        for id in std::mem::take(&mut passing.takers) {
            self.forget_passed(id);
        }
    }

    /// The stream ends: the transaction comes again, or is caught up past.
    pub(super) fn drop_passing(&mut self) {
        self.stop_passing();
        self.passing = None;
    }

    /// So much waits for a session's socket that it must not be told more of a transaction that is passed through. Of a
    /// session that is told of none nothing changes.
    pub fn handle_slow(&mut self, id: SessionId) {
        if self.passing.as_ref().is_some_and(|passing| passing.takers.contains(&id)) {
            self.reached_bound(Bound::PassedBytes);
            self.fall(id);
        }
    }
}

/// Whether a key that the part would remove from the shape may be in it.
fn is_in_doubt(part: &Part, shape: &Shape, touches: &[(ShapeIndex, Touch<'_>)]) -> bool {
    let table = shape.table.oid;
    !part.is_certain(table)
        && touches.iter().any(|(_, touch)| match touch {
            Touch::Remove(key) => part.doubts(table, shape.scope(), key),
            _ => false,
        })
}
