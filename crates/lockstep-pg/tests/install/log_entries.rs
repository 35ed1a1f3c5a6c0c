//! Each way to write a table, and exactly what it leaves in the log.

use bytes::Bytes;
use futures_util::SinkExt as _;

use crate::harness::{cluster, entries, entries_of, one, track, tracked, writes};

const ITEMS: &str = "create table items (id int primary key, list int, title text);";

#[tokio::test]
async fn inserts() {
    let client = tracked("log_inserts", ITEMS, &["list"]).await;
    writes(&client, "insert into items values (1, 7, 'a')", &["put s1=7 k1=1"]).await;
    writes(&client, "insert into items values (2, 7), (3, null)", &["put s1=- k1=3", "put s1=7 k1=2"]).await;
    let mut copy = Box::pin(client.copy_in("copy items from stdin").await.expect("copy"));
    copy.send(Bytes::from_static(b"4\t7\tx\n5\t8\ty\n")).await.expect("rows");
    copy.close().await.expect("copied");
    assert_eq!(entries(&client).await, ["put s1=7 k1=4", "put s1=8 k1=5"]);
    // Row 1 is updated, row 6 inserted; both triggers fire.
    let upsert =
        "insert into items values (1, 9), (6, 9) on conflict (id) do update set list = excluded.list";
    writes(&client, upsert, &["put s1=9 k1=1", "put s1=9 k1=6", "m s1=7 k1=1"]).await;
    writes(&client, "insert into items values (1, 1) on conflict do nothing", &[]).await;
}

#[tokio::test]
async fn updates() {
    let client = tracked("log_updates", ITEMS, &["list"]).await;
    let rows = "insert into items values (1, 7, 'a'), (2, 8, 'b'), (3, null, 'c')";
    writes(&client, rows, &["put s1=- k1=3", "put s1=7 k1=1", "put s1=8 k1=2"]).await;
    writes(&client, "update items set title = 'z' where id in (1, 3)", &["put s1=- k1=3", "put s1=7 k1=1"])
        .await;
    writes(&client, "update items set list = 9 where id = 1", &["put s1=9 k1=1", "m s1=7 k1=1"]).await;
    writes(&client, "update items set list = null where id = 1", &["put s1=- k1=1", "m s1=9 k1=1"]).await;
    writes(&client, "update items set list = 7 where id = 1", &["put s1=7 k1=1", "m s1=- k1=1"]).await;
    writes(&client, "update items set id = 10 where id = 1", &["put s1=7 k1=10", "m s1=7 k1=1"]).await;
    writes(&client, "update items set id = 10, list = 7 where id = 10", &["put s1=7 k1=10"]).await;
}

#[tokio::test]
async fn keys_that_change_places_leave_a_tombstone_each() {
    let client = tracked("log_places", ITEMS, &["list"]).await;
    client.batch_execute("insert into items values (4, 7), (3, 7), (9, 8)").await.expect("rows");
    entries(&client).await;
    // In this order the index allows it. Key 4 is left by one row and taken by another: its tombstone only says to look.
    let shift = "update items set id = id + 1 where list = 7";
    writes(&client, shift, &["put s1=7 k1=4", "put s1=7 k1=5", "m s1=7 k1=3", "m s1=7 k1=4"]).await;
    // Two rows that exchange scopes: each old place is empty now.
    let exchange = "update items set list = 15 - list where id in (4, 9)";
    writes(&client, exchange, &["put s1=7 k1=9", "put s1=8 k1=4", "m s1=7 k1=4", "m s1=8 k1=9"]).await;
}

#[tokio::test]
async fn deletes_and_truncate() {
    let sql = format!("{ITEMS} create table notes (item int references items on delete cascade);");
    let client = tracked("log_deletes", &sql, &["list"]).await;
    let rows = "insert into items values (1, 7), (2, 8), (3, null)";
    writes(&client, rows, &["put s1=- k1=3", "put s1=7 k1=1", "put s1=8 k1=2"]).await;
    writes(&client, "delete from items where id > 1", &["d s1=- k1=3", "d s1=8 k1=2"]).await;
    writes(&client, "delete from items where id > 1", &[]).await;
    let again = "begin; delete from items where id = 1; insert into items values (1, 7); commit";
    writes(&client, again, &["put s1=7 k1=1", "d s1=7 k1=1"]).await;
    writes(&client, "truncate items cascade", &["t s1=- k1=-"]).await;
}

#[tokio::test]
async fn foreign_keys_write_too() {
    let sql = "create table lists (id int primary key);
        create table orgs (id int primary key);
        create table items (id int primary key,
          list int references lists on delete set null on update cascade,
          org int references orgs on delete cascade,
          parent int references items on delete cascade);
        insert into lists values (1), (2); insert into orgs values (1);
        insert into items values (1, 1, 1, null), (2, 1, null, 1), (3, 2, null, 2);";
    let client = tracked("log_foreign_keys", sql, &["list"]).await;
    let renumber = "update lists set id = 5 where id = 1";
    writes(&client, renumber, &["put s1=5 k1=1", "put s1=5 k1=2", "m s1=1 k1=1", "m s1=1 k1=2"]).await;
    let set_null = "delete from lists where id = 5";
    writes(&client, set_null, &["put s1=- k1=1", "put s1=- k1=2", "m s1=5 k1=1", "m s1=5 k1=2"]).await;
    writes(&client, "delete from orgs", &["d s1=- k1=1", "d s1=- k1=2", "d s1=2 k1=3"]).await;
}

