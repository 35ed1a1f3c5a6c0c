//! A transaction that is too large to be held, told in parts.

use crate::world::{CLIENTS, ITEMS, World, catalog, insert, relation, update};
use lockstep_core::catalog::{Catalog, Table};
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::{Bound, ReadFrom};
use lockstep_core::limits::{self, Bounds};
use lockstep_core::protocol::is_load;
use serde_json::json;
use std::sync::Arc;

const OTHER: u32 = 800;

fn bounds() -> Bounds {
    Bounds { transaction_bytes: 600, part_bytes: 600, ..Bounds::default() }
}

/// Session 1 follows the stream with scope `x`.
fn following(bounds: Bounds) -> World {
    let mut world = World::streaming_within(bounds, "700:700:");
    world.data(&relation(OTHER, "other", &["id"]));
    live(&mut world, 1, "x", 1);
    world
}

fn live(world: &mut World, session: u64, scope: &str, lsn: u64) {
    world.join(session, scope);
    let request = world.catch_up();
    world.answer(&request, "700:700:", lsn);
    world.heard(session);
}

fn long(key: &str, scope: &str) -> Vec<u8> {
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

fn client(n: u64) -> Vec<u8> {
    of_client("c1", n)
}

fn of_client(client: &str, n: u64) -> Vec<u8> {
    insert(CLIENTS, &["", client, &n.to_string(), &format!("m{n}"), "applied", "-", "-", "now"])
}

/// Large rows of a table that is not tracked.
fn elsewhere(world: &mut World) {
    for _ in 0..2 {
        world.data(&insert(OTHER, &[&"l".repeat(400)]));
    }
}

fn reached(world: &World, bound: Bound) -> u64 {
    let at = Bound::ALL.iter().position(|b| *b == bound).unwrap();
    world.hub.report().counters.bounds[at]
}

/// The state that the session is caught up from.
fn caught_up_from(world: &mut World, poll: &str, lsn: u64) -> String {
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
///  part ─ a session becomes live, as of before ─ part ─ commit
/// ```
#[test]
fn who_becomes_live_between_two_parts_is_caught_up_past_it() {
    let mut world = following(bounds());
    world.join(2, "x");
    world.join(3, "z");
    let request = world.catch_up();
    world.begin(700, 10);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    world.answer(&request, "700:700:", 1);
    assert_eq!(world.events(2), ["shape", "rows", "commit"]);
    world.data(&long("c", "x"));
    world.data(&long("d", "x"));
    world.commit(10);
    assert_eq!(world.events(1), ["load", "load", "loaded", "commit"]);
    assert_eq!(world.events(2), [""; 0]);
    assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
}

/// The new shape is of a state before the transaction, and the parts that were told of the other are of no use.
#[test]
fn a_shape_added_between_two_parts_takes_the_session_with_it() {
    let mut world = following(bounds());
    world.begin(700, 10);
    let subscribe = json!(["1", "2", "sync", "subscribe", {"shapes": [{"ref": "1", "table": "items", "scope": {"a": "y"}}]}]);
    world.hub.handle_text(1, &subscribe.to_string(), "");
    world.later(limits::GATHER_MS);
    let request = world.catch_up();
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    world.answer(&request, "700:700:", 1);
    assert_eq!(world.events(1), ["load", "unload", "shape", "rows", "commit"]);
    world.data(&long("c", "x"));
    world.data(&long("d", "x"));
    world.commit(10);
    assert_eq!(world.events(1), [""; 0]);
    assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
}

#[test]
fn a_stream_that_breaks_has_the_parts_forgotten() {
    let mut world = following(bounds());
    world.begin(700, 10);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    world.hub.handle_stream_lost();
    assert_eq!(world.events(1), ["load", "unload"]);
    let request = world.catch_up();
    world.answer(&request, "701:701:", 1);
    assert_eq!(world.events(1), ["rows", "commit"]);
    // The same transaction comes again in another stream, under another name.
    world.outputs.clear();
    world.begin_stream("700:700:", 1);
    world.poll("700:700:", 1);
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.heard(1);
    world.begin(700, 10);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    world.commit(10);
    assert_eq!(world.events(1), ["load", "loaded", "commit"]);
}

#[test]
fn a_shape_that_is_given_up_has_its_parts_forgotten() {
    let mut world = following(bounds());
    world.begin(700, 10);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    let leave = json!(["1", "2", "sync", "unsubscribe", {"refs": ["0"]}]).to_string();
    world.hub.handle_text(1, &leave, "");
    assert_eq!(world.events(1), ["load", "unload"]);
    world.data(&long("c", "x"));
    world.data(&long("d", "x"));
    world.commit(10);
    assert_eq!(world.events(1), [""; 0]);
}

/// Of a relation that is described anew inside the transaction, and of a catalog that changes meanwhile, nothing is told.
#[test]
fn a_schema_that_changes_meanwhile_has_the_parts_forgotten() {
    for announced in [true, false] {
        let mut world = following(bounds());
        world.begin(700, 10);
        world.data(&long("a", "x"));
        world.data(&long("b", "x"));
        if announced {
            world.data(&relation(ITEMS, "items", &["id", "a", "text"]));
        } else {
            let tables =
                catalog().tables().map(|t| Table { schema_id: "2".into(), ..Table::clone(t) }).collect();
            let mut anew = Catalog::new(tables, CLIENTS, "installation".into());
            anew.as_of = "701:701:".parse().unwrap();
            world.hub.handle_catalog(Arc::new(anew));
        }
        world.data(&long("c", "x"));
        world.data(&long("d", "x"));
        world.commit(10);
        assert_eq!(world.events(1)[..2], ["load", "unload"], "announced: {announced}");
        assert!(!world.events(1).contains(&"commit".to_owned()));
    }
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

/// The second client's acknowledgement is beyond the bound, and its session comes after it. No shape is touched.
#[test]
fn who_comes_after_an_acknowledgement_that_is_forgotten_reads_it() {
    let mut world = following(bounds());
    world.join(2, "x");
    let request = world.catch_up();
    world.hub.handle_closed(2);
    world.begin(700, 10);
    elsewhere(&mut world);
    for n in 0..limits::PART_ACKNOWLEDGEMENTS as u64 {
        world.data(&client(n + 1));
    }
    world.data(&of_client("c2", 1));
    elsewhere(&mut world);
    world.answer(&request, "700:700:", 1);
    live(&mut world, 2, "x", 1);
    world.hub.handle_committed(&[700]);
    world.commit(10);
    assert_eq!((world.events(1), world.events(2)), (vec!["ack".to_owned(), "commit".into()], vec![]));
    world.poll("701:701:", 10);
    assert_eq!(world.catch_up().clients.len(), 1);
}

/// ```text
///  part ─ a table is tracked ─ a partition of another one is truncated: its tombstones alone say so ─ commit
/// ```
#[test]
fn whose_partition_is_truncated_is_caught_up_past_it() {
    for late in [true, false] {
        let mut world = following(bounds());
        world.begin(700, 10);
        elsewhere(&mut world);
        if late {
            live(&mut world, 2, "x", 1);
        } else {
            let other = Table { oid: OTHER, log: 2, tombstones: OTHER + 1, ..Table::default() };
            let tables = catalog().tables().map(|t| Table::clone(t)).chain([other]).collect();
            let mut anew = Catalog::new(tables, CLIENTS, "installation".into());
            anew.as_of = "701:701:".parse().unwrap();
            world.hub.handle_catalog(Arc::new(anew));
        }
        world.data(&insert(ITEMS + 1, &["9", "-", "-", "700", "p"]));
        world.commit(10);
        let fallen = world.hub.report().counters.passed_fallen;
        assert_eq!((world.events(1), fallen), (vec![], if late { 2 } else { 1 }), "late: {late}");
        assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
    }
}
