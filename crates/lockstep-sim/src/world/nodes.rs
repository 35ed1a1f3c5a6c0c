//! Driving hubs: events in, outputs carried out, as `lockstep-server`'s node does.

use super::asks::Question;
use super::{Event, World};
use crate::link::PASSED_BYTES;
use crate::node::{HELD_BYTES, Node, RING_BYTES};
use crate::plant::Plant;
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::{Mode, ReadFrom, SessionId};
use lockstep_core::protocol::{Frame, is_load};

/// For people: where a read begins.
fn from(from: &ReadFrom) -> String {
    match from {
        ReadFrom::Scratch(reason) => reason.as_str().into(),
        ReadFrom::Since(head) => format!("{} {}", head.fence, head.snapshot),
    }
}

impl World {
    /// After every event: time, then all outputs, then the next wake-up.
    pub(crate) fn drive(&mut self, at: usize) {
        let now = self.now / 1000;
        self.nodes[at].hub.handle_timeout(now);
        while let Some(output) = self.nodes[at].hub.poll_output() {
            self.carry_out(at, output);
        }
        let node = &mut self.nodes[at];
        if node.hub.ring_bytes() > RING_BYTES {
            let bytes = node.hub.ring_bytes();
            self.violate(format!("the ring of node {at} holds {bytes} bytes"));
            return;
        }
        if node.hub.held_bytes() > HELD_BYTES {
            let bytes = node.hub.held_bytes();
            self.violate(format!("node {at} holds {bytes} bytes for a session that waits for a standby"));
            return;
        }
        if let Some(wanted) = node.hub.next_timeout() {
            let wake = (wanted * 1000).max(self.now + 1000);
            if wake < node.wake_at {
                node.wake_at = wake;
                let generation = node.generation;
                self.at(wake, Event::Wake(at, generation));
            }
        }
    }

