//! Snapshots: which transactions a state includes.

use super::{ParseError, Xid};
use crate::limits;
use std::fmt;
use std::str::FromStr;

/// PostgreSQL's `xmin:xmax:xip_list` (type `pg_snapshot`), and with the same meaning the state a client has.
///
/// `sees(x)` = `x < xmax` and `x` not in `xip`. PostgreSQL's `xmin` is the least number of `xip`, or `xmax`:
/// everything below is seen, so it need not be kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    xmax: Xid,
    /// Sorted, without duplicates, all below `xmax`.
    xip: Vec<Xid>,
}

impl Snapshot {
    /// A snapshot that sees all below `xmax` but `xip`. Numbers at or above `xmax` are dropped from `xip`.
    pub fn new(xmax: Xid, mut xip: Vec<Xid>) -> Self {
        xip.retain(|x| *x < xmax);
        xip.sort_unstable();
        xip.dedup();
        Self { xmax, xip }
    }

    /// The first id that had not been assigned.
    pub fn xmax(&self) -> Xid {
        self.xmax
    }

    /// Ids below `xmax` that are not seen, ascending.
    pub fn xip(&self) -> &[Xid] {
        &self.xip
    }

    /// The least id that is not seen.
    pub fn xmin(&self) -> Xid {
        self.xip.first().copied().unwrap_or(self.xmax)
    }

    /// Whether the effects of transaction `xid`, if it committed, are in the state.
    pub fn sees(&self, xid: Xid) -> bool {
        xid < self.xmax && self.xip.binary_search(&xid).is_err()
    }

    /// A transaction that `other` sees and this one does not.
    pub fn lacks(&self, other: &Self) -> Option<Xid> {
        let open = self.xip.iter().copied().find(|x| other.sees(*x));
        open.or_else(|| (self.xmax..other.xmax).find(|x| other.sees(*x)))
    }

    /// Makes `xid` seen. Ids skipped on the way up become members of `xip`: nothing is known about them. If there
    /// are too many of them nothing changes, which is right too: a state that sees less is only sent more. Returns
    /// whether it is seen now.
    pub fn fold(&mut self, xid: Xid) -> bool {
        if xid >= self.xmax {
            if xid - self.xmax > limits::FOLD_GAP {
                return false;
            }
            self.xip.extend(self.xmax..xid);
            self.xmax = xid + 1;
        } else if let Ok(at) = self.xip.binary_search(&xid) {
            self.xip.remove(at);
        }
        true
    }

    /// Makes `xid` not seen, if it was assigned.
    pub fn hide(&mut self, xid: Xid) {
        if xid < self.xmax
            && let Err(at) = self.xip.binary_search(&xid)
        {
            self.xip.insert(at, xid);
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin(), self.xmax)?;
        for (i, xid) in self.xip.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new("snapshot", text);
        let number = |s: &str| {
            if s.bytes().all(|b| b.is_ascii_digit()) {
                s.parse::<Xid>().map_err(|_| error())
            } else {
                Err(error())
            }
        };
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(xip), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        let (xmin, xmax) = (number(xmin)?, number(xmax)?);
        let xip = if xip.is_empty() {
            Vec::new()
        } else {
            xip.split(',').map(number).collect::<Result<Vec<_>, _>>()?
        };
        let ordered = xip.windows(2).all(|w| w[0] < w[1]);
        if xmin > xmax || !ordered || xip.iter().any(|x| *x < xmin || *x >= xmax) {
            return Err(error());
        }
        Ok(Self { xmax, xip })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_postgres_prints() {
        let s: Snapshot = "10:20:10,14,15".parse().unwrap();
        assert!(s.sees(9) && !s.sees(10) && s.sees(13) && !s.sees(14) && s.sees(19) && !s.sees(20));
        assert_eq!(s.to_string(), "10:20:10,14,15");
        assert_eq!("735:735:".parse::<Snapshot>().unwrap().xmin(), 735);
        for bad in [
            "",
            "1:2",
            "2:1:",
            "1:2:3",
            "1:5:3,2",
            "1:5:3,3",
            "a:b:",
            "1:5:+3",
            "1:5::",
            "1:99999999999999999999:",
        ] {
            assert!(bad.parse::<Snapshot>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folding_keeps_the_gap_unseen() {
        let mut s: Snapshot = "10:12:10".parse().unwrap();
        s.fold(15);
        assert_eq!(s.to_string(), "10:16:10,12,13,14");
        s.fold(13);
        s.fold(10);
        assert_eq!(s.to_string(), "12:16:12,14");
        assert!(!s.fold(16 + limits::FOLD_GAP + 1));
        s.hide(11);
        s.hide(99);
        assert_eq!(s.to_string(), "11:16:11,12,14");
    }
}
