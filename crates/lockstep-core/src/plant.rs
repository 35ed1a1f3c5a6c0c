//! Faults that can be built in on purpose, to show that the simulation finds them. Not part of any other build.

/// A known fault, checked at the one place where it would be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The ring lets transactions go before a snapshot sees them.
    RingEarly,
    /// At its bound the ring forgets transactions instead of dropping their rows and keeping their ids.
    RingEvicts,
    /// What is unsure at the start of a stream is forgotten.
    UnsureXid,
    /// The window answers a cursor from before what it still holds.
    WindowFloor,
    /// The window takes it that a cursor's state has all that ends at or before its fence.
    WindowFence,
    /// A first load is shown provisionally while more of it is being read.
    ProvisionalHalf,
    /// A tombstone in a later part of a transaction than its row is taken for a remove, whatever the row became.
    LateTombstone,
}
