//! Marks of the server's lives.

use crate::harness::{cluster, tracked};
use lockstep_core::fanout::hub::{CatchUpRequest, ReadFrom, ReadRequest};
use lockstep_core::position::ResetReason;
use lockstep_core::shape::Shape;
use lockstep_pg::target::Target;
use lockstep_pg::{PgError, catalog, catch_up, poll};
use std::time::Duration;

/// ```text
/// mark 1 ── restart ── S, does not see mark 2 ── mark 2 ── F
/// ```
/// The newest mark before F is 2, and S knows only 1: a cursor of this state would look rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_in_a_life_of_the_server_that_is_not_marked() {
    let client = tracked("marks_unmarked", "create table items (id int primary key, list int)", &[]).await;
    let known = catalog::load(&client).await.expect("a catalog");
    let request = serde_json::json!({"ref": "0", "table": "items"});
    let shape =
        Shape::resolve(&serde_json::from_value(request).expect("a request"), &known).expect("a shape");
    let read = ReadRequest { shape: shape.into(), from: ReadFrom::Scratch(ResetReason::First) };
    let request = CatchUpRequest { id: 1, reads: vec![read], clients: vec![] };
    let target = Target::parse(&cluster().url_for("marks_unmarked")).expect("a URL");
    let read = || catch_up::read_whole(&target, &request, &[], Duration::from_secs(20));

    let earlier =
        "insert into lockstep.incarnations (mark, server_started_at, at_lsn) values (1, 'epoch', '0/1')";
    client.batch_execute(earlier).await.expect("a mark of an earlier life");
    let unmarked = read().await;
    assert!(matches!(unmarked, Err(PgError::NoMark)), "{unmarked:?}");

    let mark = poll::mark(&client).await.expect("a mark");
    let facts = read().await.expect("read").facts;
    assert_eq!(facts.newest_mark(facts.insert_lsn), Some(mark));
}
