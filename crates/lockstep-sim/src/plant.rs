//! The faults that can be built in on purpose; each must be found.

macro_rules! plants {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A known fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Plant { $($(#[$doc])* $variant,)* }

        impl Plant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

plants! {
    /// The ring lets transactions go before a snapshot sees them. In the core's ring.
    RingEarly = "ring-early",
    /// Catch-ups are merged by LSN: what ends at or before `pg_current_wal_lsn()` counts as seen. Where S is read.
    LsnFilter = "lsn-filter",
    /// Catch-ups and polls settle at once: F is taken as 0/0. Where F is read.
    CursorBeforeFence = "cursor-before-fence",
    /// A cursor's F is older than the client's state. Where cursors come back.
    CursorOldFence = "cursor-old-fence",
    /// A shape gained while away is resumed as if the cursor named it. Where cursors come back.
    CursorUnnamedScope = "cursor-unnamed-scope",
    /// What is unsure at a stream's start is forgotten. In the core, where the first poll settles.
    UnsureXid = "unsure-xid",
    /// The stream is acknowledged up to W, past what no snapshot has seen. Where feedback is sent. A copied slot then
    /// begins behind such a transaction, which is unsure there: that second defence is taken out with the first.
    FlushPastRing = "flush-past-ring",
    /// Within a transaction deletes are applied first, then puts. In the stream.
    RemovesFirst = "removes-first",
    /// Within a transaction tombstones are applied as deletes, where they arrive. In the stream.
    ArrivalOrder = "arrival-order",
    /// A mutation is acknowledged when its COMMIT returns, ahead of its rows. Where COMMIT returns.
    AckBeforeRows = "ack-before-rows",
    /// GC deletes from the logs and leaves the horizon where it was. In the model's GC.
    GcPastCursor = "gc-past-cursor",
    /// Compaction takes the highest xid for the newest entry. In the model's compaction.
    CompactNewest = "compact-newest",
    /// A mutation sent again is applied again. In the model's compare-and-set.
    DoubleApply = "double-apply",
    /// A deadlock is stored as a refusal. In the model's mutations.
    RefuseDeadlock = "refuse-deadlock",
    /// A transaction of several frames is shown in two parts. Where frames are sent.
    TornCommit = "torn-commit",
    /// At its bound the ring forgets transactions altogether. In the core's ring.
    RingEvicts = "ring-evicts",
    /// A node answers from memory who lacks more than it remembers. In the core's window.
    WindowFloor = "window-floor",
    /// The same for a state that lacks something from before its own fence. In the core's window.
    WindowFence = "window-fence",
    /// Tables are read in a life of the server whose mark the snapshot does not see. Where S is read.
    UnmarkedLife = "unmarked-life",
    /// A first load is shown provisionally while more of it is being read. In the core.
    ProvisionalHalf = "provisional-half",
    /// Of a transaction that is passed through, a tombstone in a later part than its row is taken for a remove, whatever
    /// the row became. In the core.
    LateTombstone = "late-tombstone",
}

impl Plant {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.name() == name)
    }
}
