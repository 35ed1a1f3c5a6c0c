//! Bounds that a node meets where many things come together, each at the size that it has.

use crate::world::{ITEMS, World, insert};
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::Bound;
use lockstep_core::limits::{self, Bounds};
use serde_json::{Value as Json, json};

fn reached(world: &World, bound: Bound) -> u64 {
    let at = Bound::ALL.iter().position(|b| *b == bound).unwrap();
    world.hub.report().counters.bounds[at]
}

/// The payload of the reply to the last message.
fn reply(world: &mut World, session: u64) -> Json {
    world.take(|o| match o {
        Output::Send(to, frame) if *to == session => {
            let frame: Json = serde_json::from_slice(frame).unwrap();
            (frame[3] == "phx_reply").then(|| frame[4].clone())
        }
        _ => None,
    })
}

#[test]
fn one_catch_up_reads_so_many_shapes_and_the_others_wait_for_the_next() {
    const MORE: usize = 30;
    let mut world = World::streaming("700:700:");
    world.join(0, "first");
    let first = world.catch_up();
    for session in 1..=(limits::READS_PER_CATCH_UP + MORE) as u64 {
        world.join(session, &format!("s{session}"));
    }
    world.later(limits::GATHER_MS);
    let full = world.catch_up();
    assert_eq!(
        (full.reads.len(), full.clients.len()),
        (limits::READS_PER_CATCH_UP, limits::READS_PER_CATCH_UP)
    );
    assert_eq!(world.hub.report().waiting, 1 + limits::READS_PER_CATCH_UP + MORE, "all of them are counted");
    world.later(limits::GATHER_MS);
    let rest = world.catch_up();
    assert_eq!(rest.reads.len(), MORE);
    for request in [&rest, &full, &first] {
        world.answer(request, "700:700:", 1);
    }
    assert_eq!(world.hub.report().waiting, 0);
}

/// More than so many commits that wait for a standby: the cursor names the newest.
#[test]
fn a_shortened_cursor_names_the_newest_of_too_many() {
    let most = limits::CURSOR_SHOWN as u32;
    let mut world = World::streaming_within(Bounds { cursor_xip: 2, ..Bounds::default() }, "700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    for n in 0..most + 20 {
        world.transaction(701 + 2 * n, 10 + u64::from(n), &[insert(ITEMS, &["a", "x", "-"])]);
    }
    let heard = world.heard(1);
    let cursor = heard.last().unwrap().1["cursor"].as_str().unwrap();
    let shown: Vec<u32> = cursor
        .split('+')
        .nth(1)
        .unwrap()
        .split('~')
        .next()
        .unwrap()
        .split(',')
        .map(|x| x.parse().unwrap())
        .collect();
    assert_eq!((shown.len(), shown[0]), (limits::CURSOR_SHOWN, 701 + 2 * (most + 19)));
    assert!(!shown.contains(&701), "the oldest has no room");
    assert!(reached(&world, Bound::CursorXip) > 0);
    assert_eq!(reached(&world, Bound::FoldGap), 0);
    world.transaction(900_000, 1_000, &[insert(ITEMS, &["b", "x", "-"])]);
    assert_eq!(reached(&world, Bound::FoldGap), 1);
}

/// A client with many shapes comes back while much is in memory: looking through it for all of them would stop the node.
#[test]
fn who_would_have_to_be_looked_up_too_often_is_caught_up() {
    const SHAPES: usize = 100;
    for transactions in [limits::RETURN_LOOKS / SHAPES, limits::RETURN_LOOKS / SHAPES + 1] {
        let mut world = World::streaming("700:700:");
        let shape =
            |n: usize| json!({"ref": n.to_string(), "table": "items", "scope": {"a": format!("s{n}")}});
        let mut join =
            json!({"protocol": 1, "client": "c1", "shapes": (0..SHAPES).map(shape).collect::<Vec<_>>()});
        let say = |world: &mut World, session: u64, join: &Json| {
            world.hub.handle_open(session);
            world.hub.handle_text(session, &json!(["1", "1", "sync", "phx_join", join]).to_string(), "");
        };
        say(&mut world, 1, &join);
        let request = world.catch_up();
        world.answer(&request, "700:700:", 1);
        for (event, payload) in world.heard(1) {
            if event == "shape" {
                let n: usize = payload["ref"].as_str().unwrap().parse().unwrap();
                join["shapes"][n]["have"] = true.into();
                join["shapes"][n]["fingerprint"] = payload["fingerprint"].clone();
            } else if event == "commit" {
                join["cursor"] = payload["cursor"].clone();
            }
        }
        world.hub.handle_closed(1);
        for n in 0..transactions {
            world.transaction(
                701 + n as u32,
                10 + n as u64,
                &[insert(ITEMS, &[&n.to_string(), "elsewhere", "-"])],
            );
        }
        say(&mut world, 2, &join);
        world.poll("700:700:", 1);
        let asked = world.has(|o| matches!(o, Output::CatchUp(_)));
        assert_eq!(asked, transactions * SHAPES > limits::RETURN_LOOKS, "{transactions}");
        let counters = world.hub.report().counters;
        assert_eq!((counters.resumes_window, counters.resumes_read), if asked { (0, 1) } else { (1, 0) });
    }
}

/// Each is refused with a sentence, counted, and the session goes on.
#[test]
fn messages_beyond_a_bound_are_counted_by_its_name() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    reply(&mut world, 1);
    let deep = "[".repeat(limits::NESTING) + &"]".repeat(limits::NESTING);
    let op = json!({"op": "delete", "table": "items", "key": {"id": "k"}});
    let mutation = |ops: Vec<Json>| json!({"n": "1", "id": "m", "kind": "ops", "ops": ops});
    let shape = |condition: String| json!({"shapes": [{"ref": "w", "table": "items", "scope": {"a": "x"}, "where": condition}]});
    let long = format!("id = '{}'", "x".repeat(limits::WHERE_BYTES));
    let many = format!("id = 'x'{}", " or id = 'x'".repeat(limits::WHERE_TERMS));
    let nested = "(".repeat(limits::WHERE_DEPTH) + "id = 'x'" + &")".repeat(limits::WHERE_DEPTH);
    let too_many = vec![mutation(vec![]); limits::MUTATIONS_PER_FRAME + 1];
    for (event, payload, bound, says) in [
        ("mutate", format!(r#"{{"mutations":[{deep}]}}"#), Bound::Nesting, "flatter"),
        ("mutate", json!({"mutations": too_many}).to_string(), Bound::MutationsPerFrame, "in several"),
        ("subscribe", shape(long).to_string(), Bound::Where, "longer than 16384 bytes"),
        ("subscribe", shape(many).to_string(), Bound::Where, "more than 1000 terms"),
        ("subscribe", shape(nested).to_string(), Bound::Where, "deeper than 50 levels"),
    ] {
        let before = reached(&world, bound);
        world.hub.handle_text(1, &format!(r#"["1","2","sync","{event}",{payload}]"#), "");
        let reply = reply(&mut world, 1).to_string();
        assert!(reply.contains(says), "{event}: {reply}");
        assert_eq!(reached(&world, bound), before + 1, "{reply}");
    }
    // It is carried out in PostgreSQL, which is where it is refused: in its place among the others.
    let large = json!({"mutations": [mutation(vec![op; limits::OPERATIONS_PER_MUTATION + 1])]});
    world.hub.handle_text(1, &json!(["1", "2", "sync", "mutate", large]).to_string(), "");
    assert_eq!(reached(&world, Bound::OperationsPerMutation), 1);
    assert!(world.has(|o| matches!(o, Output::Mutate(_))));
}
