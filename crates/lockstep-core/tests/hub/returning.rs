//! Sessions that come back after a moment, brought to the present from memory, or not.

use crate::world::{CLIENTS, ITEMS, World, catalog, insert, relation, update};
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::ReadFrom;
use lockstep_core::limits::{self, Bounds};
use std::sync::Arc;

/// Session 1 holds scope x, as of 10, and leaves.
fn away(bounds: Bounds) -> (World, String, String) {
    let mut world = World::streaming_within(bounds, "700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"])]);
    let heard = world.heard(1);
    let fingerprint = heard[0].1["fingerprint"].as_str().unwrap().to_owned();
    let cursor = heard.last().unwrap().1["cursor"].as_str().unwrap().to_owned();
    world.hub.handle_closed(1);
    (world, cursor, fingerprint)
}

impl World {
    fn join_with(&mut self, session: u64, (cursor, fingerprint): (&str, &str)) {
        self.hub.handle_open(session);
        let shape = serde_json::json!({"ref": "0", "table": "items", "scope": {"a": "x"}, "have": true,
            "fingerprint": fingerprint});
        let join = serde_json::json!(["1", "1", "sync", "phx_join", {"protocol": 1, "client": "c1", "cursor": cursor,
            "capabilities": [], "shapes": [shape]}]);
        self.hub.handle_text(session, &join.to_string(), "fresh");
    }

    /// Whether the session with this cursor was answered without a query.
    fn returns(&mut self, session: u64, state: (&str, &str)) -> Option<Vec<(String, serde_json::Value)>> {
        self.join_with(session, state);
        if self.has(|o| matches!(o, Output::CatchUp(_))) {
            let request = self.catch_up();
            assert!(matches!(request.reads[0].from, ReadFrom::Since(_)), "{request:?}");
            return None;
        }
        assert!(self.heard(session).is_empty(), "what was committed before the join may still be on its way");
        let (snapshot, fence) = self.polled.clone();
        self.poll(&snapshot, fence);
        if self.has(|o| matches!(o, Output::CatchUp(_))) {
            return None;
        }
        Some(self.heard(session))
    }

    /// Polls until all that was delivered is seen and has left the ring.
    fn seen(&mut self, xmax: u64, fence: u64) {
        self.poll(&format!("{xmax}:{xmax}:"), fence);
        self.drain();
        assert_eq!(self.hub.ring_bytes(), 0);
    }
}

fn names(heard: &[(String, serde_json::Value)]) -> Vec<&str> {
    heard.iter().map(|(event, _)| event.as_str()).collect()
}

/// One that left the ring, one that has not; one of another scope, one that leaves the scope, and the outcome of a mutation.
#[test]
fn what_was_missed_is_told_in_commit_order_in_one_batch() {
    let (mut world, cursor, fingerprint) = away(Bounds::default());
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", "-"]), client]);
    world.transaction(702, 30, &[insert(ITEMS, &["m", "y", "-"])]);
    let tombstone = insert(ITEMS + 1, &["9", "x", "k", "703", "m"]);
    world.transaction(703, 40, &[update(ITEMS, &["k", "y", "b"]), tombstone]);
    world.seen(704, 40);
    world.transaction(705, 50, &[update(ITEMS, &["l", "x", "b"])]);
    let heard = world.returns(2, (&cursor, &fingerprint)).expect("no query");
    assert_eq!(names(&heard), ["shape", "rows", "rows", "rows", "ack", "commit"]);
    assert_eq!(heard[1].1["put"].as_array().unwrap().len(), 1);
    assert_eq!(heard[2].1["remove"], serde_json::json!([["k"]]));
    assert_eq!(heard[4].1["mutations"][0]["id"], "m1");
    assert_eq!(world.hub.report().counters.resumes_window, 1);
    let cursor = heard[5].1["cursor"].as_str().unwrap().to_owned();
    world.transaction(706, 60, &[insert(ITEMS, &["n", "x", "-"])]);
    assert_eq!(world.events(2), ["rows", "commit"], "it follows the stream");
    world.hub.handle_closed(2);
    let heard = world.returns(3, (&cursor, &fingerprint)).expect("no query");
    assert_eq!(names(&heard), ["shape", "rows", "commit"], "from where it was told, and no further back");
}

