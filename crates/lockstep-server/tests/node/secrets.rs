//! A run with known secrets: none of them is in a log line, at any level, nor in what operators are shown.

use crate::world::{Node, World, todos};
use lockstep_client::ClientError;
use serde_json::json;

const SECRET: &str = "s3cr3t";

/// A table with secrets, and a trigger of the application's that tells those of `todos` under a code of the client's choice.
async fn world() -> World {
    let world = World::new().await;
    world
        .sql
        .run(
            "create role writer login superuser password 'wr1te'; create role copier login superuser password 'c0py';
             create table vault (id text primary key, owner text, v text);
             create function loud() returns trigger language plpgsql as $$ begin
             raise exception 'row %', new.title using errcode = new.body; end $$;
             create trigger loud before insert on todos for each row when (new.body is not null) execute function loud()",
        )
        .await;
    let mut owner = crate::world::connect(&world.cluster.url()).await;
    let request = lockstep_pg::install::TrackRequest {
        table: "vault".into(),
        scopes: vec![vec!["owner".into()]],
        ..lockstep_pg::install::TrackRequest::default()
    };
    lockstep_pg::install::track(&mut owner, &request, &lockstep_pg::install::Patience::default())
        .await
        .unwrap();
    world
}

/// In rows, scopes, predicates, writes, and in what an application's trigger says under codes of PostgreSQL's own.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_rows_or_passwords_is_told_to_operators() {
    let world = world().await;
    let url = |role: &str, password: &str| {
        format!("postgres://{role}:{password}@127.0.0.1:{}/postgres", world.cluster.port())
    };
    let settings = [
        ("LOCKSTEP_LOG", "trace"),
        ("LOCKSTEP_WRITE_URL", &url("writer", "wr1te")),
        ("LOCKSTEP_REPLICATION_URL", &url("copier", "c0py")),
    ];
    let node = Node::start_with(&world.cluster.url(), &settings);
    node.until("live").await;
    world.sql.run("insert into vault values ('s3cr3t-key', 's3cr3t-owner', 's3cr3t-value')").await;
    let vault = json!({"table": "vault", "scope": {"owner": "s3cr3t-owner"}});
    let filtered = json!({"table": "vault", "scope": {"owner": "s3cr3t-owner"}, "where": "v <> $1", "params": ["s3cr3t-not"]});
    let mut client = node.join([vault, filtered, todos(1)]).await;
    client.until(|r| r.column("1", "v") == ["s3cr3t-value"]).await.unwrap();
    world.sql.run("update vault set v = 's3cr3t-new'; insert into todos values (1, 1, 's3cr3t')").await;
    client
        .until(|r| r.column("2", "title") == [SECRET] && r.column("0", "v") == ["s3cr3t-new"])
        .await
        .unwrap();
    // Refused ones first: a code that passes is tried again and answered as busy.
    for (nth, code) in [
        "23514", "P0001", "22P02", "42501", "40001", "42703", "55000", "57014", "53100", "XX000", "0A000",
        "25006",
    ]
    .into_iter()
    .enumerate()
    {
        let values = json!({"id": 100 + nth, "list_id": 1, "title": SECRET, "body": code});
        client
            .replica
            .push(format!("m{nth}"), vec![json!({"op": "insert", "table": "todos", "values": values})]);
        let payload = client.replica.mutate().unwrap();
        match client.call("mutate", payload.clone()).await {
            Ok(_) => drop(client.until(|r| r.outbox.is_empty()).await.unwrap()),
            Err(ClientError::Refused(answer)) => {
                assert_eq!(answer["code"], "busy", "{code}: {answer}");
                let body =
                    json!({"client": client.replica.client, "mutations": payload["mutations"]}).to_string();
                let (status, answer) =
                    node.post("/v1/mutations", "Content-Type: application/json\r\n", body.as_bytes()).await;
                assert_eq!((status, &answer["code"]), (503, &json!("busy")), "{code}: {answer}");
                // It would be tried for ever.
                client.replica.outbox.clear();
                client.replica.last -= 1;
            }
            Err(other) => panic!("{code}: {other}"),
        }
    }
    // A stream that breaks, a look at everything.
    world.sql.run("select pg_terminate_backend(pid) from pg_stat_replication").await;
    node.until_logged("streaming", 2).await;
    let mut told = node.log().join("\n");
    for path in ["/metrics", "/v1/status", "/health", "/ready"] {
        told += &node.request(&format!("GET {path} HTTP/1.0\r\nHost: localhost")).await;
    }
    assert!(told.contains("tried again") && told.contains("lockstep_sessions"), "{told}");
    for secret in [SECRET, "wr1te", "c0py", world.cluster.password()] {
        let leaks: Vec<_> = told.lines().filter(|l| l.contains(secret)).collect();
        assert!(leaks.is_empty(), "{secret}: {leaks:#?}");
    }
}
