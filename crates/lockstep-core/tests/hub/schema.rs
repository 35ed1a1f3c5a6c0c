//! A schema that changes while sessions follow the stream.

use crate::world::{CLIENTS, ITEMS, World, catalog, insert, relation};
use lockstep_core::catalog::{Catalog, Column, Missing, Table};
use lockstep_core::fanout::Output;
use lockstep_core::fanout::hub::{CatchUpError, ReadFrom};
use lockstep_core::limits::Bounds;
use lockstep_core::position::ResetReason;
use std::sync::Arc;

/// The catalog as read in a snapshot, with its one table changed.
fn changed(as_of: &str, change: impl FnOnce(&mut Table)) -> Arc<Catalog> {
    let mut table = Table::clone(catalog().table(ITEMS).unwrap());
    change(&mut table);
    let mut catalog = Catalog::new(vec![table], CLIENTS, "installation".into());
    catalog.as_of = as_of.parse().unwrap();
    Arc::new(catalog)
}

fn live() -> World {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
    world
}

fn never_restarted(world: &mut World) {
    assert!(!world.has(|o| matches!(o, Output::RestartStream(_) | Output::Close(..))));
}

/// ```text
///  702 writes a label ─ the label is renamed, catalog read: 702 runs ─ 702 commits, streamed with the old label
/// ```
#[test]
fn what_a_snapshot_of_the_catalog_does_not_see_is_not_told_from_the_stream() {
    let mut world = live();
    world.hub.handle_catalog(changed("702:705:702", |t| t.columns[2].identity = "renamed".into()));
    let request = world.catch_up();
    assert_eq!(request.reads[0].from, ReadFrom::Scratch(ResetReason::SchemaChanged));
    world.answer(&request, "702:705:702", 10);
    world.keepalive(10);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
    world.transaction(702, 20, &[insert(ITEMS, &["k", "x", "old label"])]);
    world.transaction(705, 30, &[insert(ITEMS, &["l", "x", "label"])]);
    assert_eq!(world.events(1), [] as [&str; 0], "neither the old label nor what follows it");
    world.poll("706:706:", 30);
    let request = world.catch_up();
    assert!(matches!(request.reads[0].from, ReadFrom::Since(_)));
    world.answer(&request, "706:706:", 30);
    assert_eq!(world.events(1), ["rows", "commit"]);
    world.transaction(706, 40, &[insert(ITEMS, &["m", "x", "label"])]);
    assert_eq!(world.events(1), ["rows", "commit"], "it began after the change");
    never_restarted(&mut world);
}

/// ```text
///  700 with a mutation, waits for the standby ─ a column, told behind it ─ too much waits: all taken back
/// ```
#[test]
fn columns_told_behind_a_batch_that_waits_are_told_again_when_it_is_taken_back() {
    let bounds = Bounds { held_bytes: 1000, ..Bounds::default() };
    let mut world = World::streaming_within(bounds, "700:700:");
    world.join_able(1, "x", None, &["widen"]);
    let request = world.catch_up();
    world.answer(&request, "700:700:", 1);
    world.heard(1);
    let client = insert(CLIENTS, &["", "c1", "1", "m1", "applied", "-", "-", "now"]);
    world.transaction(700, 10, &[client]);
    world.hub.handle_catalog(changed("700:701:700", |t| {
        t.columns.push(Column {
            name: "more".into(),
            attnum: 4,
            type_oid: 25,
            missing: Missing::Text("m".into()),
            ..Column::default()
        });
    }));
    let request = world.catch_up();
    assert!(matches!(request.reads[0].from, ReadFrom::Since(_)), "{request:?}");
    world.answer(&request, "700:701:700", 10);
    assert_eq!(world.events(1), [] as [&str; 0], "behind the batch that waits");
    let more = relation(ITEMS, "items", &["id", "a", "body", "more"]);
    world.transaction(701, 20, &[more, insert(ITEMS, &["l", "x", &"l".repeat(1000), "-"])]);
    assert_eq!(world.events(1), [] as [&str; 0], "too much");
    world.poll("702:702:", 20);
    let request = world.catch_up();
    world.answer(&request, "702:702:", 20);
    let heard = world.heard(1);
    let shape = heard.iter().find(|(event, _)| event == "shape").expect("its columns");
    assert_eq!(shape.1["fill"]["more"], "m", "rows that the client has get the column: {heard:?}");
}

/// The same for one that the ring holds while a catch-up runs.
#[test]
fn a_catch_up_does_not_merge_a_transaction_of_the_earlier_schema() {
    let mut world = live();
    world.transaction(702, 5, &[insert(ITEMS, &["k", "x", "old label"])]);
    assert_eq!(world.events(1), ["rows", "commit"]);
    world.hub.handle_catalog(changed("702:705:702", |t| t.columns[2].identity = "renamed".into()));
    let request = world.catch_up();
    // 702 is still not visible: its rows are not in S, and the ring has them with the old label.
    world.answer(&request, "702:705:702", 5);
    assert_eq!(world.events(1), [] as [&str; 0]);
    world.poll("705:705:", 5);
    let request = world.catch_up();
    world.answer(&request, "705:705:", 5);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
}

