//! Catch-ups: begun for all who want something, settled at their fence, merged with the ring.

use super::merged::Merged;
use super::{
    Batch, Bound, Brought, CatchUpAnswer, CatchUpError, CatchUpId, CatchUpRequest, Hub, Mode, Output,
    ReadFrom, ReadRequest, Running, SessionId, SubState, Undo,
};
use crate::limits;
use crate::position::{CursorHead, Facts, ResetReason, Xid};
use crate::protocol::{
    Frame, LoadId, ack_frame, commit_frame, loaded_frame, progress_frame, shape_frame, unload_frame,
};
use crate::shape::ShapeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

impl Hub {
    /// Begins as many as may run. S is taken after this: of a stream, only once Z is known, else a transaction
    /// could become visible between S and Z and be in neither.
    pub(super) fn start_catch_ups(&mut self) {
        let ready = match self.mode {
            Mode::Starting => false,
            Mode::Polling => true,
            Mode::Streaming => !self.unpushed && self.polls_answered > self.stream_since_poll,
        };
        let room = self.running.len() < limits::CATCH_UPS_IN_FLIGHT;
        let crowded = ready && !room && !self.needy.is_empty();
        if crowded && !std::mem::replace(&mut self.crowded, crowded) {
            self.reached_bound(Bound::CatchUps);
        }
        self.crowded = crowded;
        while ready
            && !self.schema.is_stale()
            && self.now >= self.retry_at
            && self.running.len() < limits::CATCH_UPS_IN_FLIGHT
            && (self.running.is_empty() || self.now >= self.gathered_at)
            && let Some(running) = self.next_request()
        {
            self.gathered_at = self.now + limits::GATHER_MS;
            self.outputs.push_back(Output::CatchUp(running.request.clone()));
            self.running.insert(running.request.id, running);
        }
    }

    /// One request for everyone who waits, as far as its bound reaches; equal reads are one.
    fn next_request(&mut self) -> Option<Running> {
        let id = self.next_catch_up;
        let mut reads: Vec<ReadRequest> = Vec::new();
        let mut reads_of: BTreeMap<ShapeId, Vec<usize>> = BTreeMap::new();
        let mut readers: Vec<Vec<SessionId>> = Vec::new();
        let mut clients = Vec::new();
        let mut client_of = BTreeMap::new();
        let mut served = BTreeSet::new();
        for session_id in &self.needy {
            if reads.len().max(clients.len()) >= limits::READS_PER_CATCH_UP {
                break;
            }
            let Some(session) = self.sessions.get_mut(session_id) else { continue };
            if session.must_see.is_some_and(|xid| !self.last_poll.sees(xid)) {
                continue;
            }
            session.must_see = None;
            served.insert(*session_id);
            if !session.established {
                // A shape added while the first ones are read waits for them: all become live in one state.
                if session.establishing.is_some() {
                    continue;
                }
                session.establishing = Some(id);
                client_of.insert(*session_id, clients.len());
                clients.push((session.subject.clone(), session.client.clone()));
            }
            for sub in session.subs.values_mut() {
                let SubState::Wanted(from) = &sub.state else { continue };
                let from = from.clone();
                let Some(held) = self.shapes.get(&sub.shape) else { continue };
                let same = reads_of.entry(held.shape.id).or_default();
                let read = same.iter().copied().find(|at| reads[*at].from == from).unwrap_or_else(|| {
                    same.push(reads.len());
                    reads.push(ReadRequest { shape: held.shape.clone(), from: from.clone() });
                    readers.push(Vec::new());
                    reads.len() - 1
                });
                readers[read].push(*session_id);
                sub.state = SubState::Reading(id, from);
            }
        }
        self.needy.retain(|session| !served.contains(session));
        if reads.is_empty() && clients.is_empty() {
            return None;
        }
        self.next_catch_up += 1;
        let request = CatchUpRequest { id, reads, clients };
        let started_at_poll = self.polls_answered;
        let (started, members) = (self.now, served);
        Some(Running {
            reads_of,
            readers,
            client_of,
            started_at_poll,
            started,
            members,
            request,
            answer: None,
            answered: None,
            shown: false,
        })
    }

