//! The reference client: the protocol's other side, for tests, simulation, oracle and load tools.
//!
//! [`Replica`] is pure: frames in, rows, cursor and outbox out; a simulation can kill it anywhere.
//! [`Client`] connects one to a node.

mod client;
mod freshness;
mod replica;
mod view;

pub use client::{Client, ClientError};
pub use freshness::{ASK, BEHIND, Freshness};
pub use replica::{Commit, Heard, Left, Outcome, Pending, Replica, ReplicaError, Row, Wanted, row_digest};
pub use view::View;
