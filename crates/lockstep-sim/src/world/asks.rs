//! Requests of nodes to PostgreSQL and their answers, each on a connection of the pool.
//!
//! ```text
//!  node ──ask──► S and rows ──► F ──answer──► node
//!                       ▲ anything may commit in between
//! ```

use super::{AskId, Event, Ready, Sync, Waiter, World};
use crate::plant::Plant;
use lockstep_core::fanout::hub::{CatchUpError, CatchUpRequest, MutateRequest, MutateResult, PollAnswer};
use lockstep_core::position::{Lsn, Snapshot, Xid};
use lockstep_core::protocol::Frame;
use std::collections::VecDeque;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Question {
    CatchUp(CatchUpRequest),
    Poll(u64),
    Push(u64),
    Gap(Vec<Xid>),
    Mutate(Box<Run>),
}

/// Mutations being run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) request: MutateRequest,
    pub(crate) at: usize,
    pub(crate) attempt: u32,
    pub(crate) waited: u32,
    pub(crate) committed: Vec<Xid>,
    pub(crate) result: MutateResult,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) node: usize,
    pub(crate) question: Question,
    pub(crate) ready: Ready,
    /// What is read ahead of the answer, and not yet at the node.
    pub(crate) chunks: VecDeque<(usize, Vec<Frame>)>,
    /// The connection broke, or the server said no.
    pub(crate) failed: bool,
}

impl World {
    pub(crate) fn ask(&mut self, node: usize, question: Question) {
        let id = self.next_ask;
        self.next_ask += 1;
        self.asks.insert(
            id,
            Ask { node, question, ready: Ready::Nothing, chunks: VecDeque::new(), failed: false },
        );
        let wait = self.pg_delay(node);
        self.after(wait, Event::Ask(id));
    }