    /// Rows of a catch-up that is still being read, as `load` frames: they go to whoever waits for them at once, and
    /// are set aside there. What is read in chunks is never held here, and shown only with the batch that says so.
    pub fn handle_catch_up_rows(&mut self, id: CatchUpId, read: usize, frames: &[Frame]) {
        let Some(running) = self.running.get(&id) else { return };
        let Some(request) = running.request.reads.get(read) else { return };
        let Some(index) = self.by_id.get(&request.shape.id) else { return };
        let load = LoadId { catch_up: id, read };
        for reader in running.readers.get(read).into_iter().flatten() {
            let Some(session) = self.sessions.get_mut(reader) else { continue };
            // It may have unsubscribed meanwhile. No session has a shape twice, so there is one read of it here.
            let mut subs = session.subs.values_mut();
            let Some(sub) = subs.find(|s| s.shape == *index && s.is_read_by(id)) else { continue };
            if sub.aside.last() != Some(&load) {
                sub.aside.push(load);
            }
            self.outputs.extend(frames.iter().map(|f| Output::Send(*reader, f.clone())));
        }
    }

    /// About how many rows one of the reads has, before the first of them comes. Clients may show a share of it.
    pub fn handle_catch_up_size(&mut self, id: CatchUpId, read: usize, about: u64) {
        let Some(running) = self.running.get(&id) else { return };
        let Some(request) = running.request.reads.get(read) else { return };
        let Some(index) = self.by_id.get(&request.shape.id) else { return };
        let load = LoadId { catch_up: id, read };
        let frame = progress_frame(load, about);
        for reader in running.readers.get(read).into_iter().flatten() {
            let Some(session) = self.sessions.get_mut(reader) else { continue };
            let mut subs = session.subs.values_mut();
            if let Some(sub) = subs.find(|s| s.shape == *index && s.is_read_by(id) && s.aside.is_empty()) {
                // Its rows come next; if they do not, it is taken back.
                sub.aside.push(load);
                self.outputs.push_back(Output::Send(*reader, frame.clone()));
            }
        }
    }

    /// A catch-up's answer. Of one that was discarded meanwhile, nothing is used.
    pub fn handle_catch_up(&mut self, id: CatchUpId, answer: Result<CatchUpAnswer, CatchUpError>) {
        if !self.running.contains_key(&id) {
            return;
        }
        match answer {
            Ok(answer) => {
                let same = self.identity.as_ref().is_some_and(|i| {
                    i.system == answer.facts.system
                        && i.timeline == answer.facts.timeline
                        && i.database == answer.facts.database
                });
                if !same {
                    self.restart("a catch-up was answered by another server than the stream's".into());
                } else if let Some(running) = self.running.get_mut(&id) {
                    running.answer = Some(answer);
                    running.answered = Some(self.now);
                    self.settle_catch_ups();
                }
            }
            Err(CatchUpError::SchemaChanged) => self.outdated(id),
            Err(CatchUpError::Passing(_)) => self.retry(id),
        }
    }

    /// A catch-up is thrown away; what it read is wanted again, at once.
    pub(super) fn discard_catch_up(&mut self, id: CatchUpId) {
        self.counters.catch_ups_discarded += u64::from(self.running.contains_key(&id));
        self.read_again(id);
    }

    fn retry(&mut self, id: CatchUpId) {
        self.counters.catch_ups_failed += 1;
        self.read_again(id);
        let wait = limits::RETRY_FIRST_MS << self.retries.min(16);
        self.retry_at = self.now + wait.min(limits::RETRY_MOST_MS);
        self.retries += 1;
        self.poll_soon();
    }

    fn read_again(&mut self, id: CatchUpId) {
        let Some(running) = self.running.remove(&id) else { return };
        for session_id in running.members {
            let Some(session) = self.sessions.get_mut(&session_id) else { continue };
            let mut concerned = false;
            if session.establishing == Some(id) {
                session.establishing = None;
                concerned = true;
            }
            for sub in session.subs.values_mut().filter(|s| s.is_read_by(id)) {
                sub.read_again(session_id, &mut self.outputs);
                concerned = true;
            }
            if concerned {
                self.needy.insert(session_id);
            }
        }
        self.retire_ring();
    }

    /// Settles every answered catch-up whose fence is reached: all that S saw was delivered to the other shapes
    /// too, and is durable.
    pub(super) fn settle_catch_ups(&mut self) {
        if self.mode == Mode::Streaming && self.position.is_none() {
            return;
        }
        let reached = self.reached();
        let settled: Vec<_> = self
            .running
            .iter()
            .filter(|(_, r)| r.answer.as_ref().is_some_and(|a| a.facts.insert_lsn <= reached))
            .map(|(id, _)| *id)
            .collect();
        for id in settled {
            self.settle(id);
        }
    }