#[tokio::test]
async fn a_row_that_one_statement_updates_twice_leaves_both_places() {
    // Both references of an item point at the same list: one DELETE updates the row twice.
    let sql = "create table lists (id int primary key);
        create table items (id int primary key,
          list int references lists on delete set null, second int references lists on delete set null);
        insert into lists values (1); insert into items values (1, 1, 1);";
    let client = tracked("log_twice", sql, &["list,second"]).await;
    client.batch_execute("delete from lists").await.expect("the list is gone");
    let all = entries(&client).await;
    let tombstones: Vec<_> = all.iter().filter(|entry| entry.starts_with("m ")).collect();
    assert_eq!(tombstones.len(), 2, "{all:?}");
    assert!(tombstones.contains(&&"m s1=1 s2=1 k1=1".to_owned()), "{all:?}");
    assert!(all.contains(&"put s1=- s2=- k1=1".to_owned()), "{all:?}");
}

#[tokio::test]
async fn savepoints_and_the_transaction_id() {
    let client = tracked("log_savepoints", ITEMS, &["list"]).await;
    let sql = "begin; insert into items values (1, 7); savepoint a; insert into items values (2, 7);
               rollback to a; savepoint b; insert into items values (3, 7); release b; commit";
    client.batch_execute(sql).await.expect("committed");
    // The id of the top-level transaction, also within savepoints.
    assert_eq!(one(&client, "select count(distinct xid) from lockstep.changes_1").await, "1");
    assert_eq!(entries(&client).await, ["put s1=7 k1=1", "put s1=7 k1=3"]);
    client.batch_execute("begin; delete from items; update items set list = 1").await.expect("writes");
    let same = "select bool_and(xid = pg_current_xact_id()::text::bigint) from lockstep.tombstones_1";
    assert_eq!(one(&client, same).await, "true");
    client.batch_execute("rollback").await.expect("rolled back");
    assert!(entries(&client).await.is_empty());
}

#[tokio::test]
async fn a_statement_without_rows_assigns_no_transaction_id() {
    let client = tracked("log_no_rows", ITEMS, &["list"]).await;
    client.batch_execute("begin; update items set list = 1; delete from items").await.expect("no rows");
    assert_eq!(one(&client, "select pg_current_xact_id_if_assigned()").await, "");
}

#[tokio::test]
async fn replica_role_writes_too() {
    let client = tracked("log_replica", ITEMS, &["list"]).await;
    client.batch_execute("set session_replication_role = replica").await.expect("the role");
    writes(&client, "insert into items values (1, 7)", &["put s1=7 k1=1"]).await;
    writes(&client, "update items set list = 8", &["put s1=8 k1=1", "m s1=7 k1=1"]).await;
    writes(&client, "truncate items", &["t s1=- k1=-"]).await;
}

#[tokio::test]
async fn several_scopes_share_columns() {
    let sql = "create table items (a text, b uuid, org int, list int, primary key (b, a));
               create table open (id bool primary key);";
    let mut client = tracked("log_scopes", sql, &["list,org", "org"]).await;
    let id = "5b3c0000-0000-0000-0000-000000000001";
    let put = format!("put s1=2 s2=1 k1={id} k2=x");
    writes(&client, &format!("insert into items values ('x', '{id}', 1, 2)"), &[&put]).await;
    let (put, tombstone) = (format!("put s1=3 s2=1 k1={id} k2=x"), format!("m s1=2 s2=1 k1={id} k2=x"));
    writes(&client, "update items set list = 3", &[&put, &tombstone]).await;
    let indexes =
        "select string_agg(pg_get_indexdef(indexrelid, 0, true), '; ' order by indexrelid) from pg_index
                   where indrelid = 'lockstep.changes_1'::regclass and not indisprimary";
    let indexes = one(&client, indexes).await;
    assert!(indexes.contains("(s1, s2, xid)") && indexes.contains("(s2, xid)"), "{indexes}");
    track(&mut client, "open", &[]).await.expect("public");
    client.batch_execute("insert into open values (true)").await.expect("a row");
    assert_eq!(entries_of(&client, 2).await, ["put k1=true"]);
}

/// The statement names neither key nor scope, and the row moves all the same.
#[tokio::test]
async fn a_trigger_of_the_application_moves_a_row() {
    let sql = format!(
        "{ITEMS} insert into items values (1, 7, 'a'), (2, 7, 'b');
         create function move() returns trigger language plpgsql as 'begin new.list := 8; return new; end';
         create trigger zzz before update on items for each row when (new.title = 'z') execute function move();"
    );
    let client = tracked("log_before", &sql, &["list"]).await;
    writes(&client, "update items set title = 'y'", &["put s1=7 k1=1", "put s1=7 k1=2"]).await;
    let update = "update items set title = 'z' where id = 1";
    writes(&client, update, &["put s1=8 k1=1", "m s1=7 k1=1"]).await;
}

#[tokio::test]
async fn merge() {
    if cluster().major() < 15 {
        return;
    }
    let client = tracked("log_merge", ITEMS, &["list"]).await;
    client.batch_execute("insert into items values (1, 7), (2, 7)").await.expect("rows");
    entries(&client).await;
    let sql = "merge into items i using (values (1, 8), (2, 0), (3, 9)) v (id, list) on i.id = v.id
        when matched and v.list = 0 then delete when matched then update set list = v.list
        when not matched then insert (id, list) values (v.id, v.list)";
    writes(&client, sql, &["put s1=8 k1=1", "put s1=9 k1=3", "d s1=7 k1=2", "m s1=7 k1=1"]).await;
}
