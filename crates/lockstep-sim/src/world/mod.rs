//! The seeded world: one thread, a virtual clock, and a queue of events.

mod asks;
mod clients;
mod commits;
mod explain;
mod faults;
mod feed;
mod judge;
mod mutations;
mod nodes;
mod quiet;
mod writers;

use crate::client::Client;
use crate::link::Link;
use crate::node::Node;
use crate::pg::{Db, TxId, VolumeCopy};
use crate::plant::Plant;
use crate::report::Report;
use crate::rng::Rng;
use crate::trace::{Recorder, Trace};
use bytes::Bytes;
use lockstep_core::fanout::hub::{CatchUpAnswer, PollAnswer, SessionId};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use writers::Writer;

/// Microseconds on the virtual clock.
pub type Micros = u64;
/// A request of a node to PostgreSQL.
pub type AskId = u64;

/// How many of each.
pub const NODES: usize = 2;
/// See [`NODES`].
pub const CLIENTS: usize = 8;
const WRITERS: usize = 10;

/// Who waits for a COMMIT to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Writer(usize),
    Mutation(AskId),
    Push(AskId),
    Mark(usize, u64),
    Nobody,
}

/// `synchronous_commit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    On,
    Local,
    Off,
}

#[derive(Debug)]
pub(crate) enum Event {
    Writer(usize),
    WalWriter,
    Flushed(u64, usize),
    Confirmed(u64, usize),
    Visible(u64, usize),
    Fault,
    Maintain,
    Wake(usize, u64),
    Feed(usize, u64),
    Pump(usize, u64),
    Stream(usize, u64, Vec<Bytes>),
    Feedback(usize, u64, u64, bool),
    Ask(AskId),
    /// More rows of a catch-up.
    Chunk(AskId),
    ReadFence(AskId),
    Answer(AskId),
    Mutation(AskId),
    Up(SessionId, String),
    Down(SessionId),
    Hangup(SessionId),
    Client(usize, u64),
    /// A client was told to join again.
    Rejoin(usize, SessionId),
    Standby,
    ServerUp(u64),
    NodeBorn(usize),
    Unstall(usize),
}

struct Entry(Micros, u64, Event);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    // The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

/// What an answer will say.
#[derive(Debug)]
pub(crate) enum Ready {
    Nothing,
    Poll(PollAnswer),
    CatchUp(Box<CatchUpAnswer>),
    SchemaChanged,
}

/// Everything.
pub struct World {
    pub(crate) rng: Rng,
    pub(crate) plant: Option<Plant>,
    pub(crate) now: Micros,
    next_event: u64,
    queue: BinaryHeap<Entry>,
    pub(crate) db: Db,
    /// The server answers from then on.
    pub(crate) up_at: Micros,
    /// A synchronous standby is configured.
    pub(crate) standby: bool,
    pub(crate) standby_silent: bool,
    /// Commits that wait for the standby.
    pub(crate) unconfirmed: Vec<usize>,
    pub(crate) waiters: HashMap<TxId, Waiter>,
    pub(crate) sends_empty: bool,
    /// The primary changes often.
    pub(crate) promotes: bool,
    /// The schema changes. The model cannot take such a change back, so nothing is lost in these worlds.
    pub(crate) migrates: bool,
    /// Cursors are shortened often.
    pub(crate) short_cursors: bool,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) links: BTreeMap<SessionId, Link>,
    next_session: SessionId,
    pub(crate) asks: BTreeMap<AskId, asks::Ask>,
    next_ask: AskId,
    writers: Vec<Writer>,
    /// How often each mutation was applied in this line of history, and where.
    pub(crate) decisions: HashMap<String, (u32, usize)>,
    /// Mutations of unknown outcome that an application sent again: they may be applied twice.
    pub(crate) sent_again: BTreeSet<String>,
    /// Mutations that two copies of a profile held, and its client id. Where a third copy is in use, or commits were lost,
    /// both may number one anew and have it applied (docs/known-gaps.md).
    pub(crate) shared: BTreeMap<String, String>,
    /// How often the profile of each client id was copied.
    pub(crate) copies: BTreeMap<String, u32>,
    /// Commits that clients may have seen were lost.
    pub(crate) lost_history: bool,
    /// A copy of a profile, for later.
    pub(crate) kept_profile: Option<Client>,
    /// A copy of PostgreSQL's volume.
    pub(crate) volume: Option<VolumeCopy>,
    /// PostgreSQL was rolled back, and no node has looked at it yet.
    pub(crate) unmarked: bool,
    next_mutation: u64,
    next_key: u64,
    /// Writers and faults rest.
    pub(crate) quiet: bool,
    pub(crate) report: Report,
    pub(crate) violation: Option<String>,
    pub(crate) traced: bool,
    /// Clients write traces.
    recorded: bool,
}

