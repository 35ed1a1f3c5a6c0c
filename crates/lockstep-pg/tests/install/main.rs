//! What is installed into a database, on a real PostgreSQL: what the triggers write, what migrations and names do to
//! them, what each command leaves behind and what it refuses, what garbage collection may take away, and what doctor finds.

mod commands;
mod compaction;
mod doctor_server;
mod doctor_tables;
mod harness;
mod leaving;
mod locks;
mod log_entries;
mod marks;
mod migrations;
mod mirror;
mod partitions;
mod refusals;
mod retention;
mod rights;
mod upgrading;
mod writers;
