//! Every bound of a node, in one place, each with its reason.
//!
//! Reaching one is a stated outcome, never growth.

/// Rows of recently delivered transactions kept in the ring, in bytes. Past it the rows are dropped, the xids
/// kept, and catch-ups that would have needed them wait until their snapshot sees them. 64 MiB holds minutes of
/// ordinary traffic.
pub const RING_BYTES: usize = 64 << 20;

/// What left the ring is kept for clients that come back after a moment, in bytes; zero keeps nothing. Past it the oldest
/// go, and who needs them is answered by PostgreSQL. 32 MiB are some minutes at a hundred small transactions a second.
pub const WINDOW_BYTES: usize = 32 << 20;

/// Transactions told from memory to one session that comes back. Past it PostgreSQL is asked, which tells each row once.
pub const RETURN_TRANSACTIONS: usize = 256;

/// Transactions of the ring times shapes of the session that are looked at for it, about 0.1 µs each. Past it PostgreSQL is
/// asked: the node does nothing else meanwhile.
pub const RETURN_LOOKS: usize = 20_000;

/// One transaction held in memory, in bytes. A larger one is passed through in parts of [`PART_BYTES`].
pub const TRANSACTION_BYTES: usize = 32 << 20;

/// Bytes of a part of a transaction that is passed through: about 20,000 rows; of a larger row as many as it has, so that
/// what is held does not grow. The node does nothing else while it tells one; of smaller ones each shape would get more
/// frames.
pub const PART_BYTES: usize = 4 << 20;

/// Keys of a transaction that is passed through which are remembered until its commit, in 9 bytes each. Past it none is,
/// and shapes that rows left are caught up past the transaction.
pub const PART_KEYS: usize = 3_500_000;

/// Acknowledgements in a transaction that is passed through. Past it the sessions concerned are caught up past it.
pub const PART_ACKNOWLEDGEMENTS: usize = 1_000;

/// Bytes of rows set aside that wait for one socket, above which its session is not told of a transaction that is passed
/// through, and is caught up past it: no stream waits for one client. One more frame may come on top. In a node with little
/// room left it is [`QUEUE_FAIR_BYTES`], as they wait when a part comes: of the part itself whoever reads gets all.
pub const PASSED_BYTES: usize = 16 << 20;

/// Numbers in a cursor's `xip`. Past it the last polled snapshot is handed out: older, so rows may be sent
/// again, but short enough for a heartbeat. 256 numbers are about 2.5 kB.
pub const CURSOR_XIP: usize = 256;

/// Numbers in a cursor's `shown`, which only a shortened one has. A commit that no snapshot sees keeps a connection
/// waiting, or ended within the last tenth of a second. Past it the newest stay: commits that wait for a standby become
/// visible in their order, about.
pub const CURSOR_SHOWN: usize = 256;

/// Bytes of one session's frames that wait for a mutation's synchronous standby. Past it they are thrown away, and the
/// session is caught up once a snapshot sees the mutation.
pub const HELD_BYTES: usize = 4 << 20;

/// Ids that folding one transaction into a position may add to its `xip`. Past it the position stays where it is
/// until the next poll: older, so rows may be sent again, but a burst of ids elsewhere in the cluster costs no memory.
pub const FOLD_GAP: u64 = 65_536;

/// Shapes of one session. Each costs a lookup at catch-up and a few hundred bytes.
pub const SESSION_SHAPES: usize = 200;
/// Bytes of what a session's shapes are asked for by: names, values, predicates. All of them are asked for in one join by a
/// client that comes back, so it could not hold more.
pub const SESSION_SHAPE_BYTES: usize = CLIENT_FRAME_BYTES;

/// Bytes of one `where`, and comparisons and constants in it. Each is evaluated for every row of the shape's scope.
pub const WHERE_BYTES: usize = 16 << 10;
/// See [`WHERE_BYTES`].
pub const WHERE_TERMS: usize = 1_000;
/// Levels of parentheses and operators in one `where`: its parser and its reader call themselves once for each.
pub const WHERE_DEPTH: usize = 50;

/// Bytes waiting for one socket, one batch apart, which is queued whole. A session that does not read is closed and
/// resumes by its cursor.
pub const QUEUE_BYTES: usize = 256 << 20;

