//! First loads that are shown before they are settled, to those who would otherwise see nothing.
//!
//! ```text
//!  S ── rows ── F, answered ── a while ──► provisional ── W reaches F ──► loaded, what memory merged, commit
//!                                                └──── thrown away ─────► unload
//! ```
//! What is shown is all of S, for all shapes of the session: a state that the database had, though perhaps not the one
//! after a commit, and one that a crash may still take back. So it is marked, no cursor covers it, and it goes to clients
//! as what is read in chunks does: set aside, to be taken by the batch that settles it or forgotten.

use super::{CatchUpAnswer, CatchUpId, Hub, Millis, Output, ReadFrom, Running, SessionId, SubState};
use crate::position::ResetReason;
use crate::protocol::{Frame, LoadId, provisional_frame, set_aside, shape_frame};
use std::collections::BTreeMap;

impl Hub {
    /// When somebody may be shown what was read, although it is not settled.
    pub(super) fn provisional_at(&self) -> Option<Millis> {
        let waits = self.running.values().filter(|r| !r.shown);
        waits.filter_map(|r| r.answered).min().map(|at| at + self.bounds.provisional_ms)
    }

    pub(super) fn show_provisional(&mut self) {
        while let Some(id) = self.provisional_due() {
            let Some(mut running) = self.running.remove(&id) else { return };
            running.shown = true;
            let mut frames = BTreeMap::new();
            for member in self.members(id, &running) {
                self.show_to(id, member, &running, &mut frames);
            }
            self.running.insert(id, running);
        }
    }

    fn provisional_due(&self) -> Option<CatchUpId> {
        let due = |id: CatchUpId, r: &Running| {
            r.answered.is_some_and(|at| at + self.bounds.provisional_ms <= self.now) || self.is_planted(id, r)
        };
        self.running.iter().find(|(id, r)| !r.shown && due(**id, r)).map(|(id, _)| *id)
    }

    /// The plant: what has come so far is shown, though more of it is being read.
    #[cfg(feature = "plants")]
    fn is_planted(&self, id: CatchUpId, running: &Running) -> bool {
        let has_some =
            |s: &super::Session| s.shows_nothing(id) && s.subs.values().all(|s| !s.aside.is_empty());
        let planted =
            self.ring.plant == Some(crate::plant::Plant::ProvisionalHalf) && running.answer.is_none();
        planted && running.members.iter().any(|member| self.sessions.get(member).is_some_and(has_some))
    }

    #[cfg(not(feature = "plants"))]
    #[allow(clippy::unused_self)]
    fn is_planted(&self, _: CatchUpId, _: &Running) -> bool {
        false
    }

    fn show_to(
        &mut self,
        id: CatchUpId,
        session_id: SessionId,
        running: &Running,
        made: &mut BTreeMap<LoadId, Vec<Frame>>,
    ) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        if !self.admission.is_arriving(session_id) || !session.shows_nothing(id) {
            return;
        }
        let (mut frames, mut rows, mut loads) = (Vec::new(), Vec::new(), Vec::new());
        for (reference, sub) in session.subs.iter_mut() {
            let SubState::Reading(_, from) = &sub.state else { return };
            let Some(held) = self.shapes.get(&sub.shape) else { return };
            let Some(read) = running.read_of(held.shape.id, from) else { return };
            let load = LoadId { catch_up: id, read };
            if !std::mem::replace(&mut sub.announced, true) {
                frames.push(shape_frame(reference, &held.shape, None));
            }
            if sub.aside.is_empty() {
                let inline = || ahead(running.answer.as_ref(), load);
                rows.extend(made.entry(load).or_insert_with(inline).iter().cloned());
                sub.aside.push(load);
            }
            loads.push(load);
        }
        frames.extend(rows);
        frames.push(provisional_frame(&loads));
        self.counters.provisional += 1;
        self.outputs.extend(frames.into_iter().map(|frame| Output::Send(session_id, frame)));
    }
}

/// What an answer holds of one read, under a name.
fn ahead(answer: Option<&CatchUpAnswer>, load: LoadId) -> Vec<Frame> {
    let read = answer.and_then(|answer| answer.reads.get(load.read));
    read.into_iter().flat_map(|read| &read.frames).map(|frame| set_aside(frame, load)).collect()
}

impl super::Session {
    /// Whether its client can take a first load that is not settled, and this catch-up is all that it will show at first.
    fn shows_nothing(&self, id: CatchUpId) -> bool {
        let first = |sub: &super::Sub| {
            sub.held.is_none()
                && matches!(&sub.state, SubState::Reading(of, ReadFrom::Scratch(ResetReason::First)) if *of == id)
        };
        self.takes_provisional
            && self.establishing == Some(id)
            && self.joined_at.is_none()
            && self.base.is_none()
            && self.preface.is_empty()
            && self.batches.is_empty()
            && !self.subs.is_empty()
            && self.subs.values().all(first)
    }
}
