//! What happens between two parts of a transaction that is passed through.

use crate::passing::{
    OTHER, bounds, caught_up_from, client, elsewhere, following, live, live_as_of, long, of_client,
};
use crate::world::{CLIENTS, ITEMS, World, catalog, insert, relation};
use lockstep_core::catalog::{Catalog, Table};
use lockstep_core::fanout::Output;
use lockstep_core::limits;
use serde_json::json;
use std::sync::Arc;

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

/// ```text
///  part ─ the client joins anew on its socket ─ part ─ commit
/// ```
/// What was told of the first session is forgotten with it.
#[test]
fn who_joins_anew_between_two_parts_is_caught_up_past_it() {
    for settled in [true, false] {
        let mut world = following(bounds());
        world.begin(700, 10);
        world.data(&long("a", "x"));
        world.data(&long("b", "x"));
        world.join_again(1, "x", None, &[]);
        assert_eq!(world.events(1), ["load", "phx_close"]);
        let request = world.catch_up();
        if settled {
            world.answer(&request, "700:700:", 1);
            assert_eq!(world.events(1), ["shape", "rows", "commit"]);
        }
        world.data(&long("c", "x"));
        world.data(&long("d", "x"));
        world.commit(10);
        if settled {
            assert_eq!(world.events(1), [""; 0]);
            assert_eq!(caught_up_from(&mut world, "701:701:", 10), "700:700:");
            continue;
        }
        world.answer(&request, "700:700:", 10);
        assert_eq!(world.events(1), [""; 0], "the ring does not have its rows");
        world.poll("701:701:", 10);
        let request = world.catch_up();
        world.answer(&request, "701:701:", 10);
        assert_eq!(world.events(1), ["shape", "rows", "commit"]);
    }
}

/// No shape of the second session is touched: it follows. The first reads too slowly.
#[test]
fn an_acknowledgement_of_an_early_part_is_told_with_the_commit_or_read() {
    let mut world = following(bounds());
    world.begin(700, 10);
    elsewhere(&mut world);
    for name in ["c1", "c2"] {
        world.data(&of_client(name, 1));
    }
    elsewhere(&mut world);
    live(&mut world, 2, "x", 1);
    world.hub.handle_committed(&[700]);
    world.commit(10);
    assert_eq!([world.events(1), world.events(2)], [["ack", "commit"]; 2]);

    let mut world = following(bounds());
    world.begin(700, 10);
    world.data(&client(1));
    for key in ["a", "b", "c", "d"] {
        world.data(&long(key, "x"));
    }
    world.hub.handle_slow(1);
    world.hub.handle_committed(&[700]);
    world.commit(10);
    assert_eq!(world.events(1), ["load", "load", "unload"]);
    world.poll("701:701:", 10);
    assert_eq!(world.catch_up().clients.len(), 1);
}

/// One poll sees the transaction before the stream has brought all of it, and one does not.
#[test]
fn a_poll_between_two_parts_changes_nothing() {
    for (poll, fence) in [("701:701:", 10), ("700:700:", 1)] {
        let mut world = following(bounds());
        world.begin(700, 10);
        world.data(&long("a", "x"));
        world.data(&long("b", "x"));
        world.poll(poll, fence);
        world.data(&long("c", "x"));
        world.data(&long("d", "x"));
        world.commit(10);
        let heard = world.heard(1);
        assert_eq!(
            heard.iter().map(|(e, _)| e.as_str()).collect::<Vec<_>>(),
            ["load", "load", "loaded", "commit"]
        );
        assert!(heard[3].1["cursor"].as_str().unwrap().contains("~701:701:~"), "{heard:?}");
    }
}

/// ```text
///  700 may have come before the stream ─ part of 702 ─ it has ─ caught up, live ─ part, commit
/// ```
#[test]
fn who_follows_the_stream_from_between_two_parts_on_is_caught_up_past_it() {
    let mut world = World::streaming_within(bounds(), "700:702:700");
    live_as_of(&mut world, 1, "x", "700:702:700", 1);
    world.begin(702, 10);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    world.poll("702:702:", 1);
    assert!(world.has(|o| matches!(o, Output::ReadGap(_))));
    world.catch_up();
    world.hub.handle_gap(&[(700, true)]);
    let request = world.catch_up();
    world.answer(&request, "702:702:", 1);
    assert_eq!(world.events(1), ["rows", "commit"], "nothing of 702");
    world.data(&long("c", "x"));
    world.data(&long("d", "x"));
    world.commit(10);
    assert_eq!(world.events(1), [""; 0]);
    assert_eq!(caught_up_from(&mut world, "703:703:", 10), "702:702:");
}

/// ```text
///  700 with a mutation waits ─ part of 701 ─ 700 is released ─ part, commit
/// ```
#[test]
fn a_batch_that_is_released_between_two_parts_is_of_its_own() {
    let mut world = following(bounds());
    world.transaction(700, 10, &[insert(ITEMS, &["k", "x", "-"]), client(1)]);
    world.begin(701, 20);
    world.data(&long("a", "x"));
    world.data(&long("b", "x"));
    assert_eq!(world.events(1), ["load"], "the batch waits");
    world.hub.handle_committed(&[700]);
    assert_eq!(world.events(1), ["rows", "ack", "commit"]);
    world.data(&long("c", "x"));
    world.data(&long("d", "x"));
    world.commit(20);
    assert_eq!(world.events(1), ["load", "loaded", "commit"]);
}
