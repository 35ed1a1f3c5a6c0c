//! The connection between a client and a node.

use crate::world::Micros;
use lockstep_core::session::SendQueue;

/// Bytes that may wait for a client, far fewer than in earnest so that the bound is met.
pub const QUEUE_BYTES: usize = 96 << 10;

/// Bytes of rows set aside from which on a client is too slow for a transaction that is passed through.
pub const PASSED_BYTES: usize = 4 << 10;

/// A WebSocket. In order in both directions until it is cut; what is under way then is lost.
#[derive(Debug)]
pub struct Link {
    /// The client.
    pub client: usize,
    /// The node.
    pub node: usize,
    /// What waits for the client: the queue that a node has.
    pub queue: SendQueue,
    /// Delivery is scheduled.
    pub scheduled: bool,
    /// Nothing passes before.
    pub stalled_until: Micros,
    /// The last message up arrives then; the next one later.
    pub up_at: Micros,
    /// The node closes it once it could.
    pub closing: bool,
}

impl Link {
    /// A new one.
    pub fn new(client: usize, node: usize) -> Self {
        Self {
            client,
            node,
            queue: SendQueue::new(QUEUE_BYTES),
            scheduled: false,
            stalled_until: 0,
            up_at: 0,
            closing: false,
        }
    }
}
