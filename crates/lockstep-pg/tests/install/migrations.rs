//! Migrations of a tracked table: followed, or refused when they run; a later write never fails.

use lockstep_pg::install::{self, Outcome, Patience};

use crate::harness::{connect, fails, installed, one, request, track, tracked, writes};

const ITEMS: &str = "create table items (spare int, id int primary key, list int, title text);
    alter table items drop column spare; insert into items values (1, 7, 'a');";

#[tokio::test]
async fn renames_are_followed() {
    let client = tracked("migrate_rename", ITEMS, &["list"]).await;
    let other = connect("migrate_rename").await;
    // A session with cached plans, and one that sees the table for the first time.
    writes(&other, "update items set title = 'b'", &["put s1=7 k1=1"]).await;
    let renames = "alter table items rename id to key; alter table items rename list to \"List of\";
        alter table items rename to things; create schema app; alter table things set schema app";
    client.batch_execute(renames).await.expect("renamed");
    for session in [&other, &client] {
        writes(session, "update app.things set title = 'c'", &["put s1=7 k1=1"]).await;
        writes(
            session,
            "insert into app.things values (2, 8); delete from app.things where key = 2",
            &["put s1=8 k1=2", "d s1=8 k1=2"],
        )
        .await;
    }
}

#[tokio::test]
async fn used_columns_cannot_be_dropped_or_retyped() {
    let client = tracked("migrate_used", ITEMS, &["list"]).await;
    let migrations = [
        ("alter table items drop column list", "2BP01"),
        ("alter table items drop column id", "2BP01"),
        ("alter table items alter column list type bigint", "0A000"),
        ("alter table items alter column id type text", "0A000"),
        ("drop table items", "2BP01"),
    ];
    for (migration, code) in migrations {
        assert_eq!(fails(&client, migration).await, code, "{migration}");
        writes(&client, "update items set title = 'b'", &["put s1=7 k1=1"]).await;
    }
}

#[tokio::test]
async fn other_columns_come_and_go() {
    let client = tracked("migrate_other", ITEMS, &["list"]).await;
    let other = connect("migrate_other").await;
    let migrations = [
        "alter table items add column a text",
        "alter table items add column b int not null default 5",
        "alter table items add column c float8 default random()",
        "alter table items drop column title",
        "alter table items alter column b type text",
        "alter table items drop column a, drop column c",
        "alter table items add column title text, add column d int generated always as (id + 1) stored",
        "alter table items set (fillfactor = 50)",
        "create index on items (b)",
        "alter table items drop column d",
        "alter table items replica identity full",
        "vacuum full items",
    ];
    for migration in migrations {
        client.batch_execute(migration).await.unwrap_or_else(|error| panic!("{migration}: {error:?}"));
        for session in [&other, &client] {
            writes(session, "update items set list = 8", &["put s1=8 k1=1", "m s1=7 k1=1"]).await;
            writes(
                session,
                "delete from items; insert into items values (1, 7)",
                &["put s1=7 k1=1", "d s1=8 k1=1"],
            )
            .await;
        }
        // Within one transaction as well.
        let both = "begin; alter table items add z int; update items set list = 8; alter table items drop z;
                    update items set list = 7; commit";
        writes(&client, both, &["put s1=7 k1=1", "put s1=8 k1=1", "m s1=7 k1=1", "m s1=8 k1=1"]).await;
    }
}

#[tokio::test]
async fn a_rebuilt_log_serves_sessions_with_old_plans() {
    let mut client = tracked("migrate_rebuild", ITEMS, &["list"]).await;
    let other = connect("migrate_rebuild").await;
    client.batch_execute("alter table items add org int default 3").await.expect("a column");
    writes(&other, "update items set title = 'b'", &["put s1=7 k1=1"]).await;
    assert_eq!(track(&mut client, "items", &["org"]).await, Ok(Outcome::Changed));
    writes(&other, "update items set title = 'c'", &["put s1=7 s2=3 k1=1"]).await;
    writes(&other, "update items set org = 4", &["put s1=7 s2=4 k1=1", "m s1=7 s2=3 k1=1"]).await;
}

