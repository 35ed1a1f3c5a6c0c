//! The messages, typed so that PostgreSQL's half-truths show.

use super::{DecodeError, Reader};
use crate::catalog::Oid;
use crate::change::{Relation, Tuple};
use crate::position::Lsn;

/// A pgoutput message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A committed transaction begins.
    Begin {
        /// Start of its commit record.
        final_lsn: Lsn,
        /// Low 32 bits of its top-level id.
        xid: u32,
    },
    /// It ends.
    Commit {
        /// Start of the commit record.
        commit_lsn: Lsn,
        /// Its end.
        end_lsn: Lsn,
    },
    /// Describes a relation, before its first row and after it may have changed.
    Relation(Relation),
    /// A new row.
    Insert {
        /// Oid.
        relation: Oid,
        /// The row, complete.
        new: Tuple,
    },
    /// A changed row.
    Update {
        /// Oid.
        relation: Oid,
        /// Old tuple, and whether it is complete (`O`) or only the changed key (`K`, other columns NULL).
        old: Option<(Tuple, bool)>,
        /// New row; large untouched values are `Unchanged`.
        new: Tuple,
    },
    /// A deleted row.
    Delete {
        /// Oid.
        relation: Oid,
        /// Its key columns, others NULL; or all of it.
        old: Tuple,
        /// Whether `old` is complete.
        full: bool,
    },
    /// Emptied tables.
    Truncate {
        /// Oids.
        relations: Vec<Oid>,
    },
    /// A user type's name; not needed, since values are text.
    Type,
    /// Where a transaction came from by replication.
    Origin,
    /// `pg_logical_emit_message`.
    Logical {
        /// Its prefix.
        prefix: String,
        /// Part of a transaction.
        transactional: bool,
    },
}

/// What a walsender puts into CopyData.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFrame<'a> {
    /// `w`: a pgoutput message. Its header's positions are the change's and are never a watermark.
    Data(&'a [u8]),
    /// `k`: everything that ends at or before `wal_end` was delivered.
    Keepalive {
        /// Watermark.
        wal_end: Lsn,
        /// The server wants an answer now.
        reply: bool,
    },
}

impl<'a> StreamFrame<'a> {
    /// Reads CopyData's body.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            b'w' => {
                r.take(24)?; // start, end, clock
                Ok(Self::Data(r.rest()))
            }
            b'k' => {
                let wal_end = Lsn(r.u64()?);
                r.i64()?;
                let reply = r.u8()? != 0;
                r.end()?;
                Ok(Self::Keepalive { wal_end, reply })
            }
            kind => Err(DecodeError::Unknown("stream frame", kind)),
        }
    }
}
