//! What a node did and has, as plain numbers: whoever serves metrics reads them.

use super::{Hub, Mode, SessionId, SubState};
use crate::limits;
use crate::position::Lsn;
use crate::protocol::{MutateFrame, unreadable_depth};

/// A bound of `limits.rs` that the hub itself meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Rows left the ring.
    RingBytes,
    /// A transaction was not held, and passed through.
    TransactionBytes,
    /// A cursor was too long.
    CursorXip,
    /// Ids too far ahead were not folded.
    FoldGap,
    /// Too much waited for a standby.
    HeldBytes,
    /// A session asked for too many shapes.
    SessionShapes,
    /// The node is full.
    Sessions,
    /// Catch-ups wait for others to end.
    CatchUps,
    /// A message with too many mutations.
    MutationsPerFrame,
    /// A mutation with too many operations.
    OperationsPerMutation,
    /// A message with too many levels.
    Nesting,
    /// A `where` that is too long, or has too many terms or levels.
    Where,
    /// Too many wait for their first batch: a client was told when to come again.
    WaitingSessions,
    /// A transaction that is passed through has more keys than are remembered.
    PartKeys,
    /// It acknowledges more mutations than are remembered.
    PartAcknowledgements,
    /// A socket takes it too slowly.
    PassedBytes,
}

impl Bound {
    /// All of them, in the order of [`Counters::bounds`].
    pub const ALL: [Self; 16] = [
        Self::RingBytes,
        Self::TransactionBytes,
        Self::CursorXip,
        Self::FoldGap,
        Self::HeldBytes,
        Self::SessionShapes,
        Self::Sessions,
        Self::CatchUps,
        Self::MutationsPerFrame,
        Self::OperationsPerMutation,
        Self::Nesting,
        Self::Where,
        Self::WaitingSessions,
        Self::PartKeys,
        Self::PartAcknowledgements,
        Self::PassedBytes,
    ];

    /// Those that a client's mutations go beyond.
    pub fn of_mutations(frame: &MutateFrame) -> impl Iterator<Item = Self> + use<> {
        let many = frame.mutations.len() > limits::MUTATIONS_PER_FRAME;
        let large = frame.mutations.iter().any(|m| m.ops.len() > limits::OPERATIONS_PER_MUTATION);
        let many = many.then_some(Self::MutationsPerFrame);
        let mut operations = frame.mutations.iter().flat_map(|m| &m.ops);
        let depth = unreadable_depth();
        let deep = operations.any(|op| op.as_ref().is_err_and(|why| *why == depth));
        let large = large.then_some(Self::OperationsPerMutation);
        many.into_iter().chain(large).chain(deep.then_some(Self::Nesting))
    }

    /// Its name in `limits.rs`, in small letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RingBytes => "ring_bytes",
            Self::TransactionBytes => "transaction_bytes",
            Self::CursorXip => "cursor_xip",
            Self::FoldGap => "fold_gap",
            Self::HeldBytes => "held_bytes",
            Self::SessionShapes => "session_shapes",
            Self::Sessions => "sessions",
            Self::CatchUps => "catch_ups_in_flight",
            Self::MutationsPerFrame => "mutations_per_frame",
            Self::OperationsPerMutation => "operations_per_mutation",
            Self::Nesting => "nesting",
            Self::Where => "where",
            Self::WaitingSessions => "waiting_sessions",
            Self::PartKeys => "part_keys",
            Self::PartAcknowledgements => "part_acknowledgements",
            Self::PassedBytes => "passed_bytes",
        }
    }
}

/// What only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Transactions that the stream delivered.
    pub transactions: u64,
    /// Rows that they changed, in tracked tables.
    pub rows: u64,
    /// Transactions among them that were passed through in parts.
    pub passed: u64,
    /// Sessions that such a transaction could not be told to, and that were caught up past it.
    pub passed_fallen: u64,
    /// Streams that began.
    pub streams: u64,
    /// Catch-ups whose rows were sent.
    pub catch_ups_settled: u64,
    /// Catch-ups that failed and were tried again.
    pub catch_ups_failed: u64,
    /// Catch-ups thrown away because what they read from was no longer what is served.
    pub catch_ups_discarded: u64,
    /// Sessions that came back and were brought to the present from memory.
    pub resumes_window: u64,
    /// Sessions that came back with a state that is known here in whole, for which PostgreSQL was asked.
    pub resumes_read: u64,
    /// Sessions that were shown their first load before it was settled.
    pub provisional: u64,
    /// How often each bound was reached.
    pub bounds: [u64; Bound::ALL.len()],
}

