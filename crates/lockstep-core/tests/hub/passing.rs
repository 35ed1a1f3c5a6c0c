//! A transaction that is too large to be held, told in parts.

use crate::world::{CLIENTS, ITEMS, World, insert, relation, update};
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::{Bound, ReadFrom};
use lockstep_core::limits::{self, Bounds};
use lockstep_core::protocol::is_load;
use serde_json::json;

pub const OTHER: u32 = 800;

pub fn bounds() -> Bounds {
    Bounds { transaction_bytes: 600, part_bytes: 600, ..Bounds::default() }
}

/// Session 1 follows the stream with scope `x`.
pub fn following(bounds: Bounds) -> World {
    let mut world = World::streaming_within(bounds, "700:700:");
    world.data(&relation(OTHER, "other", &["id"]));
    live(&mut world, 1, "x", 1);
    world
}

pub fn live(world: &mut World, session: u64, scope: &str, lsn: u64) {
    live_as_of(world, session, scope, "700:700:", lsn);
}

pub fn live_as_of(world: &mut World, session: u64, scope: &str, snapshot: &str, lsn: u64) {
    world.join(session, scope);
    let request = world.catch_up();
    world.answer(&request, snapshot, lsn);
    world.heard(session);
}

pub fn long(key: &str, scope: &str) -> Vec<u8> {
    insert(ITEMS, &[key, scope, &"l".repeat(400)])
}

fn delete(key: &str) -> Vec<u8> {
    let mut out = insert(ITEMS, &[key, "-", "-"]);
    (out[0], out[5]) = (b'D', b'K');
    out
}

fn tombstone(scope: &str, key: &str) -> Vec<u8> {
    insert(ITEMS + 1, &["9", scope, key, "700", "d"])
}

pub fn client(n: u64) -> Vec<u8> {
    of_client("c1", n)
}

pub fn of_client(client: &str, n: u64) -> Vec<u8> {
    insert(CLIENTS, &["", client, &n.to_string(), &format!("m{n}"), "applied", "-", "-", "now"])
}

/// Large rows of a table that is not tracked.
pub fn elsewhere(world: &mut World) {
    for _ in 0..2 {
        world.data(&insert(OTHER, &[&"l".repeat(400)]));
    }
}

fn reached(world: &World, bound: Bound) -> u64 {
    let at = Bound::ALL.iter().position(|b| *b == bound).unwrap();
    world.hub.report().counters.bounds[at]
}

/// The state that the session is caught up from.
pub fn caught_up_from(world: &mut World, poll: &str, lsn: u64) -> String {
    world.poll(poll, lsn);
    let request = world.catch_up();
    let ReadFrom::Since(head) = &request.reads[0].from else { panic!("{request:?}") };
    head.snapshot.to_string()
}

#[test]
fn parts_are_set_aside_and_shown_by_the_commit() {
    let mut world = following(bounds());
    world.begin(700, 10);
    for key in ["a", "b", "c"] {
        world.data(&long(key, "x"));
    }
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["load"]);
    let name = heard[0].1["load"].clone();
    assert_eq!(heard[0].1["put"].as_array().unwrap().len(), 2);
    world.data(&long("d", "x"));
    world.data(&insert(ITEMS, &["e", "x", "-"]));
    world.data(&client(1));
    world.hub.handle_committed(&[700]);
    world.commit(10);
    let heard = world.heard(1);
    let events: Vec<_> = heard.iter().map(|(e, _)| e.as_str()).collect();
    assert_eq!(events, ["load", "loaded", "rows", "ack", "commit"]);
    assert_eq!((&heard[0].1["load"], &heard[1].1), (&name, &json!({"loads": [name]})));
    assert_eq!((&heard[2].1["put"][0][0], &heard[4].1["xid"]), (&json!("e"), &json!("700")));
    let counters = world.hub.report().counters;
    assert_eq!((counters.passed, counters.passed_fallen, counters.rows), (1, 0, 5));
    // Who reads past it is read again: the ring does not have its rows.
    world.join(2, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 10);
    assert_eq!(world.events(2), [""; 0]);
    world.transaction(701, 20, &[insert(ITEMS, &["f", "x", "-"])]);
    assert_eq!(world.events(1), ["rows", "commit"]);
}

/// Scope `y` is told of nothing, `x` of what left it.
#[test]
fn a_tombstone_of_a_later_part_removes_what_no_part_put() {
    let mut world = following(bounds());
    world.begin(700, 10);
    world.data(&delete("k"));
    for key in ["a", "b"] {
        world.data(&long(key, "y"));
    }
    assert_eq!(world.events(1), [""; 0], "nothing says where k was");
    world.data(&tombstone("x", "k"));
    world.commit(10);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["load", "loaded", "commit"]);
    assert_eq!(heard[0].1["remove"], json!([["k"]]));
    assert_eq!(world.hub.report().counters.rows, 3, "k was counted with its delete");
}

/// The row is put by the first part. A tombstone in the last one says that it left, or that an earlier one had left.
#[test]
fn a_tombstone_of_what_a_part_put_makes_the_scope_be_caught_up() {
    let mut world = following(bounds());
    live(&mut world, 2, "y", 1);
    world.begin(700, 10);
    for row in [long("k", "x"), long("l", "y")] {
        world.data(&row);
    }
    assert_eq!((world.events(1), world.events(2)), (vec!["load".to_owned()], vec!["load".to_owned()]));
    world.data(&tombstone("x", "k"));
    world.commit(10);
    assert_eq!(
        (world.events(1), world.events(2)),
        (vec!["unload".to_owned()], vec!["loaded".into(), "commit".into()])
    );
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))), "no snapshot sees 700 yet");
    assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
    assert_eq!(world.hub.report().counters.passed_fallen, 1);
}

