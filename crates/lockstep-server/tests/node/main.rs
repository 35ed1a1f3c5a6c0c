//! The real binary, a real PostgreSQL, real sockets on loopback: one world per test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod catch_up;
mod failover;
mod holes;
mod http;
mod mutations;
mod operator;
mod partitions;
mod predicates;
mod protocol;
mod proxy;
mod resume;
mod stream;
mod stuck;
mod types;
mod visibility;
mod world;
