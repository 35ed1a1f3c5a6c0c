//! Snapshots, LSNs, cursors and ids: what is read prints as what was read, and snapshots fold as sets do.

use crate::split;
use lockstep_core::position::{Cursor, Facts, Lsn, Snapshot};
use lockstep_core::shape::{Fingerprint, ShapeId};
use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let (how, rest) = split(data);
    if how % 6 == 5 {
        return fold(rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match how % 6 {
        0 => snapshot(text),
        1 => cursor(text),
        2 => drop(there_and_back::<Lsn>(text)),
        3 => drop(there_and_back::<ShapeId>(text)),
        _ => drop(there_and_back::<Fingerprint>(text)),
    }
}

fn there_and_back<T: FromStr + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let read: T = text.parse().ok()?;
    let again = read.to_string().parse::<T>().ok();
    assert_eq!(again.as_ref(), Some(&read), "from {text:?}");
    Some(read)
}

fn snapshot(text: &str) {
    let Some(snapshot) = there_and_back::<Snapshot>(text) else { return };
    let (xmin, xmax, xip) = (snapshot.xmin(), snapshot.xmax(), snapshot.xip());
    assert!(xmin <= xmax && xip.iter().all(|x| (xmin..xmax).contains(x) && !snapshot.sees(*x)));
    assert!(!snapshot.sees(xmax) && (xmin == 0 || snapshot.sees(xmin - 1)));
    assert_eq!(Snapshot::new(xmax, xip.to_vec()), snapshot);
}

fn cursor(text: &str) {
    let Some(cursor) = there_and_back::<Cursor>(text) else { return };
    let head = cursor.head;
    let facts = Facts {
        system: head.system,
        timeline: 1,
        history: vec![(2, head.fence)],
        database: head.database,
        snapshot: head.snapshot.clone(),
        insert_lsn: head.fence,
        incarnations: vec![(head.incarnation, head.fence)],
    };
    let accepted = facts.accept(&head, head.snapshot.xmin());
    assert_eq!(accepted.is_ok(), matches!(head.timeline, 1 | 2), "{accepted:?}");
}

/// Pairs of operation and number, on a snapshot and on the set of what it sees below 600.
fn fold(bytes: &[u8]) {
    let mut snapshot = Snapshot::new(3, vec![1]);
    let mut seen = BTreeSet::from([0, 2]);
    let mut assigned = 3;
    for pair in bytes.chunks_exact(2).take(100) {
        let xid = u64::from(pair[1]) + if pair[0] & 2 == 0 { 0 } else { 256 };
        if pair[0] & 1 == 0 {
            snapshot.fold(xid);
            seen.insert(xid);
            assigned = assigned.max(xid + 1);
        } else {
            snapshot.hide(xid);
            seen.remove(&xid);
        }
        assert_eq!(snapshot.xmax(), assigned);
        assert_eq!(snapshot.sees(xid), seen.contains(&xid));
    }
    assert!((0..600).all(|x| snapshot.sees(x) == seen.contains(&x)));
    there_and_back::<Snapshot>(&snapshot.to_string()).unwrap();
}
