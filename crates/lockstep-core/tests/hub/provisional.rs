//! First loads that are shown before they are settled, and how large loads are.

use crate::world::{ITEMS, World, insert};
use lockstep_core::change::Value;
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::{CatchUpRequest, ReadFrom};
use lockstep_core::limits::{Bounds, PROVISIONAL_MS};
use lockstep_core::position::ResetReason;
use lockstep_core::protocol::{Delta, LoadId, load_frames};
use serde_json::{Value as Json, json};

const ABLE: &[&str] = &["provisional"];

fn streaming() -> World {
    let bounds = Bounds { transaction_bytes: 2_000, ..Bounds::default() };
    World::streaming_within(bounds, "700:700:")
}

/// A session whose first load was read, while W is behind its fence at 50.
fn waiting(able: &[&str], cursor: Option<&str>) -> (World, CatchUpRequest) {
    let mut world = streaming();
    world.join_able(1, "x", cursor, able);
    let request = world.catch_up();
    world.answer(&request, "700:700:", 50);
    assert_eq!(world.events(1), [] as [&str; 0]);
    (world, request)
}

/// One that was shown it.
fn shown() -> (World, CatchUpRequest) {
    let (mut world, request) = waiting(ABLE, None);
    world.later(PROVISIONAL_MS - 1);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.later(1);
    assert_eq!(world.events(1), ["shape", "load", "provisional"]);
    (world, request)
}

fn cursor(world: &mut World) -> Json {
    world.hub.handle_text(1, r#"[null,"9","phoenix","heartbeat",{}]"#, "fresh");
    world.take(|output| match output {
        Output::Send(1, frame) => {
            let frame: Json = serde_json::from_slice(frame).unwrap();
            (frame[1] == "9").then(|| frame[4]["response"]["cursor"].clone())
        }
        _ => None,
    })
}

#[test]
fn a_first_load_that_waits_for_its_fence_is_shown_and_taken_by_its_batch() {
    let (mut world, request) = waiting(ABLE, None);
    assert!(world.hub.next_timeout() <= Some(world.now + PROVISIONAL_MS));
    world.later(PROVISIONAL_MS);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["shape", "load", "provisional"]);
    let names = json!([format!("{}.0", request.id)]);
    assert_eq!((&heard[1].1["load"], &heard[1].1["reset"]), (&names[0], &json!("first")));
    assert_eq!(heard[2].1, json!({ "loads": names }));
    assert_eq!(cursor(&mut world), Json::Null);
    // S does not see it, and what it changes is not shown before S is settled.
    world.transaction(700, 40, &[insert(ITEMS, &["k", "x", "-"])]);
    assert_eq!((world.events(1), cursor(&mut world)), (vec![], Json::Null));
    world.later(10 * PROVISIONAL_MS);
    assert_eq!(world.events(1), [] as [&str; 0], "once");
    world.keepalive(50);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["loaded", "rows", "commit"]);
    assert_eq!(heard[0].1, json!({ "loads": names }));
    assert_eq!(heard[1].1["put"], json!([["k", "x", null]]), "what was set aside is not sent again");
    assert_eq!(world.hub.report().counters.provisional, 1);
}

#[test]
fn what_went_ahead_in_chunks_is_shown_as_it_is() {
    let mut world = streaming();
    world.join_able(1, "x", None, ABLE);
    let request = world.catch_up();
    let load = LoadId { catch_up: request.id, read: 0 };
    let put = vec![["k", "x", "-"].map(|t| Value::Text(t.into())).to_vec()];
    let delta = Delta { reset: Some(ResetReason::First), put, remove: vec![] };
    world.hub.handle_catch_up_rows(request.id, 0, &load_frames(&request.reads[0].shape, &delta, 9_999, load));
    world.later(10 * PROVISIONAL_MS);
    assert_eq!(world.events(1), ["load"], "it is not all there");
    world.answer_ahead(&request, "700:700:", 50);
    world.later(PROVISIONAL_MS);
    assert_eq!(world.events(1), ["shape", "provisional"]);
    world.keepalive(50);
    assert_eq!(world.events(1), ["loaded", "commit"]);
}

