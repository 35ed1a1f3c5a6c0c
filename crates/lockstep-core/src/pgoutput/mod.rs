//! The logical replication stream's messages, protocol version 1 (PostgreSQL manual, 55.5 and 55.9).

mod decode;
mod message;
mod reader;

pub use decode::decode;
pub use message::{Message, StreamFrame};
pub use reader::{DecodeError, Reader};

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