    pub(super) fn wake(&mut self, at: usize, generation: u64) {
        let node = &mut self.nodes[at];
        if node.alive && node.generation == generation {
            node.wake_at = super::Micros::MAX;
            self.drive(at);
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        match output {
            Output::Send(session, frame) => self.send(at, session, frame),
            Output::Close(session, ..) => self.close_after_queue(session),
            Output::Feedback { flush, reply } => {
                let flush = if self.plant == Some(Plant::FlushPastRing) {
                    self.nodes[at].hub.watermark()
                } else {
                    flush
                };
                let generation = self.nodes[at].feed.generation;
                let wait = self.pg_delay(at);
                self.after(wait, Event::Feedback(at, generation, flush.0, reply));
            }
            Output::ReadCatalog => {
                let catalog = self.nodes[at].hub.catalog().clone();
                self.nodes[at].hub.handle_catalog(catalog);
            }
            Output::RestartStream(reason) => {
                self.trace(|| format!("node {at} restarts its stream: {reason}"));
                *self.report.resets.entry(format!("restart: {reason}")).or_default() += 1;
                self.stream_ends(at, 0);
            }
            Output::Mutate(request) => {
                let session = request.session;
                let queue = self.nodes[at].mutating.entry(session).or_default();
                queue.push_back(*request);
                if queue.len() == 1 {
                    self.run_mutation(at, session);
                }
            }
            Output::CatchUp(request) => {
                self.trace(|| {
                    let from: std::collections::BTreeSet<String> =
                        request.reads.iter().map(|r| from(&r.from)).collect();
                    format!(
                        "node {at} catch-up {} of {} shapes from {from:?}",
                        request.id,
                        request.reads.len()
                    )
                });
                self.ask(at, Question::CatchUp(request));
            }
            Output::Poll(number) => self.ask(at, Question::Poll(number)),
            Output::PushFence(number) => self.ask(at, Question::Push(number)),
            Output::ReadGap(xids) => {
                self.trace(|| format!("node {at} asks about {xids:?}"));
                *self.report.resets.entry("gap asked".into()).or_default() += 1;
                self.ask(at, Question::Gap(xids));
            }
        }
    }

    /// A session that does not read is closed.
    fn send(&mut self, at: usize, session: SessionId, frame: Frame) {
        if self.plant == Some(Plant::TornCommit) {
            self.tear(at, session, &frame);
        }
        if self.plant == Some(Plant::AckBeforeRows)
            && let Ok(text) = std::str::from_utf8(&frame)
            && text.starts_with(r#"[null,null,"sync","commit","#)
        {
            self.nodes[at].last_commit.insert(session, (text.into(), false));
        }
        self.push_frame(session, frame);
    }

    fn push_frame(&mut self, session: SessionId, frame: Frame) {
        let Some(link) = self.links.get_mut(&session) else { return };
        if link.closing {
            return;
        }
        let slow = is_load(&frame) && link.queue.aside() > PASSED_BYTES;
        if link.queue.push(frame).is_err() {
            link.closing = true;
            self.fault("slow_reader_closed");
            self.hang_up(session);
            return;
        }
        if slow {
            self.nodes[link.node].hub.handle_slow(session);
        }
        self.deliver_soon(session);
    }

    /// The plant: what is complete so far is shown, before the rest comes.
    fn tear(&mut self, at: usize, session: SessionId, frame: &Frame) {
        let Ok(text) = std::str::from_utf8(frame) else { return };
        let last = self.nodes[at].last_commit.get(&session).cloned();
        if text.starts_with(r#"[null,null,"sync","commit","#) {
            self.nodes[at].last_commit.insert(session, (text.into(), false));
        } else if text.starts_with(r#"[null,null,"sync","rows","#)
            && let Some((commit, half)) = last
        {
            if half {
                self.push_frame(session, commit.clone().into_bytes().into());
            }
            self.nodes[at].last_commit.insert(session, (commit, true));
        }
    }

    fn close_after_queue(&mut self, session: SessionId) {
        if let Some(link) = self.links.get_mut(&session) {
            link.closing = true;
            self.deliver_soon(session);
        }
    }

    /// The process ends as by `kill -9`.
    pub(super) fn kill_node(&mut self, at: usize) {
        let sessions: Vec<SessionId> =
            self.links.iter().filter(|(_, l)| l.node == at).map(|(s, _)| *s).collect();
        self.cut_pg(at, false);
        let node = &mut self.nodes[at];
        node.alive = false;
        for session in sessions {
            self.drop_link(session);
        }
        let wait = self.rng.between(5_000, 400_000);
        self.after(wait, Event::NodeBorn(at));
    }

    /// Of a node that ends.
    pub(super) fn count_resumes(&mut self, at: usize) {
        let counters = self.nodes[at].hub.report().counters;
        self.report.resumes_from_window += counters.resumes_window;
        self.report.resumes_read += counters.resumes_read;
        self.report.passed += counters.passed;
        self.report.passed_fallen += counters.passed_fallen;
    }

    pub(super) fn node_born(&mut self, at: usize) {
        self.count_resumes(at);
        let old = &self.nodes[at];
        let (generation, feed) = (old.generation + 1, old.feed.generation + 1);
        let mut node = Node::new(self.plant, self.short_cursors, &mut self.rng);
        node.generation = generation;
        node.feed.generation = feed;
        self.nodes[at] = node;
        self.after(500, Event::Feed(at, feed));
    }

    pub(super) fn unstall(&mut self, at: usize) {
        self.pump_soon(at);
    }

    /// How long something takes between a node and PostgreSQL.
    pub(crate) fn pg_delay(&mut self, at: usize) -> super::Micros {
        let stalled = self.nodes[at].stalled_until.saturating_sub(self.now);
        stalled
            + if self.rng.one_in(30) { self.rng.between(1_000, 20_000) } else { self.rng.between(40, 600) }
    }

    pub(crate) fn is_streaming(&self, at: usize) -> bool {
        self.nodes[at].alive && self.nodes[at].hub.mode() == Mode::Streaming
    }
}
