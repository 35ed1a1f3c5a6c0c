//! Writes: exactly once, in order, refused by name, never stuck.

use crate::world::{World, lists, notes, todos};
use lockstep_client::{ClientError, Replica};
use serde_json::{Value as Json, json};

fn insert(id: i64, title: &str) -> Json {
    json!({"op": "insert", "table": "todos", "values": {"id": id, "list_id": 1, "title": title}})
}

fn update(id: i64, set: Json) -> Json {
    json!({"op": "update", "table": "todos", "key": {"id": id}, "set": set})
}

fn code(error: ClientError) -> (String, Json) {
    match error {
        ClientError::Refused(response) => {
            (response["code"].as_str().unwrap_or_default().to_owned(), response)
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_acknowledgement_arrive_in_one_commit() {
    let world = World::new().await;
    let node = world.node().await;
    let mut client = node.join([todos(1), lists()]).await;
    client.commit().await.unwrap();
    let list = json!({"op": "update", "table": "public.lists", "key": {"id": 1}, "set": {"name": "renamed"}});
    client.mutate("m1", vec![insert(1, "a"), insert(2, "b"), list]).await.unwrap();
    let mut held = None;
    client
        .until(|r| {
            held = r.outbox.is_empty().then(|| (r.column("0", "title"), r.column("1", "name")[2].clone()));
            r.outbox.is_empty()
        })
        .await
        .unwrap();
    assert_eq!(held, Some((vec!["a".into(), "b".into()], "renamed".into())));
    client
        .mutate(
            "m2",
            vec![
                update(1, json!({"done": true})),
                json!({"op": "delete", "table": "todos", "key": {"id": 2}}),
            ],
        )
        .await
        .unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut client).await;
    assert_eq!(world.sql.one("select string_agg(title || done, ',') from todos").await, "atrue");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_mutation_never_blocks_the_next() {
    let world = World::new().await;
    let node = world.node().await;
    world.sql.run("alter table notes add constraint late foreign key (list_id) references lists deferrable initially deferred").await;
    node.until("live").await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    let bad: Vec<(&str, Vec<Json>, &str)> = vec![
        ("check", vec![insert(1, "fine"), insert(2, "forbidden")], "23514"),
        (
            "at commit",
            vec![json!({"op": "insert", "table": "notes", "values": {"id": 1, "list_id": 77}})],
            "23503",
        ),
        (
            "not a number",
            vec![json!({"op": "insert", "table": "notes", "values": {"id": "x", "list_id": 1}})],
            "22P02",
        ),
        ("nul", vec![insert(3, "nul \u{0}")], "22021"),
        ("no table", vec![json!({"op": "delete", "table": "nowhere", "key": {}})], "unknown_table"),
        ("no column", vec![update(1, json!({"colour": 1}))], "unknown_column"),
        ("no op", vec![json!({"op": "drop", "table": "todos"})], "malformed"),
        ("no key", vec![json!({"op": "delete", "table": "todos", "key": {"title": "x"}})], "malformed"),
    ];
    for (id, ops, _) in &bad {
        client.replica.push(*id, ops.clone());
    }
    client.replica.push("good", vec![insert(10, "good")]);
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload).await.unwrap();
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    let outcomes: Vec<_> = commits.into_iter().flat_map(|c| c.outcomes).collect();
    let told: Vec<_> =
        outcomes.iter().map(|o| (o.id.as_str(), o.refusal.as_ref().map(|(c, _)| c.as_str()))).collect();
    let expected: Vec<_> =
        bad.iter().map(|(id, _, code)| (*id, Some(*code))).chain([("good", None)]).collect();
    assert_eq!(told, expected, "{outcomes:#?}");
    world.settled(&mut client).await;
    assert_eq!(client.replica.column("0", "title"), ["good"], "all or nothing");
}

/// Refusals that are not of the classes everyone thinks of. Tried again they would be refused again, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_succeed_is_refused_whatever_its_code() {
    let world = World::new().await;
    world
        .sql
        .run(
            "alter table notes add column made int generated always as identity; create index on todos (body); \
             create function own_code() returns trigger language plpgsql as $$ begin \
             if new.title = 'no' then raise exception 'not on Sundays' using errcode = 'LS001'; end if; \
             return new; end $$; create trigger own_code before insert on todos for each row execute function own_code()",
        )
        .await;
    let node = world.node().await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    let mut noise = 1_u64;
    let body: String = (0..20_000)
        .map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + ((noise >> 33) % 90) as u8)
        })
        .collect();
    let bad = [
        (json!({"op": "insert", "table": "notes", "values": {"id": 1, "list_id": 1, "made": 5}}), "428C9"),
        (insert(1, "no"), "LS001"),
        (
            json!({"op": "insert", "table": "todos", "values": {"id": 2, "list_id": 1, "title": "t", "body": body}}),
            "54000",
        ),
    ];
    for (op, code) in &bad {
        client.replica.push(*code, vec![op.clone()]);
    }
    client.replica.push("good", vec![insert(10, "good")]);
    let payload = client.replica.mutate().unwrap();
    client.call("mutate", payload).await.unwrap();
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    for outcome in commits.into_iter().flat_map(|c| c.outcomes) {
        let code = outcome.refusal.map_or("good".to_owned(), |(code, _)| code);
        assert_eq!(outcome.id, code);
    }
    world.settled(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_told_by_another_node() {
    let world = World::new().await;
    let first = world.node().await;
    let mut client = first.join([todos(1)]).await;
    client.commit().await.unwrap();
    client.replica.push("m1", vec![insert(1, "once")]);
    client.replica.push("m2", vec![insert(2, "forbidden")]);
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload.clone()).await.unwrap();
    world.sql.until("select last from lockstep.clients", "2").await;
    let away = client.crash();
    assert_eq!(away.outbox.len(), 2, "the answer was lost");
    first.kill();

    let second = world.node().await;
    let mut resumed = second.resume(away.clone()).await;
    // Sent again before anything was heard; applied already.
    resumed.call("mutate", payload.clone()).await.unwrap();
    let commits = resumed.until(|r| r.outbox.is_empty()).await.unwrap();
    let outcomes: Vec<_> =
        commits.iter().flat_map(|c| &c.outcomes).map(|o| (o.n, o.refusal.is_some())).collect();
    assert_eq!(outcomes, [(1, false), (2, true)], "not 23505: it was run once");
    world.settled(&mut resumed).await;
    resumed.call("mutate", payload).await.unwrap();
    assert_eq!(world.sql.one("select count(*) from todos").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_profile_is_told_apart_by_the_id() {
    let world = World::new().await;
    let node = world.node().await;
    let mut original = node.join([todos(1)]).await;
    original.commit().await.unwrap();
    let copy = original.replica.clone();
    original.mutate("m-original", vec![insert(1, "original")]).await.unwrap();
    original.until(|r| r.outbox.is_empty()).await.unwrap();

    let mut copied = node.resume(copy).await;
    copied.commit().await.unwrap();
    let (code, response) = code(copied.mutate("m-copy", vec![insert(2, "copy")]).await.unwrap_err());
    assert_eq!(code, "renumber");
    copied.replica.renumber(response["client"].as_str().unwrap());
    let mut copied = node.resume(copied.crash()).await;
    let payload = copied.replica.mutate().unwrap();
    copied.call("mutate", payload).await.unwrap();
    copied.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut copied).await;
    assert_eq!(copied.replica.column("0", "title"), ["copy", "original"]);
}

/// ```text
///  m1 in the outbox ─ the profile is copied ─ the original: m1 applied, told, confirmed, forgotten ─ the copy sends m1
/// ```
/// A node that remembers the commit itself tells the copy what came of m1.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_copy_confirmed_is_of_unknown_outcome_and_not_run_again() {
    let world = World::new().await;
    let node = world.node_that_asks().await;
    let mut original = node.join([todos(1)]).await;
    original.commit().await.unwrap();
    original.replica.push("m1", vec![insert(1, "once")]);
    let copy = original.replica.clone();
    for (id, title) in [("m2", "two"), ("m3", "three")] {
        original.mutate(id, vec![insert(if id == "m2" { 2 } else { 3 }, title)]).await.unwrap();
        original.until(|r| r.outbox.is_empty()).await.unwrap();
    }
    assert_eq!(world.sql.one("select min(n) from lockstep.mutations").await, "3", "the others are forgotten");

    // A node that has no recent commits in memory either.
    node.kill();
    let node = world.node().await;
    let mut copied = node.resume(copy).await;
    copied.commit().await.unwrap();
    let payload = copied.replica.mutate().unwrap();
    let (code, response) = code(copied.call("mutate", payload).await.unwrap_err());
    assert_eq!((code.as_str(), response["client"].as_str().is_some()), ("unknown_client", true));
    world.settled(&mut copied).await;
    assert_eq!(copied.replica.column("0", "title"), ["once", "three", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_unknown_clients_are_never_run_blindly() {
    let world = World::new().await;
    let node = world.node().await;
    let mut replica = Replica::new([todos(1)]);
    replica.client = Some("restored-from-elsewhere".into());
    replica.last = 4;
    let mut client = node.resume(replica).await;
    client.commit().await.unwrap();
    let (unknown, response) = code(client.mutate("m5", vec![insert(5, "x")]).await.unwrap_err());
    assert_eq!((unknown.as_str(), response["client"].as_str().is_some()), ("unknown_client", true));
    assert_eq!(world.sql.one("select count(*) from todos").await, "0");

    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    client.mutate("m1", vec![insert(1, "a")]).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    client.replica.last = 6;
    let (gap, response) = code(client.mutate("m7", vec![insert(7, "b")]).await.unwrap_err());
    assert_eq!((gap.as_str(), &response["last"]), ("gap", &json!("1")));
    client.replica.renumber_after(1);
    let payload = client.replica.mutate().unwrap();
    client.call("mutate", payload).await.unwrap();
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    assert_eq!(client.replica.column("0", "title"), ["a", "b"]);
}

/// The mutation's own session finds the deadlock first and is the victim: the application's has more patience.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_retried_and_never_refused() {
    let world = World::new().await;
    let node = world.node().await;
    world.sql.run("insert into todos values (1, 1, 'a'), (2, 1, 'b')").await;
    let mut client = node.join([todos(1)]).await;
    world.settled(&mut client).await;
    let application = world.connect().await;
    application.run("set deadlock_timeout = '60s'; begin; update todos set done = true where id = 1").await;
    client.replica.push("m1", vec![update(2, json!({"title": "mine"})), update(1, json!({"title": "mine"}))]);
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload).await.unwrap();
    world.sql.until("select count(*) from pg_stat_activity where wait_event_type = 'Lock'", "1").await;
    application.run("update todos set done = true where id = 2; commit").await;
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    assert!(commits.iter().flat_map(|c| &c.outcomes).all(|o| o.refusal.is_none()), "{commits:?}");
    assert!(
        node.log().iter().any(|l| l.contains("deadlock detected")),
        "there was a deadlock: {:#?}",
        node.log()
    );
    world.settled(&mut client).await;
    assert_eq!(client.replica.column("0", "title"), ["mine", "mine"]);
    assert_eq!(client.replica.column("0", "done"), ["true", "true"]);
}

/// A mutation's rows are cast to the column's type without its length: too long is refused, not cut.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_refused_rather_than_cut() {
    let world = World::new().await;
    world.sql.run("alter table notes add column s varchar(3), add column c char(3), add column j jsonb, add column n numeric").await;
    let node = world.node().await;
    let mut client = node.join([notes(1)]).await;
    client.commit().await.unwrap();
    for (id, column, value) in [
        (1, "s", json!("abcd")),
        (2, "c", json!("abcd")),
        (3, "c", json!("abc")),
        (4, "j", json!({"a": [1, null, "é\"\\"]})),
        (5, "n", json!("12345678901234567890.123")),
    ] {
        let values = json!({"id": id, "list_id": 1, column: value});
        let insert = json!({"op": "insert", "table": "notes", "values": values});
        client.replica.push(id.to_string(), vec![insert]);
    }
    // Outcomes that come before the reply are heard as well.
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload).await.unwrap();
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    let refused: Vec<_> = commits
        .iter()
        .flat_map(|c| &c.outcomes)
        .filter_map(|o| Some((o.n, o.refusal.as_ref()?.0.clone())))
        .collect();
    assert_eq!(refused, [(1, "22001".to_owned()), (2, "22001".to_owned())]);
    let rows = client.replica.rows_of("0").unwrap();
    assert_eq!(rows["[3]"]["c"], "abc");
    assert_eq!(rows["[4]"]["j"], json!(r#"{"a": [1, null, "é\"\\"]}"#));
    assert_eq!(rows["[5]"]["n"], "12345678901234567890.123");
}

/// The acknowledgement of a mutation that another node ran is released by a snapshot, also after the stream broke and
/// came back and nothing else had changed.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_are_released_after_the_stream_was_lost() {
    let world = World::new().await;
    let node = world.node().await;
    world
        .sql
        .run("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender'")
        .await;
    node.until_logged("streaming", 2).await;
    let mut client = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    let id = client.replica.client.clone().unwrap();
    client.replica.push("m1", vec![insert(1, "elsewhere")]);
    world
        .sql
        .run(&format!(
            "begin; insert into todos values (1, 1, 'elsewhere'); \
             insert into lockstep.clients (subject, client, last, id, outcome) values ('', '{id}', 1, 'm1', 'applied'); \
             insert into lockstep.mutations (subject, client, n, id, outcome) values ('', '{id}', 1, 'm1', 'applied'); commit"
        ))
        .await;
    client.until(|r| r.outbox.is_empty()).await.unwrap();
    world.settled(&mut client).await;
}
