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
    /// A client's cursor includes a transaction that the client has not got, and all that were open.
    CursorAhead,
    /// The node never gets one changed row of the replication stream.
    LostRow,
    /// The change logs lack entries: whoever was away is not told of some rows.
    LostChange,
    /// Rows leave scopes and tables, and no tombstone says so.
    NoTombstones,
    /// Some mutations take effect twice.
    DoubleApply,
    /// Conditional mutations are carried out whatever became of the row.
    BlindUpdate,
}

/// Every name of `--plant`.
pub const ALL: [(&str, Plant); 9] = [
    ("drop-rows", Plant::DropRows),
    ("swap-commits", Plant::SwapCommits),
    ("torn-commit", Plant::TornCommit),
    ("cursor-ahead", Plant::CursorAhead),
    ("lost-row", Plant::LostRow),
    ("lost-change", Plant::LostChange),
    ("no-tombstones", Plant::NoTombstones),
    ("double-apply", Plant::DoubleApply),
    ("blind-update", Plant::BlindUpdate),
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

    /// It belongs between client and node.
    pub fn is_downstream(self) -> bool {
        matches!(self, Self::DropRows | Self::SwapCommits | Self::TornCommit | Self::CursorAhead)
    }

    /// It is made in the database, by this.
    pub fn sql(self) -> Option<&'static str> {
        match self {
            Self::LostChange => Some(
                "create function lose() returns trigger language plpgsql as $$ begin
                   return case when new.id % 5 > 0 then new end; end $$;
                 do $do$ declare n int; begin for n in select log from lockstep.tracked loop
                   execute format('create trigger lose before insert on lockstep.changes_%s for each row execute function public.lose()', n);
                 end loop; end $do$",
            ),
            Self::NoTombstones => Some(
                "create function lose() returns trigger language plpgsql as $$ begin return null; end $$;
                 do $do$ declare n int; begin for n in select log from lockstep.tracked loop
                   execute format('create trigger lose before insert on lockstep.tombstones_%s for each row execute function public.lose()', n);
                 end loop; end $do$",
            ),
            Self::DoubleApply => Some(
                "create function twice() returns trigger language plpgsql as $$ begin
                   insert into receipts (who, what, fine) values (new.who, new.what, new.fine); return null; end $$;
                 create trigger twice after insert on receipts for each row
                   when (pg_catalog.pg_trigger_depth() = 0 and new.id % 7 = 0) execute function twice()",
            ),
            _ => None,
        }
    }
}

/// `xmin:xmax:xip` one further and without a gap, in the cursor of a commit frame.
fn advance_cursor(frame: &str) -> Option<String> {
    let (before, rest) = frame.split_once("\"cursor\":\"")?;
    let (cursor, after) = rest.split_once('"')?;
    let mut parts: Vec<String> = cursor.split('~').map(str::to_owned).collect();
    let xmax: u64 = parts.get(6)?.split(':').nth(1)?.parse().ok()?;
    parts[6] = format!("{0}:{0}:", xmax + 1);
    Some(format!("{before}\"cursor\":\"{}\"{after}", parts.join("~")))
}

/// A whole text frame of a server.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(short @ 0..126) => frame.push(short.to_le_bytes()[0]),
        Ok(middle) => {
            frame.push(126);
            frame.extend(middle.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend((text.len() as u64).to_be_bytes());
        }
    }
    frame.extend(text.as_bytes());
    frame
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

    fn downstream(&mut self, mut message: Vec<u8>, out: &mut Vec<u8>) {
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
        if self.plant == Plant::CursorAhead {
            let head = message.iter().position(|b| *b == b'[').unwrap_or(0);
            let moved = std::str::from_utf8(&message[head..]).ok().and_then(advance_cursor);
            message = moved.map_or(message, |text| text_frame(&text));
        }
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