impl World {
    /// A world at its beginning.
    pub fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut rng = Rng::new(seed);
        // Half of the worlds begin shortly before the stream's 32-bit ids wrap.
        let first = if rng.one_in(2) { 0xffff_ffff - rng.below(4000) } else { 700 + rng.below(100_000) };
        let standby = rng.one_in(2);
        let sends_empty = rng.one_in(3);
        let short_cursors = rng.one_in(3);
        Self {
            plant,
            now: 0,
            next_event: 0,
            queue: BinaryHeap::new(),
            db: Db::new(first),
            up_at: 0,
            standby,
            standby_silent: false,
            unconfirmed: Vec::new(),
            waiters: HashMap::new(),
            sends_empty,
            promotes: rng.one_in(3),
            migrates: rng.one_in(4),
            short_cursors,
            nodes: Vec::new(),
            clients: Vec::new(),
            links: BTreeMap::new(),
            next_session: 1,
            asks: BTreeMap::new(),
            next_ask: 1,
            writers: Vec::new(),
            decisions: HashMap::new(),
            sent_again: BTreeSet::new(),
            shared: BTreeMap::new(),
            copies: BTreeMap::new(),
            lost_history: false,
            kept_profile: None,
            volume: None,
            unmarked: false,
            next_mutation: 0,
            next_key: 1,
            quiet: false,
            report: Report::default(),
            violation: None,
            traced: false,
            recorded: false,
            rng,
        }
    }

    /// Runs to the end, or to the first violation.
    pub fn run(mut self) -> (Report, Option<String>) {
        self.play();
        (self.report, self.violation)
    }

    /// Runs to the end with clients that write traces. They are born one after another, to see all times of a world.
    pub fn record(mut self, seed: u64) -> Vec<Trace> {
        self.recorded = true;
        self.play();
        let traces = self.clients.into_iter().enumerate().filter_map(|(at, client)| {
            let from = format!("client {at} of the world of seed {seed}");
            client.recorder?.finish(format!("world-{seed}-{at}"), from)
        });
        traces.collect()
    }

    fn play(&mut self) {
        self.traced = std::env::var_os("LOCKSTEP_SIM_TRACE").is_some();
        self.fixture();
        for node in 0..NODES {
            let node_at = Node::new(self.plant, self.short_cursors, &mut self.rng);
            self.nodes.push(node_at);
            self.after(0, Event::Feed(node, self.nodes[node].feed.generation));
        }
        for index in 0..CLIENTS {
            let mut client = Client::new(&mut self.rng, &self.db.schema);
            let mut wait = 150_000 + self.rng.below(200_000);
            if self.recorded {
                client.recorder = Some(Box::new(Recorder::new(index % 3 == 2)));
                client.replica.takes_provisional = false;
                wait += index as u64 * 500_000;
            }
            self.clients.push(client);
            self.after(wait, Event::Client(index, 0));
        }
        for index in 0..WRITERS {
            self.writers.push(Writer::default());
            let wait = self.rng.below(10_000);
            self.after(wait, Event::Writer(index));
        }
        self.after(10_000, Event::WalWriter);
        self.after(300_000, Event::Maintain);
        let rounds = 3 + self.rng.below(3);
        for _ in 0..rounds {
            let chaos = 3_000_000 + self.rng.below(5_000_000);
            self.after(200_000, Event::Fault);
            self.run_until(self.now + chaos);
            if self.recorded && self.is_recorded() {
                return;
            }
            self.settle();
            if self.violation.is_some() {
                break;
            }
        }
        (0..self.nodes.len()).for_each(|at| self.count_resumes(at));
        self.report.seeds = 1;
        self.report.transactions = self.db.commits.iter().filter(|c| c.received).count() as u64;
        self.report.transactions += self.report.received_and_lost;
    }

    fn run_until(&mut self, end: Micros) {
        while self.violation.is_none()
            && !(self.recorded && self.is_recorded())
            && self.queue.peek().is_some_and(|e| e.0 <= end)
            && let Some(Entry(at, _, event)) = self.queue.pop()
        {
            self.now = at;
            self.handle(event);
        }
        self.now = self.now.max(end);
    }

    /// Every trace is written.
    fn is_recorded(&self) -> bool {
        let full = |client: &Client| client.recorder.as_ref().is_none_or(|r| r.is_full());
        !self.clients.is_empty() && self.clients.iter().all(full)
    }

    pub(crate) fn after(&mut self, wait: Micros, event: Event) {
        self.at(self.now + wait, event);
    }

    pub(crate) fn at(&mut self, time: Micros, event: Event) {
        self.next_event += 1;
        self.queue.push(Entry(time, self.next_event, event));
    }

    pub(crate) fn violate(&mut self, what: String) {
        if self.violation.is_none() {
            self.trace(|| format!("VIOLATION {what}"));
            self.violation = Some(format!("at {} ms: {what}", self.now / 1000));
        }
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{:>9} {}", self.now, line());
        }
    }

    pub(crate) fn fault(&mut self, kind: &'static str) {
        self.trace(|| format!("fault: {kind}"));
        *self.report.faults.entry(kind).or_default() += 1;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Writer(writer) => self.write(writer),
            Event::WalWriter => self.wal_writer(),
            Event::Flushed(epoch, commit) => self.flushed(epoch, commit),
            Event::Confirmed(epoch, commit) => self.confirmed(epoch, commit),
            Event::Visible(epoch, commit) => self.visible(epoch, commit),
            Event::Standby => self.standby_answers(),
            Event::Fault => self.strike(),
            Event::Maintain => self.maintain(),
            Event::Wake(node, generation) => self.wake(node, generation),
            Event::Feed(node, generation) => self.feed(node, generation),
            Event::Pump(node, generation) => self.pump(node, generation),
            Event::Stream(node, generation, frames) => self.stream(node, generation, &frames),
            Event::Feedback(node, generation, flush, reply) => self.feedback(node, generation, flush, reply),
            Event::Ask(id) => self.ask_arrives(id),
            Event::Chunk(id) => self.chunk(id),
            Event::ReadFence(id) => self.read_fence(id),
            Event::Answer(id) => self.answer_arrives(id),
            Event::Mutation(id) => self.mutation_step(id),
            Event::Up(session, text) => self.up(session, &text),
            Event::Down(session) => self.down(session),
            Event::Hangup(session) => self.hang_up(session),
            Event::Client(client, generation) => self.client_acts(client, generation),
            Event::Rejoin(client, session) => self.rejoin(client, session),
            Event::ServerUp(epoch) => self.back_up(epoch),
            Event::NodeBorn(node) => self.node_born(node),
            Event::Unstall(node) => self.unstall(node),
        }
    }

    /// Whether a mutation may be applied twice by the rules.
    pub(crate) fn may_repeat(&self, id: &str) -> bool {
        let copies = self.shared.get(id).and_then(|client| self.copies.get(client)).copied().unwrap_or(0);
        self.sent_again.contains(id) || copies > 1 || copies > 0 && self.lost_history
    }

    pub(crate) fn fresh_client(&mut self) -> String {
        format!("{:016x}", self.rng.number())
    }
}
