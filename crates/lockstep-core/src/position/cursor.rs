//! Cursors: what a client keeps to resume, and when a server may accept one.

use super::{Lsn, ParseError, Snapshot, Xid};
use crate::shape::{Fingerprint, ShapeId};
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// The format byte of the cursors written here. Others are refused, which costs a full load and no more.
const FORMAT: char = '1';

/// Which database's history a state belongs to, and the state itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorHead {
    /// `system_identifier` of the cluster: survives restarts and failover, not pg_upgrade or dump and restore.
    pub system: u64,
    /// Timeline the state was seen on.
    pub timeline: u32,
    /// Oid of the database.
    pub database: u32,
    /// The mark of the server's life in which the state was seen. A node leaves one before anything else in every life
    /// of the server; a rollback of the volume takes it away, or puts another one before the state.
    pub incarnation: i64,
    /// F: everything in the state ends at or before this LSN, and was flushed.
    pub fence: Lsn,
    /// The transactions that the state includes.
    pub snapshot: Snapshot,
    /// Transactions that the client was shown although `snapshot` does not see them: it stands for a state whose list
    /// of ids was too long. They were not visible when the cursor was written, and must not be taken back.
    pub shown: Vec<Xid>,
}

/// A head and the shapes whose rows the client holds in that state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The state.
    pub head: CursorHead,
    /// Each shape covered, under the fingerprint (definition and schema) it was sent with.
    pub shapes: Vec<(ShapeId, Fingerprint)>,
}

/// Why a shape is loaded in full instead of being resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResetReason {
    /// The client does not have the shape.
    First,
    /// The client sent no cursor.
    NoCursor,
    /// The cursor cannot be read.
    BadCursor,
    /// The cursor does not name the shape.
    NotInCursor,
    /// Names, types, enum labels or the key are others than those the client knows.
    SchemaChanged,
    /// Rows may be others although nothing was written: a rewrite, partitions attached or detached.
    Rewritten,
    /// Writes may have gone past the change log, or the stream: triggers, the log or the publication are others.
    NotLogged,
    /// The change log does not reach back far enough.
    Horizon,
    /// Another cluster or database.
    OtherDatabase,
    /// A history that this server does not share: it was promoted without what the client has seen.
    OtherTimeline,
    /// The database was rolled back to before the client's state.
    RolledBack,
    /// The cursor is ahead of this server.
    Future,
    /// The table was truncated since.
    Truncated,
}

impl ResetReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::NoCursor => "no_cursor",
            Self::BadCursor => "bad_cursor",
            Self::NotInCursor => "not_in_cursor",
            Self::SchemaChanged => "schema_changed",
            Self::Rewritten => "rewritten",
            Self::NotLogged => "not_logged",
            Self::Horizon => "horizon",
            Self::OtherDatabase => "other_database",
            Self::OtherTimeline => "other_timeline",
            Self::RolledBack => "rolled_back",
            Self::Future => "future",
            Self::Truncated => "truncated",
        }
    }
}

/// What the server says of itself inside the catch-up's transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `system_identifier`.
    pub system: u64,
    /// Current timeline.
    pub timeline: u32,
    /// Earlier timelines of this server and where each ended.
    pub history: Vec<(u32, Lsn)>,
    /// Oid of the database.
    pub database: u32,
    /// The catch-up's snapshot, S.
    pub snapshot: Snapshot,
    /// The insert LSN, read after the snapshot.
    pub insert_lsn: Lsn,
    /// Marks that the database knows, and where in WAL each was written.
    pub incarnations: Vec<(i64, Lsn)>,
}

