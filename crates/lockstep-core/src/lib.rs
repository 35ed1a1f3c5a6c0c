//! The thinking of Lockstep, and nothing else: decode, assemble, match, merge, sessions, protocol, rules.
//!
//! No sockets, files, clocks, randomness or environment: events come in through `handle_*`, outputs are
//! taken with `poll_output`, time is an argument. What decides whether a client is told the truth can so be
//! run a million times a minute in a simulation.
//!
//! The rooms, in the order in which a row passes them:
//! [`pgoutput`] decodes the stream's bytes, [`change`] assembles transactions and their net effect,
//! [`fanout`] keeps the ring, matches shapes and merges catch-ups with the stream, [`protocol`] encodes once,
//! [`session`] bounds what waits for a socket. [`position`] holds LSNs, xids, snapshots and cursors;
//! [`shape`] and [`catalog`] say what can be subscribed to; [`mutation`] is the way back;
//! [`limits`] names every bound.

pub mod catalog;
pub mod change;
pub mod fanout;
pub mod limits;
pub mod mutation;
pub mod pgoutput;
#[cfg(feature = "plants")]
pub mod plant;
pub mod position;
pub mod protocol;
pub mod session;
pub mod shape;
