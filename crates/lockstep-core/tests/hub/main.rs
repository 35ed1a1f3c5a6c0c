//! Decisions of the hub that a test on PostgreSQL could only hope to meet.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod between;
mod bounds;
mod freshness;
mod loads;
mod passing;
mod provisional;
mod reached;
mod returning;
mod schema;
mod world;

use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::Identity;
use world::{CLIENTS, ITEMS, World, insert, update};

/// A snapshot's xmax is the last ended xid + 1: without the push, the newest transaction of all, waiting for a
/// standby, would be at xmax and not be taken for unsure.
#[test]
fn a_stream_begins_with_a_push_and_catch_ups_only_after_z() {
    let mut world = World::polling();
    world.hub.handle_stream_started(700);
    world.join(1, "x");
    world.later(60_000);
    let push = world.take(|o| matches!(o, Output::PushFence(_)).then(|| world::number(o)));
    assert!(!world.has(|o| matches!(o, Output::Poll(_) | Output::CatchUp(_))));
    world.hub.handle_pushed(push, false);
    assert!(!world.has(|o| matches!(o, Output::Poll(_) | Output::CatchUp(_))), "the push failed");
    world.later(60_000);
    let push = world.take(|o| matches!(o, Output::PushFence(_)).then(|| world::number(o)));
    world.hub.handle_pushed(push, true);
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))), "S before Z");
    world.poll("700:701:700", 10);
    world.catch_up();
}

#[test]
fn an_unsure_transaction_stays_out_of_cursors_until_it_is_found() {
    let mut world = World::streaming("700:702:700");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:702:700", 1);
    let cursor = world.heard(1).pop().unwrap().1["cursor"].as_str().unwrap().to_owned();
    assert!(cursor.contains("~700:702:700~"), "{cursor}");
    // A poll sees 700; the stream never brought it.
    world.poll("702:702:", 2);
    world.keepalive(2);
    let asked = world.take(|o| if let Output::ReadGap(xids) = o { Some(xids.clone()) } else { None });
    assert_eq!(asked, [700]);
    // While it is unsure the session is caught up as without a stream; that catch-up is void now.
    world.catch_up();
    world.hub.handle_gap(&[(700, true)]);
    let request = world.catch_up();
    world.answer(&request, "702:702:", 2);
    let (event, commit) = world.heard(1).pop().unwrap();
    assert_eq!(event, "commit");
    assert!(commit["cursor"].as_str().unwrap().contains("~702:702:~"), "{commit}");
}

/// 700 may have committed before the stream's start, and 702 may build on it.
#[test]
fn a_session_does_not_follow_a_stream_that_may_lack_an_earlier_commit() {
    let mut world = World::streaming("700:702:700");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:702:700", 1);
    world.heard(1);
    world.transaction(702, 10, &[insert(ITEMS, &["child", "x", "-"])]);
    assert_eq!(world.events(1), [] as [&str; 0], "a child may be shown without its parent");
    world.poll("703:703:", 10);
    world.catch_up();
    world.hub.handle_gap(&[(700, true)]);
    let request = world.catch_up();
    world.answer(&request, "703:703:", 10);
    world.heard(1);
    world.transaction(703, 20, &[insert(ITEMS, &["next", "x", "-"])]);
    assert_eq!(world.events(1), ["rows", "commit"], "all is sure: the stream is followed");
}

/// 701 is streamed and shown while it waits for its standby; then the stream breaks.
#[test]
fn what_was_shown_is_not_taken_back_by_a_snapshot_that_does_not_see_it() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.transaction(701, 10, &[insert(ITEMS, &["a", "x", "-"])]);
    assert!(world.events(1).contains(&"commit".to_owned()));
    world.hub.handle_stream_lost();
    let request = world.catch_up();
    world.answer(&request, "701:701:", 10);
    assert_eq!(world.events(1), [] as [&str; 0], "it would lose 701");
    world.poll("702:702:", 10);
    let request = world.catch_up();
    world.answer(&request, "702:702:", 10);
    assert!(world.events(1).contains(&"commit".to_owned()));
}

