//! Each thing that a client may ask for and cannot have: a code of docs/protocol.md, a sentence that says what to do, and
//! everybody goes on.

use crate::operation::until_metric;
use crate::world::{World, lists, notes, todos};
use lockstep_client::ClientError;
use lockstep_core::limits;
use serde_json::{Value as Json, json};

/// Nothing that a client does wrong is for the operator.
fn nobody_is_called(node: &crate::world::Node) {
    let loud: Vec<_> = node.log().into_iter().filter(|l| l.contains("WARN") || l.contains("ERROR")).collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shape_that_cannot_be_had_says_what_could() {
    let world = World::new().await;
    world
        .sql
        .run("create table untracked (id int primary key); alter table notes add column j jsonb, add column p point")
        .await;
    let node = world.node().await;
    let mut client = node.join([lists()]).await;
    let mut bystander = node.join([todos(1)]).await;
    client.commit().await.unwrap();
    bystander.commit().await.unwrap();
    let filtered = |condition: &str| json!({"table": "notes", "scope": {"list_id": 1}, "where": condition});
    for (shape, code, says) in [
        (json!({"table": "untracked"}), "unknown_table", "run `lockstep track untracked`"),
        (json!({"table": "lockstep.clients"}), "unknown_table", "not tracked"),
        (json!({"table": "pg_authid"}), "unknown_table", "not tracked"),
        (json!({"table": "public.todos.id"}), "unknown_table", "not tracked"),
        (json!({"table": "lists; drop table lists"}), "unknown_table", "not tracked"),
        (json!({"table": "lists", "columns": ["id", "colour"]}), "unknown_column", "it has id, name, total"),
        (json!({"table": "todos"}), "scope_required", "list_id"),
        (json!({"table": "todos", "scope": {"list_id": []}}), "bad_scope_value", "integer"),
        (json!({"table": "todos", "scope": {"list_id": 1e300}}), "bad_scope_value", "integer"),
        (filtered("colour = 1"), "unknown_column", "id, list_id, v, j, p"),
        (filtered("j = '{}'"), "where_unsupported", "is null"),
        (filtered("p = '(1,2)'"), "where_unsupported", "is null"),
        (filtered("v = 1::bigint"), "where_unsupported", "has no casts"),
        (filtered("v = cast('1' as nothing)"), "where_unsupported", "has no casts"),
        (filtered("v ~ '1'"), "where_unsupported", "operator ~: compare with"),
        (filtered("j @> '{}'"), "where_unsupported", "operator @>: compare with"),
        (filtered("v % 2 = 0"), "where_unsupported", "calculations"),
        (filtered("exists (select 1 from lists)"), "where_unsupported", "subqueries"),
        (filtered("v = 'one'"), "bad_where", "integer"),
        (filtered("v = 1; drop table lists"), "bad_where", "cannot be read"),
        (filtered("v like '1%'"), "where_unsupported", "takes a text"),
    ] {
        let mut asked = shape.clone();
        asked["ref"] = "x".into();
        let answer = client.call("subscribe", json!({"shapes": [asked]})).await.unwrap();
        let error = &answer["shapes"][0]["error"];
        let message = error["message"].as_str().unwrap_or_default();
        assert!(error["code"] == code && message.contains(says), "{shape}: {answer}");
    }
    let many: Vec<Json> = (0..limits::SESSION_SHAPES)
        .map(|n| json!({"ref": format!("n{n}"), "table": "notes", "scope": {"list_id": n}}))
        .collect();
    let answer = client.call("subscribe", json!({"shapes": many})).await.unwrap();
    let last = answer["shapes"].as_array().unwrap().last().unwrap();
    assert_eq!(last["error"]["code"], "too_many_shapes", "{last}");
    assert!(last["error"]["message"].as_str().unwrap().contains("unsubscribe"), "{last}");
    until_metric(&node, r#"lockstep_bounds_reached_total{bound="session_shapes"}"#, |n| n == 1.0).await;
    client
        .call("unsubscribe", json!({"refs": (0..250).map(|n| format!("n{n}")).collect::<Vec<_>>()}))
        .await
        .unwrap();
    world.sql.run("update lists set total = 7; insert into todos values (1, 1, 'still served')").await;
    world.settled(&mut client).await;
    world.settled(&mut bystander).await;
    nobody_is_called(&node);
}

/// What a client cannot write is refused in its place: what stands before and behind it is carried out.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_cannot_be_says_why_and_its_neighbours_are_carried_out() {
    let world = World::new().await;
    world
        .sql
        .run("create table untracked (id int primary key); alter table notes add unique (v); insert into notes values (900, 1, 5)")
        .await;
    let node = world.node().await;
    let mut client = node.join([notes(1)]).await;
    client.commit().await.unwrap();
    let into = |table: &str, values: Json| json!({"op": "insert", "table": table, "values": values});
    let cases = [
        (into("untracked", json!({"id": 1})), "unknown_table", "lockstep track untracked"),
        (into("lockstep.clients", json!({"client": "c1", "last": 1000})), "unknown_table", "not tracked"),
        (into("lockstep.mutations", json!({})), "unknown_table", "not tracked"),
        (into("pg_catalog.pg_authid", json!({"rolname": "x"})), "unknown_table", "not tracked"),
        (into("notes", json!({"id": 1, "list_id": 1, "colour": 1})), "unknown_column", "colour"),
        (
            into("notes", json!({"id": 1, "list_id": 1, "v) values (1); --": 1})),
            "unknown_column",
            "has no column",
        ),
        (into("notes", json!({"id": "one", "list_id": 1})), "22P02", "integer"),
        (into("notes", json!({"id": 1e30, "list_id": 1})), "22P02", "integer"),
        (into("notes", json!({"id": 3_000_000_000_u64, "list_id": 1})), "22003", "out of range"),
        (into("notes", json!({"id": [1], "list_id": 1})), "malformed", "takes no JSON array"),
        (into("notes", json!({"id": 1})), "23502", "null value"),
        (into("notes", json!({"id": 900, "list_id": 1})), "23505", "unique"),
        (into("notes", json!({"id": 1, "list_id": 1, "v": 5})), "23505", "unique"),
        (
            json!({"op": "update", "table": "notes", "key": {}, "set": {"v": 1}}),
            "malformed",
            "must name the primary key: id",
        ),
        (json!({"op": "update", "table": "notes", "key": {"id": 1}, "set": {}}), "malformed", "sets nothing"),
        (json!({"op": "upsert", "table": "notes"}), "malformed", "expected one of"),
        (json!(7), "malformed", "operation 1"),
    ];
    for (nth, (op, ..)) in cases.iter().enumerate() {
        client.replica.push(
            format!("bad{nth}"),
            vec![into("notes", json!({"id": 500 + nth, "list_id": 1, "v": 500 + nth})), op.clone()],
        );
        client.replica.push(
            format!("good{nth}"),
            vec![into("notes", json!({"id": 100 + nth, "list_id": 1, "v": 100 + nth}))],
        );
    }
    let payload = client.replica.mutate().unwrap();
    client.send("mutate", payload).await.unwrap();
    let commits = client.until(|r| r.outbox.is_empty()).await.unwrap();
    let outcomes: Vec<_> = commits.into_iter().flat_map(|c| c.outcomes).collect();
    assert_eq!(outcomes.len(), 2 * cases.len());
    for (pair, (op, code, says)) in outcomes.chunks(2).zip(&cases) {
        let (got, message) = pair[0].refusal.clone().unwrap_or_else(|| panic!("applied: {op}"));
        assert!(got == *code && message.contains(says), "{op}: {got}, {message}");
        assert_eq!(pair[1].refusal, None, "behind {op}");
    }
    world.settled(&mut client).await;
    assert_eq!(
        world.sql.one("select count(*) from notes where id >= 500 and id < 900").await,
        "0",
        "all or nothing"
    );
    assert_eq!(world.sql.one("select count(*) from untracked").await, "0");
    nobody_is_called(&node);
}

/// Whatever stands in a cursor: all rows come, with the reason, and the node goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_mangled_cursor_costs_a_load_and_nothing_else() {
    let world = World::new().await;
    world.sql.run("insert into todos values (1, 1, 'a')").await;
    let node = world.node().await;
    let mut bystander = node.join([lists()]).await;
    let mut client = node.join([todos(1)]).await;
    world.settled(&mut client).await;
    world.settled(&mut bystander).await;
    let good = client.crash();
    let cursor = good.cursor.clone().unwrap();
    let mut mangled: Vec<String> = (0..cursor.len()).step_by(5).map(|at| cursor[..at].to_owned()).collect();
    mangled.extend([
        format!("{cursor}~"),
        format!("{cursor}{cursor}"),
        cursor.replace('~', "\0"),
        cursor.replace('~', "é"),
        format!("1~{}", "9".repeat(100_000)),
        format!(
            "1~1~1~1~1~0/1~1:{}:{}~",
            u64::MAX,
            (0..50_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",")
        ),
        "\u{feff}1~1".into(),
        "'; drop table todos; --".into(),
    ]);
    for cursor in mangled {
        let mut replica = good.clone();
        replica.cursor = Some(cursor.clone());
        let mut client = node.resume(replica).await;
        let commit = client.commit().await.unwrap();
        let reasons: Vec<_> = commit.resets.iter().map(|(_, why)| why.as_str()).collect();
        assert!(reasons == ["bad_cursor"] || reasons == ["not_in_cursor"], "{cursor:.60}: {reasons:?}");
        world.settled(&mut client).await;
    }
    let mut join = good.clone().join();
    for odd in [json!(7), json!(["1"]), json!({})] {
        join["cursor"] = odd;
        let refused = bystander.call("phx_join", join.clone()).await;
        assert!(matches!(refused, Err(ClientError::Refused(answer)) if answer["code"] == "malformed"));
    }
    world.sql.run("update lists set total = 3").await;
    world.settled(&mut bystander).await;
    nobody_is_called(&node);
}
