//! The real binary, a real PostgreSQL, real sockets on loopback: one world per test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod catch_up;
mod failover;
mod generated;
mod holes;
mod http;
mod mutations;
mod operator;
mod partitions;
mod predicates;
mod protocol;
mod proxy;
mod raw;
mod resume;
mod schema;
mod stream;
mod stuck;
mod values;
mod visibility;
mod world;
