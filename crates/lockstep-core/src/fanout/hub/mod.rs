//! The hub: a node's whole state as one machine without I/O.
//!
//! Everything that a client is ever told is decided here. Events come in through `handle_*`, outputs leave by
//! [`Hub::poll_output`]; time is an argument. All collections are ordered, so that a run can be replayed.
//!
//! Two ways to be fed:
//!
//! * *streaming*: transactions arrive in commit order; W is the watermark up to which all were delivered.
//! * *polling*: no stream (yet, or not allowed). Sessions are caught up again and again; several commits
//!   collapse into one state. "Settled" then means that PostgreSQL has flushed up to F.
//!
//! The one mechanism beneath both, joins, resumes, broken streams, and rows the stream cannot supply: a shape of
//! a session is *wanted* from some position, *read* in a catch-up, and *live* once the catch-up is settled and
//! merged with the ring.

mod admission;
mod catch_up;
mod deliver;
mod few;
mod freshness;
mod merged;
mod passing;
mod provisional;
mod report;
mod returning;
mod schema;
mod sessions;
mod stream;
mod types;

pub use report::{Bound, Counters, Report, SessionReport, ShapeReport};
pub use sessions::answer_to;
pub use types::*;

use crate::catalog::Catalog;
use crate::change::{Assembler, Text};
use crate::fanout::match_index::ShapeIndex;
use crate::fanout::{MatchIndex, Ring, Window};
use crate::limits::{self, Bounds};
use crate::position::{CursorHead, Lsn, Snapshot, Xid};
use crate::protocol::{Frame, LoadId};
use crate::shape::{Shape, ShapeId};
use few::{FewMap, FewSet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How the hub is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is known of the database yet.
    Starting,
    /// By repeated catch-ups.
    Polling,
    /// By the stream.
    Streaming,
}

/// A shape with its subscribers.
#[derive(Debug)]
struct Held {
    shape: Arc<Shape>,
    subscribers: FewSet<SessionId>,
    /// Frames and bytes sent for it, to all of them together.
    frames: u64,
    bytes: u64,
}

/// What a subscription waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SubState {
    /// To be read.
    Wanted(ReadFrom),
    /// Being read; where from, should it have to be read again.
    Reading(CatchUpId, ReadFrom),
    /// In step with all other live shapes of the session.
    Live,
}

#[derive(Debug)]
struct Sub {
    shape: ShapeIndex,
    state: SubState,
    /// The session was told its columns.
    announced: bool,
    /// The client's rows have only so many of them; the rest is told with the columns.
    held: Option<usize>,
    /// Of what it was asked for by.
    bytes: usize,
    /// Rows that the client has set aside for it, in their order. Of a live one those of a transaction that is passed
    /// through.
    aside: Vec<LoadId>,
}

/// Frames up to a commit, held until the transactions they acknowledge are visible.
#[derive(Debug)]
struct Batch {
    frames: Vec<Frame>,
    waits: Vec<Xid>,
    /// When it was queued.
    since: Millis,
    /// For a batch that may have to wait: how it is taken back.
    undo: Option<Undo>,
}

/// Where a session stood before a batch.
#[derive(Debug, Default)]
struct Undo {
    /// The last mutation acknowledged before.
    acknowledged: u64,
    /// Frames that the batch began with because they were due.
    preface: Vec<Frame>,
    /// The session's own position; of one that followed the stream, the state before the batch's transaction.
    base: Option<Arc<CursorHead>>,
    /// Shapes that the batch brought.
    read: Vec<Brought>,
    /// Rows that were set aside of a transaction that was passed through.
    passed: Vec<LoadId>,
}

/// A shape in a batch that may be taken back.
#[derive(Debug)]
struct Brought {
    reference: String,
    shape: ShapeIndex,
    /// Where it was read from.
    from: ReadFrom,
    /// The batch told that rows which the client has get more columns than so many.
    held: Option<usize>,
    /// Rows set aside that the batch would have taken.
    aside: Vec<LoadId>,
}

#[derive(Debug, Default)]
struct Session {
    join_ref: Option<String>,
    joined: bool,
    subject: String,
    client: String,
    /// Its client takes a shape that got more columns without loading it anew.
    widens: bool,
    /// It shows a first load that is not settled, marked as such.
    takes_provisional: bool,
    subs: FewMap<String, Sub>,
    /// The session's own position while it does not follow the stream.
    base: Option<Arc<CursorHead>>,
    /// The state that its client came with.
    joined_at: Option<Arc<CursorHead>>,
    /// Its first catch-up has settled; acknowledgements may follow from the stream.
    established: bool,
    /// The catch-up that will establish it, if it runs.
    establishing: Option<CatchUpId>,
    shapes_part: String,
    /// The last mutation acknowledged in this session.
    acknowledged: u64,
    /// No catch-up serves the session before a poll sees this transaction, which the stream could not tell it.
    must_see: Option<Xid>,
    /// Frames for the beginning of its next batch.
    preface: Vec<Frame>,
    batches: VecDeque<Batch>,
    /// Bytes of the batches.
    held: usize,
    /// The moment of which it is proven to have everything, apart from what the stream proves.
    proof: Option<Millis>,
}

