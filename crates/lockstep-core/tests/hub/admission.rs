//! Who is let in when more come than can be brought up to date.

use crate::world::World;
use lockstep_core::fanout::{Hub, Output};
use lockstep_core::limits::{self, Bounds};
use serde_json::{Value as Json, json};

/// Joins, and hears the reply's payload.
fn join(world: &mut World, session: u64) -> Json {
    let shape = json!({"ref": "0", "table": "items", "scope": {"a": "x"}});
    let join = json!(["1", "1", "sync", "phx_join", {"protocol": 1, "shapes": [shape]}]).to_string();
    world.hub.handle_text(session, &join, &format!("{session:032x}"));
    world.take(|output| reply(output, session))
}

fn reply(output: &Output, session: u64) -> Option<Json> {
    let Output::Send(to, frame) = output else { return None };
    let frame: Json = serde_json::from_slice(frame).unwrap();
    (*to == session && frame[3] == "phx_reply").then(|| frame[4].clone())
}

#[test]
fn whoever_comes_beyond_the_bound_is_told_when_to_come_again_and_gets_in() {
    let bounds = Bounds { waiting_sessions: 2, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    (1..=4).for_each(|session| world.hub.handle_open(session));
    for session in 1..=2 {
        assert_eq!(join(&mut world, session)["status"], "ok");
    }
    let told = [3, 4].map(|session| join(&mut world, session)["response"].clone());
    for told in &told {
        assert_eq!(told["code"], "crowded");
        assert!((1_000..1_200).contains(&told["retry_in"].as_u64().unwrap()), "{told}");
    }
    assert_ne!(told[0]["retry_in"], told[1]["retry_in"], "not at one time");
    let report = world.hub.report();
    assert_eq!((report.joined, report.waiting, report.later), (2, 2, 2));
    let bound = lockstep_core::fanout::hub::Bound::ALL.iter().position(|b| b.as_str() == "waiting_sessions");
    assert_eq!(report.counters.bounds[bound.unwrap()], 2);
    for session in 1..=2 {
        let request = world.catch_up();
        world.answer(&request, "700:700:", 1);
        assert_eq!(world.events(session), ["shape", "rows", "commit"]);
        world.later(limits::GATHER_MS);
    }
    world.later(1_000);
    for session in 3..=4 {
        assert_eq!(join(&mut world, session)["status"], "ok");
    }
    assert_eq!(world.hub.report().later, 0);
    for session in 3..=4 {
        let request = world.catch_up();
        world.answer(&request, "700:700:", 1);
        assert_eq!(world.events(session), ["shape", "rows", "commit"]);
        world.later(limits::GATHER_MS);
    }
}

/// Who leaves makes room, and a place is not kept for whom nobody waits for.
#[test]
fn a_session_that_leaves_takes_no_room() {
    let bounds = Bounds { waiting_sessions: 1, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    (1..=3).for_each(|session| world.hub.handle_open(session));
    assert_eq!(join(&mut world, 1)["status"], "ok");
    assert_eq!(join(&mut world, 2)["response"]["code"], "crowded");
    world.hub.handle_closed(1);
    world.later(1_000);
    assert_eq!(join(&mut world, 3)["response"]["code"], "crowded", "2 goes first");
    world.hub.handle_closed(2);
    assert_eq!(join(&mut world, 3)["status"], "ok");
}

#[test]
fn a_node_that_starts_says_when_to_come_again() {
    let mut hub = Hub::default();
    let mut told = Vec::new();
    for session in 1..=2_000 {
        hub.handle_open(session);
        let join = json!(["1", "1", "sync", "phx_join", {"protocol": 1, "shapes": []}]).to_string();
        hub.handle_text(session, &join, &format!("{session:032x}"));
        let reply = std::iter::from_fn(|| hub.poll_output()).find_map(|o| reply(&o, session)).unwrap();
        assert_eq!(reply["response"]["code"], "not_ready");
        told.push(reply["response"]["retry_in"].as_u64().unwrap());
    }
    let (least, most) = (told.iter().min().copied().unwrap(), told.iter().max().copied().unwrap());
    assert!((500..600).contains(&least) && (2_000..2_500).contains(&most), "{least} to {most} ms");
}

/// Who was served and joins anew, as after `renumber`, would stand still until its turn.
#[test]
fn a_session_that_is_there_joins_anew_without_a_turn() {
    let bounds = Bounds { waiting_sessions: 1, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    (1..=3).for_each(|session| world.hub.handle_open(session));
    assert_eq!(join(&mut world, 1)["status"], "ok");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
    assert_eq!(join(&mut world, 2)["status"], "ok");
    assert_eq!(join(&mut world, 3)["response"]["code"], "crowded");
    assert_eq!(join(&mut world, 1)["status"], "ok");
}