    fn settle(&mut self, id: CatchUpId) {
        let Some(running) = self.running.remove(&id) else { return };
        let Some(answer) = &running.answer else { return };
        self.counters.catch_ups_settled += 1;
        let members = self.members(id, &running);
        self.retries = 0;
        for member in members {
            if let Some(xid) = self.goes_back(member, &answer.facts) {
                if let Some(session) = self.sessions.get_mut(&member) {
                    session.must_see = Some(xid);
                }
                self.want_again_one(member);
                continue;
            }
            match self.merge(id, member, &answer.facts.snapshot) {
                Ok(parts) => {
                    self.prove_session(member, running.started);
                    self.finish(id, member, Some((&running, answer)), parts);
                }
                Err(xid) => {
                    self.keep_aside(id, member, &running, answer);
                    if let Some(session) = self.sessions.get_mut(&member) {
                        session.must_see = Some(xid);
                    }
                    self.want_again_one(member);
                }
            }
        }
        self.retire_ring();
    }

    /// What a session has set aside is its shape as of S, and S is settled: only what changed since S is to be read.
    /// Otherwise a load that takes longer than the ring reaches back would begin again for ever.
    fn keep_aside(&mut self, id: CatchUpId, session: SessionId, running: &Running, answer: &CatchUpAnswer) {
        let head = Arc::new(self.polled_head(answer));
        let shapes = &self.shapes;
        let Some(session) = self.sessions.get_mut(&session) else { return };
        for sub in session.subs.values_mut().filter(|s| !s.aside.is_empty()) {
            let SubState::Reading(reading, from) = &sub.state else { continue };
            let (true, Some(held)) = (*reading == id, shapes.get(&sub.shape)) else { continue };
            // What was set aside before, and this time all that there is: nothing is in the answer itself.
            let ahead = sub.aside.iter().any(|load| load.catch_up == id);
            let read = running.read_of(held.shape.id, from).and_then(|at| answer.reads.get(at));
            if ahead || read.is_some_and(|r| r.frames.is_empty()) {
                sub.state = SubState::Wanted(ReadFrom::Since(head.clone()));
            }
        }
    }

    /// A transaction that the session has shown and that S does not see: it was streamed before it was visible.
    ///
    /// ```text
    ///  A and B streamed ──► shown ──► the stream breaks ──► S: A still waits for its standby
    /// ```
    /// While the session follows the stream, the ring has it. Without, S alone would take it back, whole where a
    /// shape is loaded anew, or in part. The session waits until a snapshot sees it.
    fn goes_back(&self, id: SessionId, facts: &Facts) -> Option<Xid> {
        if self.follows_stream() {
            return None;
        }
        let session = self.sessions.get(&id)?;
        let head = session.base.as_ref().or(session.joined_at.as_ref())?;
        match facts.accept(head, 0) {
            // Folded ids may lie beyond the newest that has ended.
            Err(ResetReason::Future) if head.fence <= facts.insert_lsn => {}
            // What it has shown is not of this history: it is told so.
            Err(_) => return None,
            Ok(()) => {}
        }
        head.ahead_of(&facts.snapshot)
    }

    pub(super) fn members(&self, id: CatchUpId, running: &Running) -> Vec<SessionId> {
        let waits =
            |s: &super::Session| s.establishing == Some(id) || s.subs.values().any(|sub| sub.is_read_by(id));
        let members = running.members.iter().copied();
        members.filter(|member| self.sessions.get(member).is_some_and(waits)).collect()
    }

    /// Sends one session what was read, if anything was, and merged, and makes it live.
    pub(super) fn finish(
        &mut self,
        id: CatchUpId,
        session_id: SessionId,
        read: Option<(&Running, &CatchUpAnswer)>,
        merged: Merged,
    ) {
        let polled = read.filter(|_| !self.follows_stream());
        let base = polled.map(|(_, answer)| Arc::new(self.polled_head(answer)));
        let polled = base.is_some();
        let head = base.as_deref().cloned().or_else(|| self.stream_head());
        let may_wait = !merged.waits.is_empty() || self.holding.contains(&session_id);
        self.follows_from_now(session_id);
        let (mut frames, undo) = self.bring(id, session_id, read, may_wait);
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        frames.extend(merged.frames);
        let mut outcomes = Vec::new();
        let first = session.establishing == Some(id);
        if first {
            session.establishing = None;
            session.established = true;
            self.admission.arrived(session_id, self.now, self.bounds.waiting_sessions);
            let own =
                read.and_then(|(running, answer)| answer.clients.get(*running.client_of.get(&session_id)?));
            outcomes.extend(own.into_iter().flatten().cloned());
        }
        outcomes.extend(merged.acknowledged);
        outcomes.retain(|o| o.n > session.acknowledged);
        session.acknowledged = outcomes.iter().map(|o| o.n).fold(session.acknowledged, u64::max);
        if !outcomes.is_empty() {
            frames.push(ack_frame(&outcomes));
        }
        let shapes = &self.shapes;
        let live = session.subs.values().filter(|s| s.state == SubState::Live);
        session.shapes_part = CursorHead::shapes_part(
            live.filter_map(|s| shapes.get(&s.shape)).map(|h| (h.shape.id, h.shape.fingerprint)),
        );
        let incomplete = session.subs.values().any(|s| s.state != SubState::Live);
        let silent = polled && frames.is_empty() && session.base.is_some();
        session.base = base;
        if incomplete && polled {
            // Shapes added meanwhile would be read in another snapshot than the ones just read: all, once more.
            self.want_again_one(session_id);
        } else if incomplete {
            self.needy.insert(session_id);
        }
        let Some(session) = self.sessions.get(&session_id) else { return };
        let Some(head) = head else { return };
        if silent {
            return;
        }
        frames.push(commit_frame(head.fence, None, &head.with_shapes(&session.shapes_part)));
        self.enqueue(session_id, Batch::new(frames, merged.waits, undo));
    }

