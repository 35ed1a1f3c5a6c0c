//! What changes rows and fires no trigger.

use crate::tap::{database, one, run};

/// A rewrite, a default and a change of type change every row and fire nothing; so do partitions that come and go. The
/// logs know nothing of it: what a table looks like is part of its schema id.
#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_changes_rows_fires_no_trigger() {
    let client = database("catalog_silent").await;
    run(&client, &[
        "create table fired (what text)",
        "create function note() returns trigger language plpgsql as 'begin insert into fired values (tg_op); return null; end'",
        "create table t (id int primary key, v int) partition by range (id)",
        "create table t1 partition of t for values from (0) to (10)",
        "create trigger note after insert or update or delete on t for each row execute function note()",
        "insert into t values (1, 1)",
        "alter table t add column d int default 5",
        "alter table t add column r float default random()",
        "alter table t alter v type text",
        "create table t2 (like t)", "insert into t2 values (11, '11', 1, 1)",
        "alter table t2 add primary key (id)",
        "alter table t attach partition t2 for values from (10) to (20)",
    ]).await;
    assert_eq!(one(&client, "select count(*) from t").await, "2");
    run(&client, &["alter table t detach partition t1", "drop table t2"]).await;
    assert_eq!(one(&client, "select count(*) from t").await, "0");
    assert_eq!(one(&client, "select string_agg(what, ' ') from fired").await, "INSERT");
}

/// A trigger that is not ENABLE ALWAYS does not fire under `session_replication_role = replica`; `disable trigger all`
/// and `enable trigger all`, as pg_restore does it, leave one that was ALWAYS as one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn enabling_all_triggers_forgets_that_one_was_always() {
    let client = database("catalog_always").await;
    run(&client, &[
        "create table fired (n int)", "create table t (id int)",
        "create function note() returns trigger language plpgsql as 'begin insert into fired values (1); return null; end'",
        "create trigger note after insert on t for each statement execute function note()",
        "set session_replication_role = replica", "insert into t values (1)",
    ]).await;
    assert_eq!(one(&client, "select count(*) from fired").await, "0");
    run(&client, &["alter table t enable always trigger note", "insert into t values (2)"]).await;
    assert_eq!(one(&client, "select count(*) from fired").await, "1");
    run(
        &client,
        &[
            "alter table t disable trigger all",
            "alter table t enable trigger all",
            "insert into t values (3)",
        ],
    )
    .await;
    assert_eq!(one(&client, "select count(*) from fired").await, "1");
    assert_eq!(one(&client, "select tgenabled from pg_trigger where tgname = 'note'").await, "O");
}

/// The writer's own id can be had in a trigger whatever savepoint it is in, and `xmin` cannot: that is the id of the
/// savepoint.
#[tokio::test(flavor = "multi_thread")]
async fn the_system_column_names_the_savepoint() {
    let client = database("catalog_xmin").await;
    run(
        &client,
        &[
            "create table t (top bigint)",
            "begin",
            "insert into t values (pg_current_xact_id()::text::bigint)",
            "savepoint a",
            "insert into t values (pg_current_xact_id()::text::bigint)",
            "commit",
        ],
    )
    .await;
    assert_eq!(
        one(&client, "select count(distinct top) || ' ' || count(distinct xmin::text) from t").await,
        "1 2"
    );
    // What the logs draw: the same id as a bigint, of the top-level transaction, whatever its age in the manual.
    run(&client, &["begin", "savepoint a"]).await;
    assert_eq!(one(&client, "select txid_current()::text = pg_current_xact_id()::text").await, "true");
    assert_eq!(one(&client, "select pg_typeof(txid_current())").await, "bigint");
    run(&client, &["rollback"]).await;
}