#[derive(Debug)]
struct Running {
    /// Which of the reads are of a shape.
    reads_of: BTreeMap<ShapeId, Vec<usize>>,
    /// Of each read, the sessions that wait for it.
    readers: Vec<Vec<SessionId>>,
    /// Which of the clients a session's is.
    client_of: BTreeMap<SessionId, usize>,
    started_at_poll: u64,
    started: Millis,
    members: BTreeSet<SessionId>,
    request: CatchUpRequest,
    answer: Option<CatchUpAnswer>,
    /// When it was answered.
    answered: Option<Millis>,
    /// Whoever may be shown it before it is settled was.
    shown: bool,
}

/// A node's state. See the module's text.
#[derive(Debug)]
pub struct Hub {
    mode: Mode,
    now: Millis,
    bounds: Bounds,
    identity: Option<Identity>,
    /// Polls are of the history that the stream was of. Not after a stream broke, until the server was looked at.
    identified: bool,
    catalog: Arc<Catalog>,
    schema: schema::Schema,

    // The stream.
    assembler: Assembler,
    reference: Xid,
    /// W: everything that ends at or before it was delivered.
    watermark: Lsn,
    ring: Ring,
    /// What left the ring, for those who come back.
    window: Window,
    retold: returning::Retold,
    /// P: the state that the stream has brought live sessions to. None until the first poll of a stream.
    position: Option<Snapshot>,
    /// The newest settled poll, for cursors whose `xip` would be too long.
    settled_poll: Snapshot,
    /// Delivered, and too far ahead to be folded into the position.
    unfolded: Vec<Xid>,
    /// In no snapshot at the start of this stream, and not delivered by it since.
    unsure: BTreeSet<Xid>,
    gap_asked: bool,
    /// A transaction of which the stream has brought a part.
    passing: Option<passing::Passing>,

    // Polls.
    polls_asked: u64,
    polls_answered: u64,
    polls_settled: u64,
    poll_in_flight: bool,
    poll_asked_at: Millis,
    next_poll: Millis,
    /// Answers that wait for W to reach their F, and when they were asked for.
    unsettled: VecDeque<(PollAnswer, Millis)>,
    last_poll: Snapshot,
    flushed: Lsn,
    /// How far the server was before its restart, until it is looked at for the first time.
    flushed_before: Lsn,
    /// Polls up to this number were asked before the stream's first push, and say nothing of it.
    stream_since_poll: u64,
    /// The stream started and its first push is not yet committed: Z cannot be taken.
    unpushed: bool,

    // Shapes and sessions.
    shapes: BTreeMap<ShapeIndex, Held>,
    by_id: BTreeMap<ShapeId, ShapeIndex>,
    next_shape: ShapeIndex,
    index: MatchIndex,
    sessions: BTreeMap<SessionId, Session>,
    admission: admission::Admission,
    by_client: BTreeMap<(Text, Text), FewSet<SessionId>>,
    /// Transactions whose COMMIT has returned; kept until a poll sees them.
    released: BTreeSet<Xid>,
    /// Sessions with a batch that waits for a release.
    holding: BTreeSet<SessionId>,

    // Catch-ups.
    needy: BTreeSet<SessionId>,
    /// Have joined with a state that memory reaches, and wait for the poll of this number to settle.
    returning: BTreeMap<SessionId, u64>,
    running: BTreeMap<CatchUpId, Running>,
    next_catch_up: CatchUpId,
    /// The next one begins then, while another one runs.
    gathered_at: Millis,
    retry_at: Millis,
    retries: u32,
    pushes_asked: u64,
    push_in_flight: bool,
    /// The highest fence that a push was sent for; its commit ends beyond it.
    push_covers: Lsn,
    push_again: Millis,

    /// The newest moment of which the stream, or the polls without one, are proven to have brought everything.
    proof: Option<Millis>,
    counters: Counters,
    /// Sessions wait for catch-ups to end because as many run as may.
    crowded: bool,
    outputs: VecDeque<Output>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::with_bounds(Bounds::default())
    }
}

impl Hub {
    /// A hub that knows nothing yet.
    pub fn with_bounds(bounds: Bounds) -> Self {
        Self {
            mode: Mode::Starting,
            now: 0,
            bounds,
            identity: None,
            identified: false,
            catalog: Arc::default(),
            schema: schema::Schema::default(),
            assembler: Assembler::new(&bounds),
            reference: 0,
            watermark: Lsn(0),
            ring: Ring::new(bounds.ring_bytes),
            window: Window::new(bounds.window_bytes),
            retold: returning::Retold::default(),
            position: None,
            settled_poll: Snapshot::default(),
            unfolded: Vec::new(),
            unsure: BTreeSet::new(),
            gap_asked: false,
            passing: None,
            polls_asked: 0,
            polls_answered: 0,
            poll_in_flight: false,
            poll_asked_at: 0,
            next_poll: 0,
            unsettled: VecDeque::new(),
            last_poll: Snapshot::default(),
            flushed: Lsn(0),
            flushed_before: Lsn(0),
            stream_since_poll: 0,
            unpushed: false,
            shapes: BTreeMap::new(),
            by_id: BTreeMap::new(),
            next_shape: 0,
            index: MatchIndex::default(),
            sessions: BTreeMap::new(),
            admission: admission::Admission::default(),
            by_client: BTreeMap::new(),
            released: BTreeSet::new(),
            holding: BTreeSet::new(),
            needy: BTreeSet::new(),
            returning: BTreeMap::new(),
            polls_settled: 0,
            running: BTreeMap::new(),
            next_catch_up: 0,
            gathered_at: 0,
            retry_at: 0,
            retries: 0,
            pushes_asked: 0,
            push_in_flight: false,
            push_covers: Lsn(0),
            push_again: 0,
            proof: None,
            counters: Counters::default(),
            crowded: false,
            outputs: VecDeque::new(),
        }
    }
}

