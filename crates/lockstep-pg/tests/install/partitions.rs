//! Tables that take row triggers: partitioned ones, and those that logical replication writes into.

use lockstep_pg::install::{self, Outcome, Patience, TriggerKind};
use lockstep_pg::{catalog, gc};
use serde_json::json;
use tokio_postgres::Client;

use crate::harness::{
    catalog as listing, cluster, connect, empty, entries, fails, installed, one, track, tracked,
    tracked_and_settled, writes,
};
use crate::mirror::Mirror;

/// Two levels, a partition whose columns lie in another order, one that had a column more, and a default.
const ITEMS: &str = "create table items (id int, list int, day int, title text, primary key (id, day)) partition by range (day);
    create table items_1 partition of items for values from (0) to (10);
    create table items_2 (spare int, title text, day int not null, list int, id int not null, primary key (id, day));
    alter table items_2 drop column spare;
    alter table items attach partition items_2 for values from (10) to (20);
    create table items_3 partition of items for values from (20) to (40) partition by list (day);
    create table items_3a partition of items_3 for values in (20, 21);
    create table items_3b partition of items_3 default;
    create table items_rest partition of items default;";

async fn schema_id(client: &Client) -> String {
    let table = catalog::tables(client).await.expect("tables").remove(0);
    format!("{} {} {}", table.schema_id, table.log_id, table.storage_id)
}

#[tokio::test]
async fn every_write_of_root_and_leaf_is_logged() {
    let client = tracked("parts_writes", ITEMS, &["list"]).await;
    let rows = "insert into items values (1, 7, 1), (2, 7, 11), (3, null, 20), (4, 8, 30), (5, 8, 99)";
    let puts = [
        "put s1=- k1=3 k2=20",
        "put s1=7 k1=1 k2=1",
        "put s1=7 k1=2 k2=11",
        "put s1=8 k1=4 k2=30",
        "put s1=8 k1=5 k2=99",
    ];
    writes(&client, rows, &puts).await;
    writes(
        &client,
        "update items set title = 'x' where id in (2, 3)",
        &["put s1=- k1=3 k2=20", "put s1=7 k1=2 k2=11"],
    )
    .await;
    // On the leaves themselves.
    writes(&client, "insert into items_2 (id, day, list) values (6, 12, 9)", &["put s1=9 k1=6 k2=12"]).await;
    writes(
        &client,
        "update items_2 set list = 7 where id = 6",
        &["put s1=7 k1=6 k2=12", "m s1=9 k1=6 k2=12"],
    )
    .await;
    writes(
        &client,
        "update items_3 set list = null where id = 4",
        &["put s1=- k1=4 k2=30", "m s1=8 k1=4 k2=30"],
    )
    .await;
    writes(&client, "delete from items_2 where id = 6", &["d s1=7 k1=6 k2=12"]).await;
    writes(&client, "copy (select 1) to '/dev/null'; delete from items where id = 5", &["d s1=8 k1=5 k2=99"])
        .await;
    // From one partition to another: the key changes, for it has the partition's column.
    writes(&client, "update items set day = 12 where id = 1", &["put s1=7 k1=1 k2=12", "d s1=7 k1=1 k2=1"])
        .await;
    writes(
        &client,
        "update items set day = 2, list = 9 where id = 2",
        &["put s1=9 k1=2 k2=2", "d s1=7 k1=2 k2=11"],
    )
    .await;
    writes(
        &client,
        "insert into items values (2, 5, 2) on conflict (id, day) do update set list = excluded.list",
        &["put s1=5 k1=2 k2=2", "m s1=9 k1=2 k2=2"],
    )
    .await;
    client.batch_execute("set session_replication_role = replica").await.expect("the role");
    writes(&client, "update items set title = 'y' where id = 3", &["put s1=- k1=3 k2=20"]).await;
    if cluster().major() >= 15 {
        let merge =
            "merge into items i using (values (1, 12), (9, 21)) v (id, day) on i.id = v.id and i.day = v.day
            when matched then delete when not matched then insert (id, day) values (v.id, v.day)";
        writes(&client, merge, &["put s1=- k1=9 k2=21", "d s1=7 k1=1 k2=12"]).await;
    }
}

