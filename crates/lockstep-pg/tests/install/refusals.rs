//! What cannot be tracked is refused by name, and nothing is left behind.

use lockstep_pg::install::{self, InstallError, InstallOptions, Outcome, Patience};

use crate::harness::{catalog, empty, installed, request, track};

const TABLES: &str = r#"
    create collation folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table good (id int primary key, list int, amount numeric, made int generated always as (id + 1) stored);
    create view a_view as select * from good;
    create materialized view a_matview as select * from good;
    create sequence a_sequence;
    create table parts (id int primary key) partition by range (id);
    create table part_1 partition of parts for values from (0) to (9);
    create table part_2 partition of parts for values from (10) to (19) partition by range (id);
    create table part_unlogged (id int primary key) partition by range (id);
    create unlogged table part_unlogged_1 partition of part_unlogged default;
    create table part_nothing (id int primary key) partition by range (id);
    create table part_nothing_1 partition of part_nothing default; alter table part_nothing_1 replica identity nothing;
    create table parent (id int primary key);
    create table child () inherits (parent);
    create unlogged table unlogged (id int primary key);
    create temporary table temporary (id int primary key);
    create foreign data wrapper nowhere; create server nowhere foreign data wrapper nowhere;
    create foreign table elsewhere (id int) server nowhere;
    create table part_foreign (id int) partition by range (id);
    create foreign table part_foreign_1 partition of part_foreign default server nowhere;
    create table keyless (id int unique not null);
    create table deferred (id int primary key deferrable);
    create table identity_nothing (id int primary key); alter table identity_nothing replica identity nothing;
    create table identity_index (id int primary key, other int not null unique);
    alter table identity_index replica identity using index identity_index_other_key;
    create table identity_full (id int primary key, made int generated always as (id + 1) stored);
    alter table identity_full replica identity full;
    create table numeric_key (id numeric primary key);
    create table char_key (id char(3) primary key);
    create table time_key (id timestamptz primary key);
    create table float_key (id float8 primary key); create table real_key (id float4 primary key);
    create table jsonb_key (id jsonb primary key); create table interval_key (id interval primary key);
    create extension citext; create table citext_key (id citext primary key);
    create domain address as citext; create table citext_domain_key (id address primary key);
    create table array_key (id int[] primary key); create table stamp_key (id timestamp, n int, primary key (n, id));
    create table of_types (id int primary key, n numeric, r real, f float8, c char(3), j jsonb, t citext, a address,
      e text collate folded, at timestamptz, i interval, b bytea, m money, x xml, ints int[], range int4range);
    create domain amount as numeric; create table domain_key (id amount primary key);
    create table generated_key (id int, made int generated always as (id + 1) stored primary key);
    create table folded_key (id text collate folded primary key);
    create function nothing() returns trigger language plpgsql as 'begin return null; end';
    create table taken (id int primary key);
    create trigger lockstep_delete after delete on taken for each statement execute function nothing();
    create table secured (id int primary key); alter table secured enable row level security;
    create index an_index on good (list);
"#;

