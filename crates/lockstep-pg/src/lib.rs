//! PostgreSQL: what is installed into a database.

pub mod install;