#[tokio::test]
async fn truncations_of_root_and_leaf() {
    let client = tracked_and_settled(
        "parts_truncate",
        &format!("{ITEMS} insert into items values (1, 7, 1), (2, 7, 11)"),
        &["list"],
    )
    .await;
    let mut away = Mirror::load(&client, "items", json!({"list": 7})).await;
    assert_eq!(away.rows.len(), 2, "rows of a partitioned table are in its partitions");
    writes(&client, "truncate items_2", &["p s1=- k1=- k2=-"]).await;
    writes(&client, "truncate items_3", &["p s1=- k1=- k2=-", "p s1=- k1=- k2=-"]).await;
    client
        .batch_execute(
            "insert into items values (3, 7, 12); truncate items_2; insert into items values (4, 7, 12)",
        )
        .await
        .expect("writes");
    assert_eq!(away.resume(&client).await.0.as_deref(), Some("truncated"));
    assert_eq!(away.rows, away.truth(&client).await);
    entries(&client).await;
    client.batch_execute("truncate items").await.expect("truncated");
    assert_eq!(entries(&client).await.last().map(String::as_str), Some("t s1=- k1=- k2=-"));
    // Two leaves truncated by transactions that overlap: the one that wrote first ends last.
    let other = connect("parts_truncate").await;
    other.batch_execute("insert into items values (1, 7, 1), (2, 7, 11)").await.expect("rows");
    other.batch_execute("begin; truncate items_1").await.expect("open");
    client.batch_execute("truncate items_2").await.expect("truncated");
    let count = "select count(*) from lockstep.tombstones_1 where kind = 'p'";
    assert_eq!(one(&client, count).await, "1");
    let between = one(&client, "select pg_current_snapshot()").await;
    other.batch_execute("commit").await.expect("committed");
    gc::run(&client, &gc::GcOptions::default()).await.expect("collected");
    away.head.snapshot = between.parse().expect("a snapshot");
    assert_eq!(away.resume(&client).await.0.as_deref(), Some("truncated"));
}

/// Attach, detach, drop: the table loads anew. A new partition has the row triggers; TRUNCATE of it shows by its
/// storage until `track` is run again.
#[tokio::test]
async fn partitions_come_and_go() {
    let mut client = tracked("parts_change", ITEMS, &["list"]).await;
    let mut before = schema_id(&client).await;
    client.batch_execute("insert into items values (1, 7, 1)").await.expect("a row");
    assert_eq!(schema_id(&client).await, before);
    entries(&client).await;
    let ddl = [
        "create table items_4 partition of items for values from (50) to (60)",
        "create table new_5 (id int, list int, day int, title text, primary key (id, day)); insert into new_5 values (5, 7, 65);
         alter table items attach partition new_5 for values from (60) to (70)",
        "alter table items detach partition items_1",
        "drop table items_3a",
    ];
    for ddl in ddl {
        client.batch_execute(ddl).await.expect(ddl);
        let after = schema_id(&client).await;
        assert_ne!(after, before, "{ddl}");
        before = after;
    }
    writes(&client, "insert into items values (6, 7, 51)", &["put s1=7 k1=6 k2=51"]).await;
    writes(&client, "update new_5 set list = 8", &["put s1=8 k1=5 k2=65", "m s1=7 k1=5 k2=65"]).await;
    client.batch_execute("truncate items_4").await.expect("truncated");
    assert!(entries(&client).await.is_empty());
    assert_ne!(
        schema_id(&client).await,
        before,
        "a partition without a trigger for TRUNCATE has other storage"
    );
    assert_eq!(track(&mut client, "items", &[]).await, Ok(Outcome::Changed));
    assert_eq!(track(&mut client, "items", &[]).await, Ok(Outcome::Unchanged));
    writes(
        &client,
        "insert into items values (6, 7, 51); truncate items_4",
        &["put s1=7 k1=6 k2=51", "p s1=- k1=- k2=-"],
    )
    .await;
    before = schema_id(&client).await;
    client.batch_execute("truncate items_4").await.expect("truncated");
    assert_ne!(schema_id(&client).await, before, "this one is logged, and has other storage as well");
    entries(&client).await;
    // What was detached writes no log, and its own trigger goes with `uninstall`.
    writes(&client, "insert into items_1 values (7, 7, 2)", &[]).await;
    client.batch_execute("alter table items_2 disable trigger lockstep_update").await.expect("disabled");
    assert_eq!(track(&mut client, "items", &[]).await, Ok(Outcome::Changed));
    writes(
        &client,
        "insert into items values (8, 7, 11); update items set title = 'x' where id = 8",
        &["put s1=7 k1=8 k2=11", "put s1=7 k1=8 k2=11"],
    )
    .await;
}