/// Bytes waiting for all sockets of a node together, each frame counted for each that it waits for. Past it sessions that
/// have more than [`QUEUE_FAIR_BYTES`] waiting are closed and resume; whoever reads is not touched.
pub const NODE_QUEUE_BYTES: usize = 1 << 30;
/// See [`NODE_QUEUE_BYTES`].
pub const QUEUE_FAIR_BYTES: usize = 64 << 10;

/// Bytes of one message from a client.
pub const CLIENT_FRAME_BYTES: usize = 1 << 20;

/// Bytes of one session's messages that are read and not yet served, about. Past it nothing more is read from its
/// socket: a client that writes faster than PostgreSQL takes it is slowed down, and no other.
pub const UNSERVED_BYTES: usize = 4 << 20;

/// The same of all sessions of a node together. What one session has beyond [`UNSERVED_FREE_BYTES`] waits there.
pub const NODE_UNSERVED_BYTES: usize = 256 << 20;

/// A session's unserved bytes that do not count among the node's: heartbeats and small writes of those who do not flood
/// are read however full the node is.
pub const UNSERVED_FREE_BYTES: usize = 4 << 10;

/// Pings of one client whose pongs wait for its socket. Past it nothing more is read from it: the WebSocket library
/// answers whatever it reads, and holds the answers.
pub const PONGS: usize = 16;

/// Levels of arrays and objects in what is read of a client's message: `serde_json`'s bound, which keeps the stack.
pub const NESTING: usize = 127;

/// Mutations in one message.
pub const MUTATIONS_PER_FRAME: usize = 100;

/// Requests with mutations (`POST /v1/mutations`) that a node holds at a time, each with up to
/// [`CLIENT_FRAME_BYTES`]. More are answered with `busy` and sent again.
pub const POSTS_IN_FLIGHT: usize = 64;

/// Operations of one mutation, all in one transaction.
pub const OPERATIONS_PER_MUTATION: usize = 1000;

/// Bytes of one `rows` frame of a first load or catch-up, about. Small enough not to stall a phone's parser.
pub const ROWS_FRAME_BYTES: usize = 64 << 10;

/// Bytes of rows of one catch-up that are held until it is read to its end, and shared by all that wait for it. What is
/// read beyond goes ahead in chunks, and is held by nobody but the sockets that it waits for.
pub const CATCH_UP_INLINE_BYTES: usize = 1 << 20;

/// Bytes of one catch-up's chunks that wait for sockets. Past it no more is read from PostgreSQL until the slowest
/// socket has taken some.
pub const CATCH_UP_AHEAD_BYTES: usize = 8 << 20;

/// Bytes from which on a frame of rows is deflated for sockets that asked for it: below, there is little to be saved.
pub const DEFLATE_FROM_BYTES: usize = 2 << 10;

/// Catch-up transactions at a time; each holds a connection and a snapshot.
pub const CATCH_UPS_IN_FLIGHT: usize = 4;

/// Shapes read in one catch-up transaction, and clients whose outcomes are; more wait for the next one. Shapes that differ
/// in their scopes' values are read by one query: its text is about 100 bytes for each.
pub const READS_PER_CATCH_UP: usize = 2_500;

/// Milliseconds between the begins of two catch-ups while one runs: whoever comes meanwhile shares the next one.
pub const GATHER_MS: u64 = 100;

/// Sessions of one node.
pub const SESSIONS: usize = 50_000;

/// Connections of a node that are no client's socket: operators, writes without a socket, and clients that are about to
/// have one. Past it the next ones wait to be accepted; what does not ask is cut after 20 s, or 75 s once it did. As many as may come at once
/// and be served, see [`WAITING_SESSIONS`].
pub const HTTP_CONNECTIONS: usize = 10_000;

/// Sessions that have joined and wait for their first batch: as many as all catch-ups that may run read for, if each has
/// one shape. They took 4.8 s (docs/performance.md, `resume_s`), so nobody waits much longer, nor does a live session that
/// has something read behind them. Whoever comes beyond is told when to come again.
pub const WAITING_SESSIONS: usize = CATCH_UPS_IN_FLIGHT * READS_PER_CATCH_UP;

