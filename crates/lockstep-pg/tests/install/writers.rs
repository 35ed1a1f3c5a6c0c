//! The application's sessions: they need no rights of ours and never fail because of us.

use crate::harness::{connect, entries, entries_of, fails, one, track, tracked, writes};

const ITEMS: &str = "create table items (id int primary key, list int, title text);
    insert into items select i, 1 from generate_series(1, 4) i;";

#[tokio::test]
async fn a_role_without_rights_on_our_schema_writes() {
    let sql = format!(
        "{ITEMS} drop role if exists writer_plain; create role writer_plain;
         grant all on items to writer_plain;"
    );
    let client = tracked("writers_rights", &sql, &["list"]).await;
    let policy = "alter table items enable row level security;
         create policy all_of_it on items to writer_plain using (true);";
    client.batch_execute(policy).await.expect("a policy");
    client.batch_execute("set role writer_plain").await.expect("the role");
    for denied in ["select 1 from lockstep.changes_1", "select lockstep.key_1(items) from items"] {
        assert_eq!(fails(&client, denied).await, "42501", "{denied}");
    }
    let all = "insert into items values (10, 7); update items set list = 8 where id = 10;
               delete from items where id = 10; truncate items";
    client.batch_execute(all).await.expect("the role may write");
    client.batch_execute("reset role").await.expect("back");
    let expected = ["put s1=7 k1=10", "put s1=8 k1=10", "d s1=8 k1=10", "m s1=7 k1=10", "t s1=- k1=-"];
    assert_eq!(entries(&client).await, expected);
}

/// The functions run with their owner's rights and the path of whoever writes: nothing in them may be looked up there.
#[tokio::test]
async fn a_search_path_of_the_application_changes_nothing() {
    let parts = "create table parts (id int primary key, list int, title text) partition by range (id);
        create table parts_1 partition of parts for values from (0) to (10);";
    let mut client = tracked("writers_path", &format!("{ITEMS} {parts}"), &["list"]).await;
    track(&mut client, "parts", &["list"]).await.expect("tracked");
    // Functions, operators and tables of the same names, in front of everything.
    let trap = "create schema trap;
        create table trap.new_rows (id int, list int, title text);
        create temp table old_rows (id int, list int, title text);
        create function trap.to_regproc(text) returns regproc language sql as $$ select null::regproc $$;
        create function trap.nextval(regclass) returns bigint language sql as $$ select 1::bigint $$;
        create function trap.txid_current() returns bigint language sql as $$ select 1::bigint $$;
        create function trap.never(int, int) returns bool language sql as $$ select false $$;
        create function trap.always(int, int) returns bool language sql as $$ select true $$;
        create function trap.never(text, text) returns bool language sql as $$ select false $$;
        create operator trap.= (leftarg = int, rightarg = int, function = trap.always);
        create operator trap.<> (leftarg = int, rightarg = int, function = trap.never);
        create operator trap.> (leftarg = int, rightarg = int, function = trap.never);
        create operator trap.= (leftarg = text, rightarg = text, function = trap.never);
        set search_path = trap, pg_temp, public, pg_catalog";
    client.batch_execute(trap).await.expect("the trap");
    for (log, table) in [(1, "items"), (2, "parts")] {
        let all = format!(
            "insert into public.{table} values (9, 1); update public.{table} set list = 2 where id operator(pg_catalog.=) 9;
             delete from public.{table} where id operator(pg_catalog.=) 9"
        );
        client.batch_execute(&all).await.expect("writes");
        let own = format!("select bool_and(xid operator(pg_catalog.>) 1) from lockstep.changes_{log}");
        assert_eq!(one(&client, &own).await, "true");
        let expected = ["put s1=1 k1=9", "put s1=2 k1=9", "d s1=2 k1=9", "m s1=1 k1=9"];
        client.batch_execute("set search_path = public").await.expect("to look");
        assert_eq!(entries_of(&client, log).await, expected, "{table}");
        let truncate = "set search_path = trap, pg_temp, public, pg_catalog; truncate public.parts_1; truncate public.items";
        client.batch_execute(truncate).await.expect("truncated");
        client.batch_execute("set search_path = public").await.expect("to look");
        let truncated = [["t s1=- k1=-"], ["p s1=- k1=-"]][log as usize - 1];
        assert_eq!(entries_of(&client, log).await, truncated, "{table}");
        let rest = "delete from lockstep.tombstones_1; delete from lockstep.tombstones_2;
            set search_path = trap, pg_temp, public, pg_catalog";
        client.batch_execute(rest).await.expect("the next");
    }
}

#[tokio::test]
async fn repeatable_read_and_serializable_writers_do_not_meet_in_the_log() {
    let first = tracked("writers_isolation", ITEMS, &["list"]).await;
    let second = connect("writers_isolation").await;
    for level in ["repeatable read", "serializable"] {
        // Both snapshots are taken before either writes; both write into the same scope and both commit.
        for client in [&first, &second] {
            let begin = format!("begin isolation level {level}; select pg_current_snapshot()");
            client.batch_execute(&begin).await.expect("a snapshot");
        }
        // Under SERIALIZABLE updates of one page conflict by themselves, untracked as well; inserts do not.
        let write = |id: i32| match level {
            "serializable" => format!("insert into items values ({}, 1), ({}, 1)", id + 10, id + 20),
            _ => format!(
                "update items set title = 'x' where id = {id}; delete from items where id = {}",
                id + 2
            ),
        };
        first.batch_execute(&write(1)).await.expect("the first writes");
        second.batch_execute(&write(2)).await.expect("the second writes");
        first.batch_execute("commit").await.expect("the first commits");
        second.batch_execute("commit").await.expect("the second commits");
        assert_eq!(entries(&first).await.len(), 4, "{level}");
    }
}

#[tokio::test]
async fn a_plan_made_for_one_row_serves_a_hundred_thousand() {
    let client = tracked("writers_bulk", ITEMS, &["list"]).await;
    writes(&client, "update items set list = 2 where id = 1", &["put s1=2 k1=1", "m s1=1 k1=1"]).await;
    // A plan that compared each old row with each new one would need 10^10 steps here.
    let bulk = "set statement_timeout = '60s';
        insert into items select i, i % 10 from generate_series(5, 100004) i; update items set list = list + 1 where id > 4";
    client.batch_execute(bulk).await.expect("in time");
    let count = |table: &str| format!("select count(*) from lockstep.{table}_1");
    assert_eq!(one(&client, &count("changes")).await, "200000");
    assert_eq!(one(&client, &count("tombstones")).await, "100000");
    let settings = one(&client, "select proconfig from pg_proc where oid = 'lockstep.put_1'::regproc").await;
    assert!(settings.contains("jit=off"), "{settings}");
}