/// What goes past the log would be missed by whoever comes back: a table is followed only with all its triggers, on its
/// partitions as well. "enable trigger all" leaves them as ORIGIN, which sessions of the application fire.
/// Whatever commits while the catalog is read, it is read as of its snapshot: a table that was followed is, and as it was.
#[tokio::test]
async fn the_catalog_is_that_of_its_snapshot() {
    let mut client = tracked("parts_snapshot", ITEMS, &["list"]).await;
    let reader = connect("parts_snapshot").await;
    let ddl = [
        "create table items_4 partition of items for values from (50) to (60)",
        "create table new_5 (id int, list int, day int, title text, primary key (id, day));
         alter table items attach partition new_5 for values from (60) to (70)",
        "alter table items detach partition items_1",
        "drop table items_3a",
        "lockstep track",
    ];
    for ddl in ddl {
        reader.batch_execute("begin isolation level repeatable read; select").await.expect("a snapshot");
        let before = format!("{:?}", catalog::tables(&reader).await.expect("tables"));
        if ddl == "lockstep track" {
            assert_eq!(track(&mut client, "items", &["day"]).await, Ok(Outcome::Changed));
        } else {
            client.batch_execute(ddl).await.expect(ddl);
        }
        let then = format!("{:?}", catalog::tables(&reader).await.expect("tables"));
        assert_eq!(then, before, "{ddl}");
        reader.batch_execute("commit").await.expect("the end");
        let after = catalog::tables(&reader).await.expect("tables");
        assert_eq!(after.len(), 1, "{ddl}");
        assert_ne!(format!("{after:?}"), before, "{ddl}");
    }
}

#[tokio::test]
async fn a_table_with_a_trigger_disabled_is_not_followed() {
    let mut client = tracked("parts_disabled", ITEMS, &["list"]).await;
    client.batch_execute("create table notes (id int primary key)").await.expect("another table");
    track(&mut client, "notes", &[]).await.expect("tracked");
    let followed = async |client: &Client| catalog::tables(client).await.expect("tables").len();
    for trigger in ["insert", "update", "move", "delete", "truncate"] {
        for state in ["disable", "enable replica"] {
            let sql = format!("alter table notes {state} trigger lockstep_{trigger}");
            client.batch_execute(&sql).await.expect(&sql);
            assert_eq!(followed(&client).await, 1, "{sql}");
            client.batch_execute("alter table notes enable trigger all").await.expect("enabled");
            assert_eq!(followed(&client).await, 2, "{trigger}");
        }
        let sql = format!("drop trigger lockstep_{trigger} on notes");
        client.batch_execute(&sql).await.expect(&sql);
        assert_eq!(followed(&client).await, 1, "{sql}");
        assert_eq!(track(&mut client, "notes", &[]).await, Ok(Outcome::Changed));
        assert_eq!(followed(&client).await, 2, "{sql}");
    }
    client
        .batch_execute("alter table items_3b disable trigger lockstep_move")
        .await
        .expect("of one partition");
    assert_eq!(followed(&client).await, 1);
    client.batch_execute("alter table items_3b enable trigger lockstep_move").await.expect("enabled");
    // A partition that comes later has clones; what lacks the trigger for TRUNCATE shows in its storage.
    client
        .batch_execute("create table items_5 partition of items for values from (50) to (60)")
        .await
        .expect("later");
    assert_eq!(followed(&client).await, 2);
}