#[tokio::test]
async fn a_dropped_table_leaves_logs_that_untrack_removes() {
    let mut client = tracked("migrate_drop", ITEMS, &["list"]).await;
    client.batch_execute("drop table items cascade").await.expect("CASCADE insists");
    assert_eq!(one(&client, "select count(*) from lockstep.tracked").await, "1");
    let patience = Patience::default();
    assert_eq!(install::untrack(&mut client, "items", &patience).await.expect("swept"), Outcome::Removed);
    assert_eq!(one(&client, "select to_regclass('lockstep.changes_1')").await, "");
    // A table of the same name is another table, with another log.
    client.batch_execute(ITEMS).await.expect("again");
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Created));
    assert_eq!(one(&client, "select log from lockstep.tracked").await, "2");
}

#[tokio::test]
async fn a_scope_column_dropped_by_force_never_widens_the_scope() {
    let mut client = tracked("migrate_force", ITEMS, &["list"]).await;
    let other = connect("migrate_force").await;
    writes(&other, "update items set title = 'b'", &["put s1=7 k1=1"]).await;
    client.batch_execute("alter table items drop column list cascade").await.expect("CASCADE insists");
    // The application goes on, in sessions with and without cached plans; nothing is logged any more.
    for session in [&other, &client] {
        let all =
            "insert into items values (2); update items set title = 'c'; delete from items where id = 2";
        writes(session, all, &[]).await;
        session.batch_execute("begin; truncate items; rollback").await.expect("truncated");
    }
    assert_eq!(track(&mut client, "items", &[]).await, Err("scope_column_gone"));
}

#[tokio::test]
async fn a_new_primary_key_needs_a_new_track() {
    let mut client = tracked("migrate_key", ITEMS, &["list"]).await;
    let rekey = "alter table items drop constraint items_pkey; alter table items add primary key (list, id)";
    client.batch_execute(rekey).await.expect("another key");
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Changed));
    writes(&client, "update items set title = 'b'", &["put s1=7 k1=7 k2=1"]).await;
}

#[tokio::test]
async fn weird_names_and_types() {
    let table = "\"Wei\"\"rd. schema\".\"T é {n} %I $lockstep$ 'x' \\ select\"";
    let sql = format!(
        "create schema \"Wei\"\"rd. schema\"; create type \"Wei\"\"rd. schema\".\"Mood.\" as enum ('so so', 'ok');
         create domain positive as int not null check (value > 0);
         create table {table} (\"select\" positive, \"a.b\" \"Wei\"\"rd. schema\".\"Mood.\", \"{{table}}\" varchar(9) collate \"C\",
           \"名前\" date, \"r\" int8, s1 int2, \"k1;--\n\" uuid, primary key (\"select\", \"a.b\", \"{{table}}\"));"
    );
    let mut client = installed("migrate_weird", &sql).await;
    let scopes =
        [vec!["名前".to_owned(), "\"k1;--\n\"".to_owned()], vec!["R".to_owned()], vec!["s1".to_owned()]];
    let mut wanted = request(table, &[]);
    wanted.scopes = scopes.to_vec();
    let outcome = install::track(&mut client, &wanted, &Patience::default()).await.expect("tracked");
    assert_eq!(outcome, Outcome::Created);
    let insert = format!("insert into {table} values (1, 'so so', 'x', '2024-02-29', 5, 6, null)");
    let row = "s1=2024-02-29 s2=- s3=5 s4=6 k1=1 k2=so so k3=x";
    writes(&client, &insert, &[&format!("put {row}")]).await;
    let truncated = "t s1=- s2=- s3=- s4=- k1=- k2=- k3=-";
    let rest = format!("delete from {table}; truncate {table}");
    writes(&client, &rest, &[&format!("d {row}"), truncated]).await;
    let collation = "select collation_name from information_schema.columns
                     where table_name = 'changes_1' and column_name = 'k3'";
    assert_eq!(one(&client, collation).await, "C");
    assert_eq!(
        install::untrack(&mut client, table, &Patience::default()).await.expect("untracked"),
        Outcome::Removed
    );
}
