//! Where something stands in a database's history: LSNs, xids, snapshots, cursors.

pub mod cursor;
mod lsn;
mod snapshot;
mod xid;

pub use cursor::{Cursor, CursorHead, Facts, ResetReason};
pub use lsn::Lsn;
pub use snapshot::Snapshot;
pub use xid::{Xid, widen};

/// A text of PostgreSQL or of a client could not be read as what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {text:?}")]
pub struct ParseError {
    /// What was expected, as a noun.
    pub what: &'static str,
    /// The first characters of what came.
    pub text: String,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(60).collect() }
    }
}