    /// The request arrives: S, and everything that is read in it.
    pub(super) fn ask_arrives(&mut self, id: AskId) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        // After a rollback nothing is written before a node has left its mark (docs/known-gaps.md).
        let waits = self.unmarked && matches!(ask.question, Question::Mutate(_) | Question::Push(_));
        if self.now < self.up_at || waits {
            ask.failed = true;
            self.answer_soon(id);
            return;
        }
        let node = ask.node;
        match &mut ask.question {
            Question::CatchUp(request) => {
                // A large answer goes ahead in chunks while it is read.
                let inline = if self.rng.one_in(2) { usize::MAX } else { self.rng.index(3) };
                let answer = if self.db.mark().is_some() || self.plant == Some(Plant::UnmarkedLife) {
                    self.db.catch_up_in_chunks(request, &self.nodes[node].history, inline)
                } else {
                    Err(CatchUpError::Passing("this life of the server has no mark yet".into()))
                };
                match answer {
                    Ok((answer, chunks)) => {
                        if self.db.commits.iter().rev().take(64).any(|c| c.visible.is_none()) {
                            self.report.catchups_racing_commit += 1;
                        }
                        // The judge knows this state by S, and by the F that is yet to be read.
                        self.db.history.took_snapshot(format!("{id}"));
                        self.trace(|| format!("ask {id}: S = {}", answer.facts.snapshot));
                        if let Some(ask) = self.asks.get_mut(&id) {
                            ask.ready = Ready::CatchUp(Box::new(answer));
                            ask.chunks = chunks;
                        }
                    }
                    Err(CatchUpError::SchemaChanged) => {
                        ask.ready = Ready::SchemaChanged;
                        self.answer_soon(id);
                        return;
                    }
                    Err(_) => {
                        ask.failed = true;
                        self.fault("catch_up_failed_early");
                        self.after(200_000, Event::Answer(id));
                        return;
                    }
                }
                self.chunk(id);
            }
            Question::Poll(number) => {
                let snapshot = self.db.snapshot();
                ask.ready =
                    Ready::Poll(PollAnswer { number: *number, snapshot, fence: Lsn(0), flushed: Lsn(0) });
                self.fence_soon(id);
            }
            Question::Push(_) => {
                let tx = self.db.begin();
                self.db.assign(tx);
                self.db.write_wal(40);
                self.commit(tx, Sync::Local, Waiter::Push(id));
            }
            Question::Gap(_) => self.answer_soon(id),
            Question::Mutate(_) => self.mutation_step(id),
        }
    }

    /// The next chunk of what is read arrives at the node, if there is one; F is read after the last.
    pub(super) fn chunk(&mut self, id: AskId) {
        let breaks = !self.quiet && self.rng.one_in(60);
        let Some(ask) = self.asks.get_mut(&id).filter(|ask| !ask.failed) else { return };
        let Some((read, frames)) = ask.chunks.pop_front() else { return self.fence_soon(id) };
        let Question::CatchUp(CatchUpRequest { id: catch_up, .. }) = ask.question else { return };
        let at = ask.node;
        if breaks {
            ask.failed = true;
            self.fault("catch_up_broke_within_rows");
            return self.answer_soon(id);
        }
        if self.nodes[at].alive {
            self.nodes[at].hub.handle_catch_up_rows(catch_up, read, &frames);
            self.drive(at);
        }
        let wait = self.pg_delay(at);
        self.after(wait, Event::Chunk(id));
    }

    /// F is read after S: at once, or a while later.
    fn fence_soon(&mut self, id: AskId) {
        let wait = if self.rng.one_in(6) { self.rng.between(200, 5_000) } else { self.rng.below(60) };
        self.after(wait, Event::ReadFence(id));
    }

    pub(super) fn read_fence(&mut self, id: AskId) {
        let (insert, flush) = (Lsn(self.db.insert_lsn), Lsn(self.db.flush_lsn));
        let by_lsn = (self.plant == Some(Plant::LsnFilter)).then(|| self.seen_by_lsn());
        let Some(ask) = self.asks.get_mut(&id).filter(|a| !a.failed) else { return };
        let fence = if self.plant == Some(Plant::CursorBeforeFence) { Lsn(0) } else { insert };
        match &mut ask.ready {
            Ready::Poll(answer) => {
                answer.fence = fence;
                answer.flushed = flush;
            }
            Ready::CatchUp(answer) => {
                let key = format!("{fence}~{}", answer.facts.snapshot);
                self.db.history.rename_snapshot(&id.to_string(), key);
                answer.facts.insert_lsn = fence;
                if let Some(snapshot) = by_lsn {
                    answer.facts.snapshot = snapshot;
                }
            }
            Ready::Nothing | Ready::SchemaChanged => {}
        }
        self.answer_soon(id);
    }

    /// The plant: whatever ends at or before `pg_current_wal_lsn()` counts as seen, and nothing else.
    fn seen_by_lsn(&self) -> Snapshot {
        let unflushed = self.db.commits.iter().rev().take_while(|c| c.end_lsn > self.db.flush_lsn);
        let committing = self.db.commits.iter().rev().take(500).filter(|c| c.end_lsn <= self.db.flush_lsn);
        let mut open = self.db.running.clone();
        for commit in committing {
            open.remove(&commit.xid);
        }
        open.extend(unflushed.map(|c| c.xid));
        Snapshot::new(self.db.next_xid, open.into_iter().collect())
    }

    pub(crate) fn answer_soon(&mut self, id: AskId) {
        let Some(node) = self.asks.get(&id).map(|a| a.node) else { return };
        let wait = self.pg_delay(node);
        self.after(wait, Event::Answer(id));
    }

    /// The answer arrives at the node.
    pub(super) fn answer_arrives(&mut self, id: AskId) {
        let Some(Ask { node: at, question, ready, failed, .. }) = self.asks.remove(&id) else { return };
        if !self.nodes[at].alive {
            return;
        }
        let wrote = match &question {
            Question::Gap(xids) => self.db.wrote(xids),
            _ => Vec::new(),
        };
        let hub = &mut self.nodes[at].hub;
        match (question, ready) {
            (Question::CatchUp(request), Ready::CatchUp(answer)) if !failed => {
                hub.handle_catch_up(request.id, Ok(*answer));
            }
            (Question::CatchUp(request), Ready::SchemaChanged) if !failed => {
                hub.handle_catch_up(request.id, Err(CatchUpError::SchemaChanged));
            }
            (Question::CatchUp(request), _) => {
                hub.handle_catch_up(request.id, Err(CatchUpError::Passing("no answer".into())));
            }
            (Question::Poll(_), Ready::Poll(answer)) if !failed => hub.handle_poll(answer),
            (Question::Poll(number), _) => hub.handle_poll_failed(number),
            (Question::Push(number), _) => hub.handle_pushed(number, !failed),
            (Question::Gap(_), _) if failed => hub.handle_gap_failed(),
            (Question::Gap(_), _) => hub.handle_gap(&wrote),
            (Question::Mutate(run), _) => self.mutated(at, *run, failed),
        }
        self.drive(at);
    }

    /// Every connection of a node to PostgreSQL breaks: what was asked fails, whatever became of it.
    pub(crate) fn cut_pg(&mut self, at: usize, notice: bool) {
        let lost: Vec<AskId> = self.asks.iter().filter(|(_, a)| a.node == at).map(|(id, _)| *id).collect();
        for id in lost {
            if !notice {
                self.asks.remove(&id);
                continue;
            }
            let Some(mut ask) = self.asks.remove(&id) else { continue };
            ask.failed = true;
            // Under a new number: events that are still on their way mean nothing any more.
            let fresh = self.next_ask;
            self.next_ask += 1;
            self.asks.insert(fresh, ask);
            let wait = self.rng.between(100, 3_000);
            self.after(wait, Event::Answer(fresh));
        }
        if notice {
            self.stream_ends(at, 100);
        }
    }
}