/// Table, scopes, and the code of the refusal.
const CASES: &[(&str, &[&str], &str)] = &[
    ("nowhere.to_be_found", &[], "no_such_table"),
    ("missing", &[], "no_such_table"),
    ("Good", &["nope"], "unknown_column"),
    ("\"Good\"", &[], "no_such_table"),
    ("good bad", &[], "bad_name"),
    ("\"open", &[], "bad_name"),
    ("", &[], "bad_name"),
    ("a_view", &[], "not_a_table"),
    ("a_matview", &[], "not_a_table"),
    ("a_sequence", &[], "not_a_table"),
    ("an_index", &[], "not_a_table"),
    ("elsewhere", &[], "not_a_table"),
    ("part_1", &[], "partition"),
    ("part_2", &[], "partition"),
    ("part_unlogged", &[], "unfit_partition"),
    ("part_foreign", &[], "unfit_partition"),
    ("part_nothing", &[], "unfit_partition"),
    ("parent", &[], "inherits"),
    ("child", &[], "inherits"),
    ("unlogged", &[], "unlogged"),
    ("temporary", &[], "temporary"),
    ("lockstep.clients", &[], "system_table"),
    ("pg_catalog.pg_class", &[], "system_table"),
    ("information_schema.sql_features", &[], "system_table"),
    ("pg_catalog.pg_stat_activity", &[], "not_a_table"),
    ("keyless", &[], "no_primary_key"),
    ("deferred", &[], "deferrable_key"),
    ("identity_nothing", &[], "replica_identity"),
    ("identity_index", &[], "replica_identity"),
    ("identity_full", &[], "replica_identity"),
    ("numeric_key", &[], "column_type"),
    ("char_key", &[], "column_type"),
    ("time_key", &[], "column_type"),
    ("float_key", &[], "column_type"),
    ("real_key", &[], "column_type"),
    ("jsonb_key", &[], "column_type"),
    ("interval_key", &[], "column_type"),
    ("citext_key", &[], "column_type"),
    ("citext_domain_key", &[], "column_type"),
    ("array_key", &[], "column_type"),
    ("stamp_key", &[], "column_type"),
    ("of_types", &["n"], "column_type"),
    ("of_types", &["r"], "column_type"),
    ("of_types", &["f"], "column_type"),
    ("of_types", &["c"], "column_type"),
    ("of_types", &["j"], "column_type"),
    ("of_types", &["t"], "column_type"),
    ("of_types", &["a"], "column_type"),
    ("of_types", &["e"], "collation"),
    ("of_types", &["at"], "column_type"),
    ("of_types", &["i"], "column_type"),
    ("of_types", &["b"], "column_type"),
    ("of_types", &["m"], "column_type"),
    ("of_types", &["x"], "column_type"),
    ("of_types", &["ints"], "column_type"),
    ("of_types", &["range"], "column_type"),
    ("of_types", &["id", "n"], "column_type"),
    ("domain_key", &[], "column_type"),
    ("generated_key", &[], "generated_column"),
    ("folded_key", &[], "collation"),
    ("taken", &[], "trigger_taken"),
    ("secured", &[], "row_security"),
    ("good", &["amount"], "column_type"),
    ("good", &["made"], "generated_column"),
    ("good", &["list", "list,ctid"], "unknown_column"),
    ("good", &["list,"], "unknown_column"),
];

#[tokio::test]
async fn each_by_its_own_code() {
    let mut client = installed("refuse_each", TABLES).await;
    let before = catalog(&client).await;
    for (table, scopes, code) in CASES {
        assert_eq!(track(&mut client, table, scopes).await, Err(*code), "{table} {scopes:?}");
    }
    let mut no_columns = request("good", &[]);
    no_columns.scopes.push(Vec::new());
    let refused =
        install::track(&mut client, &no_columns, &Patience::default()).await.expect_err("an empty scope");
    assert_eq!(refused.code(), "empty_scope");
    assert_eq!(catalog(&client).await, before);
}

#[tokio::test]
async fn the_sentence_names_table_and_column_and_says_what_to_do() {
    let sql = "create table \"Bills\" (\"No.\" numeric(9,2) primary key)";
    let mut client = installed("refuse_sentence", sql).await;
    let refused = install::track(&mut client, &request("\"Bills\"", &[]), &Patience::default()).await;
    let sentence = refused.expect_err("a numeric key").to_string();
    assert_eq!(
        sentence,
        "table public.\"Bills\" cannot be tracked: column \"No.\" of its primary key has type numeric(9,2); only \
         smallint, integer, bigint, uuid, boolean, date, enums, text and varchar can be compared safely: change the \
         type, or use another column"
    );
}

#[tokio::test]
async fn nothing_works_before_install() {
    let mut client = empty("refuse_not_installed").await;
    client.batch_execute("create table items (id int primary key)").await.expect("a table");
    let patience = Patience::default();
    assert_eq!(track(&mut client, "items", &[]).await, Err("not_installed"));
    let untracked = install::untrack(&mut client, "items", &patience).await;
    assert!(matches!(untracked, Err(InstallError::NotInstalled)), "{untracked:?}");
    assert_eq!(install::uninstall(&mut client, &patience).await.expect("nothing to do"), Outcome::Unchanged);
}

#[tokio::test]
async fn a_schema_of_our_name_is_not_touched() {
    let mut client = empty("refuse_schema").await;
    client
        .batch_execute("create schema lockstep; create table lockstep.mine (id int)")
        .await
        .expect("theirs");
    let options = InstallOptions::default();
    assert_eq!(install::install(&mut client, &options).await.expect_err("taken").code(), "schema_taken");
    let uninstalled = install::uninstall(&mut client, &Patience::default()).await;
    assert_eq!(uninstalled.expect_err("not ours").code(), "schema_taken");
}

#[tokio::test]
async fn a_newer_format_is_left_alone() {
    let mut client = installed("refuse_format", "update lockstep.installation set format = 2").await;
    let options = InstallOptions::default();
    assert_eq!(install::install(&mut client, &options).await.expect_err("newer").code(), "format_newer");
    assert_eq!(track(&mut client, "items", &[]).await, Err("format_newer"));
}