#[test]
fn an_outcome_that_waits_for_a_standby_waits_here_too() {
    let (mut world, cursor, fingerprint) = away(Bounds::default());
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", "-"]), client]);
    let heard = world.returns(2, (&cursor, &fingerprint)).expect("no query");
    assert_eq!(names(&heard), [""; 0], "701 is visible to nobody");
    world.poll("702:702:", 20);
    assert_eq!(world.events(2), ["shape", "rows", "ack", "commit"]);
}

/// ```text
///  poll asked ─ the client's mutation commits ─ it comes back ─ the poll settles ─ a poll asked since settles
/// ```
/// A client that must leave its id relies on its first commit for what was decided.
#[test]
fn what_was_committed_before_the_join_is_in_the_first_batch() {
    let (mut world, cursor, fingerprint) = away(Bounds::default());
    world.later(10_000);
    let early = world.take(|o| matches!(o, Output::Poll(_)).then(|| crate::world::number(o)));
    world.join_with(2, (&cursor, &fingerprint));
    world.answer_poll(early, "701:701:", 10);
    assert_eq!(world.events(2), [""; 0]);
    world.later(10_000);
    let number = world.take(|o| matches!(o, Output::Poll(_)).then(|| crate::world::number(o)));
    world.answer_poll(number, "702:702:", 20);
    assert_eq!(world.events(2), [""; 0], "701 is committed, and on its way");
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", "-"]), client]);
    assert_eq!(world.events(2), ["shape", "rows", "ack", "commit"]);
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))));
}

