//! Roles with least rights: what `install` grants is enough, every one of it is needed, and one that is missing is
//! named by the statement that gives it.

use crate::harness::{cluster, connect, one, track};
use lockstep_core::fanout::hub::{
    CatchUpRequest, MutateRequest, MutateResult, ReadFrom, ReadRequest, ReplyTo,
};
use lockstep_core::position::ResetReason;
use lockstep_core::shape::Shape;
use lockstep_pg::gc::{self, GcOptions, GcOutcome};
use lockstep_pg::install::{self, InstallOptions, Outcome};
use lockstep_pg::rights::{self, Kind, Missing};
use lockstep_pg::target::Target;
use lockstep_pg::{PgError, catalog, catch_up, mutate, poll};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_postgres::Client;

/// Numbers for clients' names.
static CLIENTS: AtomicU64 = AtomicU64::new(1);
const ANSWER: Duration = Duration::from_secs(10);

/// The owner makes its table and tracks it; nobody here is a superuser.
async fn database(name: &str, suffix: &str) -> (Client, String, String) {
    let admin = connect("postgres").await;
    let [owner, node, writer] = ["owner", "node", "writer"].map(|role| format!("{role} of {suffix}"));
    for role in [&owner, &node, &writer] {
        admin.batch_execute(&format!("create role \"{role}\"")).await.expect("a role");
    }
    admin.batch_execute(&format!("create database {name} owner \"{owner}\"")).await.expect("a database");
    let client = connect(name).await;
    let schema = format!(
        "alter database {name} set search_path = app; set search_path = app; set role \"{owner}\"; create schema app; \
         create table items (id int primary key, list int)"
    );
    client.batch_execute(&schema).await.expect("the owner's table");
    (client, node, writer)
}

fn options(node: &str, writer: &str) -> InstallOptions {
    InstallOptions {
        grant_node: Some(node.into()),
        grant_writer: Some(writer.into()),
        ..InstallOptions::default()
    }
}

/// Everything that a node asks of the database.
async fn be_a_node(client: &Client, role: &str) -> Result<(), PgError> {
    poll::identify(client).await?;
    let loaded = catalog::load(client).await?;
    let mark = poll::mark(client).await?;
    assert!(poll::keep_mark(client, mark).await?);
    poll::poll(client, 1).await?;
    poll::push_fence(client).await?;
    poll::wrote(client, &[3]).await?;
    poll::sibling_slot(client).await?;
    let definition = serde_json::json!({"ref": "0", "table": "items", "scope": {"list": 1}});
    let request = serde_json::from_value(definition).expect("a request");
    // What its role may not read is unknown to a node.
    let shape = Shape::resolve(&request, &loaded).map_err(|_| PgError::SchemaChanged)?;
    let read = ReadRequest { shape: shape.into(), from: ReadFrom::Scratch(ResetReason::First) };
    let request = CatchUpRequest { id: 1, reads: vec![read], clients: vec![("".into(), "somebody".into())] };
    // Large reads have connections of their own.
    let options = format!("-c role={}", role.replace(' ', "\\ "));
    let mut url = url::Url::parse(&cluster().url_for("rights_node")).expect("a URL");
    url.query_pairs_mut().append_pair("options", &options);
    let url = url.as_str().replace('+', "%20");
    let target = Target::parse(&url).expect("a target");
    catch_up::read_whole(&target, &request, &[], ANSWER).await?;
    match gc::run(client, &GcOptions { retention: Duration::ZERO, ..GcOptions::default() }).await? {
        GcOutcome::Done(report) if report.later.is_empty() => Ok(()),
        other => panic!("{other:?}"),
    }
}

fn mutation(n: u64) -> serde_json::Value {
    let row = serde_json::json!({"id": n, "list": 1});
    let key = serde_json::json!({"id": n});
    serde_json::json!({"n": n.to_string(), "id": format!("m{n}"), "kind": "ops", "ops": [
        {"op": "insert", "table": "items", "values": row},
        {"op": "update", "table": "items", "key": key, "set": {"list": 2}},
        {"op": "delete", "table": "items", "key": key},
    ]})
}

/// A client's first mutations, and one of a table that nobody knows, which is refused.
async fn be_a_writer(client: &Client, subject: &str) -> MutateResult {
    let loaded = {
        client.batch_execute("reset role").await.expect("the superuser");
        let loaded = catalog::load(client).await.expect("the catalog");
        client.batch_execute(&format!("set role \"{subject}\"")).await.expect("the writer");
        loaded
    };
    let unknown = serde_json::json!({"op": "delete", "table": "nowhere", "key": {"id": 1}});
    let unknown = serde_json::json!({"n": "3", "id": "m3", "kind": "ops", "ops": [unknown]});
    let mutations = [mutation(1), mutation(2), unknown];
    let request = MutateRequest {
        session: 1,
        reply: ReplyTo { join_ref: None, reference: None, topic: String::new() },
        subject: subject.into(),
        client: format!("client {}", CLIENTS.fetch_add(1, Ordering::Relaxed)),
        confirmed: 0,
        mutations: mutations.map(|m| serde_json::from_value(m).expect("a mutation")).into(),
    };
    mutate::run(client, &request, &loaded).await.1
}

/// The single rights of "grant a, b on x to r", each as (right, thing).
fn rights_of(grants: &[String]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for grant in grants {
        let (rights, rest) = grant.trim_start_matches("grant ").split_once(" on ").expect("a grant");
        let (thing, _) = rest.rsplit_once(" to ").expect("a grant");
        all.extend(rights.split(", ").map(|right| (right.to_owned(), thing.to_owned())));
    }
    all
}

