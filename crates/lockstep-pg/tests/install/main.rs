//! What is installed into a database, on a real PostgreSQL: what the triggers write, what migrations and names do to
//! them, what each command leaves behind, and what it refuses.

mod commands;
mod harness;
mod locks;
mod log_entries;
mod migrations;
mod refusals;
mod writers;
