//! Doctor on what is installed: each thing broken, found, mended by what doctor prints, and gone.

use lockstep_pg::doctor::{self, DoctorOptions, Finding, Level, Mend, Report};
use lockstep_pg::gc::{self, GcOptions};
use lockstep_pg::install::{self, InstallOptions, Outcome, Patience};
use lockstep_pg::target::Target;
use tokio_postgres::Client;

use crate::harness::{cluster, connect as session, installed, one, request, settled, track, tracked};

const ITEMS: &str = "create table items (id int primary key, list int, title text);";

/// What doctor says in this session; tests in other databases of the cluster hold transactions open.
pub async fn examine(client: &Client, database: &str) -> Report {
    let config = Target::parse(&cluster().url_for(database)).expect("a URL");
    doctor::examine(client, &config, &DoctorOptions::default()).await.expect("it can be asked")
}

/// What is found, without what this test does not cause.
pub async fn found(client: &Client, database: &str) -> Vec<Finding> {
    let all = examine(client, database).await.findings;
    all.into_iter()
        .filter(|finding| !["open_transaction", "prepared_transaction"].contains(&finding.code))
        .collect()
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.code).collect()
}

/// Does what a finding says.
pub async fn follow(client: &mut Client, finding: &Finding) {
    assert!(!finding.mend.is_empty(), "{finding:?}");
    for mend in &finding.mend {
        match mend {
            Mend::Sql(sql) => {
                client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            }
            Mend::Command(command) => run(client, command).await,
            Mend::Restart | Mend::Advice(_) => {}
        }
    }
}

async fn run(client: &mut Client, command: &str) {
    let words: Vec<&str> = command.splitn(3, ' ').collect();
    match words[..] {
        ["lockstep", "install"] => {
            install::install(client, &InstallOptions::default()).await.expect(command);
        }
        ["lockstep", "install", "--allow-foreign-publications"] => {
            let options = InstallOptions { allow_foreign_publications: true, ..InstallOptions::default() };
            install::install(client, &options).await.expect(command);
        }
        ["lockstep", "track", table] => {
            let name = table.trim_matches('\'');
            let patience = Patience::default();
            let asked = lockstep_pg::install::TrackRequest { ignore_rls: true, ..request(name, &[]) };
            install::track(client, &asked, &patience).await.expect(command);
        }
        ["lockstep", "untrack", table] => {
            let done = install::untrack(client, table, &Patience::default()).await.expect(command);
            assert_eq!(done, Outcome::Removed);
        }
        ["lockstep", "gc"] => {
            gc::run(client, &GcOptions::default()).await.expect(command);
        }
        _ => panic!("no command of ours: {command}"),
    }
}