/// Microseconds from one of them that is served to the next, until that was measured: twice of what is said above.
pub const ARRIVAL_FIRST_US: u64 = 1_000;
/// The most that is believed of a measurement: PostgreSQL may be away just now.
pub const ARRIVAL_MOST_US: u64 = 100_000;

/// Milliseconds until a client may come again, least and most. A catch-up for thousands takes about a second; and a
/// minute later things may be other than they look.
pub const RETRY_IN_LEAST_MS: u64 = 1_000;
/// See [`RETRY_IN_LEAST_MS`].
pub const RETRY_IN_MOST_MS: u64 = 60_000;

/// Room is kept for those whose turn comes within so many milliseconds: they are on their way.
pub const TURN_SOON_MS: u64 = 1_000;
/// Milliseconds that a turn is kept for a client that does not come. A `phoenix` client joins again every 10 s.
pub const TURN_KEPT_MS: u64 = 15_000;

/// Microseconds for each session when a node is told to stop: at 500 a second those that come back elsewhere are caught up
/// as they come. `--drain` bounds the whole.
pub const GOODBYE_EACH_US: u64 = 2_000;

/// Milliseconds between two tries of a failed catch-up, first and longest.
pub const RETRY_FIRST_MS: u64 = 50;
/// See [`RETRY_FIRST_MS`].
pub const RETRY_MOST_MS: u64 = 5_000;

/// Milliseconds between two polls of the snapshot while something waits for one.
pub const POLL_BUSY_MS: u64 = 100;
/// Milliseconds between two looks at the catalog that the stream or a catch-up asks for.
pub const CATALOG_MS: u64 = 50;
/// Milliseconds between two polls on an idle database.
pub const POLL_IDLE_MS: u64 = 1_000;

/// Milliseconds that a first load which is read waits to be settled before it is shown provisionally. W reaches F within
/// some milliseconds as a rule, and then nobody has to draw twice; a person waits no longer without seeing anything.
pub const PROVISIONAL_MS: u64 = 300;

/// Milliseconds that PostgreSQL's planner may take to say how large a load is. The load waits for it.
pub const ESTIMATE_MS: u64 = 300;
/// Loads of one catch-up that the planner is asked about, so that many of moderate size do not cost many questions.
pub const ESTIMATES_PER_CATCH_UP: usize = 8;

/// Milliseconds that a poll may wait for the stream before a push asks whether the stream says nothing because nothing
/// happens. A client that is told of nothing newer for about 4 s says that it is behind.
pub const PROOF_LATE_MS: u64 = 1_500;

/// Milliseconds that the newest proof of a node may be old before it asks not to be sent clients. A stall of half a minute
/// is no moment's trouble, and another node may be better off.
pub const READY_AGE_MS: u64 = 30_000;

/// Milliseconds after which an unanswered push of the fence is repeated.
pub const PUSH_AGAIN_MS: u64 = 1_000;

/// The bounds whose far side holds code of its own: what happens there must be run, and not only at 64 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// See [`RING_BYTES`].
    pub ring_bytes: usize,
    /// See [`WINDOW_BYTES`].
    pub window_bytes: usize,
    /// See [`TRANSACTION_BYTES`].
    pub transaction_bytes: usize,
    /// See [`PART_BYTES`].
    pub part_bytes: usize,
    /// See [`PART_KEYS`].
    pub part_keys: usize,
    /// See [`CURSOR_XIP`].
    pub cursor_xip: usize,
    /// See [`HELD_BYTES`].
    pub held_bytes: usize,
    /// See [`SESSIONS`].
    pub sessions: usize,
    /// See [`WAITING_SESSIONS`].
    pub waiting_sessions: usize,
    /// See [`PROVISIONAL_MS`].
    pub provisional_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ring_bytes: RING_BYTES,
            window_bytes: WINDOW_BYTES,
            transaction_bytes: TRANSACTION_BYTES,
            part_bytes: PART_BYTES,
            part_keys: PART_KEYS,
            cursor_xip: CURSOR_XIP,
            held_bytes: HELD_BYTES,
            sessions: SESSIONS,
            waiting_sessions: WAITING_SESSIONS,
            provisional_ms: PROVISIONAL_MS,
        }
    }
}
