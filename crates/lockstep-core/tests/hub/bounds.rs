//! What happens at a bound.

use crate::world::{CLIENTS, ITEMS, World, insert, update};
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::{Bound, ReadFrom};
use lockstep_core::limits::{self, Bounds};
use lockstep_core::mutation::Outcome;

/// The cursor of the last commit frame.
fn cursor(world: &mut World, session: u64) -> String {
    let heard = world.heard(session);
    let commit = heard.iter().rev().find(|(event, _)| event == "commit").unwrap();
    commit.1["cursor"].as_str().unwrap().to_owned()
}

/// ```text
///  700 with a mutation, waits for the standby ─ 701, 702 behind it: too much ─ a poll sees 700 ─ caught up from before 700
/// ```
#[test]
fn what_waits_for_a_standby_is_bounded_and_caught_up_later() {
    let bounds = Bounds { held_bytes: 1000, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.heard(1);
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client]);
    let large = "l".repeat(600);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", &large])]);
    world.transaction(702, 30, &[insert(ITEMS, &["m", "x", &large])]);
    world.transaction(703, 40, &[insert(ITEMS, &["n", "x", "-"])]);
    assert_eq!(world.events(1), [] as [&str; 0]);
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))), "no snapshot sees 700 yet");

    world.poll("700:704:700", 40);
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))), "no snapshot sees 700 yet");
    world.poll("704:704:", 40);
    let request = world.catch_up();
    let ReadFrom::Since(head) = &request.reads[0].from else { panic!("{request:?}") };
    assert_eq!(
        head.snapshot.to_string(),
        "700:701:700",
        "from before the first transaction that was not sent"
    );
    let told = Outcome { n: 1, id: "m1".into(), refusal: None };
    world.answer_telling(&request, "704:704:", 40, &[told]);
    assert_eq!(world.events(1), ["rows", "ack", "commit"], "and the outcome is told");
    world.transaction(704, 50, &[insert(ITEMS, &["o", "x", "-"])]);
    assert_eq!(world.events(1), ["rows", "commit"], "it follows the stream again");
}

/// ```text
///  700 waits ─ 701 behind it ─ 702 cannot be told: read again, from before 702 ─ too much: back to before 700
/// ```
#[test]
fn what_was_read_again_behind_a_batch_that_waits_goes_back_as_far_as_that() {
    let bounds = Bounds { held_bytes: 1000, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.heard(1);
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client]);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", "-"])]);
    let tombstone = insert(ITEMS + 1, &["9", "y", "m", "702", "m"]);
    world.transaction(702, 30, &[update(ITEMS, &["m", "x", "~"]), tombstone]);
    world.poll("700:703:700", 30);
    let request = world.catch_up();
    let ReadFrom::Since(head) = &request.reads[0].from else { panic!("{request:?}") };
    assert_eq!(head.snapshot.to_string(), "702:702:");
    world.answer(&request, "700:703:700", 30);
    world.transaction(703, 40, &[insert(ITEMS, &["n", "x", &"l".repeat(1000)])]);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.poll("704:704:", 40);
    let request = world.catch_up();
    let ReadFrom::Since(head) = &request.reads[0].from else { panic!("{request:?}") };
    assert_eq!(head.snapshot.to_string(), "700:701:700", "701 was never sent either");
}

/// The first batch of a session waits, and so does the announcement of its shape.
#[test]
fn a_first_load_that_waits_for_a_standby_is_read_again_when_too_much_follows() {
    let bounds = Bounds { held_bytes: 1000, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client]);
    world.answer(&request, "700:700:", 1);
    let large = "l".repeat(1000);
    world.transaction(701, 20, &[insert(ITEMS, &["l", "x", &large])]);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.poll("702:702:", 20);
    let request = world.catch_up();
    assert!(matches!(request.reads[0].from, ReadFrom::Scratch(_)));
    world.answer(&request, "702:702:", 20);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
}

