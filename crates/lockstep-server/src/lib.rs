//! The node as a library: sockets, tasks and configuration around the core.
//!
//! [`serve`] starts the parts; [`node`] owns the hub and carries its outputs out; [`tasks`] asks PostgreSQL; [`source`] keeps a replication
//! stream, [`janitor`] the change logs short; [`http`], [`post`] and [`socket`] talk to clients; [`health`] and [`log`] to operators; [`config`] is
//! `lockstep.toml`, environment and flags; [`cli`] the commands.

pub mod cli;
pub mod config;
pub mod health;
pub mod http;
pub mod janitor;
pub mod log;
pub mod node;
pub mod post;
pub mod serve;
pub mod socket;
pub mod source;
pub mod tasks;
pub mod types;
