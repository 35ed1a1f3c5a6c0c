//! The ring lets go of nothing that a catch-up may need, and stays within its bound.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::change::{Delivered, NetChanges, Transaction};
use lockstep_core::fanout::Ring;
use lockstep_core::limits;
use lockstep_core::position::{Lsn, Snapshot};
use std::sync::Arc;

fn delivered(xid: u64, bytes: usize) -> Arc<Delivered> {
    let transaction = Transaction {
        xid,
        commit_lsn: Lsn(xid * 100),
        end_lsn: Lsn(xid * 100 + 48),
        changes: Some(vec![]),
        touched: [7].into(),
        bytes,
    };
    Arc::new(Delivered { transaction, net: Some(NetChanges::default()), schema_changed: false })
}

fn snapshot(text: &str) -> Snapshot {
    text.parse().unwrap()
}

fn xids(ring: &Ring) -> Vec<u64> {
    ring.entries().map(|e| e.xid()).collect()
}

/// ```text
///  poll 1 answered ─ catch-up begins ─ deliver 10 ─ poll 2 sees 10 ─ catch-up ends
///                    its S may be older than 10's visibility: 10 stays until here ┘
/// ```
#[test]
fn an_entry_stays_while_an_older_catch_up_runs() {
    let mut ring = Ring::default();
    ring.push(delivered(10, 1));
    ring.polled(2, &snapshot("11:11:"));
    ring.retire(Some(1));
    assert_eq!(xids(&ring), [10]);
    ring.retire(Some(2));
    assert_eq!(xids(&ring), [0; 0], "a catch-up begun after poll 2 was answered sees 10");
}

#[test]
fn an_entry_stays_until_a_poll_sees_it_and_holds_the_flush_position() {
    let mut ring = Ring::default();
    ring.push(delivered(12, 1));
    ring.push(delivered(11, 1));
    ring.polled(1, &snapshot("12:13:12"));
    assert_eq!(ring.flush_limit(), Some(Lsn(1200)), "short of 12's commit record, though 11 is seen");
    ring.retire(None);
    assert_eq!(xids(&ring), [12]);
    ring.polled(2, &snapshot("13:13:"));
    ring.retire(None);
    assert!(ring.is_empty() && ring.flush_limit().is_none() && ring.bytes() == 0);
}

#[test]
fn at_its_bound_rows_go_and_xids_stay() {
    let mut ring = Ring::default();
    let half = limits::RING_BYTES / 2;
    for xid in 1..=4 {
        ring.push(delivered(xid, half));
        assert!(ring.bytes() <= limits::RING_BYTES);
    }
    assert_eq!(xids(&ring), [1, 2, 3, 4]);
    let dropped: Vec<_> = ring.entries().map(|e| e.delivered.net.is_none()).collect();
    assert_eq!(dropped, [true, true, false, false]);
    assert!(
        ring.entries().all(|e| e.delivered.transaction.touched.contains(&7)),
        "what was touched is still known"
    );
    ring.polled(1, &snapshot("5:5:"));
    ring.retire(None);
    assert_eq!(ring.bytes(), 0);
}