/// Without a stream, a shape added while the first is read would be read in a later snapshot than the first one.
#[test]
fn shapes_read_in_different_snapshots_never_share_a_cursor() {
    let mut world = World::polling();
    world.join(1, "x");
    let first = world.catch_up();
    let more = r#"["1","2","sync","subscribe",{"shapes":[{"ref":"1","table":"items","scope":{"a":"y"}}]}]"#;
    world.hub.handle_text(1, more, "fresh");
    world.poll("700:700:", 1);
    world.answer(&first, "700:700:", 1);
    assert_eq!(world.catch_up().reads.len(), 2, "both are read in one snapshot");
}

/// ```text
///  S is taken ─ T is delivered ─ the answer comes: T is not in S, and is applied from the ring
///  U is delivered ─ S is taken and sees U ─ the answer comes: U is in S, and is not applied again
/// ```
#[test]
fn the_ring_adds_what_the_snapshot_does_not_see_and_nothing_else() {
    let mut world = World::streaming("700:700:");
    world.transaction(700, 10, &[insert(ITEMS, &["u", "x", "-"])]);
    world.join(1, "x");
    let request = world.catch_up();
    world.transaction(701, 20, &[insert(ITEMS, &["t", "x", "-"])]);
    world.answer(&request, "701:701:", 10);
    let heard = world.heard(1);
    let puts: Vec<_> =
        heard.iter().filter(|(_, p)| p["put"].is_array()).map(|(_, p)| p["put"].to_string()).collect();
    assert_eq!(puts, [r#"[["t","x",null]]"#]);
    assert_eq!(heard.iter().filter(|(e, _)| e == "commit").count(), 1, "one state");
}

#[test]
fn a_catch_up_waits_for_its_fence_and_pushes() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 50);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.take(|o| matches!(o, Output::PushFence(_)).then_some(()));
    world.keepalive(49);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.keepalive(50);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
}

/// A row enters a shape with a large value that is not repeated: its session waits for a snapshot that sees the
/// transaction; everyone else goes on, and newcomers are served.
#[test]
fn a_session_at_a_hole_waits_alone() {
    let mut world = World::streaming("700:700:");
    for (session, scope) in [(1, "x"), (2, "y")] {
        world.join(session, scope);
        let request = world.catch_up();
        world.answer(&request, "700:700:", 1);
        world.heard(session);
    }
    let tombstone = insert(ITEMS + 1, &["9", "y", "k", "700", "m"]);
    world.transaction(700, 10, &[update(ITEMS, &["k", "x", "~"]), tombstone]);
    assert_eq!(world.events(1), [] as [&str; 0], "x has the row now, without its large value");
    assert_eq!(world.events(2), ["rows", "commit"], "y lost it");
    world.join(3, "z");
    let request = world.catch_up();
    assert_eq!(request.reads.len(), 1, "the waiting session is not read before a poll sees 700");
    world.answer(&request, "700:700:", 10);
    assert_eq!(world.events(3), ["shape", "rows", "commit"]);
    world.poll("701:701:", 10);
    let request = world.catch_up();
    world.answer(&request, "701:701:", 10);
    assert_eq!(world.events(1), ["rows", "commit"]);
}

#[test]
fn an_acknowledgement_comes_with_its_rows_when_the_commit_has_returned() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.heard(1);
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client]);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", "-"])]);
    assert_eq!(world.events(1), [] as [&str; 0], "neither rows nor what follows them");
    world.poll("701:702:", 20);
    assert_eq!(world.events(1), ["rows", "ack", "commit", "rows", "commit"]);
}

/// ```text
///  700 streamed, its COMMIT waits for the standby ─ a standby without 700 is promoted ─ another 700 is seen there
/// ```
#[test]
fn an_acknowledgement_is_not_released_by_another_server() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.heard(1);
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client]);
    world.hub.handle_stream_lost();
    world.poll("705:705:", 20);
    assert_eq!(world.events(1), [] as [&str; 0]);
    assert!(world.has(|o| matches!(o, Output::Close(1, 1012, _))), "the client comes back and asks");
}

/// The stream breaks and comes back, from the same server: polls speak of its history again.
#[test]
fn after_the_same_server_was_found_again_a_poll_releases_acknowledgements() {
    for found_again in [false, true] {
        let mut world = World::streaming("700:700:");
        world.hub.handle_stream_lost();
        if found_again {
            world.hub.handle_same_database();
        }
        world.begin_stream("700:700:", 1);
        world.join(1, "x");
        let request = world.catch_up();
        world.answer(&request, "700:700:", 1);
        world.heard(1);
        let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
        world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client]);
        world.poll("701:701:", 20);
        assert_eq!(world.events(1) == ["rows", "ack", "commit"], found_again);
    }
}

