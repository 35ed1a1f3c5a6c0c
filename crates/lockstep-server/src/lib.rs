//! The node as a library: sockets, tasks and configuration around the core.
//!
//! [`serve`] starts the parts; [`node`] owns the hub and carries its outputs out; [`drain`] ends it without a rush;
//! [`tasks`] asks PostgreSQL, and [`load`] carries what is read to it in pieces; [`source`] keeps a replication
//! stream, [`janitor`] the change logs short; [`http`], [`post`], [`socket`] and [`deflate`] talk to clients; [`operate`],
//! [`health`], [`metrics`] and [`log`] to operators; [`config`] is
//! `lockstep.toml`, environment and flags; [`cli`] the commands.

pub mod accept;
pub mod cli;
pub mod config;
pub mod deflate;
pub mod drain;
pub mod health;
pub mod http;
pub mod janitor;
pub mod load;
pub mod log;
pub mod metrics;
pub mod node;
pub mod operate;
pub mod post;
pub mod quiet;
pub mod serve;
pub mod socket;
pub mod source;
pub mod status;
pub mod tail;
pub mod tasks;
pub mod types;
