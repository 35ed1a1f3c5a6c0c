//! A seeded simulation of the real core and the real reference client against a model PostgreSQL.

pub mod client;
pub mod history;
pub mod link;
pub mod node;
pub mod pg;
pub mod plant;
pub mod report;
pub mod rng;
pub mod schema;
pub mod trace;
pub mod world;