#[test]
fn a_relation_that_the_catalog_does_not_explain_makes_the_node_look_and_the_sessions_catch_up() {
    let mut world = live();
    world.transaction(
        701,
        10,
        &[relation(ITEMS, "items", &["id", "a", "body", "more"]), insert(ITEMS, &["k", "x", "-", "1"])],
    );
    assert_eq!(world.events(1), [] as [&str; 0]);
    assert!(world.has(|o| matches!(o, Output::ReadCatalog)));
    // The client has no capability: it loads the table anew.
    world.hub.handle_catalog(changed("702:702:", |t| {
        t.columns.push(Column { name: "more".into(), attnum: 4, type_oid: 25, ..Column::default() });
    }));
    world.poll("702:702:", 10);
    let request = world.catch_up();
    assert_eq!(request.reads[0].from, ReadFrom::Scratch(ResetReason::SchemaChanged));
    world.answer(&request, "702:702:", 10);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
    never_restarted(&mut world);
}

/// A catch-up that finds another schema under its locks waits for a look, and for nothing else.
#[test]
fn a_catch_up_that_finds_another_schema_is_tried_after_a_look() {
    let mut world = World::streaming("700:700:");
    world.join(1, "x");
    let request = world.catch_up();
    world.hub.handle_catch_up(request.id, Err(CatchUpError::SchemaChanged));
    assert!(world.has(|o| matches!(o, Output::ReadCatalog)));
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))), "it would fail again");
    world.hub.handle_catalog_failed();
    world.outputs.clear();
    world.later(10_000);
    assert!(world.has(|o| matches!(o, Output::ReadCatalog)));
    world.hub.handle_catalog(changed("701:701:", |t| t.storage_id = "other".into()));
    let request = world.catch_up();
    world.answer(&request, "701:701:", 1);
    assert_eq!(world.events(1), ["shape", "rows", "commit"]);
    never_restarted(&mut world);
}

/// Each part of the fingerprint has its reason.
#[test]
fn the_reason_says_what_changed() {
    type Change = fn(&mut Table);
    let reasons: [(Change, ResetReason); 5] = [
        (|t| t.schema_id = "2".into(), ResetReason::SchemaChanged),
        (|t| drop(t.columns.pop()), ResetReason::SchemaChanged),
        (|t| t.storage_id = "2".into(), ResetReason::Rewritten),
        (|t| t.log_id = "2".into(), ResetReason::NotLogged),
        (
            |t| {
                t.storage_id = "2".into();
                t.log_id = "2".into();
            },
            ResetReason::Rewritten,
        ),
    ];
    for (change, reason) in reasons {
        let mut world = live();
        world.hub.handle_catalog(changed("701:701:", change));
        assert_eq!(world.catch_up().reads[0].from, ReadFrom::Scratch(reason));
    }
    let mut world = live();
    world.hub.handle_catalog(changed("701:701:", |t| t.columns[2].missing = Missing::Unknown));
    assert!(!world.has(|o| matches!(o, Output::CatchUp(_))), "nothing that clients hold is other");
    // A table that is gone.
    world.hub.handle_catalog(Arc::new({
        let mut none = Catalog::new(vec![], CLIENTS, "installation".into());
        none.as_of = "702:702:".parse().unwrap();
        none
    }));
    assert_eq!(world.events(1), ["withdraw", "commit"]);
}

/// The event trigger's message: the node looks, and again until it sees the transaction that sent it.
#[test]
fn a_transaction_that_says_that_the_schema_changes_is_looked_for() {
    let mut world = live();
    let mut message = vec![b'M', 1];
    message.extend(5u64.to_be_bytes());
    message.extend(b"lockstep.schema\0");
    message.extend(0u32.to_be_bytes());
    world.transaction(701, 10, &[message]);
    world.take(|o| matches!(o, Output::ReadCatalog).then_some(()));
    // 701 was streamed before it is visible.
    world.hub.handle_catalog(changed("701:702:701", |_| {}));
    world.later(1_000);
    world.take(|o| matches!(o, Output::ReadCatalog).then_some(()));
    world.hub.handle_catalog(changed("702:702:", |t| t.storage_id = "other".into()));
    assert_eq!(world.catch_up().reads[0].from, ReadFrom::Scratch(ResetReason::Rewritten));
    world.later(1_000);
    assert!(!world.has(|o| matches!(o, Output::ReadCatalog)));
}
