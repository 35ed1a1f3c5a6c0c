//! What goes into a hub and what comes out of it.

use crate::mutation::{Mutation, Outcome};
use crate::position::{CursorHead, Facts, Lsn, ResetReason, Snapshot, Xid};
use crate::protocol::Frame;
use crate::shape::Shape;
use std::sync::Arc;

/// Milliseconds on a clock that never goes back.
pub type Millis = u64;
/// One connection's number, given by the caller, never used again.
pub type SessionId = u64;
/// One catch-up's number.
pub type CatchUpId = u64;

/// Which database a node is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `system_identifier`.
    pub system: u64,
    /// Current timeline.
    pub timeline: u32,
    /// Oid of the database.
    pub database: u32,
    /// The mark this node wrote when it started.
    pub incarnation: i64,
}

/// Where a read begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// All rows, and why.
    Scratch(ResetReason),
    /// What changed since this state, if it is accepted.
    Since(Arc<CursorHead>),
}

/// One shape to be read in a catch-up.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The shape.
    pub shape: Arc<Shape>,
    /// From where.
    pub from: ReadFrom,
}

/// One repeatable-read transaction: rule 1 of docs/consistency.md.
#[derive(Debug, Clone)]
pub struct CatchUpRequest {
    /// To be repeated in the answer.
    pub id: CatchUpId,
    /// Shapes to be read.
    pub reads: Vec<ReadRequest>,
    /// Clients (subject, id) whose stored outcomes are wanted.
    pub clients: Vec<(String, String)>,
}

/// One shape's part of an answer, encoded where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAnswer {
    /// `rows` frames; none of a read whose rows went ahead in chunks ([`Hub::handle_catch_up_rows`]).
    ///
    /// [`Hub::handle_catch_up_rows`]: super::Hub::handle_catch_up_rows
    pub frames: Vec<Frame>,
}

/// What a catch-up read.
#[derive(Debug, Clone)]
pub struct CatchUpAnswer {
    /// Who answered, and S. `insert_lsn` is F, read after S.
    pub facts: Facts,
    /// In the order of the request.
    pub reads: Vec<ReadAnswer>,
    /// In the order of the request.
    pub clients: Vec<Vec<Outcome>>,
}

/// Why a catch-up failed; all are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatchUpError {
    /// A table is not what the catalog says.
    SchemaChanged,
    /// Connection lost, lock not granted in time, and the like.
    Passing(String),
}

/// A poll of the snapshot.
#[derive(Debug, Clone)]
pub struct PollAnswer {
    /// Number of the poll.
    pub number: u64,
    /// S.
    pub snapshot: Snapshot,
    /// F: the insert LSN, read after S.
    pub fence: Lsn,
    /// The flush LSN, read after F.
    pub flushed: Lsn,
}

/// Mutations to be run one after another.
#[derive(Debug, Clone)]
pub struct MutateRequest {
    /// Who sent them.
    pub session: SessionId,
    /// For the reply.
    pub reply: ReplyTo,
    /// Subject of the client.
    pub subject: String,
    /// Client id.
    pub client: String,
    /// Outcomes up to here need not be kept.
    pub confirmed: u64,
    /// In order.
    pub mutations: Vec<Mutation>,
}

/// Where a reply belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// `join_ref`.
    pub join_ref: Option<String>,
    /// `ref`.
    pub reference: Option<String>,
    /// Topic.
    pub topic: String,
}

/// What became of a mutate message. Each mutation's outcome travels in the stream, not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MutateResult {
    /// All were decided.
    Decided,
    /// A number was taken by a mutation with another id.
    Renumber {
        /// The number before it: up to here the sender's own mutations were decided.
        last: u64,
    },
    /// A number is missing before this one.
    Gap {
        /// The last number decided.
        last: u64,
    },
    /// The client is unknown and the number is not the first.
    UnknownClient,
    /// A passing failure; the ones before it may have been decided.
    Busy,
}

/// Something for the caller to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Queue a frame for a socket.
    Send(SessionId, Frame),
    /// Close a socket.
    Close(SessionId, u16, &'static str),
    /// Run a catch-up; answer with `handle_catch_up`.
    CatchUp(CatchUpRequest),
    /// Commit a transaction that has an xid and a logical message, so that the watermark reaches a fence; answer
    /// with `handle_pushed`.
    PushFence(u64),
    /// Take S, then F, then the flush LSN; answer with `handle_poll`.
    Poll(u64),
    /// Which of these have entries in a change log? Answer with `handle_gap`.
    ReadGap(Vec<Xid>),
    /// Run mutations; answer with `handle_mutated`.
    Mutate(MutateRequest),
    /// Send a standby status update.
    Feedback {
        /// Up to here nothing need be sent again.
        flush: Lsn,
        /// Ask for a keepalive.
        reply: bool,
    },
    /// Read the catalog in one snapshot; answer with `handle_catalog`.
    ReadCatalog,
    /// The stream cannot be followed: read the catalog and identity anew and start another one.
    RestartStream(String),
}
