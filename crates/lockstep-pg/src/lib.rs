//! PostgreSQL, for Lockstep: what is installed there, how a node reads, streams and writes.
//!
//! [`install`] puts change logs and triggers beside tables; [`catalog`] reads back what is tracked;
//! [`wire`] and [`replication_stream`] carry the logical replication stream; [`catch_up`] (through
//! [`copy_text`]) and [`poll`] are rule 1 and the fences; [`mutate`] runs clients' writes. [`cluster`] is a private server for tests and the demo.

pub mod catalog;
pub mod catch_up;
pub mod cluster;
pub mod connect;
pub mod copy_text;
pub mod error;
pub mod gc;
pub mod install;
pub mod lease;
pub mod mutate;
pub mod poll;
pub mod replication_stream;
pub mod schema;
pub mod wire;

pub use error::PgError;
