//! What is said on the socket besides rows, and what happens to nonsense.

use crate::world::{World, lists, notes, todos};
use lockstep_client::{Client, ClientError, Heard, Replica};
use lockstep_pg::cluster::process::{Signal, send};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn error(response: &Json) -> &str {
    response["shapes"][0]["error"]["code"].as_str().unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread")]
async fn shapes_are_refused_by_name_and_one_at_a_time() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([lists()]).await;
    client.commit().await.unwrap();
    for (shape, code) in [
        (json!({"table": "nowhere"}), "unknown_table"),
        (json!({"table": "todos"}), "scope_required"),
        (json!({"table": "todos", "scope": {"title": "x"}}), "unknown_scope"),
        (json!({"table": "todos", "scope": {"colour": "x"}}), "unknown_column"),
        (json!({"table": "todos", "scope": {"list_id": "one"}}), "bad_scope_value"),
        (json!({"table": "todos", "scope": {"list_id": 1}, "columns": ["title"]}), "key_missing"),
        (json!({"table": "todos", "scope": {"list_id": 1}, "columns": ["id", "x"]}), "unknown_column"),
        (json!({"table": "todos", "scope": {"list_id": 1}, "where": "now() > done"}), "where_unsupported"),
        (json!({"table": "todos", "scope": {"list_id": 1}, "where": "id ="}), "bad_where"),
        (json!({"table": "todos", "scope": {"list_id": 1}, "where": 7}), "bad_where"),
        (json!({"table": "todos", "scope": {"list_id": 1}, "where": "id = $2", "params": [1]}), "bad_where"),
        (json!({"table": "todos", "scope": {"list_id": 1}, "where": "nothing = 1"}), "unknown_column"),
        (json!({"table": "lists"}), "duplicate_ref"),
    ] {
        let mut shape = shape;
        shape["ref"] = "x".into();
        let response = client.call("subscribe", json!({"shapes": [shape]})).await.unwrap();
        assert_eq!(error(&response), code, "{response}");
    }
    world.sql.run("update lists set name = 'still served' where id = 1").await;
    world.settled(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subset_of_columns_and_an_equal_scope_written_differently() {
    let world = World::new().await;
    let node = world.node().await;
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    let shape = json!({"table": "public.todos", "scope": {"list_id": "01"}, "columns": ["title", "id"]});
    let mut client = node.join([shape]).await;
    client.commit().await.unwrap();
    world.sql.run("update todos set done = true, title = 'b'").await;
    client.until(|r| r.column("0", "title") == ["b"]).await.unwrap();
    let rows = client.replica.rows_of("0").unwrap();
    assert_eq!(rows["[1]"].keys().collect::<Vec<_>>(), ["id", "title"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_cannot_be_are_refused_with_a_sentence() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([lists()]).await;
    let good = client.replica.join();
    for (field, value, code) in [
        ("protocol", json!(2), "protocol_unsupported"),
        ("required", json!(["teleport"]), "capability_unsupported"),
        ("subject", json!("somebody"), "malformed"),
        ("client", json!("a\u{0}b"), "malformed"),
        ("shapes", json!(7), "malformed"),
    ] {
        let mut join = good.clone();
        join[field] = value;
        match client.call("phx_join", join).await {
            Err(ClientError::Refused(response)) => {
                assert_eq!(response["code"], code);
                assert!(response["message"].as_str().is_some_and(|m| m.len() > 10), "{response}");
            }
            other => panic!("{other:?}"),
        }
    }
    let unknown = client.call("dance", json!({})).await;
    assert!(matches!(unknown, Err(ClientError::Refused(_))));
    client.call("phx_leave", json!({})).await.unwrap();
    assert!(
        matches!(client.call("subscribe", json!({"shapes": []})).await, Err(ClientError::Refused(r)) if r["code"] == "not_joined")
    );
    client.call("phx_join", good).await.unwrap();
    world.settled(&mut client).await;
}

/// Who asks for it gets large frames deflated, in their order among the others; who does not sees no difference.
#[tokio::test(flavor = "multi_thread")]
async fn large_frames_are_deflated_for_who_asks() {
    let world = World::new().await;
    world.sql.run("insert into todos select i, 1, 'title ' || i from generate_series(1, 3000) i").await;
    let node = world.node().await;
    let mut plain = node.join([todos(1), lists()]).await;
    let mut deflated =
        Client::join_deflated(&node.socket(), Replica::new([todos(1), lists()])).await.unwrap();
    let mut second = Client::join_deflated(&node.socket(), Replica::new([todos(1)])).await.unwrap();
    for client in [&mut plain, &mut deflated, &mut second] {
        world.settled(client).await;
    }
    let loaded = deflated.inflated;
    assert!(loaded >= 2 && second.inflated >= 2, "the load: {loaded}, {}", second.inflated);
    world.sql.run("update lists set name = 'short' where id = 1").await;
    world.sql.run("update todos set title = title || repeat(' é\"\\', 30) where id < 100").await;
    world.sql.run("update todos set title = 'short' where id = 7").await;
    for client in [&mut plain, &mut deflated, &mut second] {
        world.settled(client).await;
    }
    assert_eq!((plain.inflated, deflated.inflated), (0, loaded + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsubscribed_shape_is_silent_and_no_longer_in_the_cursor() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([notes(1), lists()]).await;
    client.commit().await.unwrap();
    client.call("unsubscribe", json!({"refs": ["0"]})).await.unwrap();
    world.sql.run("insert into notes values (1, 1)").await;
    world.sql.run("update lists set name = 'x' where id = 1").await;
    let commit = client.commit().await.unwrap();
    assert_eq!(commit.rows, 1);
    let mut back = node.resume(client.crash()).await;
    let first = back.commit().await.unwrap();
    assert_eq!(first.resets, [("0".to_owned(), "not_in_cursor".to_owned())]);
    world.settled(&mut back).await;
}

/// Idle clients get no frames for their cursor: it rides on heartbeat replies.
#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_carries_a_cursor_that_resumes() {
    let world = World::new().await;
    let node = world.node_that_asks().await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    let before = client.replica.cursor.clone();
    world.sql.run("insert into lists select i, 'l' from generate_series(10, 20) i").await;
    let mut other = node.join([lists()]).await;
    world.settled(&mut other).await;
    let response = client.call("heartbeat", json!({})).await.unwrap();
    let cursor = response["cursor"].as_str().map(str::to_owned);
    assert!(cursor.is_some() && cursor != before, "{response}");
    client.replica.cursor = cursor;
    let away = client.crash();
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    let mut resumed = node.resume(away).await;
    let commit = resumed.commit().await.unwrap();
    assert_eq!((commit.resets.len(), commit.rows), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_its_own_session_only() {
    let world = World::new().await;
    let node = world.node().await;
    let mut bystander = node.join([lists()]).await;
    world.settled(&mut bystander).await;
    let deep = "[".repeat(5000);
    for text in ["", "nonsense", "{}", "[1,2,3]", deep.as_str(), "[null,null,null,null,null]"] {
        let mut client = Client::join(&node.socket(), Replica::default()).await.unwrap();
        client.send_text(text.into()).await.unwrap();
        let end = loop {
            match client.hear("the end").await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&end, ClientError::Closed(Some(why)) if why.starts_with("1007")),
            "{text:.20}: {end}"
        );
    }
    let mut large = Client::join(&node.socket(), Replica::default()).await.unwrap();
    // The node may close before all of it is sent.
    let _ = large.send_text("x".repeat(2 << 20)).await;
    let end = loop {
        match large.hear("the end").await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    // The code may be lost: the node does not wait for the rest of the message.
    let is_told = matches!(&end, ClientError::Closed(Some(why)) if why.starts_with("1009"));
    assert!(is_told || !matches!(end, ClientError::Late(_)), "{end}");
    world.sql.run("update lists set name = 'y' where id = 1").await;
    world.settled(&mut bystander).await;
}

async fn http(node: &crate::world::Node, request: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(node.http()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 200];
    let n = socket.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..n]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_cannot_connect() {
    let world = World::new().await;
    let node = world.node().await;
    let upgrade = |origin: &str| {
        format!(
            "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {origin}\r\n\r\n"
        )
    };
    let fine = http(&node, &upgrade("http://localhost:4000")).await;
    assert!(fine.starts_with("HTTP/1.1 101"), "{fine}");
    assert!(fine.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455's own example: {fine}");
    for origin in
        ["https://evil.example", "null", "http://localhost.evil.example", "http://evil.example:4000"]
    {
        let refused = http(&node, &upgrade(origin)).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{origin}: {refused}");
    }
    let plain =
        http(&node, "GET /socket/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 426"), "{plain}");
}

/// SIGTERM: clients are told to come back, the slot is gone, the process ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_when_told() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([lists()]).await;
    client.commit().await.unwrap();
    send(node.pid(), Signal::SIGTERM).unwrap();
    let end = loop {
        match client.hear("the end").await {
            Ok(Heard::Reply(..) | Heard::Commit(_) | Heard::Provisional | Heard::Nothing) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(&end, ClientError::Closed(Some(why)) if why.starts_with("1012")), "{end}");
    world.sql.until("select count(*) from pg_replication_slots", "0").await;
}
