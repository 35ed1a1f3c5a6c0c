//! The wire protocol of docs/protocol.md: what comes up, what goes down, and the encoding of rows.

mod codec;
mod copy;
mod down;
mod up;

pub use codec::{
    Delta, encode_value, load_frames, rows_frame, rows_frames, set_aside, touches_frame, touches_load,
};
pub use copy::{CopyError, CopyRows};
pub use down::{
    AckFrame, CommitFrames, Reply, ack_frame, commit_frame, is_commit, is_load, is_part, loaded_frame,
    phx_close, progress_frame, provisional_frame, shape_frame, unload_frame,
};
pub use up::{
    Envelope, Heartbeat, ID_RULE, Join, MutateFrame, Post, Subscribe, Unsubscribe, Up, UpError, is_id, parse,
    unreadable, unreadable_depth,
};

use serde::{Deserialize, Deserializer};
use std::fmt;

/// The version spoken here.
pub const VERSION: u64 = 1;

/// The capability of a client that takes a shape described anew, its rows kept and filled.
pub const WIDEN: &str = "widen";

/// The capability of a client that shows a first load before it is settled, marked as provisional.
pub const PROVISIONAL: &str = "provisional";

/// The one topic.
pub const TOPIC: &str = "sync";

/// One text message for a socket; encoded once, shared by all that get it.
pub type Frame = bytes::Bytes;

/// Rows that are sent ahead of the batch that they belong to: of one read of one catch-up, or of one shape in one
/// transaction that is passed through. Clients set them aside under this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoadId {
    /// The number of the catch-up, or of the transaction's passing through, which is none of a catch-up's.
    pub catch_up: u64,
    /// Which of its reads, or which shape.
    pub read: usize,
}

impl fmt::Display for LoadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.catch_up, self.read)
    }
}

/// 64-bit numbers are strings on the wire; plain numbers are read too.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(n) => Ok(n),
        Either::Text(t) => t.parse().map_err(|_| serde::de::Error::custom("not a number of decimal digits")),
    }
}