impl Facts {
    /// Whether a state may be resumed from here, for a table whose log reaches back to `horizon`.
    ///
    /// Each refusal is a full load of the shapes concerned, never an error.
    pub fn accept(&self, head: &CursorHead, horizon: Xid) -> Result<(), ResetReason> {
        if head.system != self.system || head.database != self.database {
            return Err(ResetReason::OtherDatabase);
        }
        if head.timeline != self.timeline {
            let shared = self.history.iter().any(|(tli, end)| *tli == head.timeline && *end >= head.fence);
            if !shared {
                return Err(ResetReason::OtherTimeline);
            }
        }
        if self.newest_mark(head.fence) != Some(head.incarnation) {
            return Err(ResetReason::RolledBack);
        }
        if head.fence > self.insert_lsn || head.snapshot.xmax() > self.snapshot.xmax() {
            return Err(ResetReason::Future);
        }
        if head.snapshot.xmin() < horizon {
            return Err(ResetReason::Horizon);
        }
        Ok(())
    }
}

impl Facts {
    /// The mark of the server's life that an LSN lies in.
    ///
    /// ```text
    ///  mark 1 ── copy ── state, cursor with mark 1 ── rolled back to the copy ── mark 2 ── past the state's LSN
    /// ```
    /// Mark 1 is still known, and the cursor is not ahead of the server; but in this history mark 2 lies before it.
    pub fn newest_mark(&self, lsn: Lsn) -> Option<i64> {
        let before = self.incarnations.iter().filter(|(_, at)| *at <= lsn);
        before.max_by_key(|(_, at)| *at).map(|(mark, _)| *mark)
    }
}

impl CursorHead {
    /// A transaction that the client was shown and that `snapshot` does not see.
    pub fn ahead_of(&self, snapshot: &Snapshot) -> Option<Xid> {
        snapshot.lacks(&self.snapshot).or_else(|| self.shown.iter().copied().find(|x| !snapshot.sees(*x)))
    }

    /// The shapes' part of a cursor's text; the same for a session until its shapes change.
    pub fn shapes_part(shapes: impl IntoIterator<Item = (ShapeId, Fingerprint)>) -> String {
        let mut text = String::new();
        for (id, fingerprint) in shapes {
            let _ = write!(text, "{}{id}.{fingerprint}", if text.is_empty() { "" } else { "," });
        }
        text
    }

    /// The cursor's text: this head with a part written by [`Self::shapes_part`].
    pub fn with_shapes(&self, shapes_part: &str) -> String {
        self.head_part() + shapes_part
    }

    /// The cursor's text but for its shapes.
    pub fn head_part(&self) -> String {
        let Self { system, timeline, database, incarnation, fence, snapshot, shown } = self;
        let mut more = String::new();
        for xid in shown {
            let _ = write!(more, "{}{xid}", if more.is_empty() { "+" } else { "," });
        }
        format!("{FORMAT}~{system}~{timeline}~{database}~{incarnation}~{fence}~{snapshot}{more}~")
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head.with_shapes(&CursorHead::shapes_part(self.shapes.iter().copied())))
    }
}

