//! The stream and the polls: watermark, position, fences, feedback, the start and end of a stream.

use super::{Bound, CatchUpId, Hub, Identity, Mode, Output, PollAnswer, ReadFrom, SubState};
use crate::catalog::Catalog;
use crate::change::Assembler;
use crate::limits;
use crate::pgoutput::{StreamFrame, decode};
use crate::position::{Lsn, Snapshot, Xid};
use std::sync::Arc;

impl Hub {
    /// The database is known: clients can be served by polling until a stream starts.
    pub fn handle_database(&mut self, identity: Identity, catalog: Catalog) {
        self.lose_stream();
        self.discard_catch_ups();
        self.want_again(|_| true);
        let same = |known: &Identity| {
            (known.system, known.timeline, known.database)
                == (identity.system, identity.timeline, identity.database)
        };
        if self.identity.as_ref().is_some_and(|known| !same(known)) {
            self.leave_history();
        } else if self.identity.as_ref().is_some_and(|known| known.incarnation != identity.incarnation) {
            // The server was restarted, perhaps from a copy of its volume: the first poll tells.
            self.flushed_before = self.flushed_before.max(self.flushed).max(self.watermark);
            self.flushed = Lsn(0);
        }
        // An id that a session waits to see may belong to a history that is gone, and never come.
        self.sessions.values_mut().for_each(|s| s.must_see = None);
        self.identity = Some(identity);
        self.identified = true;
        self.mode = Mode::Polling;
        self.know_catalog(catalog);
        self.next_poll = self.now;
    }

    /// The server was looked at again after a stream was lost: it is the one of [`Self::handle_database`], with the
    /// same catalog. What is being read from it stays of use.
    pub fn handle_same_database(&mut self) {
        self.identified = self.identity.is_some();
    }

