//! The real binary, a real PostgreSQL, real sockets on loopback: one world per test.

mod catch_up;
mod holes;
mod mutations;
mod protocol;
mod resume;
mod stream;
mod visibility;
mod world;
