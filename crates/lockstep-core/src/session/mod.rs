//! What waits for one socket.

mod queue;

pub use queue::{Full, SendQueue};