/// ```text
///  701, 703, 705 shown, none visible ─ the cursor's list is too long ─ the client goes to a node without a stream
/// ```
#[test]
fn a_shortened_cursor_names_what_was_shown_before_it_was_visible() {
    let bounds = Bounds { cursor_xip: 2, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    for (nth, xid) in [701, 703, 705].into_iter().enumerate() {
        world.transaction(xid, 10 + nth as u64, &[insert(ITEMS, &["a", "x", "-"])]);
    }
    let cursor = cursor(&mut world, 1);
    assert!(cursor.contains("~700:700:+705,703,701~"), "{cursor}");

    let mut world = World::polling();
    world.join_from(1, "x", Some(&cursor));
    let request = world.catch_up();
    world.poll("703:706:703", 20);
    world.answer(&request, "703:706:703", 20);
    assert_eq!(world.events(1), [] as [&str; 0], "it would lose 703");
    world.poll("706:706:", 20);
    let request = world.catch_up();
    world.answer(&request, "706:706:", 20);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
}

/// What a poll sees need not be named: whoever comes back is read from a later snapshot.
#[test]
fn a_shortened_cursor_does_not_name_what_is_visible() {
    let bounds = Bounds { cursor_xip: 2, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.transaction(701, 10, &[insert(ITEMS, &["a", "x", "-"])]);
    // This poll is not settled: W does not reach its F.
    world.poll("700:702:700", 50);
    world.transaction(703, 20, &[insert(ITEMS, &["b", "x", "-"])]);
    world.transaction(705, 30, &[insert(ITEMS, &["c", "x", "-"])]);
    let cursor = cursor(&mut world, 1);
    assert!(cursor.contains("~700:700:+705,703~"), "{cursor}");
}

/// An id so far ahead that the list of those between would be too long: the position stays, what was shown is known.
#[test]
fn what_was_shown_from_far_ahead_is_not_taken_back() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.transaction(90_000, 10, &[insert(ITEMS, &["a", "x", "-"])]);
    let cursor = cursor(&mut world, 1);
    assert!(cursor.contains("~700:700:+90000~"), "{cursor}");
    world.hub.handle_stream_lost();
    let request = world.catch_up();
    world.answer(&request, "701:701:", 10);
    assert_eq!(world.events(1), [] as [&str; 0], "it would lose 90000");
}

fn reached(world: &World, bound: Bound) -> u64 {
    let at = Bound::ALL.iter().position(|b| *b == bound).unwrap();
    world.hub.report().counters.bounds[at]
}

/// One message after the other, each with a name or a value as long as it may be.
#[test]
fn what_shapes_are_asked_for_by_is_bounded_for_a_session() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    let long = "l".repeat(limits::SESSION_SHAPE_BYTES / 3);
    let mut refused = |n: usize, shape: serde_json::Value| {
        let subscribe = serde_json::json!(["1", "2", "sync", "subscribe", {"shapes": [shape]}]);
        world.hub.handle_text(1, &subscribe.to_string(), "");
        let answer = world.take(|o| match o {
            Output::Send(1, frame) => {
                let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
                let code = frame[4]["response"]["shapes"][0]["error"]["code"].as_str().unwrap_or("none");
                (frame[1] == "2").then(|| code.to_owned())
            }
            _ => None,
        });
        assert_eq!(reached(&world, Bound::SessionShapes), n as u64);
        answer == "too_many_shapes"
    };
    let shape = |reference: &str, scope: &str| serde_json::json!({"ref": reference, "table": "items", "scope": {"a": scope}});
    assert!(!refused(0, shape(&long, "1")), "a long name");
    assert!(!refused(0, shape("2", &long)), "a long value");
    assert!(refused(1, shape("3", &format!("other {long}"))));
    let mut filtered = shape("4", "4");
    filtered["where"] = "id = $1".into();
    filtered["params"] = serde_json::json!([&long]);
    assert!(refused(2, filtered), "a long parameter");
    assert!(!refused(2, shape("5", "5")), "a short one has room");
    let unsubscribe = serde_json::json!(["1", "3", "sync", "unsubscribe", {"refs": ["2"]}]);
    world.hub.handle_text(1, &unsubscribe.to_string(), "");
    let subscribe = serde_json::json!(["1", "4", "sync", "subscribe", {"shapes": [shape("6", &long)]}]);
    world.hub.handle_text(1, &subscribe.to_string(), "");
    assert_eq!(reached(&world, Bound::SessionShapes), 2, "what went makes room");
}

#[test]
fn a_session_has_so_many_shapes_and_a_node_so_many_sessions() {
    let mut world = World::streaming_within(Bounds { sessions: 2, ..Bounds::default() }, "700:700:");
    world.join(1, "x");
    let shapes: Vec<_> = (0..limits::SESSION_SHAPES)
        .map(|n| serde_json::json!({"ref": format!("s{n}"), "table": "items", "scope": {"a": format!("s{n}")}}))
        .collect();
    let subscribe = serde_json::json!(["1", "2", "sync", "subscribe", {"shapes": shapes}]);
    world.hub.handle_text(1, &subscribe.to_string(), "");
    let answers = world.take(|o| match o {
        Output::Send(1, frame) => {
            let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
            frame[4]["response"]["shapes"].as_array().filter(|s| s.len() > 1).cloned()
        }
        _ => None,
    });
    let refused: Vec<_> = answers.iter().filter(|a| a["error"]["code"] == "too_many_shapes").collect();
    assert_eq!((refused.len(), refused[0]), (1, answers.last().unwrap()), "the join's own is one of them");
    world.hub.handle_open(2);
    world.hub.handle_open(3);
    assert!(world.has(|o| matches!(o, Output::Close(3, 1013, _))));
    world.hub.handle_closed(2);
    world.hub.handle_open(4);
    assert!(!world.has(|o| matches!(o, Output::Close(4, ..))), "there is room again");
    assert_eq!((reached(&world, Bound::SessionShapes), reached(&world, Bound::Sessions)), (1, 1));
}

#[test]
fn catch_ups_beyond_so_many_wait_and_are_joined() {
    let mut world = World::streaming("700:700:");
    let mut requests = Vec::new();
    for session in 0..limits::CATCH_UPS_IN_FLIGHT as u64 {
        world.join(session, "x");
        requests.push(world.catch_up());
        world.later(limits::GATHER_MS);
    }
    for session in 10..20 {
        world.join(session, "y");
    }
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))), "as many run as may");
    assert_eq!(reached(&world, Bound::CatchUps), 1, "once, however many wait");
    world.answer(&requests[0], "700:700:", 1);
    world.later(limits::GATHER_MS);
    let next = world.catch_up();
    assert_eq!((next.reads.len(), next.clients.len()), (1, 10), "one for all who wait");
}
