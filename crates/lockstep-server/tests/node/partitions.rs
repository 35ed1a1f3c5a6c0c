//! A partitioned table is one table to clients: in the stream, in a catch-up, and across TRUNCATE of a partition, which
//! the stream does not tell.

use crate::world::{World, connect, lists};
use lockstep_pg::install::{self, Patience, TrackRequest};
use serde_json::json;

const PARTS: &str = "create table parts (id int, list_id int, day int, v text, primary key (id, day)) partition by range (day);
    create table parts_1 partition of parts for values from (0) to (10);
    create table parts_2 (v text, day int not null, list_id int, id int not null, primary key (id, day));
    alter table parts attach partition parts_2 for values from (10) to (20);
    insert into parts select i, 1 + i % 2, i, 'v' || i from generate_series(1, 19) i;";

#[tokio::test(flavor = "multi_thread")]
async fn live_and_after_an_absence() {
    let world = World::new().await;
    let mut owner = connect(&world.cluster.url()).await;
    owner.batch_execute(PARTS).await.unwrap();
    let scopes = vec![vec!["list_id".to_owned()]];
    let request = TrackRequest { table: "parts".into(), scopes, ..TrackRequest::default() };
    install::track(&mut owner, &request, &Patience::default()).await.unwrap();
    let node = world.node_that_asks().await;
    let parts = |list: i64| json!({"table": "parts", "scope": {"list_id": list}});
    let mut client = node.join([parts(1), parts(2), lists()]).await;
    world.settled(&mut client).await;
    assert_eq!(client.replica.rows_of("0").map(|rows| rows.len()), Some(9));
    let mut away = client.crash();
    let mut client = node.resume(away.clone()).await;
    let writes = [
        "insert into parts values (30, 1, 3, 'new'), (31, 2, 13, 'new')",
        "update parts set day = 15 where id = 3",
        "update parts set list_id = 3 - list_id where day in (4, 14)",
        "update parts_2 set list_id = 1, v = 'x' where day = 11",
        "update parts set day = day + 1, list_id = 3 - list_id where id in (9, 16)",
        "delete from parts where id in (1, 12); update lists set total = 1 where id = 1",
        "truncate parts_1",
        "begin; insert into parts values (40, 1, 2, 'a'), (41, 1, 12, 'b'); truncate parts_2; insert into parts values (42, 1, 12, 'c'); commit",
        "alter table parts detach partition parts_2",
        "create table parts_3 partition of parts for values from (20) to (30); insert into parts values (50, 1, 25, 'd')",
        "truncate parts_3",
        "insert into parts values (51, 1, 25, 'e')",
        "truncate parts",
        "insert into parts values (60, 2, 5, 'f')",
    ];
    for write in writes {
        world.sql.run(write).await;
        world.settled(&mut client).await;
        let mut back = node.resume(away).await;
        world.settled(&mut back).await;
        away = back.crash();
    }
}
