//! Rows that go ahead of the batch that they belong to.

use crate::world::{ITEMS, World, insert};
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::{CatchUpError, CatchUpRequest, ReadFrom};
use lockstep_core::limits::Bounds;
use lockstep_core::position::ResetReason;
use lockstep_core::protocol::{Delta, Frame, LoadId, load_frames};
use serde_json::json;

/// One frame of the first read, with this row.
fn chunk(request: &CatchUpRequest, row: &str) -> Frame {
    let reset = matches!(request.reads[0].from, ReadFrom::Scratch(_)).then_some(ResetReason::First);
    let put = vec![[row, "x", "-"].map(|t| lockstep_core::change::Value::Text(t.into())).to_vec()];
    let delta = Delta { reset, put, remove: vec![] };
    let load = LoadId { catch_up: request.id, read: 0 };
    load_frames(&request.reads[0].shape, &delta, 10_000, load).remove(0)
}

fn streaming() -> World {
    let bounds = Bounds { transaction_bytes: 2_000, ..Bounds::default() };
    World::streaming_within(bounds, "700:700:")
}

/// A transaction that is too large to be held.
fn large(world: &mut World, xid: u32, lsn: u64) {
    world.transaction(xid, lsn, &[insert(ITEMS, &["large", "x", &"l".repeat(3_000)])]);
}

#[test]
fn rows_that_go_ahead_are_part_of_the_batch_that_names_them() {
    let mut world = streaming();
    world.join(1, "x");
    let request = world.catch_up();
    for row in ["k", "l"] {
        world.hub.handle_catch_up_rows(request.id, 0, &[chunk(&request, row)]);
    }
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["load", "load"]);
    assert_eq!(heard[0].1["load"], format!("{}.0", request.id));
    world.answer_ahead(&request, "700:700:", 1);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["shape", "loaded", "commit"]);
    assert_eq!(heard[1].1, json!({"loads": [format!("{}.0", request.id)]}));
}

#[test]
fn a_reading_that_broke_off_is_forgotten_and_begun_anew() {
    let mut world = streaming();
    world.join(1, "x");
    let request = world.catch_up();
    world.hub.handle_catch_up_rows(request.id, 0, &[chunk(&request, "k")]);
    world.hub.handle_catch_up(request.id, Err(CatchUpError::Passing("broken".into())));
    assert_eq!(world.events(1), ["load", "unload"]);
    // What is still on its way of it means nothing.
    world.hub.handle_catch_up_rows(request.id, 0, &[chunk(&request, "l")]);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.later(10_000);
    let again = world.catch_up();
    assert_eq!(again.reads[0].from, request.reads[0].from);
    // Nor does what is given up.
    world.hub.handle_catch_up_rows(again.id, 0, &[chunk(&again, "k")]);
    let leave = json!(["1", "2", "sync", "unsubscribe", {"refs": ["0"]}]).to_string();
    world.hub.handle_text(1, &leave, "fresh");
    assert_eq!(world.events(1), ["load", "unload"]);
}

/// ```text
///  rows(S1) go ahead ─ 700 is too large for the ring ─ changed(S1, S2) are in the answer ─ so is 701 ─ changed(S1, S3)
/// ```
#[test]
fn a_load_that_the_ring_outlives_goes_on_from_where_it_was_read() {
    let mut world = streaming();
    world.join(1, "x");
    let first = world.catch_up();
    world.hub.handle_catch_up_rows(first.id, 0, &[chunk(&first, "k")]);
    large(&mut world, 700, 10);
    world.answer_ahead(&first, "700:700:", 10);
    assert_eq!(world.events(1), ["load"], "S1 does not see 700, and the ring cannot tell it");
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))), "no snapshot sees 700 yet");

    world.poll("701:701:", 10);
    let second = world.catch_up();
    let since = |request: &CatchUpRequest| match &request.reads[0].from {
        ReadFrom::Since(head) => head.snapshot.to_string(),
        ReadFrom::Scratch(reason) => panic!("all of it again: {reason:?}"),
    };
    assert_eq!(since(&second), "700:700:");
    large(&mut world, 701, 20);
    // Its rows are in the answer, and are lost with it: the third begins where the second did.
    world.answer(&second, "701:701:", 20);
    world.poll("702:702:", 20);
    let third = world.catch_up();
    assert_eq!(since(&third), "700:700:");
    world.answer_ahead(&third, "702:702:", 20);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["shape", "loaded", "commit"]);
    assert_eq!(heard[1].1, json!({"loads": [format!("{}.0", first.id)]}), "what was set aside at first");
}