/// Whoever comes back and gives all its shapes up before it is answered is owed a first commit all the same.
#[test]
fn who_gives_its_shapes_up_while_it_waits_hears_its_first_commit() {
    let (mut world, cursor, fingerprint) = away(Bounds::default());
    world.join_with(2, (&cursor, &fingerprint));
    world.hub.handle_text(2, r#"["1", "2", "sync", "unsubscribe", {"refs": ["0"]}]"#, "fresh");
    world.poll("701:701:", 10);
    let request = world.catch_up();
    assert_eq!((request.reads.len(), request.clients.len()), (0, 1));
    world.answer(&request, "701:701:", 10);
    assert_eq!(world.events(2), ["commit"]);
}

/// ```text
///  cursor at 10 ─ 701 … evicted ─ the window ─ back
/// ```
#[test]
fn who_lacks_what_was_evicted_is_caught_up() {
    let (mut world, cursor, fingerprint) = away(Bounds { window_bytes: 8_000, ..Bounds::default() });
    for n in 0..40 {
        world.transaction(701 + n, 20 + u64::from(n), &[insert(ITEMS, &["l", "y", "-"])]);
        world.seen(702 + u64::from(n), 20 + u64::from(n));
    }
    assert!(world.hub.report().window_bytes <= 8_000);
    assert_eq!(world.returns(2, (&cursor, &fingerprint)), None);
    assert_eq!(world.hub.report().counters.resumes_read, 1);
}

#[test]
fn a_cursor_from_before_the_stream_is_caught_up() {
    let (mut world, cursor, fingerprint) = away(Bounds::default());
    world.hub.handle_stream_lost();
    world.hub.handle_same_database();
    world.begin_stream("702:702:", 20);
    assert_eq!(
        world.returns(2, (&cursor, &fingerprint)),
        None,
        "701 may be a row that this stream never brings"
    );
}

/// Of a snapshot that was taken between the commit record and its visibility, `fence` does not say what it saw.
#[test]
fn a_state_that_lacks_something_before_its_fence_is_caught_up() {
    for (state, answered) in [
        ("0/1E~701:703:701", false),
        ("0/1E~702:702:", false),
        ("0/1E~703:703:", true),
        ("0/14~702:702:", true),
        ("0/1F~703:703:", false),
        ("0/14~702:702:+702", false),
    ] {
        for polled in [false, true] {
            let (mut world, cursor, fingerprint) = away(Bounds::default());
            world.transaction(701, 20, &[insert(ITEMS, &["l", "x", "-"])]);
            world.transaction(702, 30, &[insert(ITEMS, &["m", "x", "-"])]);
            if polled {
                world.seen(703, 30);
            }
            let other = cursor.replace("~0/A~701:701:~", &format!("~{state}~"));
            assert_ne!(other, cursor);
            let told = world.returns(2, (&other, &fingerprint)).is_some();
            assert_eq!(told, answered, "{state}, polled: {polled}");
        }
    }
}

#[test]
fn another_history_is_for_postgresql_to_judge() {
    let (mut world, cursor, fingerprint) = away(Bounds::default());
    let mut fields: Vec<&str> = cursor.split('~').collect();
    for (at, other) in [(1, "2"), (2, "2"), (3, "6"), (4, "8")] {
        let kept = std::mem::replace(&mut fields[at], other);
        assert_eq!(world.returns(10 + at as u64, (&fields.join("~"), &fingerprint)), None, "field {at}");
        world.later(1_000);
        fields[at] = kept;
    }
    assert!(world.returns(2, (&cursor, &fingerprint)).is_some());
}

/// A row that enters the scope without its large value, a truncation, a transaction that was not held, too many of them.
#[test]
fn what_memory_cannot_tell_is_caught_up() {
    let tombstone = || insert(ITEMS + 1, &["9", "y", "m", "701", "m"]);
    let mut truncate = vec![b'T'];
    truncate.extend(1u32.to_be_bytes());
    truncate.push(0);
    truncate.extend(ITEMS.to_be_bytes());
    let large = "l".repeat(3_000);
    for messages in [
        vec![update(ITEMS, &["m", "x", "~"]), tombstone()],
        vec![truncate],
        vec![insert(ITEMS, &["l", "y", &large])],
    ] {
        for polled in [false, true] {
            let bounds = Bounds { transaction_bytes: 2_000, ..Bounds::default() };
            let (mut world, cursor, fingerprint) = away(bounds);
            world.transaction(701, 20, &messages);
            if polled {
                world.seen(702, 20);
            }
            assert_eq!(world.returns(2, (&cursor, &fingerprint)), None, "polled: {polled}");
        }
    }
    let (mut world, cursor, fingerprint) = away(Bounds::default());
    let most = limits::RETURN_TRANSACTIONS as u32;
    for n in 0..=most {
        world.transaction(701 + n, 20 + u64::from(n), &[update(ITEMS, &["k", "x", "-"])]);
    }
    world.seen(702 + u64::from(most), 20 + u64::from(most));
    assert_eq!(world.returns(2, (&cursor, &fingerprint)), None);
}

/// A large transaction costs the window its own rows, and nobody who has no shape of its tables notices.
#[test]
fn a_large_transaction_does_not_push_the_others_out() {
    let (mut world, cursor, fingerprint) = away(Bounds { window_bytes: 8_000, ..Bounds::default() });
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", "-"])]);
    let other = relation(77, "others", &["id", "a", "body"]);
    world.transaction(702, 30, &[other, insert(77, &["l", "x", &"l".repeat(9_000)])]);
    world.seen(703, 30);
    let heard = world.returns(2, (&cursor, &fingerprint)).expect("no query");
    assert_eq!(names(&heard), ["shape", "rows", "commit"]);
}

/// ```text
///  701 writes to a table that the node does not know ─ delivered ─ the node learns that the table is tracked
/// ```
/// What the stream brought before was taken for rows of nobody's, also for a catch-up that does not see it.
#[test]
fn rows_from_before_their_table_was_known_are_not_taken_for_none() {
    let mut world = World::polling();
    let mut known = Catalog::new(vec![], CLIENTS, "installation".into());
    known.as_of = "700:700:".parse().unwrap();
    world.hub.handle_database(crate::world::identity(1), known);
    world.begin_stream("700:700:", 1);
    world.transaction(705, 20, &[insert(ITEMS, &["l", "x", "-"])]);
    let mut known = catalog();
    known.as_of = "702:702:".parse().unwrap();
    world.hub.handle_catalog(Arc::new(known));
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "702:702:", 20);
    assert_eq!(world.events(1), [""; 0], "705 waits for a standby, and its row cannot be told");
    world.poll("706:706:", 20);
    let request = world.catch_up();
    world.answer(&request, "706:706:", 20);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
}
