//! Benches: what Lockstep costs an application and a server. Called by `cargo x bench NAME`.
//!
//! [`figures`] is what every bench prints, [`pairs`] how two things are compared on a machine that does other work
//! too, [`machine`] what it ran on. [`writes`] and [`retention`] are benches of the database, [`sockets`] those of a
//! running [`node`], with its clients in a process of their own: [`generator`], one of the [`programs`]; [`load`] is of its large reads, [`storm`]
//! of everybody at once. [`matching`] is of the core alone.

pub mod database;
pub mod figures;
pub mod generator;
pub mod join;
pub mod load;
pub mod machine;
pub mod matching;
pub mod node;
pub mod pairs;
pub mod programs;
pub mod retention;
pub mod sockets;
pub mod storm;
pub mod writes;