/// A poll is asked, the server is replaced by one with another history, and then the old one's answer comes.
#[test]
fn a_poll_of_an_earlier_history_releases_nothing() {
    let mut world = World::streaming("700:700:");
    world.hub.handle_stream_lost();
    world.later(10_000);
    let late = world.take(|o| matches!(o, Output::Poll(_)).then(|| world::number(o)));
    world.hub.handle_database(world::identity(2), world::catalog());
    world.drain();
    let before = world.outputs.len();
    world.answer_poll(late, "9000:9000:", 90_000);
    world.drain();
    let polls = world.outputs[before..].iter().filter(|o| matches!(o, Output::Poll(_))).count();
    assert_eq!(polls, 0, "another one is on its way");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer_on(2, &request, "700:700:", 10);
    assert_eq!(world.events(1), [] as [&str; 0], "nothing says that the new server has flushed that far");
}

/// A copy of the volume was restored: mutations that were taken may be gone, and nobody would send them again.
#[test]
fn a_server_that_is_behind_what_it_had_flushed_was_rolled_back() {
    let restarted = |flushed| {
        let mut world = World::streaming("700:700:");
        world.join(1, "x");
        let request = world.catch_up();
        world.answer(&request, "700:700:", 1);
        world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"])]);
        world.hub.handle_stream_lost();
        let identity = Identity { system: 1, timeline: 1, database: 5, incarnation: 8 };
        world.hub.handle_database(identity, world::catalog());
        world.poll("701:701:", flushed);
        world.has(|o| matches!(o, Output::Close(1, 1012, _)))
    };
    assert!(restarted(9), "everybody comes back");
    assert!(!restarted(10), "an ordinary restart");
}

/// ```text
///  restarted ─ another node leaves the mark 8 ─ a catch-up here ─ this node's source looks and tells 8
/// ```
#[test]
fn a_polled_cursor_names_the_mark_of_the_life_that_it_was_read_in() {
    let mut world = World::polling();
    world.marks.push((8, lockstep_core::position::Lsn(5)));
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 10);
    world.poll("700:700:", 10);
    let heard = world.heard(1);
    let commit = heard.iter().find(|(event, _)| event == "commit").unwrap();
    assert!(commit.1["cursor"].as_str().unwrap().starts_with("1~1~1~5~8~"), "{commit:?}");
}

/// The slot is acknowledged short of what no snapshot has seen.
#[test]
fn the_flush_position_stays_behind_the_ring() {
    let mut world = World::streaming("700:700:");
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"])]);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", "-"])]);
    let flushed = |world: &mut World| {
        world.drain();
        let last = world.outputs.iter().rev().find_map(|o| match o {
            Output::Feedback { flush, .. } => Some(flush.0),
            _ => None,
        });
        last.unwrap()
    };
    world.poll("700:702:700", 20);
    assert_eq!(flushed(&mut world), 9, "before the commit record of 700");
    world.poll("702:702:", 20);
    assert_eq!(flushed(&mut world), 20);
}

/// Bytes that cannot be followed end the stream, never the process, and sessions stay.
#[test]
fn nonsense_in_the_stream_restarts_it() {
    for frame in [&b""[..], b"x", b"k123", b"w", &[b'w'; 30], &[&[b'w'][..], &[0; 24], b"Z"].concat()] {
        let mut world = World::streaming("700:700:");
        world.join(1, "x");
        let request = world.catch_up();
        world.answer(&request, "700:700:", 1);
        world.hub.handle_stream(frame);
        world.take(|o| matches!(o, Output::RestartStream(_)).then_some(()));
        assert_eq!(world.hub.sessions(), 1);
        assert!(!world.has(|o| matches!(o, Output::Close(..))));
    }
    let mut world = World::streaming("700:700:");
    world.transaction(700, 10, &[insert(12345, &["k"])]);
    world.take(|o| matches!(o, Output::RestartStream(_)).then_some(()));
}
