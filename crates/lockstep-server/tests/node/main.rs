//! The real binary, a real PostgreSQL, real sockets on loopback: one world per test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod catch_up;
mod commands;
mod conflicts;
mod failover;
mod freshness;
mod generated;
mod holes;
mod http;
mod large;
mod load;
mod mutations;
mod nginx;
mod notation;
mod operation;
mod operator;
mod page;
mod partitions;
mod phoenix;
mod polling;
mod pooler;
mod posts;
mod predicates;
mod promotion;
mod protocol;
mod proxy;
mod raw;
mod resume;
mod roles;
mod schema;
mod slots;
mod stream;
mod stuck;
mod types;
mod unfollowed;
mod values;
mod visibility;
mod window;
mod world;
