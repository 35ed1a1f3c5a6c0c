//! Sessions that come back after a moment are brought to the present from memory: see [`Window`] for what makes that
//! exact. What is in doubt is asked of PostgreSQL.
//!
//! [`Window`]: crate::fanout::Window

use super::merged::{Merged, told};
use super::{Hub, ReadFrom, SessionId, SubState};
use crate::change::NetChanges;
use crate::fanout::delta_for;
use crate::fanout::match_index::ShapeIndex;
use crate::limits;
use crate::position::{CursorHead, Lsn, Xid};
use crate::protocol::{Frame, rows_frame};
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Frames made for sessions that came back, for the next ones with the same shapes.
#[derive(Debug, Default)]
pub(super) struct Retold {
    frames: BTreeMap<(ShapeIndex, Lsn), Option<Frame>>,
    bytes: usize,
}

impl Retold {
    fn keep(&mut self, shape: ShapeIndex, end: Lsn, frame: Option<Frame>, most: usize) {
        self.bytes += 64 + frame.as_ref().map_or(0, |f| f.len());
        if self.bytes > most {
            self.clear();
            return;
        }
        self.frames.insert((shape, end), frame);
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Hub {
    /// A session has joined, perhaps with a state that memory reaches. It waits for a poll that is asked from now on:
    /// what was committed before the join is in its first batch, as with a catch-up. A client that has to leave its id
    /// relies on being told all that was decided.
    pub(super) fn await_return(&mut self, id: SessionId) {
        let Some(head) = self.state_of(id) else {
            self.needy.insert(id);
            return;
        };
        if self.may_answer(&head) {
            self.returning.insert(id, self.polls_asked + 1);
            self.poll_soon();
        } else {
            self.read_returned(id);
        }
    }

    /// Everyone whose poll has settled; without a stream everyone.
    pub(super) fn answer_returning(&mut self) {
        let (follows, settled) = (self.follows_stream(), self.polls_settled);
        let due: Vec<SessionId> = self
            .returning
            .iter()
            .filter(|(_, poll)| !follows || **poll <= settled)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.returning.remove(&id);
            let Some(head) = self.state_of(id) else {
                // Its wishes changed meanwhile, perhaps to none: it waits for its first batch all the same.
                self.needy.insert(id);
                continue;
            };
            match self.told_since(id, &head) {
                Some(merged) => self.bring_from_window(id, merged),
                None => self.read_returned(id),
            }
        }
    }

    fn read_returned(&mut self, id: SessionId) {
        self.counters.resumes_read += 1;
        self.needy.insert(id);
    }

    fn may_answer(&self, head: &CursorHead) -> bool {
        let told = self.follows_stream() && self.position.is_some() && !self.schema.is_stale();
        told && self.is_here(head) && self.window.reaches(head)
    }

    /// The state that a session came with, if all its shapes are of it and wanted since then.
    fn state_of(&self, id: SessionId) -> Option<Arc<CursorHead>> {
        let session = self.sessions.get(&id)?;
        let head = session.joined_at.as_ref()?;
        let fresh = !session.established && session.establishing.is_none();
        let free = session.base.is_none() && session.must_see.is_none() && session.batches.is_empty();
        let whole = |sub: &super::Sub| {
            let since =
                matches!(&sub.state, SubState::Wanted(ReadFrom::Since(from)) if Arc::ptr_eq(from, head));
            since && sub.held.is_none() && sub.aside.is_empty()
        };
        let all = !session.subs.is_empty() && session.subs.values().all(whole);
        (session.joined && fresh && free && all).then(|| head.clone())
    }

    /// What a client in this state lacks, in commit order; None if that cannot be said for certain.
    fn told_since(&mut self, id: SessionId, head: &CursorHead) -> Option<Merged> {
        if !self.may_answer(head) {
            return None;
        }
        let session = self.sessions.get(&id)?;
        let (subject, client) = (session.subject.clone(), session.client.clone());
        let shapes: Vec<ShapeIndex> = session.subs.values().map(|s| s.shape).collect();
        if self.ring.len().saturating_mul(shapes.len()) > limits::RETURN_LOOKS {
            return None;
        }
        let mut ends: BTreeMap<Lsn, BTreeSet<ShapeIndex>> = BTreeMap::new();
        for index in &shapes {
            for end in self.window.of_shape(&self.shapes.get(index)?.shape, head.fence) {
                ends.entry(end).or_default().insert(*index);
                if ends.len() > limits::RETURN_TRANSACTIONS {
                    return None;
                }
            }
        }
        let clients = self.catalog.clients;
        let own = self.window.of_client(clients, &subject, &client, head.fence);
        let own: BTreeSet<Lsn> = own.take(limits::RETURN_TRANSACTIONS + 1).collect();
        for end in &own {
            ends.entry(*end).or_default();
        }
        if ends.len() > limits::RETURN_TRANSACTIONS {
            return None;
        }
        let mut told: BTreeMap<Lsn, Merged> = BTreeMap::new();
        let mut room = limits::CATCH_UP_INLINE_BYTES;
        for (end, shapes) in ends {
            let client = own.contains(&end).then_some((&*subject, &*client));
            let one = self.told_by_window(end, &shapes, head, client, &mut room)?;
            told.insert(end, one);
        }
        self.told_by_ring(&shapes, head, (&subject, &client), &mut told)?;
        let mut all = Merged::default();
        for one in told.into_values() {
            all.frames.extend(one.frames);
            all.acknowledged.extend(one.acknowledged);
            all.waits.extend(one.waits);
        }
        Some(all)
    }

    /// The state is of this server's life, and the stream has brought all of it.
    fn is_here(&self, head: &CursorHead) -> bool {
        let here = self.identity.as_ref().is_some_and(|identity| {
            (identity.system, identity.timeline, identity.database, identity.incarnation)
                == (head.system, head.timeline, head.database, head.incarnation)
        });
        here && self.identified && head.fence <= self.watermark && head.shown.is_empty()
    }

    /// `client`, if it may acknowledge one of its mutations.
    fn told_by_window(
        &mut self,
        end: Lsn,
        shapes: &BTreeSet<ShapeIndex>,
        head: &CursorHead,
        client: Option<(&str, &str)>,
        room: &mut usize,
    ) -> Option<Merged> {
        let kept = self.window.held(end)?;
        let (xid, bytes) = (kept.xid(), kept.bytes());
        *room = room.checked_sub(bytes)?;
        if head.snapshot.sees(xid) {
            return None;
        }
        let mut one = Merged::default();
        // Made anew only for whoever is the first to need it: many come back at once, with the same shapes.
        let net = LazyCell::new(|| kept.net(&self.catalog));
        for index in shapes {
            let shape = &self.shapes.get(index)?.shape;
            let frame = match self.retold.frames.get(&(*index, end)) {
                Some(frame) => frame.clone(),
                None => {
                    let frame = rows_frame(shape, &delta_for(shape, &net).ok()?);
                    let most = self.bounds.window_bytes / 8;
                    self.retold.keep(*index, end, frame.clone(), most);
                    frame
                }
            };
            one.frames.extend(frame);
        }
        if let Some(client) = client {
            one.acknowledge(&net, xid, client);
        }
        Some(one)
    }

    /// The same of what has not left the ring: each is looked at.
    fn told_by_ring(
        &mut self,
        shapes: &[ShapeIndex],
        head: &CursorHead,
        client: (&str, &str),
        all: &mut BTreeMap<Lsn, Merged>,
    ) -> Option<()> {
        let clients = self.catalog.clients;
        for entry in self.ring.entries_mut() {
            let (xid, end): (Xid, Lsn) = (entry.xid(), entry.delivered.transaction.end_lsn);
            let seen = head.snapshot.sees(xid);
            #[cfg(feature = "plants")]
            let seen =
                seen || self.window.plant == Some(crate::plant::Plant::WindowFence) && end <= head.fence;
            if seen != (end <= head.fence) {
                return None;
            }
            if seen {
                continue;
            }
            let mut one = Merged::default();
            for index in shapes {
                let held = self.shapes.get(index)?;
                one.frames.extend(told(entry, *index, &held.shape, &self.schema).ok()?);
            }
            if entry.delivered.net.as_ref().is_some_and(NetChanges::truncates) {
                return None;
            }
            one.acknowledge_by(entry, clients, client).ok()?;
            all.insert(end, one);
        }
        Some(())
    }

    /// The session becomes live with one batch, as by a catch-up that read nothing.
    fn bring_from_window(&mut self, id: SessionId, merged: Merged) {
        let number = self.next_catch_up;
        self.next_catch_up += 1;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.establishing = Some(number);
        for sub in session.subs.values_mut() {
            if let SubState::Wanted(from) = &sub.state {
                sub.state = SubState::Reading(number, from.clone());
            }
        }
        self.needy.remove(&id);
        self.counters.resumes_window += 1;
        self.finish(number, id, None, merged);
    }
}
