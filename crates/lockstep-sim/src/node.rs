//! A node: the real hub, and what `lockstep-server` keeps around it.

use crate::plant::Plant;
use crate::rng::Rng;
use crate::world::Micros;
use lockstep_core::catalog::Oid;
use lockstep_core::fanout::Hub;
use lockstep_core::fanout::hub::{MutateRequest, SessionId};
use lockstep_core::limits::Bounds;
use lockstep_core::position::Lsn;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How far a node has come with its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To identify the server and load the catalog.
    Connect,
    /// Its mark is being committed.
    Marking,
    /// To ask for a slot.
    Slot,
    /// A new slot waits for these to end.
    Creating,
    /// To start streaming.
    Start,
    /// Streaming.
    Streaming,
}

/// The source of a node: its replication connection.
#[derive(Debug)]
pub struct Feed {
    /// Rises with every life of a stream; what belongs to an earlier one is void.
    pub generation: u64,
    /// How far it has come.
    pub step: Step,
    /// The slot's confirmed position.
    pub confirmed: u64,
    /// The next commit to be sent.
    pub next: usize,
    /// Relations that were described in this stream, as of a version of the schema.
    pub described: BTreeSet<(Oid, usize)>,
    /// The stream is in order: nothing arrives before.
    pub ready_at: Micros,
    /// A pump is scheduled.
    pub pumping: bool,
    /// A keepalive was asked for.
    pub wants_keepalive: bool,
    /// Ids that a new slot waits for.
    pub waits_for: BTreeSet<u64>,
    /// Back-off, in milliseconds.
    pub back_off: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Node {
    /// The real one.
    pub hub: Hub,
    /// Rises with every process; what belongs to an earlier one is void.
    pub generation: u64,
    /// The process runs.
    pub alive: bool,
    /// Its stream.
    pub feed: Feed,
    /// The schema that it knows.
    pub version: usize,
    /// Timelines of the stream's server.
    pub history: Vec<(u32, Lsn)>,
    /// Mutations of a session run one after another.
    pub mutating: BTreeMap<SessionId, VecDeque<MutateRequest>>,
    /// It and PostgreSQL do not hear each other until then.
    pub stalled_until: Micros,
    /// The earliest wake-up that is scheduled.
    pub wake_at: Micros,
    /// For plants: the newest commit frame of each session, and whether a `rows` frame was sent since.
    pub last_commit: BTreeMap<SessionId, (String, bool)>,
}

/// Bounds small enough to be met.
pub const RING_BYTES: usize = 64 << 10;
/// See [`RING_BYTES`].
pub const WINDOW_BYTES: usize = 1 << 20;
/// See [`RING_BYTES`].
pub const HELD_BYTES: usize = 64 << 10;

impl Node {
    /// A new process.
    pub fn new(plant: Option<Plant>, short_cursors: bool, rng: &mut Rng) -> Self {
        let small = rng.one_in(3);
        let narrow = rng.one_in(3) || plant == Some(Plant::WindowFloor);
        let bounds = Bounds {
            ring_bytes: if small || plant == Some(Plant::RingEvicts) { 3 << 10 } else { RING_BYTES },
            window_bytes: if narrow { 24 << 10 } else { WINDOW_BYTES },
            transaction_bytes: [400, 2_500, 20_000, 20_000][rng.index(4)],
            part_bytes: [1, 400, 1_500][rng.index(3)],
            part_keys: if rng.one_in(8) { 3 } else { 1_000 },
            cursor_xip: if short_cursors { 8 } else { 256 },
            held_bytes: if rng.one_in(2) { 2 << 10 } else { HELD_BYTES },
            waiting_sessions: if rng.one_in(3) { 1 + rng.index(4) } else { 10_000 },
            provisional_ms: rng.between(1, 40),
            ..Bounds::default()
        };
        let hub = Hub::with_bounds(bounds);
        #[cfg(feature = "plants")]
        let hub = {
            let mut hub = hub;
            hub.plant(match plant {
                Some(Plant::RingEarly) => Some(lockstep_core::plant::Plant::RingEarly),
                Some(Plant::RingEvicts) => Some(lockstep_core::plant::Plant::RingEvicts),
                Some(Plant::WindowFloor) => Some(lockstep_core::plant::Plant::WindowFloor),
                Some(Plant::WindowFence) => Some(lockstep_core::plant::Plant::WindowFence),
                Some(Plant::ProvisionalHalf) => Some(lockstep_core::plant::Plant::ProvisionalHalf),
                Some(Plant::LateTombstone) => Some(lockstep_core::plant::Plant::LateTombstone),
                Some(Plant::UnsureXid) => Some(lockstep_core::plant::Plant::UnsureXid),
                _ => None,
            });
            hub
        };
        Self {
            hub,
            generation: 0,
            alive: true,
            feed: Feed::new(0),
            version: 0,
            history: Vec::new(),
            mutating: BTreeMap::new(),
            stalled_until: 0,
            wake_at: Micros::MAX,
            last_commit: BTreeMap::new(),
        }
    }
}

impl Feed {
    /// The beginning of a stream's life.
    pub fn new(generation: u64) -> Self {
        Self {
            generation,
            step: Step::Connect,
            confirmed: 0,
            next: 0,
            described: BTreeSet::new(),
            ready_at: 0,
            pumping: false,
            wants_keepalive: false,
            waits_for: BTreeSet::new(),
            back_off: 100,
        }
    }
}
