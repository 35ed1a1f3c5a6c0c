//! Generated columns: stored ones travel from PostgreSQL 18 on, where the stream has them; the others are left out, in
//! the stream and in every catch-up alike, and `track` names them.

use crate::raw::Raw;
use crate::world::World;
use lockstep_pg::install::{self, Patience, TrackRequest};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn stored_ones_travel_where_the_stream_has_them() {
    let mut world = World::new().await;
    let version: u32 = world.sql.one("select current_setting('server_version_num')").await.parse().unwrap();
    let has = version >= 180_000;
    let virtual_one = if has { ", never int generated always as (n + 1) virtual" } else { "" };
    world
        .sql
        .run(&format!(
            "create table made (id int primary key, n int, twice int generated always as (n * 2) stored, t text, \
             long text generated always as (repeat(t, 1000)) stored{virtual_one})"
        ))
        .await;
    let request = TrackRequest { table: "made".into(), ..TrackRequest::default() };
    install::track(&mut world.sql.client, &request, &Patience::default()).await.unwrap();
    let left_out = install::left_out(&mut world.sql.client, "made").await.unwrap();
    assert_eq!(left_out, if has { vec!["never"] } else { vec!["twice", "long"] });
    let node = world.node().await;
    let shape = json!({"table": "made"});
    let (mut live, mut away) = (Raw::new(shape.clone()), Raw::new(shape.clone()));
    live.join(&node.socket()).await;
    away.join(&node.socket()).await;
    away.leave();
    world.sql.run("insert into made (id, n, t) values (1, 1, md5('x')), (2, null, null)").await;
    live.until(|r| r.rows.len() == 2).await;
    // `long` is large and does not change.
    world.sql.run("update made set n = 5").await;
    live.until(|r| r.rows.values().all(|row| row[1] == "5")).await;
    away.join(&node.socket()).await;
    let mut fresh = Raw::new(shape);
    fresh.join(&node.socket()).await;
    let names: Vec<&str> = live.columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, if has { vec!["id", "n", "twice", "t", "long"] } else { vec!["id", "n", "t"] });
    if has {
        assert_eq!(live.rows["1"][2], "10");
        assert_eq!(live.rows["1"][4].len(), 32_002);
    }
    assert_eq!((&live.rows, &live.rows), (&away.rows, &fresh.rows));
    // Another expression computes every row anew, without a write.
    if version >= 170_000 {
        world.sql.run("alter table made alter column twice set expression as (n * 3)").await;
        live.until(|r| r.resets.len() == 2).await;
        assert_eq!(live.resets[1], "rewritten");
        assert!(!has || live.rows["1"][2] == "15", "{:?}", live.rows["1"]);
    }
}
