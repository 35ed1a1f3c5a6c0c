//! Settings of a session, transaction by transaction.
//!
//! Rule 7 needs catch-up and stream to print a value with the same bytes. The replication session gets its settings
//! when it starts. Queries may go through a pooler, where the next transaction runs in another session, one that
//! an application has set as it likes; and poolers refuse or forget settings at the start. So every transaction sets
//! them for itself.

use crate::catalog::texts;
use crate::error::PgError;
use std::sync::LazyLock;
use tokio_postgres::GenericClient;

/// Settings that make catch-up and stream print a value with the same bytes (rule 7). `extra_float_digits` 1 prints
/// floats exactly.
pub const SESSION: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "iso_8601"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
    ("search_path", "pg_catalog"),
    ("standard_conforming_strings", "on"),
    // The planner takes the catalog's functions for large; compiling such a query takes longer than running it.
    ("jit", "off"),
];

/// [`SESSION`] as statements for the beginning of a transaction. None of them takes a snapshot.
pub static SET_LOCAL: LazyLock<String> = LazyLock::new(|| {
    let each = SESSION.iter().map(|(name, value)| format!("set local {name} = '{value}'; "));
    each.collect()
});

/// Begins a transaction that only reads, each of its statements what is committed then.
pub(crate) static BEGIN_READING: LazyLock<String> =
    LazyLock::new(|| format!("begin isolation level read committed, read only; {}", *SET_LOCAL));

/// Begins a transaction of a node's own bookkeeping. `local`: it must not wait for a synchronous standby that does
/// not answer.
pub(crate) static BEGIN_KEEPING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "begin isolation level read committed, read write; {}set local synchronous_commit = 'local'; ",
        *SET_LOCAL
    )
});

/// Runs statements in one transaction and one message. Returns the first column of every row. After an error the
/// transaction is left to the connection's [`Lease`](crate::lease::Lease).
pub(crate) async fn ask<C: GenericClient>(client: &C, sql: &str) -> Result<Vec<String>, PgError> {
    texts(client, &format!("{}{sql}; commit", *BEGIN_READING)).await
}
