//! From transactions to sessions: the ring, the matching index, the merge with catch-ups, the hub.

pub mod hub;
mod match_index;
mod merge;
mod ring;
mod window;

pub use hub::{Hub, Output};
pub use match_index::{MatchIndex, Routed, ShapeIndex, Touch};
pub use merge::{Hole, delta_for};
pub use ring::{Ring, RingEntry};
pub use window::Window;
