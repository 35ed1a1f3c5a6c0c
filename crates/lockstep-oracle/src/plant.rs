//! Faults planted on purpose, in the oracle's own proxies: what the judge must find, or it is no judge.

use bytes::{Buf, BytesMut};
use std::fmt;
use std::str::FromStr;

/// Something wrong, done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A client never gets one `rows` frame.
    DropRows,
    /// Two batches of a client arrive in the wrong order.
    SwapCommits,
    /// A batch becomes visible in two parts.
    TornCommit,
    /// The node never gets one changed row of the replication stream.
    LostRow,
}

/// Every name of `--plant`.
pub const ALL: [(&str, Plant); 4] = [
    ("drop-rows", Plant::DropRows),
    ("swap-commits", Plant::SwapCommits),
    ("torn-commit", Plant::TornCommit),
    ("lost-row", Plant::LostRow),
];

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = ALL.map(|(name, _)| name).join(", ");
        ALL.iter()
            .find(|(name, _)| *name == text)
            .map(|(_, p)| *p)
            .ok_or_else(|| format!("known are {names}"))
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALL.iter().find(|(_, p)| p == self).map_or("", |(name, _)| name))
    }
}

impl Plant {
    /// It belongs between node and PostgreSQL.
    pub fn is_upstream(self) -> bool {
        self == Self::LostRow
    }
}

/// One direction of one connection.
#[derive(Debug)]
pub struct Filter {
    plant: Plant,
    waiting: BytesMut,
    /// The HTTP answer that opens a WebSocket is over.
    opened: bool,
    /// Whole messages of the batch that has no commit yet.
    batch: Vec<Vec<u8>>,
    held: Option<Vec<u8>>,
    commits: u64,
    seen: u64,
}

impl Filter {
    /// For a new connection.
    pub fn new(plant: Plant) -> Self {
        let waiting = BytesMut::new();
        Self { plant, waiting, opened: false, batch: Vec::new(), held: None, commits: 0, seen: 0 }
    }

    /// What goes on instead of these bytes.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.waiting.extend_from_slice(bytes);
        let mut out = Vec::new();
        if self.plant.is_upstream() {
            while let Some(message) = self.backend_message() {
                if !self.is_unlucky_row(&message) {
                    out.extend(message);
                }
            }
            return out;
        }
        if !self.opened {
            let Some(end) = self.waiting.windows(4).position(|w| w == b"\r\n\r\n") else { return out };
            out.extend(self.waiting.split_to(end + 4));
            self.opened = true;
        }
        while let Some(message) = self.socket_message() {
            self.downstream(message, &mut out);
        }
        out
    }

    /// One message of PostgreSQL's protocol.
    fn backend_message(&mut self) -> Option<Vec<u8>> {
        // The answer to a request for TLS is one byte; these clients never ask.
        let length = self.waiting.get(1..5)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize + 1;
        (self.waiting.len() >= length).then(|| self.waiting.split_to(length).to_vec())
    }

    /// CopyData, XLogData, and in it an insert, update or delete: every 150th.
    fn is_unlucky_row(&mut self, message: &[u8]) -> bool {
        let is_row = message[0] == b'd'
            && message.get(5) == Some(&b'w')
            && matches!(message.get(5 + 25), Some(b'I' | b'U' | b'D'));
        self.seen += u64::from(is_row);
        is_row && self.seen.is_multiple_of(150)
    }

    /// One unmasked frame of a WebSocket, head included.
    fn socket_message(&mut self) -> Option<Vec<u8>> {
        let short = usize::from(self.waiting.get(1)? & 127);
        let (head, length) = match short {
            126 => (4, usize::from(u16::from_be_bytes(self.waiting.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(self.waiting.get(2..10)?.get_u64()).ok()?),
            short => (2, short),
        };
        (self.waiting.len() >= head + length).then(|| self.waiting.split_to(head + length).to_vec())
    }

    fn downstream(&mut self, message: Vec<u8>, out: &mut Vec<u8>) {
        let has = |event: &str| {
            let start = message.len().min(80);
            let event = format!("\"sync\",\"{event}\"");
            message[..start].windows(event.len()).any(|w| w == event.as_bytes())
        };
        if has("rows") || has("shape") || has("ack") || has("withdraw") {
            self.batch.push(message);
            return;
        }
        if !has("commit") {
            out.extend(message);
            return;
        }
        self.commits += 1;
        let mut batch = std::mem::take(&mut self.batch);
        // The first ones are loads, which nothing can be compared with.
        let unlucky = self.commits > 3 && self.commits.is_multiple_of(5);
        match self.plant {
            Plant::DropRows if unlucky && !batch.is_empty() => drop(batch.pop()),
            Plant::TornCommit if unlucky && batch.len() > 1 => batch.insert(1, message.clone()),
            Plant::SwapCommits if unlucky && self.held.is_none() => {
                self.held = Some(batch.into_iter().flatten().chain(message).collect());
                return;
            }
            _ => {}
        }
        out.extend(batch.into_iter().flatten());
        out.extend(message);
        out.extend(self.held.take().into_iter().flatten());
    }
}
