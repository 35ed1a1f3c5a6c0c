//! The real binary, a real PostgreSQL, real sockets on loopback: one world per test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod catch_up;
mod holes;
mod mutations;
mod protocol;
mod resume;
mod stream;
mod visibility;
mod world;
