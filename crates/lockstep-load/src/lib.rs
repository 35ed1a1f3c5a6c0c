//! Benches: what Lockstep costs an application and a server. Called by `cargo x bench NAME`.
//!
//! [`figures`] is what every bench prints, [`pairs`] how two things are compared on a machine that does other work
//! too, [`machine`] what it ran on. [`writes`] and [`retention`] are benches of the database; [`load`] and [`storm`] are of a
//! [`node`].

pub mod database;
pub mod figures;
pub mod load;
pub mod machine;
pub mod node;
pub mod pairs;
pub mod retention;
pub mod storm;
pub mod writes;