    /// The frames of what was read for one session, and how they would be taken back if they may have to be. The shapes
    /// are live.
    fn bring(
        &mut self,
        id: CatchUpId,
        session_id: SessionId,
        read: Option<(&Running, &CatchUpAnswer)>,
        may_wait: bool,
    ) -> (Vec<Frame>, Option<Undo>) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Default::default() };
        let mut frames = std::mem::take(&mut session.preface);
        let mut undo = may_wait.then(|| Undo {
            acknowledged: session.acknowledged,
            preface: frames.clone(),
            base: session.base.clone(),
            ..Undo::default()
        });
        for (reference, sub) in session.subs.iter_mut() {
            let SubState::Reading(reading, from) = &sub.state else { continue };
            let (true, Some(held)) = (*reading == id, self.shapes.get(&sub.shape)) else { continue };
            let mut widened = None;
            if !std::mem::replace(&mut sub.announced, true) {
                widened = sub.held.take();
                frames.push(shape_frame(reference, &held.shape, widened));
            }
            let aside = std::mem::take(&mut sub.aside);
            if !aside.is_empty() {
                frames.push(loaded_frame(&aside));
            }
            // What was shown before it was settled is set aside there.
            let ahead = aside.iter().any(|load| load.catch_up == id);
            let rows = read
                .filter(|_| !ahead)
                .and_then(|(running, answer)| answer.reads.get(running.read_of(held.shape.id, from)?));
            frames.extend(rows.into_iter().flat_map(|r| r.frames.iter().cloned()));
            if let Some(undo) = &mut undo {
                let (reference, from) = (reference.clone(), from.clone());
                undo.read.push(Brought { reference, shape: sub.shape, from, held: widened, aside });
            }
            sub.state = SubState::Live;
        }
        (frames, undo)
    }

    fn polled_head(&self, answer: &CatchUpAnswer) -> CursorHead {
        let facts = &answer.facts;
        CursorHead {
            system: facts.system,
            timeline: facts.timeline,
            database: facts.database,
            // After a restart the server may be asked, under a new mark, before the source has told the mark.
            incarnation: facts
                .newest_mark(facts.insert_lsn)
                .or(self.identity.as_ref().map(|i| i.incarnation))
                .unwrap_or_default(),
            fence: facts.insert_lsn,
            snapshot: facts.snapshot.clone(),
            shown: Vec::new(),
        }
    }
}

impl Running {
    /// Which of its reads is of this shape, from there.
    pub(super) fn read_of(&self, shape: ShapeId, from: &ReadFrom) -> Option<usize> {
        let reads = self.reads_of.get(&shape)?.iter().copied();
        reads.into_iter().find(|at| self.request.reads[*at].from == *from)
    }
}

impl super::Sub {
    pub(super) fn is_read_by(&self, id: CatchUpId) -> bool {
        matches!(&self.state, SubState::Reading(reading, _) if *reading == id)
    }

    /// What the client has set aside for it is of no use.
    pub(super) fn unload(&mut self, session: SessionId, outputs: &mut VecDeque<Output>) {
        if !self.aside.is_empty() {
            outputs.push_back(Output::Send(session, unload_frame(&std::mem::take(&mut self.aside))));
        }
    }

    /// What is being read is wanted again, from the same state. Of what was set aside, the part that was read before
    /// that state stays ([`Hub::keep_aside`]).
    pub(super) fn read_again(&mut self, session: SessionId, outputs: &mut VecDeque<Output>) {
        let SubState::Reading(id, from) = &self.state else { return };
        let (lost, kept) = self.aside.iter().partition(|load| load.catch_up == *id);
        self.state = SubState::Wanted(from.clone());
        self.aside = lost;
        self.unload(session, outputs);
        self.aside = kept;
    }
}