impl FromStr for Cursor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new("cursor", text);
        let parts: Vec<&str> = text.split('~').collect();
        let [format, system, timeline, database, incarnation, fence, snapshot, shapes] = parts[..] else {
            return Err(error());
        };
        if format.chars().ne([FORMAT]) {
            return Err(error());
        }
        let mut covered = Vec::new();
        for pair in shapes.split(',').filter(|s| !s.is_empty()) {
            let (id, fingerprint) = pair.split_once('.').ok_or_else(error)?;
            covered.push((id.parse()?, fingerprint.parse()?));
        }
        let (snapshot, shown) = match snapshot.split_once('+') {
            Some((snapshot, shown)) => {
                let number = |x: &str| x.parse().ok().filter(|_| x.bytes().all(|b| b.is_ascii_digit()));
                (snapshot, shown.split(',').map(number).collect::<Option<_>>().ok_or_else(error)?)
            }
            None => (snapshot, Vec::new()),
        };
        let head = CursorHead {
            system: system.parse().map_err(|_| error())?,
            timeline: timeline.parse().map_err(|_| error())?,
            database: database.parse().map_err(|_| error())?,
            incarnation: incarnation.parse().map_err(|_| error())?,
            fence: fence.parse()?,
            snapshot: snapshot.parse()?,
            shown,
        };
        Ok(Self { head, shapes: covered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> CursorHead {
        CursorHead {
            system: u64::MAX,
            timeline: 1,
            database: 5,
            incarnation: -9,
            fence: Lsn(0x100),
            snapshot: "10:20:10,12".parse().unwrap(),
            shown: vec![],
        }
    }

    fn facts() -> Facts {
        Facts {
            system: u64::MAX,
            timeline: 1,
            history: vec![],
            database: 5,
            snapshot: "30:30:".parse().unwrap(),
            insert_lsn: Lsn(0x200),
            incarnations: vec![(-9, Lsn(0x50))],
        }
    }

    #[test]
    fn text_and_back() {
        let id = ShapeId::of(&["a"]);
        let fp = Fingerprint::of(&["b"]);
        for shapes in [vec![], vec![(id, fp)], vec![(id, fp), (id, fp)]] {
            let cursor = Cursor { head: head(), shapes };
            assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }
        let shown = Cursor { head: CursorHead { shown: vec![12, 25], ..head() }, shapes: vec![] };
        assert!(shown.to_string().contains("~10:20:10,12+12,25~"));
        assert_eq!(shown.to_string().parse::<Cursor>().unwrap(), shown);
        for bad in ["1~1~1~1~1~0/0~1:1:+~", "1~1~1~1~1~0/0~1:1:+1,~", "1~1~1~1~1~0/0~1:1:++1~"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
        }
        for bad in ["", "1", "2~1~1~1~1~0/0~1:1:~", "1~1~1~1~1~0/0~1:1:~x", "1~-1~1~1~1~0/0~1:1:~"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_was_shown_ahead_of_the_snapshot_is_named() {
        let head = CursorHead { shown: vec![25], ..head() };
        let sees = |text: &str| head.ahead_of(&text.parse().unwrap());
        assert_eq!(sees("12:24:12"), Some(25));
        assert_eq!(sees("25:30:25"), Some(25));
        assert_eq!(sees("11:30:11,12"), Some(11), "the snapshot of the state comes first");
        assert_eq!(sees("10:30:10,12"), None);
    }

    #[test]
    fn accepted_only_where_the_history_is_shared() {
        assert_eq!(facts().accept(&head(), 10), Ok(()));
        assert_eq!(facts().accept(&head(), 11), Err(ResetReason::Horizon));
        let refused = |f: &dyn Fn(&mut Facts)| {
            let mut facts = facts();
            f(&mut facts);
            facts.accept(&head(), 0).unwrap_err()
        };
        assert_eq!(refused(&|f| f.system = 7), ResetReason::OtherDatabase);
        assert_eq!(refused(&|f| f.database = 7), ResetReason::OtherDatabase);
        assert_eq!(refused(&|f| f.incarnations.clear()), ResetReason::RolledBack);
        // Rolled back, and past the state since.
        assert_eq!(refused(&|f| f.incarnations.push((4, Lsn(0x100)))), ResetReason::RolledBack);
        let mut restarted = facts();
        restarted.incarnations.extend([(3, Lsn(0x20)), (4, Lsn(0x101))]);
        assert_eq!(restarted.accept(&head(), 0), Ok(()));
        assert_eq!(refused(&|f| f.timeline = 2), ResetReason::OtherTimeline);
        // The old timeline ended before what the client has seen.
        assert_eq!(
            refused(&|f| {
                f.timeline = 2;
                f.history = vec![(1, Lsn(0xFF))];
            }),
            ResetReason::OtherTimeline
        );
        assert_eq!(refused(&|f| f.insert_lsn = Lsn(0xFF)), ResetReason::Future);
        assert_eq!(refused(&|f| f.snapshot = "19:19:".parse().unwrap()), ResetReason::Future);
        let mut promoted = facts();
        promoted.timeline = 2;
        promoted.history = vec![(1, Lsn(0x100))];
        assert_eq!(promoted.accept(&head(), 0), Ok(()));
    }
}
