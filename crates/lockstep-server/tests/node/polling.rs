//! A node that may not replicate: it asks again and again, and is as exact.

use crate::world::{Node, World, lists, todos};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn writes_long_transactions_and_a_return_to_another_node() {
    let world = World::new().await;
    let url = world.polling_url().await;
    let (first, second) = (Node::start(&url), Node::start(&url));
    first.until("polling").await;
    first.until_problem("alter role … replication").await;
    let mut client = first.join([todos(1), lists()]).await;
    client.commit().await.unwrap();
    // One transaction stays open over everything that follows.
    let long = world.connect().await;
    long.run("begin; insert into todos values (100, 1, 'long')").await;
    for n in 1..=3 {
        let row = json!({"id": n, "list_id": 1, "title": format!("t{n}")});
        let ops = vec![
            json!({"op": "insert", "table": "todos", "values": row}),
            json!({"op": "update", "table": "lists", "key": {"id": 1}, "set": {"total": n}}),
        ];
        client.mutate(&format!("m{n}"), ops).await.unwrap();
        client.until(|r| r.outbox.is_empty()).await.unwrap();
        let total = &client.replica.rows_of("1").unwrap()["[1]"]["total"];
        assert_eq!(total, &json!(n), "rows and outcome come together");
    }
    let row = json!({"id": 9, "list_id": 1, "title": "forbidden"});
    client.mutate("bad", vec![json!({"op": "insert", "table": "todos", "values": row})]).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    assert_eq!(client.replica.column("0", "title"), ["t1", "t2", "t3"]);
    first.kill();
    let away = client.crash();
    world.sql.run("delete from todos where id = 1; truncate notes").await;
    second.until("polling").await;
    let mut client = second.resume(away).await;
    let commit = client.commit().await.unwrap();
    assert_eq!((commit.resets.len(), commit.rows), (0, 1), "{commit:?}");
    long.run("update todos set title = 'changed' where id = 2; commit").await;
    client.until(|r| r.column("0", "title") == ["changed", "long", "t3"]).await.unwrap();
    world.settled(&mut client).await;
}
