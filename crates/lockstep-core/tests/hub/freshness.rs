//! How old a session is told that its state may be.

use crate::world::{CLIENTS, ITEMS, World, insert, number, update};
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::Bound;
use lockstep_core::limits::{self, Bounds};

/// Live at the time that is returned: its catch-up began then.
fn live(world: &mut World, session: u64) -> u64 {
    world.join(session, "x");
    let request = world.catch_up();
    let began = world.now;
    world.answer(&request, "700:700:", 1);
    world.heard(session);
    began
}

fn asked(world: &mut World) -> u64 {
    world.take(|o| matches!(o, Output::Poll(_)).then(|| number(o)))
}

#[test]
fn a_poll_proves_the_moment_at_which_it_was_asked_once_the_stream_has_brought_what_it_saw() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    assert_eq!(world.hub.age(1), None, "nothing was sent yet");
    let request = world.catch_up();
    world.later(40);
    world.answer(&request, "700:700:", 1);
    world.heard(1);
    assert_eq!(world.hub.age(1), Some(40), "since it was asked for, not since it was answered");

    world.later(limits::POLL_IDLE_MS);
    let poll = asked(&mut world);
    world.later(300);
    world.answer_poll(poll, "700:700:", 50);
    assert_eq!(world.hub.age(1), Some(40 + 1_000 + 300), "the stream has not brought 50");
    assert_eq!(world.hub.lag_bytes(), 49);
    world.keepalive(50);
    assert_eq!((world.hub.age(1), world.hub.lag_bytes()), (Some(300), 0));
}

/// A stream that is silent may have nothing to say, or may be dead: a push tells.
#[test]
fn a_stream_that_says_nothing_is_asked_by_a_push() {
    let mut world = World::streaming("700:700:");
    live(&mut world, 1);
    world.later(limits::POLL_IDLE_MS);
    let poll = asked(&mut world);
    world.answer_poll(poll, "700:700:", 50);
    assert!(!world.has(|o| matches!(o, Output::PushFence(_))), "keepalives tell the same, for nothing");
    world.later(limits::PROOF_LATE_MS);
    let push = world.take(|o| matches!(o, Output::PushFence(_)).then(|| number(o)));
    world.hub.handle_pushed(push, true);
    for _ in 0..5 {
        let poll = asked(&mut world);
        world.answer_poll(poll, "700:700:", 60);
        world.later(limits::POLL_IDLE_MS);
    }
    assert!(world.hub.age(1) > Some(5_000), "no proof");
    world.keepalive(60);
    assert_eq!(world.hub.age(1), Some(limits::POLL_IDLE_MS), "as of the newest poll");
}

#[test]
fn polls_that_fail_leave_the_age_growing() {
    let mut world = World::polling();
    live(&mut world, 1);
    world.poll("700:700:", 1);
    world.later(limits::POLL_BUSY_MS);
    let poll = asked(&mut world);
    world.answer_poll(poll, "700:700:", 1);
    assert_eq!(world.hub.age(1), Some(0), "a poll that saw nothing new");
    for _ in 0..10 {
        world.later(limits::POLL_IDLE_MS);
        let poll = asked(&mut world);
        world.hub.handle_poll_failed(poll);
    }
    assert_eq!(world.hub.age(1), Some(10_000));
    // What it sees, the session has to be given first.
    world.poll("701:701:", 10);
    let (before, request) = (world.hub.age(1), world.catch_up());
    assert!(before > Some(10_000));
    world.later(70);
    world.answer(&request, "701:701:", 10);
    assert_eq!(world.hub.age(1), Some(70));
}

/// ```text
///  a row that only a query can tell ─► the session is read again; others follow the stream
/// ```
#[test]
fn a_session_that_waits_to_be_read_again_ages_alone() {
    let mut world = World::streaming("700:700:");
    live(&mut world, 1);
    live(&mut world, 2);
    world.hub.handle_text(2, r#"["1","u","sync","unsubscribe",{"refs":["0"]}]"#, "");
    let large = update(ITEMS, &["k", "x", "~"]);
    world.transaction(700, 10, &[large, insert(ITEMS + 1, &["1", "y", "k", "700", "d"])]);
    world.poll("701:701:", 10);
    world.later(5_000);
    let poll = asked(&mut world);
    world.answer_poll(poll, "701:701:", 10);
    assert_eq!(world.hub.age(2), Some(0));
    assert!(world.hub.age(1) >= Some(15_000), "{:?}", world.hub.age(1));
}

#[test]
fn what_waits_for_a_standby_ages() {
    let mut world = World::streaming_within(Bounds { held_bytes: 1_000, ..Bounds::default() }, "700:700:");
    live(&mut world, 1);
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client]);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.later(2_000);
    let poll = asked(&mut world);
    world.answer_poll(poll, "700:701:700", 10);
    assert_eq!(world.hub.age(1), Some(2_000), "since it was queued");
    let large = "l".repeat(2_000);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", &large])]);
    assert_eq!(world.hub.report().counters.bounds[4], 1, "{:?}", Bound::ALL[4]);
    assert_eq!(world.hub.age(1), Some(2_000), "also when it was taken back");
    world.later(3_000);
    assert_eq!(world.hub.age(1), Some(5_000));
}

#[test]
fn reaching_a_bound_is_counted() {
    let bounds = Bounds { ring_bytes: 300, transaction_bytes: 500, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    live(&mut world, 1);
    let text = "t".repeat(200);
    for (xid, lsn) in [(700, 10), (701, 20), (702, 30)] {
        world.transaction(xid, lsn, &[insert(ITEMS, &["k", "x", &text])]);
    }
    world.transaction(703, 40, &[insert(ITEMS, &["l", "x", &"t".repeat(600)])]);
    let report = world.hub.report();
    let reached: Vec<_> = Bound::ALL.iter().zip(report.counters.bounds).filter(|(_, n)| *n > 0).collect();
    assert_eq!(reached, [(&Bound::RingBytes, 3), (&Bound::TransactionBytes, 1)]);
    assert_eq!((report.counters.transactions, report.counters.rows), (4, 4));
    let shapes = world.hub.report_shapes();
    assert_eq!(
        (shapes[0].subscribers, shapes[0].frames, &shapes[0].scope[..]),
        (1, 4, &["a".to_owned()][..])
    );
    assert!(shapes[0].bytes > 600, "{shapes:?}");
}
