//! Whatever comes from a client's side or from the database's: a code, a sentence, and everybody else goes on.

use crate::bytes::{BINARY, PING, TEXT, frame, socket};
use crate::operation::until_metric;
use crate::world::{Node, World, lists, todos};
use lockstep_client::ClientError;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The code of the close frame that follows; 0 if the connection ends without one.
async fn closed(mut socket: TcpStream) -> u16 {
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), socket.read_to_end(&mut answer))
        .await
        .expect("an end");
    match answer[..] {
        [0x88, _, high, low, ..] => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_messages_end_their_own_connection() {
    let world = World::new().await;
    let node = world.node().await;
    let mut bystander = node.join([lists()]).await;
    world.settled(&mut bystander).await;
    let unmasked = vec![0x81, 2, b'[', b']'];
    let huge = [&[0x80 | TEXT, 0x80 | 127][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let claimed = [&[0x80 | TEXT, 0x80 | 127][..], &(64_u64 << 20).to_be_bytes(), &[0; 4]].concat();
    for (what, bytes, codes) in [
        ("not UTF-8", frame(TEXT, b"[null,null,\"sync\",\"\xff\xfe\",{}]"), &[1007][..]),
        ("not UTF-8 in two parts", [&[TEXT, 0x81, 0, 0, 0, 0, 0xC3][..], &frame(0, b"(")].concat(), &[1007]),
        ("binary", frame(BINARY, b"\x00"), &[1003]),
        ("deflated", frame(BINARY, b"\x02\x04\x04syncrows\x00"), &[1003]),
        ("a reserved bit", vec![0xC1, 0x80, 0, 0, 0, 0], &[1002]),
        ("an unknown kind", frame(3, b""), &[1002]),
        ("not masked", unmasked, &[1002]),
        ("an impossible length", huge, &[1002, 1009, 0]),
        ("a length above the limit", claimed, &[1009, 0]),
        ("JSON that is no message", frame(TEXT, br#"{"join":true}"#), &[1007]),
        ("an empty message", frame(TEXT, b""), &[1007]),
        ("many levels", frame(TEXT, "[".repeat(60_000).as_bytes()), &[1007]),
    ] {
        let mut socket = socket(&node).await;
        socket.write_all(&bytes).await.unwrap();
        let code = closed(socket).await;
        assert!(codes.contains(&code), "{what}: {code}");
    }
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="client_frame_bytes"}"#, |n| n >= 1.0).await;
    world.sql.run("update lists set name = 'still served' where id = 1").await;
    world.settled(&mut bystander).await;
}

fn resident_kb(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Neither a message in pieces without end nor pings that are never listened to take room without end.
#[tokio::test(flavor = "multi_thread")]
async fn what_never_becomes_a_message_is_bounded_too() {
    let world = World::new().await;
    let node = world.node().await;
    let mut bystander = node.join([lists()]).await;
    world.settled(&mut bystander).await;
    let before = resident_kb(&node);
    // The first piece of a text, then others, none of them the last.
    let mut pieces = socket(&node).await;
    let mut piece = frame(TEXT, &[b'x'; 60_000]);
    piece[0] &= 0x7F;
    let mut sent = 0;
    while sent < 64 << 20 && pieces.write_all(&piece).await.is_ok() {
        sent += piece.len();
        piece[0] = 0;
    }
    assert!(sent < 64 << 20, "64 MB of one message were taken");
    let code = closed(pieces).await;
    assert!([1009, 0].contains(&code), "{code}");
    // Pongs that are not read fill the way back; then no more is read.
    let mut pings = socket(&node).await;
    let many = frame(PING, &[b'p'; 125]).repeat(500);
    let mut sent = 0;
    while sent < 128 << 20 {
        let wrote = tokio::time::timeout(std::time::Duration::from_secs(2), pings.write_all(&many)).await;
        match wrote {
            Ok(Ok(())) => sent += many.len(),
            // It is read no further, or was ended.
            _ => break,
        }
    }
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="pongs"}"#, |n| n >= 1.0).await;
    let grown = resident_kb(&node).saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} kB for {sent} bytes of pings");
    world.sql.run("update lists set name = 'still served' where id = 1").await;
    world.settled(&mut bystander).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_meant_are_answered_and_the_session_goes_on() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([lists()]).await;
    client.commit().await.unwrap();
    for (event, payload) in [
        ("mutate", json!({"mutations": "all"})),
        ("mutate", json!({"mutations": [{"n": "-1", "id": "m", "kind": "ops"}]})),
        ("mutate", json!({"mutations": [{"n": "0", "id": "m", "kind": "ops"}]})),
        ("mutate", json!({"mutations": [{"n": "99999999999999999999", "id": "m", "kind": "ops"}]})),
        ("mutate", json!({"mutations": [{"n": "1", "id": "", "kind": "ops"}]})),
        ("mutate", json!({"mutations": vec![json!({"n": "1", "id": "m", "kind": "ops"}); 101]})),
        ("subscribe", json!({"shapes": {}})),
        ("subscribe", json!(null)),
        ("unsubscribe", json!({"refs": [1]})),
        ("dance", json!({})),
    ] {
        match client.call(event, payload).await {
            Err(ClientError::Refused(answer)) => {
                assert_eq!(answer["code"], "malformed", "{event}: {answer}");
                assert!(answer["message"].as_str().is_some_and(|m| m.len() > 10), "{answer}");
            }
            other => panic!("{event}: {other:?}"),
        }
    }
    assert_eq!(world.sql.one("select count(*) from lockstep.clients").await, "0", "nothing was stored");
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="mutations_per_frame"}"#, |n| n == 1.0).await;
    let many = vec![json!({"op": "delete", "table": "todos", "key": {"id": 1}}); 1_001];
    client.replica.push("many", many);
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload).await.unwrap();
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    let refusal = commits.iter().flat_map(|c| &c.outcomes).find_map(|o| o.refusal.clone()).unwrap();
    let sentence = "more than 1000 operations in one mutation; make several of it";
    assert_eq!(refusal, ("malformed".into(), sentence.into()));
    world.sql.run("update lists set name = 'still served' where id = 1").await;
    world.settled(&mut client).await;
}

/// A browser cuts a text in the middle of a character, or a document is nested too deeply: that mutation is refused, and
/// those beside and behind it are carried out.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_cannot_be_read_is_refused_by_itself() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    let mutation = |n: usize, body: &str| {
        let op = format!(
            r#"{{"op":"insert","table":"todos","values":{{"id":{n},"list_id":1,"title":"t","body":{body}}}}}"#
        );
        format!(r#"{{"n":"{n}","id":"m{n}","kind":"ops","ops":[{op}]}}"#)
    };
    let deep = "[".repeat(200) + &"]".repeat(200);
    let bodies = [r#""whole""#, r#""\ud83d""#, &deep, r#""\ud83d\udca7""#, r#""\udca7 x""#, r#""last""#];
    let all: Vec<String> = (1..).zip(bodies).map(|(n, body)| mutation(n, body)).collect();
    let outcomes = |told: &[Json]| -> Vec<String> {
        told.iter().map(|o| o["code"].as_str().unwrap_or("applied").to_owned()).collect()
    };
    let wanted = ["applied", "malformed", "malformed", "applied", "malformed", "applied"];
    client
        .send_text(format!(r#"["1","9","sync","mutate",{{"mutations":[{}]}}]"#, all[..4].join(",")))
        .await
        .unwrap();
    world.sql.until("select max(last)::text from lockstep.clients", "4").await;
    world.settled(&mut client).await;
    let id = client.replica.client.clone().unwrap();
    let body = format!(r#"{{"client":"{id}","mutations":[{}]}}"#, all.join(","));
    let (status, told) =
        node.post("/v1/mutations", "Content-Type: application/json\r\n", body.as_bytes()).await;
    assert_eq!(
        (status, outcomes(told["mutations"].as_array().unwrap()).as_slice()),
        (200, &wanted.map(str::to_owned)[..]),
        "{told}"
    );
    let sentence = told["mutations"][1]["message"].as_str().unwrap();
    assert!(sentence.starts_with("operation 0: a text holds half of a character"), "{sentence}");
    assert!(told["mutations"][2]["message"].as_str().unwrap().contains("flatter"), "{told}");
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="nesting"}"#, |n| n >= 1.0).await;
    world.settled(&mut client).await;
}

/// Settings that a database may have: said with what to do, and mended while the node runs where that can be.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_logical_decoding_is_polled_and_named() {
    let world = World::with(|b| b.setting("wal_level", "replica")).await;
    let node = world.node_starting();
    node.until_problem("set wal_level = logical").await;
    let mut client = node.join([todos(1)]).await;
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    world.settled(&mut client).await;
    assert_eq!(node.health().await["feed"], "polling");
}

/// A write that finds the database read-only says nothing about the mutation: it waits, and is carried out once.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_read_only_refuses_nothing() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    world.cluster.set("default_transaction_read_only", "on").unwrap();
    world.sql.until("show default_transaction_read_only", "on").await;
    client.replica.push(
        "m1",
        vec![json!({"op": "insert", "table": "todos", "values": {"id": 1, "list_id": 1, "title": "a"}})],
    );
    let payload = client.replica.mutate().unwrap();
    match client.call("mutate", payload.clone()).await {
        Err(ClientError::Refused(answer)) => assert_eq!(answer["code"], "busy", "{answer}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.replica.outbox.len(), 1);
    world.cluster.set("default_transaction_read_only", "off").unwrap();
    world.sql.until("show default_transaction_read_only", "off").await;
    // The node's own session may not have heard of it yet: busy is answered until it has.
    while let Err(ClientError::Refused(answer)) = client.call("mutate", payload.clone()).await {
        assert_eq!(answer["code"], "busy", "{answer}");
    }
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut client).await;
}