#[tokio::test]
async fn it_is_followed_by_its_own_name_and_leaves_nothing() {
    let mut client = empty("parts_leave").await;
    client.batch_execute(ITEMS).await.expect("tables");
    let before = listing(&client).await;
    install::install(&mut client, &install::InstallOptions::default()).await.expect("installed");
    assert_eq!(track(&mut client, "items_3a", &[]).await, Err("partition"));
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Created));
    let kind = install::tracked_as(&mut client, "items").await.expect("tracked");
    assert_eq!(kind, Some((TriggerKind::Row, 5)));
    let via = "select pubviaroot from pg_publication where pubname = 'lockstep_tables'";
    assert_eq!(one(&client, via).await, "true");
    client
        .batch_execute("alter publication lockstep_tables set (publish_via_partition_root = false)")
        .await
        .expect("broken");
    let repaired = install::install(&mut client, &install::InstallOptions::default()).await;
    assert_eq!(repaired.expect("repaired"), Outcome::Changed);
    assert_eq!(one(&client, via).await, "true");
    for (migration, code) in [
        ("alter table items drop column list", "2BP01"),
        ("alter table items alter column list type text", "0A000"),
    ] {
        assert_eq!(fails(&client, migration).await, code);
    }
    client
        .batch_execute(
            "alter table items rename list to lane; alter table items add column more int default 1;
        insert into items values (1, 7, 11)",
        )
        .await
        .expect("migrated");
    assert_eq!(entries(&client).await, ["put s1=7 k1=1 k2=11"]);
    client
        .batch_execute("alter table items rename lane to list; alter table items drop column more")
        .await
        .expect("back");
    let patience = Patience::default();
    assert_eq!(install::untrack(&mut client, "items", &patience).await.expect("untracked"), Outcome::Removed);
    assert_eq!(one(&client, "select count(*) from pg_trigger where tgname like 'lockstep%'").await, "0");
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Created));
    client.batch_execute("alter table items detach partition items_2; alter table items attach partition items_2 for values from (10) to (20)")
        .await.expect("detached and back");
    install::uninstall(&mut client, &patience).await.expect("uninstalled");
    assert_eq!(listing(&client).await, before);
}

/// The apply worker of a subscription, in the same cluster.
#[tokio::test]
async fn what_logical_replication_writes_is_logged() {
    let table = "create table items (id int primary key, list int, title text)";
    let source = empty("parts_source").await;
    let sql = format!("{table}; insert into items values (1, 7); create publication theirs for table items;");
    source.batch_execute(&sql).await.expect("a source");
    source
        .batch_execute("select pg_create_logical_replication_slot('parts_theirs', 'pgoutput')")
        .await
        .expect("a slot");
    let mut client = installed("parts_applied", table).await;
    let subscribe = format!(
        "create subscription theirs connection '{}' publication theirs
         with (create_slot = false, slot_name = 'parts_theirs', copy_data = false)",
        cluster().url_for("parts_source")
    );
    // Tracked as an ordinary table, it is noticed when `track` is run again.
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Created));
    client.batch_execute(&subscribe).await.expect("subscribed");
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Changed));
    let kind = install::tracked_as(&mut client, "items").await.expect("tracked");
    assert_eq!(kind, Some((TriggerKind::Row, 0)));
    let sql = "insert into items values (2, 7), (3, 8); update items set list = 9 where id = 3; delete from items where id = 2;
        insert into items values (4, 9); update items set id = 5 where id = 4";
    source.batch_execute(sql).await.expect("writes");
    let expected = [
        "put s1=7 k1=2",
        "put s1=8 k1=3",
        "put s1=9 k1=3",
        "put s1=9 k1=4",
        "put s1=9 k1=5",
        "d s1=7 k1=2",
        "m s1=8 k1=3",
        "m s1=9 k1=4",
    ];
    let count =
        "select (select count(*) from lockstep.changes_1) + (select count(*) from lockstep.tombstones_1)";
    while one(&client, count).await != expected.len().to_string() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(entries(&client).await, expected);
    source.batch_execute("truncate items").await.expect("truncated");
    while one(&client, count).await != "1" {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(entries(&client).await, ["t s1=- k1=-"]);
    // Sessions of the application beside it.
    writes(
        &client,
        "insert into items values (9, 7); update items set list = 8",
        &["put s1=7 k1=9", "put s1=8 k1=9", "m s1=7 k1=9"],
    )
    .await;
    client
        .batch_execute("alter subscription theirs disable; alter subscription theirs set (slot_name = none)")
        .await
        .expect("off");
    client.batch_execute("drop subscription theirs").await.expect("dropped");
}