    /// The server has another history: its xids and LSNs say nothing about what was seen and released before, and
    /// mutations that were taken may be lost with the old one. Everybody comes back, is judged by a cursor, and
    /// sends the outbox again.
    fn leave_history(&mut self) {
        self.flushed = Lsn(0);
        self.window.close();
        // A poll on its way was asked of the old history: its answer comes under a number that nobody waits for.
        self.polls_asked += 1;
        self.poll_in_flight = false;
        self.drop_held();
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| session.joined) {
            session.batches.clear();
            session.held = 0;
            self.outputs.push_back(Output::Close(*id, 1012, "the database's history changed; come back"));
        }
    }

    /// The next server to answer may be another one, and an id mean another transaction there: what waits for one
    /// to be seen must not be released by it. It was never said; its session comes back and is judged by its cursor.
    fn drop_held(&mut self) {
        self.released.clear();
        self.last_poll = Snapshot::default();
        for id in std::mem::take(&mut self.holding) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.batches.clear();
                session.held = 0;
            }
            self.outputs.push_back(Output::Close(
                id,
                1012,
                "the stream broke while a write waited; come back",
            ));
        }
    }

    /// A stream was started, after [`Self::handle_database`]. `reference` is a recent 64-bit xid.
    ///
    /// ```text
    ///  START ──► push: a transaction with an xid commits ──► Z (first poll after it) ──► S of the first catch-up
    /// ```
    /// Every xid below Z's xmax that Z does not see is unsure until this stream delivers it: its commit record may
    /// lie before the stream's start although no snapshot sees it yet. The push comes first because a snapshot's
    /// xmax is the last *ended* xid + 1: a transaction that waits for a standby, and is the newest, would be at
    /// xmax and not below it. After the push it is below.
    pub fn handle_stream_started(&mut self, reference: Xid) {
        self.drop_passing();
        self.discard_catch_ups();
        self.counters.streams += 1;
        self.mode = Mode::Streaming;
        self.assembler = Assembler::new(&self.bounds);
        self.reference = reference;
        self.watermark = Lsn(0);
        self.ring.clear();
        self.window.close();
        self.retold.clear();
        self.schema.stream_started();
        self.position = None;
        self.unfolded.clear();
        self.unsure.clear();
        self.gap_asked = false;
        self.unsettled.clear();
        self.unpushed = true;
        self.push_in_flight = false;
        self.want_again(|_| true);
    }

    /// The stream broke. Sessions stay, and catch up from where it had brought them.
    pub fn handle_stream_lost(&mut self) {
        self.lose_stream();
    }

    fn lose_stream(&mut self) {
        self.drop_passing();
        if self.mode == Mode::Streaming {
            self.discard_catch_ups();
            self.rest_on_position(|_| true);
            self.drop_held();
            self.mode = Mode::Polling;
            self.next_poll = self.now;
        }
        self.identified = false;
        self.unpushed = false;
        self.ring.clear();
        self.window.close();
        self.retold.clear();
        self.position = None;
        self.unfolded.clear();
        self.unsure.clear();
        self.unsettled.clear();
    }

    pub(super) fn restart(&mut self, reason: String) {
        self.lose_stream();
        self.outputs.push_back(Output::RestartStream(reason));
    }

    /// Bytes of one CopyData message.
    pub fn handle_stream(&mut self, bytes: &[u8]) {
        if self.mode != Mode::Streaming {
            return;
        }
        match StreamFrame::parse(bytes) {
            Ok(StreamFrame::Keepalive { wal_end, reply }) => {
                self.advance(wal_end);
                if reply {
                    self.feedback(false);
                }
            }
            Ok(StreamFrame::Data(message)) => {
                let catalog = self.catalog.clone();
                let step = decode(message).map_err(|e| e.to_string()).and_then(|m| {
                    self.assembler.handle(m, self.reference, &catalog).map_err(|e| e.to_string())
                });
                let part = self.assembler.take_part();
                if self.assembler.forgot() {
                    self.reached_bound(Bound::PartKeys);
                }
                match step {
                    Ok(None) => part.into_iter().for_each(|part| self.pass(part)),
                    Ok(Some(mut delivered)) => {
                        self.heed(&mut delivered);
                        self.deliver(Arc::new(delivered), part);
                        self.settle_polls();
                        self.settle_catch_ups();
                    }
                    Err(reason) => self.restart(reason),
                }
            }
            Err(error) => self.restart(error.to_string()),
        }
    }

    /// W moves: polls first, since a session's cursor must not trail what its catch-up saw by more than it must.
    fn advance(&mut self, watermark: Lsn) {
        if watermark <= self.watermark {
            return;
        }
        self.watermark = watermark;
        self.settle_polls();
        self.settle_catch_ups();
    }

    /// The highest fence that somebody waits for.
    pub(super) fn waits_for_fence(&self) -> Option<Lsn> {
        let reached = self.reached();
        let catch_ups = self.running.values().filter_map(|r| r.answer.as_ref()).map(|a| a.facts.insert_lsn);
        let polls_matter = self.position.is_none() || !self.unsure.is_empty() || self.proof_is_late();
        let polls = self.unsettled.iter().filter(|_| polls_matter).map(|(poll, _)| poll.fence);
        catch_ups.chain(polls).filter(|f| *f > reached).max()
    }

    /// Waiting alone may not help: on an idle database W stays, and F may point past a page header.
    pub(super) fn ask_for_push(&mut self) {
        let fence = self.waits_for_fence();
        if fence.is_none() && !self.unpushed {
            return;
        }
        let wanted = fence > Some(self.push_covers) || self.unpushed;
        if (wanted && !self.push_in_flight) || self.now >= self.push_again {
            self.push_in_flight = true;
            self.push_covers = self.push_covers.max(fence.unwrap_or_default());
            self.push_again = self.now + limits::PUSH_AGAIN_MS;
            self.pushes_asked += 1;
            self.outputs.push_back(Output::PushFence(self.pushes_asked));
        }
    }

    /// The push was committed, or failed.
    pub fn handle_pushed(&mut self, number: u64, committed: bool) {
        if number != self.pushes_asked {
            return;
        }
        self.push_in_flight = false;
        if !committed {
            // Tried again when `push_again` is reached.
            self.push_in_flight = true;
            return;
        }
        if std::mem::take(&mut self.unpushed) {
            self.stream_since_poll = self.polls_asked;
            self.poll_in_flight = false;
            self.next_poll = self.now;
        }
        if self.mode == Mode::Polling {
            self.next_poll = self.now;
        }
    }

    pub(super) fn ask_for_poll(&mut self) {
        if self.mode == Mode::Starting || self.unpushed || self.poll_in_flight || self.now < self.next_poll {
            return;
        }
        self.poll_in_flight = true;
        self.poll_asked_at = self.now;
        self.polls_asked += 1;
        self.outputs.push_back(Output::Poll(self.polls_asked));
    }

    fn schedule_poll(&mut self) {
        let busy = self.mode == Mode::Polling
            || self.position.is_none()
            || self.ring.waits_for_poll()
            || !self.unsure.is_empty()
            || !self.holding.is_empty();
        self.next_poll = self.now + if busy { limits::POLL_BUSY_MS } else { limits::POLL_IDLE_MS };
    }

    /// Something happened that a poll should soon see.
    pub(super) fn poll_soon(&mut self) {
        self.next_poll = self.next_poll.min(self.now + limits::POLL_BUSY_MS);
    }

    /// A poll could not be taken.
    pub fn handle_poll_failed(&mut self, number: u64) {
        if number == self.polls_asked {
            self.poll_in_flight = false;
            self.next_poll = self.now + limits::POLL_IDLE_MS;
        }
    }

    /// A poll's answer.
    pub fn handle_poll(&mut self, answer: PollAnswer) {
        if answer.number != self.polls_asked || self.mode == Mode::Starting {
            return;
        }
        self.poll_in_flight = false;
        self.polls_answered = answer.number;
        if answer.flushed < std::mem::take(&mut self.flushed_before) {
            // What was flushed is gone: the volume was rolled back.
            self.leave_history();
        }
        self.flushed = self.flushed.max(answer.flushed);
        self.last_poll = answer.snapshot.clone();
        self.ring.polled(answer.number, &answer.snapshot);
        self.retire_ring();
        self.release_seen();
        if !self.follows_stream() {
            self.poll_sessions(&answer.snapshot);
        }
        if self.mode == Mode::Polling {
            self.prove(self.poll_asked_at);
            self.settle_catch_ups();
        } else if !self.unpushed && answer.number > self.stream_since_poll {
            self.reference = self.reference.max(answer.snapshot.xmax());
            // Any one settled poll will do: the next to settle and the newest are enough.
            self.unsettled.truncate(1);
            self.unsettled.push_back((answer, self.poll_asked_at));
            self.settle_polls();
            self.feedback(!self.unsettled.is_empty());
        }
        self.schedule_poll();
    }

    /// P := S plus what was delivered and S does not see, for every poll whose F the watermark has reached.
    fn settle_polls(&mut self) {
        while let Some((poll, _)) = self.unsettled.front()
            && poll.fence <= self.watermark
            && let Some((PollAnswer { number, snapshot, .. }, asked)) = self.unsettled.pop_front()
        {
            self.prove(asked);
            self.polls_settled = number;
            if self.position.is_none() {
                self.window.begin(number, &snapshot);
                self.unsure = snapshot.xip().iter().copied().collect();
                for entry in self.ring.entries() {
                    self.unsure.remove(&entry.xid());
                }
                #[cfg(feature = "plants")]
                if self.ring.plant == Some(crate::plant::Plant::UnsureXid) {
                    self.unsure.clear();
                }
            }
            let missed: Vec<Xid> = self.unsure.iter().copied().filter(|x| snapshot.sees(*x)).collect();
            let mut settled = snapshot;
            for xid in &self.unsure {
                settled.hide(*xid);
            }
            self.settled_poll = settled.clone();
            self.unfolded.clear();
            for entry in self.ring.entries() {
                if !settled.fold(entry.xid()) {
                    self.unfolded.push(entry.xid());
                }
            }
            self.position = Some(settled);
            if !missed.is_empty() && !self.gap_asked {
                self.gap_asked = true;
                self.outputs.push_back(Output::ReadGap(missed));
            }
        }
    }

    /// Which of the transactions asked about by [`Output::ReadGap`] wrote to a change log. They will never be in
    /// this stream: whoever lives by it catches up past them. The others aborted or wrote elsewhere.
    pub fn handle_gap(&mut self, wrote: &[(Xid, bool)]) {
        self.gap_asked = false;
        if wrote.iter().any(|(xid, wrote)| *wrote && self.unsure.contains(xid)) {
            self.discard_catch_ups();
            self.rest_on_position(|_| true);
        }
        // They are seen by the poll that made the node ask, and are in no memory.
        self.window.forget(self.polls_answered, &self.last_poll);
        for (xid, _) in wrote {
            if self.now_sure(*xid) {
                if let Some(position) = &mut self.position {
                    position.fold(*xid);
                }
                self.settled_poll.fold(*xid);
            }
        }
    }

    /// The transaction was delivered, or its rows are read from the logs. After the last one sessions follow the
    /// stream again, from a snapshot taken after this.
    pub(super) fn now_sure(&mut self, xid: Xid) -> bool {
        let removed = self.unsure.remove(&xid);
        if removed && self.unsure.is_empty() {
            self.want_again(|s| s.base.is_some());
        }
        removed
    }

    /// [`Output::ReadGap`] failed; it is asked again with the next settled poll.
    pub fn handle_gap_failed(&mut self) {
        self.gap_asked = false;
        self.poll_soon();
    }

    fn feedback(&mut self, reply: bool) {
        let flush = self.ring.flush_limit().unwrap_or(self.watermark);
        self.outputs.push_back(Output::Feedback { flush, reply });
    }

    pub(super) fn retire_ring(&mut self) {
        let oldest = self.running.values().map(|r| r.started_at_poll).min();
        for entry in self.ring.retire(oldest) {
            let (xid, end) = (entry.xid(), entry.delivered.transaction.end_lsn);
            self.window.take(entry, &self.catalog, |table| self.schema.is_before(table, xid, end));
        }
    }

    /// Sessions that fail the test no longer follow the stream; all their live shapes are wanted again from P.
    pub(super) fn rest_on_position(&mut self, concerned: impl Fn(&super::Session) -> bool) {
        let Some(head) = self.exact_head().map(Arc::new) else {
            self.want_again(concerned);
            return;
        };
        let proof = self.proof;
        for session in self.sessions.values_mut().filter(|s| s.joined && concerned(s)) {
            if session.base.is_none() && session.established {
                session.prove(proof);
                session.base = Some(head.clone());
            }
        }
        self.want_again(concerned);
    }

    /// Live shapes of sessions with a position of their own are wanted from there.
    pub(super) fn want_again(&mut self, concerned: impl Fn(&super::Session) -> bool) {
        let ids: Vec<_> =
            self.sessions.iter().filter(|(_, s)| s.joined && concerned(s)).map(|(id, _)| *id).collect();
        for id in ids {
            self.want_again_one(id);
        }
    }

    /// All of a session's shapes are wanted, so that they become live together, in one state.
    pub(super) fn want_again_one(&mut self, id: super::SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.establishing = None;
        for sub in session.subs.values_mut() {
            sub.read_again(id, &mut self.outputs);
            if let (SubState::Live, Some(base)) = (&sub.state, &session.base) {
                // Of a transaction that is passed through, and that it leaves the stream before.
                sub.unload(id, &mut self.outputs);
                sub.state = SubState::Wanted(ReadFrom::Since(base.clone()));
            }
        }
        session.established &= session.base.is_none();
        self.needy.insert(id);
    }

    /// Throws running catch-ups away; what they read is wanted again.
    pub(super) fn discard_catch_ups(&mut self) {
        let ids: Vec<CatchUpId> = self.running.keys().copied().collect();
        for id in ids {
            self.discard_catch_up(id);
        }
    }

    /// In polling mode: whoever stands before what the poll saw is caught up again.
    fn poll_sessions(&mut self, snapshot: &Snapshot) {
        let asked = Some(self.poll_asked_at);
        let level = |s: &&mut super::Session| {
            s.established && s.base.as_ref().is_some_and(|b| b.snapshot == *snapshot)
        };
        self.sessions.values_mut().filter(level).for_each(|s| s.prove(asked));
        let behind: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.established && s.base.as_ref().is_some_and(|b| b.snapshot != *snapshot))
            .map(|(id, _)| *id)
            .collect();
        for id in behind {
            self.want_again_one(id);
        }
    }
}