/// Breaks, finds, mends; then nothing is found that was not there before.
async fn broken(client: &mut Client, database: &str, breakage: &str, code: &str, level: Level) {
    let before = codes(&found(client, database).await);
    client.batch_execute(breakage).await.unwrap_or_else(|error| panic!("{breakage}: {error:?}"));
    let report = examine(client, database).await;
    let finding = report.findings.iter().find(|finding| finding.code == code);
    let finding = finding.unwrap_or_else(|| panic!("{breakage}: {:?}", report.findings)).clone();
    assert_eq!(finding.level, level, "{finding:?}");
    assert_eq!(report.ok, !report.findings.iter().any(|finding| finding.level == Level::Error));
    follow(client, &finding).await;
    assert_eq!(codes(&found(client, database).await), before, "after the mend of {breakage}");
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is_wrong() {
    let client = tracked("doctor_fine", ITEMS, &["list"]).await;
    assert_eq!(found(&client, "doctor_fine").await, []);
    let report = examine(&client, "doctor_fine").await;
    assert!(report.ok && report.nodes_allowed > 1, "{report:?}");
    let text = report.to_string();
    assert!(text.contains("public.items: about 0 log entries") && text.contains("0 to mend"), "{text}");
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(
        (json["ok"].as_bool(), json["facts"]["logs"][0]["name"].as_str()),
        (Some(true), Some("public.items"))
    );
}

#[tokio::test]
async fn a_database_without_an_installation() {
    let mut client = crate::harness::empty("doctor_nothing").await;
    let nothing = found(&client, "doctor_nothing").await;
    assert_eq!(codes(&nothing), ["not_installed"]);
    follow(&mut client, &nothing[0]).await;
    assert_eq!(found(&client, "doctor_nothing").await, []);
}

#[tokio::test]
async fn publications() {
    let database = "doctor_publications";
    let mut client = tracked(database, ITEMS, &["list"]).await;
    for (breakage, code, level) in [
        ("drop publication lockstep_tombstones", "publication_missing", Level::Error),
        ("drop publication lockstep_tables", "publication_missing", Level::Error),
        (
            "alter publication lockstep_tables set (publish_via_partition_root = false)",
            "publication_by_leaf",
            Level::Error,
        ),
        (
            "alter publication lockstep_tables drop table lockstep.clients",
            "clients_unpublished",
            Level::Error,
        ),
        (
            "alter publication lockstep_tables set (publish = 'insert, delete, truncate')",
            "publication_partial",
            Level::Error,
        ),
        (
            "alter publication lockstep_tombstones set (publish = 'delete')",
            "publication_partial",
            Level::Error,
        ),
        ("alter publication lockstep_tables drop table items", "unpublished", Level::Error),
        (
            "alter publication lockstep_tombstones drop table lockstep.tombstones_1",
            "unpublished",
            Level::Error,
        ),
        ("create publication everything for all tables", "foreign_publication", Level::Warning),
    ] {
        broken(&mut client, database, breakage, code, level).await;
    }
    // Column lists exist since 15.
    if cluster().major() >= 15 {
        let narrow = "alter publication lockstep_tables set table lockstep.clients, items (id)";
        broken(&mut client, database, narrow, "narrowed", Level::Error).await;
        let filtered = "alter publication lockstep_tables set table lockstep.clients, items where (id < 10)";
        broken(&mut client, database, filtered, "narrowed", Level::Error).await;
        let ours = "alter publication lockstep_tables set table lockstep.clients where (client < 'm'), items";
        broken(&mut client, database, ours, "clients_unpublished", Level::Error).await;
    }
}

#[tokio::test]
async fn triggers_and_logs() {
    let database = "doctor_triggers";
    let mut client = tracked(database, ITEMS, &["list"]).await;
    for breakage in [
        "alter table items disable trigger all; alter table items enable trigger all",
        "drop trigger lockstep_update on items",
        "drop table lockstep.changes_1",
    ] {
        broken(&mut client, database, breakage, "triggers", Level::Error).await;
    }
    let ahead = "update lockstep.tracked set horizon = 1000000000000, generation = 1000000000000";
    broken(&mut client, database, ahead, "horizon_ahead", Level::Error).await;
    let old = "update lockstep.tracked set tracked_at = now() - interval '3 days'";
    broken(&mut client, database, old, "not_collected", Level::Warning).await;
    broken(&mut client, database, "drop table items cascade", "table_gone", Level::Warning).await;
    assert_eq!(one(&client, "select count(*) from lockstep.tracked").await, "0");
}

#[tokio::test]
async fn the_table_itself() {
    let database = "doctor_table";
    let mut client = tracked(database, ITEMS, &["list"]).await;
    for (breakage, code, level) in [
        ("alter table items replica identity nothing", "replica_identity", Level::Error),
        ("alter table items enable row level security", "row_security", Level::Warning),
        ("alter table items add total int generated always as (id + 1) stored", "generated", Level::Warning),
        (
            "alter publication lockstep_tables drop table items; alter table items set unlogged",
            "unlogged",
            Level::Error,
        ),
    ] {
        if code == "generated"
            && one(&client, "current_setting('server_version_num')::int >= 180000").await == "true"
        {
            // Stored ones travel there.
            client.batch_execute(breakage).await.expect("another column");
            assert_eq!(found(&client, database).await, [], "{breakage}");
            client.batch_execute("alter table items drop column total").await.expect("as before");
            continue;
        }
        broken(&mut client, database, breakage, code, level).await;
    }
    client.batch_execute("alter table items drop constraint items_pkey").await.expect("no key");
    let finding =
        found(&client, database).await.into_iter().find(|finding| finding.code == "key").expect("found");
    client.batch_execute("alter table items add primary key (id, list)").await.expect("another key");
    assert!(found(&client, database).await.contains(&finding), "another key is not the one that was tracked");
    follow(&mut client, &finding).await;
    assert_eq!(found(&client, database).await, []);
}

#[tokio::test]
async fn partitions_that_came_later() {
    let database = "doctor_partitions";
    let sql = "create table items (id int primary key, list int) partition by range (id);
        create table first partition of items for values from (0) to (10)";
    let mut client = tracked(database, sql, &["list"]).await;
    assert_eq!(found(&client, database).await, []);
    let later = "create table \"It's later\" partition of items for values from (10) to (20)";
    broken(&mut client, database, later, "partition_without_trigger", Level::Warning).await;
    let unlogged = "create unlogged table third partition of items for values from (20) to (30)";
    broken(&mut client, database, unlogged, "unlogged", Level::Error).await;
    let nothing = "alter table first replica identity nothing";
    broken(&mut client, database, nothing, "replica_identity", Level::Error).await;
}

/// The grants that are printed are enough: nothing is left to say to a role that follows them.
#[tokio::test]
async fn rights_of_a_role() {
    let database = "doctor_rights";
    let mut admin = tracked(database, ITEMS, &["list"]).await;
    admin
        .batch_execute(
            "drop role if exists \"Plain role\"; create role \"Plain role\"; alter table items enable row level security",
        )
        .await
        .expect("a role");
    let plain = session(database).await;
    plain.batch_execute("set role \"Plain role\"").await.expect("its session");
    let mut seen = Vec::new();
    loop {
        let now: Vec<_> = found(&plain, database).await;
        let Some(finding) = now.first() else { break };
        assert!(seen.len() < 40, "{now:?}");
        seen.push(finding.code);
        follow(&mut admin, finding).await;
        assert!(!found(&plain, database).await.contains(finding), "{finding:?}");
    }
    for code in ["rights", "not_a_writer", "no_replication", "limited_view"] {
        assert!(seen.contains(&code), "{seen:?}");
    }
    let bypasses = "select rolbypassrls::text from pg_roles where rolname = 'Plain role'";
    assert_eq!(one(&admin, bypasses).await, "true", "what doctor says lets it read all rows");
    let works = "update items set title = 'x'; select from lockstep.changes_1; update lockstep.tracked set horizon = horizon";
    plain.batch_execute(works).await.expect("the role has what it needs");
    admin
        .batch_execute("drop owned by \"Plain role\"; drop role \"Plain role\"")
        .await
        .expect("the role is gone");
}

/// The apply worker fires row triggers only.
#[tokio::test]
async fn a_table_that_a_subscription_writes_into() {
    let database = "doctor_subscriber";
    let mut client = tracked(database, ITEMS, &["list"]).await;
    let publisher = installed("doctor_publisher", "create table items (id int primary key, list int, title text); create publication theirs for table items").await;
    publisher
        .batch_execute("select pg_create_logical_replication_slot('doctor_theirs', 'pgoutput')")
        .await
        .expect("a slot");
    settled(&client).await;
    let subscribe = format!(
        "create subscription theirs connection '{}' publication theirs with (create_slot = false, slot_name = doctor_theirs, copy_data = false)",
        cluster().url_for("doctor_publisher")
    );
    broken(&mut client, database, &subscribe, "triggers_of_subscriber", Level::Error).await;
    let end = [
        "alter subscription theirs disable",
        "alter subscription theirs set (slot_name = none)",
        "drop subscription theirs",
    ];
    for sql in end {
        client.batch_execute(sql).await.expect(sql);
    }
    assert_eq!(track(&mut client, "items", &[]).await, Ok(Outcome::Changed), "statement triggers again");
}