/// Nothing says yet whether the row moved here without its large value.
#[test]
fn a_large_value_that_is_not_repeated_makes_the_scope_be_caught_up() {
    let mut world = following(bounds());
    world.begin(700, 10);
    for row in [update(ITEMS, &["k", "x", "~"]), long("l", "y"), long("m", "y"), tombstone("y", "k")] {
        world.data(&row);
    }
    world.commit(10);
    assert_eq!(world.events(1), [""; 0]);
    assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
}

#[test]
fn who_reads_too_slowly_is_caught_up_past_it() {
    let mut world = following(bounds());
    world.hub.handle_slow(1);
    world.begin(700, 10);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    world.drain();
    world.hub.handle_slow(1);
    world.hub.handle_slow(1);
    assert_eq!(world.events(1), ["load", "unload"]);
    world.data(&long("c", "x"));
    world.data(&long("d", "x"));
    world.commit(10);
    world.hub.handle_slow(1);
    assert_eq!(world.events(1), [""; 0]);
    assert_eq!(reached(&world, Bound::PassedBytes), 1, "and only then");
    assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
}

/// The part is told, and the socket says after its first frame that too much waited before. Whoever reads gets all of it.
#[test]
fn who_falls_gets_no_more_of_the_part() {
    let mut world = following(Bounds { part_bytes: 300_000, ..bounds() });
    live(&mut world, 2, "x", 1);
    let subscribe = json!(["1", "2", "sync", "subscribe", {"shapes": [{"ref": "1", "table": "items", "scope": {"a": "y"}}]}]);
    world.hub.handle_text(1, &subscribe.to_string(), "");
    world.later(limits::GATHER_MS);
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.heard(1);
    world.begin(700, 10);
    for key in ["a", "b", "c", "d", "e"] {
        world.feed(&insert(ITEMS, &[key, if key == "e" { "y" } else { "x" }, &"l".repeat(70_000)]));
    }
    // As the node does: it says so as soon as it has the frame.
    let mut told = 0;
    while let Some(output) = world.hub.poll_output() {
        let first = matches!(&output, Output::Send(1, frame) if is_load(frame));
        world.outputs.push(output);
        if first {
            told += 1;
            world.hub.handle_slow(1);
        }
    }
    assert_eq!(told, 1);
    let heard = world.heard(1);
    assert_eq!(heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(), ["load", "unload"]);
    assert_eq!(json!([heard[0].1["load"]]), heard[1].1["loads"], "nothing is taken back that was never told");
    assert_eq!(world.events(2), ["load"; 4]);
    world.commit(10);
    assert_eq!((world.events(1), world.events(2)), (vec![], vec!["loaded".to_owned(), "commit".into()]));
    assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
}

/// Past the bound no key is remembered: all that left a scope in an earlier part is in doubt.
#[test]
fn more_keys_than_are_remembered_are_all_in_doubt() {
    let mut world = following(Bounds { part_keys: 1, ..bounds() });
    world.begin(700, 10);
    for row in [delete("k"), long("a", "y"), long("b", "y"), long("c", "y"), tombstone("x", "k")] {
        world.data(&row);
    }
    world.commit(10);
    assert_eq!(world.events(1), [""; 0]);
    assert_eq!(reached(&world, Bound::PartKeys), 1);
    assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
}

/// ```text
///  700 with a mutation waits ─ 701 is passed through behind it ─ 702: too much waits, all is taken back
/// ```
#[test]
fn a_batch_that_is_taken_back_has_its_parts_forgotten() {
    let mut world = following(Bounds { held_bytes: 1_000, ..bounds() });
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client(1)]);
    world.begin(701, 20);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    world.commit(20);
    assert_eq!(world.events(1), ["load"], "the batch waits");
    world.transaction(702, 30, &[insert(ITEMS, &["m", "x", &"l".repeat(100)])]);
    world.transaction(703, 40, &[insert(ITEMS, &["m", "x", &"l".repeat(400)])]);
    world.transaction(704, 50, &[insert(ITEMS, &["m", "x", &"l".repeat(400)])]);
    assert_eq!(world.events(1), ["unload"]);
    assert_eq!(caught_up_from(&mut world, "705:705:", 50), "700:701:700");
}

#[test]
fn more_acknowledgements_than_are_remembered_are_read() {
    let mut world = following(bounds());
    world.begin(700, 10);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    for n in 0..=limits::PART_ACKNOWLEDGEMENTS as u64 {
        world.data(&client(n + 1));
    }
    world.commit(10);
    assert_eq!(world.events(1), ["load", "unload"]);
    assert_eq!(reached(&world, Bound::PartAcknowledgements), 1);
    world.poll("701:701:", 10);
    assert_eq!(world.catch_up().clients.len(), 1);
}

/// Not before the commit: with another catalog nobody could be told of the other tables.
#[test]
fn a_truncated_table_is_looked_for_with_the_commit() {
    let mut world = following(bounds());
    world.begin(700, 10);
    elsewhere(&mut world);
    world.data(&[&b"T\0\0\0\x01\0"[..], &ITEMS.to_be_bytes()].concat());
    elsewhere(&mut world);
    world.later(limits::CATALOG_MS);
    assert!(!world.has(|o| matches!(o, Output::ReadCatalog)));
    world.commit(10);
    assert!(world.has(|o| matches!(o, Output::ReadCatalog)));
}