#[tokio::test]
async fn publications_that_would_ship_the_logs() {
    let mut client = empty("refuse_publications").await;
    client.batch_execute("create publication \"All of it\" for all tables").await.expect("theirs");
    let options = InstallOptions::default();
    let refused = install::install(&mut client, &options).await.expect_err("it ships the logs");
    assert_eq!(refused.code(), "foreign_publication");
    assert!(refused.to_string().starts_with("publication \"All of it\" covers all tables"), "{refused}");
    let allowed = InstallOptions { allow_foreign_publications: true, ..InstallOptions::default() };
    assert_eq!(install::install(&mut client, &allowed).await.expect("allowed"), Outcome::Created);
    // Under it our housekeeping must still be able to delete: that takes a primary key on every table.
    let delete = "create table items (id int primary key)";
    client.batch_execute(delete).await.expect("a table");
    assert_eq!(track(&mut client, "items", &[]).await, Ok(Outcome::Created));
    let all = "insert into items values (1); delete from items; delete from lockstep.changes_1;
        delete from lockstep.tombstones_1; update lockstep.tracked set horizon = horizon;
        insert into lockstep.incarnations values (1); delete from lockstep.incarnations";
    client.batch_execute(all).await.expect("published deletes");
}

/// Later than `install`: `track` looks as well. What `install` was told holds for `track`.
#[tokio::test]
async fn a_foreign_publication_is_seen_when_a_table_is_tracked() {
    let mut client = installed("refuse_later", "create table items (id int primary key)").await;
    client.batch_execute("create publication everything for all tables").await.expect("theirs");
    assert_eq!(track(&mut client, "items", &[]).await, Err("foreign_publication"));
    if crate::harness::cluster().major() >= 15 {
        let by_schema = "drop publication everything; create publication ours for tables in schema lockstep";
        client.batch_execute(by_schema).await.expect("theirs");
        assert_eq!(track(&mut client, "items", &[]).await, Err("foreign_publication"));
    }
    let allowed = InstallOptions { allow_foreign_publications: true, ..InstallOptions::default() };
    install::install(&mut client, &allowed).await.expect("allowed");
    assert_eq!(track(&mut client, "items", &[]).await, Ok(Outcome::Created));
}

#[tokio::test]
async fn row_security_can_be_ignored_when_asked_for() {
    let sql = "create table items (id int primary key); alter table items enable row level security";
    let mut client = installed("refuse_rls", sql).await;
    let mut asked = request("items", &[]);
    asked.ignore_rls = true;
    let patience = Patience::default();
    assert_eq!(install::track(&mut client, &asked, &patience).await.expect("tracked"), Outcome::Created);
}

/// Filters and lists of publications exist since 15.
#[tokio::test]
async fn a_publication_that_makes_writes_fail() {
    let sql = "create table items (id int primary key generated always as identity, list int, title text);
        create table parts (id int primary key, list int) partition by range (id);
        create table part_1 partition of parts default";
    let mut client = installed("refuse_filters", sql).await;
    if crate::harness::cluster().major() < 15 {
        return;
    }
    let publications = [
        ("items", "create publication theirs for table items where (list > 5)"),
        ("items", "create publication theirs for table items (list, title)"),
        (
            "items",
            "create publication theirs for table items where (title is null) with (publish = 'delete')",
        ),
        ("parts", "create publication theirs for table part_1 where (list > 5)"),
    ];
    for (table, publication) in publications {
        client.batch_execute(publication).await.expect("theirs");
        assert_eq!(track(&mut client, table, &[]).await, Err("publication"), "{publication}");
        client.batch_execute("drop publication theirs").await.expect("dropped");
    }
    let harmless = "create publication theirs for table items (id, title) where (id > 5), parts";
    client.batch_execute(harmless).await.expect("theirs");
    for table in ["items", "parts"] {
        assert_eq!(track(&mut client, table, &[]).await, Ok(Outcome::Created));
    }
    // Somebody narrows ours: noticed and made whole.
    let narrowed = "alter publication lockstep_tables set table lockstep.clients, items (id), parts";
    client.batch_execute(narrowed).await.expect("narrowed");
    assert_eq!(track(&mut client, "items", &[]).await, Ok(Outcome::Changed));
    assert_eq!(track(&mut client, "items", &[]).await, Ok(Outcome::Unchanged));
}
