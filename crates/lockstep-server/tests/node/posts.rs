//! `POST /v1/mutations`: the same mutations, the same numbers, without a socket.

use crate::operation::until_metric;
use crate::world::{Node, World, todos};
use lockstep_client::Replica;
use lockstep_pg::cluster::process::{Signal, send};
use serde_json::{Value as Json, json};

const PATH: &str = "/v1/mutations";
const JSON: &str = "Content-Type: application/json\r\n";

fn insert(id: i64, title: &str) -> Json {
    json!({"op": "insert", "table": "todos", "values": {"id": id, "list_id": 1, "title": title}})
}

fn mutation(n: u64, id: &str, ops: Vec<Json>) -> Json {
    json!({"n": n.to_string(), "id": id, "kind": "ops", "ops": ops})
}

async fn post(node: &Node, client: &str, mutations: &[Json]) -> (u16, Json) {
    let body = json!({"client": client, "confirmed": "0", "mutations": mutations}).to_string();
    node.post(PATH, JSON, body.as_bytes()).await
}

/// A client id, by the way that the page names.
async fn fresh(node: &Node) -> String {
    let (status, answer) = node.post(PATH, JSON, br#"{"mutations": []}"#).await;
    assert_eq!(status, 200, "{answer}");
    answer["client"].as_str().unwrap().to_owned()
}

fn outcomes(answer: &Json) -> Vec<(String, String)> {
    let text = |m: &Json, name: &str| m[name].as_str().unwrap_or_default().to_owned();
    let told = answer["mutations"].as_array().unwrap().iter();
    told.map(|m| (text(m, "id"), text(m, "outcome") + " " + &text(m, "code"))).collect()
}

/// Rows and acknowledgement also reach a session of the same client; numbers go on there, and come back here.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_shared_with_the_socket_and_an_answer_can_be_asked_for_again() {
    let world = World::new().await;
    let node = world.node().await;
    let id = fresh(&node).await;
    let all = [
        mutation(1, "m1", vec![insert(1, "a"), insert(2, "b")]),
        mutation(2, "m2", vec![insert(3, "c"), insert(4, "forbidden")]),
        mutation(3, "m3", vec![json!({"op": "drop"})]),
        mutation(4, "m4", vec![insert(5, "e")]),
    ];
    let mut replica = Replica::new([todos(1)]);
    replica.client = Some(id.clone());
    for m in &all {
        replica.push(m["id"].as_str().unwrap(), m["ops"].as_array().unwrap().clone());
    }
    let mut client = node.resume(replica).await;
    client.commit().await.unwrap();
    let expected =
        [("m1", "applied "), ("m2", "refused 23514"), ("m3", "refused malformed"), ("m4", "applied ")];
    let expected = expected.map(|(id, what)| (id.to_owned(), what.to_owned()));
    for _ in 0..2 {
        let (status, answer) = post(&node, &id, &all).await;
        assert_eq!((status, &answer["client"]), (200, &json!(id)), "{answer}");
        assert_eq!(outcomes(&answer), expected);
        assert!(answer["mutations"][1]["message"].as_str().unwrap().contains("check"), "{answer}");
        let lsn = answer["lsn"].as_str().unwrap();
        assert_eq!(world.sql.one(&format!("select '{lsn}' <= pg_current_wal_flush_lsn()")).await, "t");
    }
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    assert_eq!(commits.iter().flat_map(|c| &c.outcomes).count(), 4);
    world.settled(&mut client).await;
    assert_eq!(client.replica.column("0", "title"), ["a", "b", "e"]);
    client.mutate("m5", vec![insert(6, "f")]).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    let (status, answer) = post(&node, &id, &[mutation(6, "m6", vec![insert(7, "g")])]).await;
    assert_eq!((status, outcomes(&answer).len()), (200, 1), "{answer}");
    world.settled(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decided_is_told_as_over_the_socket() {
    let world = World::new().await;
    let node = world.node().await;
    let id = fresh(&node).await;
    let (status, _) = post(&node, &id, &[mutation(1, "m1", vec![insert(1, "a")])]).await;
    assert_eq!(status, 200);
    let taken = [mutation(1, "other", vec![insert(2, "b")])];
    let missing = [mutation(2, "m2", vec![insert(2, "b")]), mutation(4, "m4", vec![insert(4, "d")])];
    let unknown = [mutation(7, "m7", vec![insert(7, "x")])];
    for (client, mutations, code, last, decided) in [
        (id.as_str(), &taken[..], "renumber", json!("0"), 0),
        (&id, &missing, "gap", json!("2"), 1),
        ("somebody", &unknown, "unknown_client", Json::Null, 0),
    ] {
        let (status, answer) = post(&node, client, mutations).await;
        assert_eq!((status, &answer["code"], &answer["last"]), (409, &json!(code), &last), "{answer}");
        assert_eq!(outcomes(&answer).len(), decided, "{answer}");
        assert_eq!(answer["client"].is_string(), code != "gap", "{answer}");
    }
    assert_eq!(world.sql.one("select string_agg(title, '' order by id) from todos").await, "ab");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none_are_refused_by_name() {
    let world = World::new().await;
    let node = world.node().await;
    let good = json!({"client": "c", "mutations": [mutation(1, "m1", vec![insert(1, "a")])]}).to_string();
    let deep = format!(r#"{{"client":"c","mutations":[{}"#, "[".repeat(5_000));
    let op = json!({"op": "update", "table": "todos", "key": {}, "set": {"id": 1}});
    let many: Vec<Json> = (1..=101).map(|n| mutation(n, "m", vec![op.clone()])).collect();
    let many = json!({"client": "c", "mutations": many}).to_string();
    let large = json!({"client": "c", "mutations": [], "more": "x".repeat(1 << 20)}).to_string();
    let named = |client: &str| json!({"client": client, "mutations": []}).to_string();
    let (long, control) = (named(&"x".repeat(101)), named("a\n"));
    let subject = json!({"subject": "me", "client": "c", "mutations": []}).to_string();
    let zero = json!({"client": "c", "mutations": [mutation(0, "m", vec![])]}).to_string();
    let nobody = json!({"mutations": [mutation(1, "m", vec![])]}).to_string();
    let plain = "Content-Type: text/plain\r\n";
    let foreign = format!("{JSON}Origin: https://evil.example\r\n");
    for (headers, body, status, code) in [
        (plain, good.as_bytes(), 415, "not_json"),
        ("", good.as_bytes(), 415, "not_json"),
        (foreign.as_str(), good.as_bytes(), 403, "foreign_origin"),
        (JSON, large.as_bytes(), 413, "too_large"),
        (JSON, b"", 400, "malformed"),
        (JSON, b"{\"client\":\"\xff\",\"mutations\":[]}", 400, "malformed"),
        (JSON, b"[1,2]", 400, "malformed"),
        (JSON, deep.as_bytes(), 400, "malformed"),
        (JSON, many.as_bytes(), 400, "malformed"),
        (JSON, long.as_bytes(), 400, "malformed"),
        (JSON, control.as_bytes(), 400, "malformed"),
        (JSON, subject.as_bytes(), 400, "malformed"),
        (JSON, zero.as_bytes(), 400, "malformed"),
        (JSON, nobody.as_bytes(), 400, "malformed"),
    ] {
        let (got, answer) = node.post(PATH, headers, body).await;
        let text = String::from_utf8_lossy(body).chars().take(40).collect::<String>();
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{text}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|m| m.len() > 10), "{answer}");
    }
    for (head, status) in [
        ("GET /v1/mutations HTTP/1.1\r\nHost: localhost\r\nConnection: close", "405"),
        ("OPTIONS /v1/mutations HTTP/1.1\r\nHost: localhost\r\nConnection: close", "405"),
        ("POST /v1/mutations HTTP/1.1\r\nHost: evil.example\r\nConnection: close", "421"),
        ("POST /v1/elsewhere HTTP/1.1\r\nHost: localhost\r\nConnection: close", "404"),
    ] {
        let answer = node.request(head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
    }
    assert_eq!(world.sql.one("select count(*) from todos").await, "0");
    let (status, _) =
        node.post(PATH, "content-type: Application/JSON; charset=utf-8\r\n", good.as_bytes()).await;
    assert_eq!(status, 200);
}

/// A deadlock that the mutation loses, and a connection that is cut while it waits for a row.
#[tokio::test(flavor = "multi_thread")]
async fn passing_failures_are_tried_again_and_never_refused() {
    let world = World::new().await;
    let node = std::sync::Arc::new(world.node().await);
    world.sql.run("insert into todos values (1, 1, 'a'), (2, 1, 'b')").await;
    let id = fresh(&node).await;
    let update =
        |id: i64| json!({"op": "update", "table": "todos", "key": {"id": id}, "set": {"title": "mine"}});
    let application = world.connect().await;
    let posted = |n: u64, ops: Vec<Json>| {
        let (node, id) = (node.clone(), id.clone());
        tokio::spawn(async move { post(&node, &id, &[mutation(n, &format!("m{n}"), ops)]).await })
    };
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    application.run("set deadlock_timeout = '60s'; begin; update todos set done = true where id = 1").await;
    let first = posted(1, vec![update(2), update(1)]);
    world.sql.until(waiting, "1").await;
    application.run("update todos set done = true where id = 2; commit").await;
    let (status, answer) = first.await.unwrap();
    assert_eq!((status, outcomes(&answer)[0].1.as_str()), (200, "applied "), "{answer}");
    assert!(node.log().iter().any(|l| l.contains("deadlock detected")), "{:#?}", node.log());

    application.run("begin; update todos set done = false where id = 1").await;
    let second = posted(2, vec![update(1), insert(3, "c")]);
    world.sql.until(waiting, "1").await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event_type = 'Lock'";
    assert_eq!(world.sql.one(cut).await, "1");
    world.sql.until(waiting, "1").await;
    application.run("commit").await;
    let (status, answer) = second.await.unwrap();
    assert_eq!((status, outcomes(&answer)[0].1.as_str()), (200, "applied "), "{answer}");
    assert_eq!(world.sql.one("select count(*) from todos where id = 3").await, "1");
}

/// COMMIT returns before anything is on disk, and whoever would write it there hangs: the answer waits all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_means_that_it_is_durable() {
    let world = World::with(|b| b.setting("synchronous_commit", "off")).await;
    let node = world.node().await;
    let id = fresh(&node).await;
    let writer = world.sql.one("select pid from pg_stat_activity where backend_type = 'walwriter'").await;
    let writer: u32 = writer.parse().unwrap();
    send(writer, Signal::SIGSTOP).unwrap();
    for n in 1..=10 {
        let (status, answer) =
            post(&node, &id, &[mutation(n, &format!("m{n}"), vec![insert(n as i64, "a")])]).await;
        assert_eq!(status, 200, "{answer}");
        let lsn = answer["lsn"].as_str().unwrap();
        let durable = world.sql.one(&format!("select '{lsn}' <= pg_current_wal_flush_lsn()")).await;
        assert_eq!(durable, "t", "{answer}");
    }
    send(writer, Signal::SIGCONT).unwrap();
}

/// Requests whose bodies do not come hold the room; one more is sent away at once, and served when there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_so_many_are_busy() {
    use lockstep_core::limits::POSTS_IN_FLIGHT;
    use tokio::io::AsyncWriteExt;
    let world = World::new().await;
    let node = world.node().await;
    let id = fresh(&node).await;
    let open = async || {
        let mut socket = tokio::net::TcpStream::connect(node.http()).await.unwrap();
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n{JSON}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    };
    let mut slow = Vec::new();
    for _ in 0..POSTS_IN_FLIGHT {
        slow.push(open().await);
    }
    let mutations = [mutation(1, "m1", vec![insert(1, "a")])];
    // The node takes them in as they come: one that comes during a request here is itself told that there is no room.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let busy = loop {
        let (status, answer) = post(&node, &id, &mutations).await;
        if status != 200 {
            break (status, answer["code"].clone());
        }
        assert!(std::time::Instant::now() < deadline, "never busy");
        slow.push(open().await);
    };
    assert_eq!(busy, (503, json!("busy")));
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="posts_in_flight"}"#, |n| n >= 1.0).await;
    drop(slow);
    while post(&node, &id, &mutations).await.0 != 200 {
        assert!(std::time::Instant::now() < deadline, "still busy");
    }
    assert_eq!(world.sql.one("select count(*) from todos").await, "1");
}

/// While PostgreSQL is away a request is answered as busy, and carried out once when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_the_answer_is_busy() {
    let mut world = World::new().await;
    let node = world.node().await;
    let id = fresh(&node).await;
    let stop = lockstep_pg::cluster::StopMode::Immediate;
    tokio::task::block_in_place(|| world.cluster.stop(stop)).unwrap();
    let mutations = [mutation(1, "m1", vec![insert(1, "a")])];
    let (status, answer) = post(&node, &id, &mutations).await;
    assert_eq!((status, &answer["code"]), (503, &json!("busy")), "{answer}");
    tokio::task::block_in_place(|| world.cluster.start_again()).unwrap();
    let (status, answer) = post(&node, &id, &mutations).await;
    assert_eq!((status, outcomes(&answer).len()), (200, 1), "{answer}");
}
