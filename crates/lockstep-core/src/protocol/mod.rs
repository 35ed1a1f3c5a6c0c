//! The wire protocol of docs/protocol.md: what comes up, what goes down, and the encoding of rows.

mod codec;
mod down;
mod up;

pub use codec::{Delta, encode_value, rows_frame, rows_frames, touches_frame};
pub use down::{
    AckFrame, CommitFrames, Reply, ack_frame, commit_frame, is_commit, is_part, phx_close, shape_frame,
};
pub use up::{Envelope, ID_RULE, Join, MutateFrame, Post, Subscribe, Unsubscribe, Up, UpError, is_id, parse};

use serde::{Deserialize, Deserializer};

/// The version spoken here.
pub const VERSION: u64 = 1;

/// The capability of a client that takes a shape described anew, its rows kept and filled.
pub const WIDEN: &str = "widen";

/// The one topic.
pub const TOPIC: &str = "sync";

/// One text message for a socket; encoded once, shared by all that get it.
pub type Frame = bytes::Bytes;

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