/// What there is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How the hub is fed.
    pub mode: Mode,
    /// Sessions may be brought forward by the stream alone.
    pub follows: bool,
    /// Up to here everything was delivered.
    pub watermark: Lsn,
    /// Milliseconds since the moment of which the node is proven to have everything.
    pub age: Option<u64>,
    /// Bytes of WAL that the stream has still to bring.
    pub lag_bytes: u64,
    /// Connections.
    pub sessions: usize,
    /// Sessions that have joined.
    pub joined: usize,
    /// Sessions that wait to be read for, or are.
    pub waiting: usize,
    /// Sessions that were told to come again, and have not yet.
    pub later: usize,
    /// Shapes, each counted once.
    pub shapes: usize,
    /// Subscriptions to them.
    pub subscriptions: usize,
    /// Rows in the ring.
    pub ring_bytes: usize,
    /// Rows kept for those who come back.
    pub window_bytes: usize,
    /// Frames that wait for a synchronous standby.
    pub held_bytes: usize,
    /// Catch-ups that run.
    pub catch_ups: usize,
    /// What happened so far.
    pub counters: Counters,
}

/// One shape, for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeReport {
    /// Its id on the wire.
    pub id: String,
    /// Schema and table.
    pub table: (String, String),
    /// Columns of its scope; their values are rows' values and not told.
    pub scope: Vec<String>,
    /// It has a predicate.
    pub filtered: bool,
    /// Sessions that subscribe to it.
    pub subscribers: usize,
    /// Frames that it was sent in, once for each subscriber.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One session, for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// Its number.
    pub id: SessionId,
    /// Client id; empty before it has joined.
    pub client: String,
    /// Its shapes.
    pub shapes: usize,
    /// It has all that it asked for.
    pub live: bool,
    /// Milliseconds since the moment of which it is proven to have everything.
    pub age: Option<u64>,
}

impl Hub {
    /// Takes note that a bound was reached.
    pub fn reached_bound(&mut self, bound: Bound) {
        if let Some(at) = Bound::ALL.iter().position(|b| *b == bound) {
            self.counters.bounds[at] += 1;
        }
    }

    /// What there is now. Looks at every session.
    pub fn report(&self) -> Report {
        let sessions = self.sessions.values();
        let waits = |s: &&super::Session| s.joined && !s.subs.values().all(|sub| sub.state == SubState::Live);
        Report {
            mode: self.mode,
            follows: self.follows_stream(),
            watermark: self.watermark,
            age: self.proof.map(|proof| self.now.saturating_sub(proof)),
            lag_bytes: self.lag_bytes(),
            sessions: self.sessions.len(),
            joined: sessions.clone().filter(|s| s.joined).count(),
            waiting: sessions.clone().filter(waits).count(),
            later: self.admission.later(),
            shapes: self.shapes.len(),
            subscriptions: self.shapes.values().map(|h| h.subscribers.len()).sum(),
            ring_bytes: self.ring.bytes(),
            window_bytes: self.window.bytes() + self.retold.bytes(),
            held_bytes: sessions.map(|s| s.held).sum(),
            catch_ups: self.running.len(),
            counters: self.counters,
        }
    }

    /// Every shape, those with most bytes sent first.
    pub fn report_shapes(&self) -> Vec<ShapeReport> {
        let one = |held: &super::Held| ShapeReport {
            id: held.shape.id.to_string(),
            table: (held.shape.table.schema.clone(), held.shape.table.name.clone()),
            scope: held
                .shape
                .scope()
                .iter()
                .map(|(column, _)| held.shape.table.columns[*column].name.clone())
                .collect(),
            filtered: held.shape.predicate.is_some(),
            subscribers: held.subscribers.len(),
            frames: held.frames,
            bytes: held.bytes,
        };
        let mut shapes: Vec<_> = self.shapes.values().map(one).collect();
        shapes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.id.cmp(&b.id)));
        shapes
    }

    /// Every session, by its number.
    pub fn report_sessions(&self) -> Vec<SessionReport> {
        let one = |(id, session): (&SessionId, &super::Session)| SessionReport {
            id: *id,
            client: session.client.clone(),
            shapes: session.subs.len(),
            live: session.established && session.subs.values().all(|s| s.state == SubState::Live),
            age: self.age(*id),
        };
        self.sessions.iter().map(one).collect()
    }
}