impl Hub {
    /// Builds in a fault, to show that it is found.
    #[cfg(feature = "plants")]
    pub fn plant(&mut self, plant: Option<crate::plant::Plant>) {
        self.ring.plant = plant;
        self.window.plant = plant;
    }

    /// Bytes of rows in the ring.
    pub fn ring_bytes(&self) -> usize {
        self.ring.bytes()
    }

    /// Bytes that wait for a synchronous standby, of the session with most of them.
    pub fn held_bytes(&self) -> usize {
        self.holding.iter().filter_map(|id| self.sessions.get(id)).map(|s| s.held).max().unwrap_or(0)
    }

    /// The next thing to do; None when all is done for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.pass_on();
        if self.outputs.is_empty() {
            self.ask_for_catalog();
            self.answer_returning();
            self.show_provisional();
            self.start_catch_ups();
            self.ask_for_push();
            self.ask_for_poll();
        }
        self.outputs.pop_front()
    }

    /// Time passes. Nothing else moves the hub's clock.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.now = self.now.max(now);
    }

    /// When [`Self::handle_timeout`] is wanted next, if nothing else happens.
    pub fn next_timeout(&self) -> Option<Millis> {
        if self.mode == Mode::Starting {
            return None;
        }
        let poll = (!self.poll_in_flight).then_some(self.next_poll);
        let retry = (!self.needy.is_empty() && self.retry_at > self.now).then_some(self.retry_at);
        let gathers = !self.needy.is_empty() && !self.running.is_empty() && self.gathered_at > self.now;
        let gather = gathers.then_some(self.gathered_at);
        let push = (self.unpushed || self.waits_for_fence().is_some()).then_some(self.push_again);
        let catalog = self.schema.waits().then_some(self.schema.not_before);
        [poll, retry, gather, push, catalog, self.provisional_at()].into_iter().flatten().min()
    }

    /// How the hub is fed just now.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether clients can be served.
    pub fn is_ready(&self) -> bool {
        self.mode != Mode::Starting
    }

    /// Whether this catch-up's answer is still of use.
    pub fn awaits(&self, id: CatchUpId) -> bool {
        self.running.contains_key(&id)
    }

    /// Connected sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// W.
    pub fn watermark(&self) -> Lsn {
        self.watermark
    }

    /// The catalog in use.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// How far everything is settled: delivered while streaming, flushed while polling.
    fn reached(&self) -> Lsn {
        if self.mode == Mode::Streaming { self.watermark } else { self.flushed }
    }

    /// Whether live sessions may be brought forward by the stream alone.
    ///
    /// Not while something is unsure: its commit record may lie before the stream's start, so that the stream will
    /// never bring it, and what does come may build on it. A child would be shown without its parent. Until then
    /// sessions are caught up again and again, as without a stream.
    pub fn follows_stream(&self) -> bool {
        self.mode == Mode::Streaming && self.unsure.is_empty()
    }

    /// The head of a cursor for a session that follows the stream, short enough to be sent.
    fn stream_head(&self) -> Option<CursorHead> {
        let mut head = self.exact_head()?;
        if head.snapshot.xip().len() > self.bounds.cursor_xip {
            head.snapshot = self.settled_poll.clone();
            head.shown = self.shown_ahead();
        }
        Some(head)
    }

    /// What was delivered, and neither the settled poll nor the newest one sees.
    fn shown_ahead(&self) -> Vec<Xid> {
        let unseen = |x: &Xid| !self.settled_poll.sees(*x) && !self.last_poll.sees(*x);
        let newest = self.ring.xids_newest_first().filter(unseen).take(limits::CURSOR_SHOWN);
        newest.collect()
    }

    /// Where sessions that follow the stream stand, however many numbers that takes.
    fn exact_head(&self) -> Option<CursorHead> {
        let identity = self.identity.as_ref()?;
        Some(CursorHead {
            system: identity.system,
            timeline: identity.timeline,
            database: identity.database,
            incarnation: identity.incarnation,
            fence: self.watermark,
            snapshot: self.position.clone()?,
            shown: self.unfolded.iter().copied().filter(|x| !self.last_poll.sees(*x)).collect(),
        })
    }

    fn send(&mut self, session: SessionId, frame: Frame) {
        self.outputs.push_back(Output::Send(session, frame));
    }
}
