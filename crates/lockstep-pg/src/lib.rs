//! PostgreSQL, for Lockstep: what is installed there, how a node reads, streams and writes.
//!
//! [`install`] puts change logs and triggers beside tables; [`catalog`] reads back what is tracked;
//! [`target`], [`tls`] and [`connect`] lead to the server; [`wire`] and [`replication_stream`] carry the logical
//! replication stream; [`catch_up`] and [`poll`] are rule 1 and the fences, with the settings of [`session`];
//! [`mutate`] runs clients' writes. [`doctor`] says what is wrong. [`cluster`] is a private server for tests and the
//! demo.

pub mod catalog;
pub mod catch_up;
pub mod cluster;
pub mod connect;
pub mod doctor;
pub mod error;
pub mod figures;
pub mod gc;
pub mod install;
pub mod lease;
pub mod mutate;
pub mod poll;
mod question;
pub mod readers;
pub mod replication_stream;
pub mod rights;
pub mod schema;
pub mod session;
pub mod size;
pub mod target;
pub mod tls;
pub mod wire;

pub use error::PgError;
