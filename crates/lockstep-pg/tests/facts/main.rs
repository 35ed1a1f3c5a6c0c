//! What PostgreSQL does and no manual promises: each fact that something here is built on, as a test that fails when it
//! changes. `cargo x ci` runs them on every version.
//!
//! Facts that the tests of what is built on them show already have none here:
//!
//! | fact | shown by |
//! |---|---|
//! | triggers fire for COPY, ON CONFLICT, MERGE, cascades | `tests/install/log_entries.rs` |
//! | triggers fire for writes to partitions and moves between them; row triggers are cloned to later ones | `tests/install/partitions.rs` |
//! | ENABLE ALWAYS triggers fire under `session_replication_role = replica` and, row triggers only, in an apply worker | `log_entries.rs::replica_role_writes_too`, `partitions.rs` |
//! | the horizon and `pg_snapshot_xmin`: prepared and open transactions hold it | `tests/install/retention.rs::an_open_transaction_holds_the_horizon` |
//! | a parsed function body follows renames and refuses drops | `tests/install/migrations.rs` |
//! | EXPLAIN checks row filters and column lists against the replica identity | `tests/install/refusals.rs::a_publication_that_makes_writes_fail` |
//! | a snapshot's xmax is the last ended transaction's id + 1 | `lockstep-server/tests/node/holes.rs` |
//! | a promotion and a rollback change the timeline or lose the marks | `lockstep-server/tests/node/failover.rs`, `resume.rs` |

mod catalog;
mod order;
mod slots;
mod stream;
mod tap;
mod text;
