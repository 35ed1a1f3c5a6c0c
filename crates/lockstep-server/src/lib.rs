//! The node as a library: sockets, tasks and configuration around the core.
//!
//! [`node`] owns the hub and carries its outputs out; [`source`] keeps a replication stream; [`janitor`] the change
//! logs short; [`http`] and
//! [`socket`] talk to clients; [`config`] is `lockstep.toml`, environment and flags; [`cli`] the commands.

pub mod cli;
pub mod config;
pub mod http;
pub mod janitor;
pub mod node;
pub mod socket;
pub mod source;