#[test]
fn who_cannot_take_it_or_shows_something_is_not_sent_it() {
    let (mut world, _) = waiting(&["widen"], None);
    world.later(10 * PROVISIONAL_MS);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.keepalive(50);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["shape", "rows", "commit"]);
    // It comes back with what it holds, and without.
    let cursor = heard[2].1["cursor"].as_str().unwrap().to_owned();
    let (mut world, request) = waiting(ABLE, Some(&cursor));
    assert_eq!(request.reads[0].from, ReadFrom::Scratch(ResetReason::First));
    world.later(10 * PROVISIONAL_MS);
    assert_eq!(world.events(1), [] as [&str; 0]);
    // A shape more of a session that is live.
    world.keepalive(50);
    world.events(1);
    let more = json!(["1", "2", "sync", "subscribe", {"shapes": [{"ref": "1", "table": "items", "scope": {"a": "y"}}]}]);
    world.hub.handle_text(1, &more.to_string(), "fresh");
    world.later(10_000);
    let request = world.catch_up();
    world.answer(&request, "700:700:", 90);
    world.later(10 * PROVISIONAL_MS);
    assert_eq!(world.events(1), [] as [&str; 0]);
}

#[test]
fn what_is_thrown_away_is_told_and_read_again() {
    let (mut world, first) = shown();
    world.hub.handle_stream_lost();
    let heard = world.heard(1);
    assert_eq!(heard[0], ("unload".into(), json!({"loads": [format!("{}.0", first.id)]})));
    // Of the next one nothing is shown but by its own right.
    world.later(10_000);
    let second = world.catch_up();
    assert_eq!(second.reads[0].from, first.reads[0].from);
    world.answer(&second, "700:700:", 60);
    world.later(PROVISIONAL_MS);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["load", "provisional"]);
    assert_eq!(heard[1].1, json!({"loads": [format!("{}.0", second.id)]}));
}

#[test]
fn a_shape_that_is_given_up_is_shown_no_longer() {
    let (mut world, request) = shown();
    let leave = json!(["1", "2", "sync", "unsubscribe", {"refs": ["0"]}]).to_string();
    world.hub.handle_text(1, &leave, "fresh");
    assert_eq!(world.heard(1), [("unload".into(), json!({"loads": [format!("{}.0", request.id)]}))]);
    world.keepalive(50);
    assert_eq!(world.events(1), ["commit"]);
}

/// S lacks what the ring cannot tell. S is settled, so what was shown is where the next reading begins.
#[test]
fn what_was_shown_stays_when_its_snapshot_is_not_the_last() {
    let (mut world, first) = shown();
    world.transaction(700, 60, &[insert(ITEMS, &["large", "x", &"l".repeat(3_000)])]);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.poll("701:701:", 60);
    let second = world.catch_up();
    assert!(
        matches!(&second.reads[0].from, ReadFrom::Since(head) if head.snapshot.to_string() == "700:700:")
    );
    world.answer(&second, "701:701:", 90);
    world.later(10 * PROVISIONAL_MS);
    assert_eq!(world.events(1), [] as [&str; 0], "not shown twice");
    world.keepalive(90);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["loaded", "rows", "commit"]);
    assert_eq!(heard[0].1, json!({"loads": [format!("{}.0", first.id)]}));
}

#[test]
fn how_large_a_load_is_comes_before_its_rows() {
    let mut world = streaming();
    world.join(1, "x");
    world.join(2, "x");
    let request = world.catch_up();
    let leave = json!(["1", "2", "sync", "unsubscribe", {"refs": ["0"]}]).to_string();
    world.hub.handle_text(2, &leave, "fresh");
    world.hub.handle_catch_up_size(request.id, 0, 20_000);
    assert_eq!(
        world.heard(1),
        [("progress".into(), json!({"load": format!("{}.0", request.id), "about": 20_000}))]
    );
    assert_eq!(world.events(2), [] as [&str; 0]);
    world.hub.handle_stream_lost();
    assert_eq!(world.events(1), ["unload"], "its rows will not come");
    world.hub.handle_catch_up_size(request.id, 7, 1);
    world.hub.handle_catch_up_size(request.id + 70, 0, 1);
    assert_eq!(world.events(1), [] as [&str; 0]);
}