async fn missing(name: &str, role: &str, kind: Kind) -> (Client, Missing) {
    let client = connect(name).await;
    client.batch_execute(&format!("set role \"{role}\"")).await.expect("the role");
    let missing = rights::missing(&client, kind).await.expect("an answer");
    (client, missing)
}

#[tokio::test]
async fn a_node_needs_each_of_its_rights_and_no_other() {
    let (mut owner, node, writer) = database("rights_node", "the first").await;
    // Installed without roles: everything is named, and what is named is enough.
    install::install(&mut owner, &InstallOptions::default()).await.expect("installed");
    assert_eq!(track(&mut owner, "items", &["list"]).await, Ok(Outcome::Created));
    let (client, all) = missing("rights_node", &node, Kind::Node).await;
    let all: Vec<String> = all.ours.into_iter().chain(all.theirs).collect();
    assert!(be_a_node(&client, &node).await.is_err_and(|e| e.sqlstate() == Some("42501")));
    client.batch_execute("rollback").await.expect("rolled back");
    owner.batch_execute(&all.join(";")).await.expect("granted");
    be_a_node(&client, &node).await.expect("enough");
    let single = rights_of(&all);
    assert!(single.len() > 20, "{single:?}");
    for (right, thing) in &single {
        owner.batch_execute(&format!("revoke {right} on {thing} from \"{node}\"")).await.expect("revoked");
        let named = rights::missing(&client, Kind::Node).await.expect("an answer").statements();
        let grant = format!("grant {right} on {thing} to \"{node}\";");
        assert_eq!(named, grant);
        let failed = be_a_node(&client, &node).await;
        client.batch_execute("rollback").await.expect("rolled back");
        assert!(failed.is_err(), "{grant} is not needed");
        owner.batch_execute(&named).await.expect("granted");
    }
    be_a_node(&client, &node).await.expect("enough again");
    // Told at once, `install` and `track` give the same in our schema, also for tables tracked before or later.
    owner.batch_execute(&format!("reset role; drop owned by \"{node}\"")).await.expect("all taken");
    owner.batch_execute("set role \"owner of the first\"").await.expect("the owner");
    install::install(&mut owner, &options(&node, &writer)).await.expect("granted");
    let more = "create table more (id int primary key)";
    owner.batch_execute(more).await.expect("a table");
    assert_eq!(track(&mut owner, "more", &[]).await, Ok(Outcome::Created));
    let left = rights::missing(&client, Kind::Node).await.expect("an answer");
    assert_eq!(left.ours, [] as [&str; 0]);
    let of_table = ["usage on schema app", "select on app.items", "select on app.more"];
    assert_eq!(left.theirs, of_table.map(|right| format!("grant {right} to \"{node}\"")));
    // `track` prints what its table takes, for both roles.
    let lacking = install::grants_lacking(&mut owner, "items").await.expect("an answer");
    assert_eq!(
        lacking,
        [
            format!("grant usage on schema app to \"{node}\";"),
            format!("grant select on app.items to \"{node}\";"),
            format!("grant usage on schema app to \"{writer}\";"),
            format!("grant delete, insert, select, update on app.items to \"{writer}\";"),
        ]
    );
    owner.batch_execute(&lacking.concat()).await.expect("granted");
    assert_eq!(install::grants_lacking(&mut owner, "items").await.expect("an answer"), [] as [&str; 0]);
    be_a_node(&client, &node).await.expect("what is missing for one table does not matter to another");
}

#[tokio::test]
async fn a_writer_needs_each_of_its_rights_and_no_other() {
    let (mut owner, _, writer) = database("rights_writer", "the second").await;
    install::install(&mut owner, &InstallOptions::default()).await.expect("installed");
    assert_eq!(track(&mut owner, "items", &["list"]).await, Ok(Outcome::Created));
    let (client, all) = missing("rights_writer", &writer, Kind::Writer).await;
    assert_eq!(be_a_writer(&client, &writer).await, MutateResult::Busy);
    let granted: Vec<String> = all.ours.iter().chain(&all.theirs).cloned().collect();
    owner.batch_execute(&granted.join(";")).await.expect("granted");
    let refused = "select count(*) from lockstep.mutations where outcome = 'refused'";
    assert_eq!(be_a_writer(&client, &writer).await, MutateResult::Decided);
    assert_eq!(one(&owner, refused).await, "1");
    for (right, thing) in rights_of(&all.ours) {
        owner.batch_execute(&format!("revoke {right} on {thing} from \"{writer}\"")).await.expect("revoked");
        let named = rights::missing(&client, Kind::Writer).await.expect("an answer").statements();
        assert_eq!(named, format!("grant {right} on {thing} to \"{writer}\";"));
        assert_eq!(be_a_writer(&client, &writer).await, MutateResult::Busy, "{named} is not needed");
        owner.batch_execute(&named).await.expect("granted");
    }
    // On the application's tables a missing right is a refusal: it may be meant so.
    for (right, thing) in rights_of(&all.theirs) {
        owner.batch_execute("delete from lockstep.mutations").await.expect("none");
        owner.batch_execute(&format!("revoke {right} on {thing} from \"{writer}\"")).await.expect("revoked");
        let named = rights::missing(&client, Kind::Writer).await.expect("an answer").statements();
        assert_eq!(named, format!("grant {right} on {thing} to \"{writer}\";"));
        assert_eq!(be_a_writer(&client, &writer).await, MutateResult::Decided);
        assert_eq!(one(&owner, refused).await, "3", "{named}");
        owner.batch_execute(&named).await.expect("granted");
    }
}
