//! What each command does, does not do twice, and leaves behind.

use std::process::Command;

use lockstep_pg::install::{self, InstallOptions, Outcome, Patience};
use tokio_postgres::Client;

use crate::harness::{catalog, cluster, connect, empty, installed, one, request, track, tracked, writes};

const ITEMS: &str = "create table items (id int primary key, list int, org int, title text);
    create table other (id text primary key);";

/// What the product reads: the rows of our tables, without what differs from one installation to the next.
async fn state(client: &Client) -> String {
    one(
        client,
        "select jsonb_build_object(
           'tracked', (select jsonb_agg(to_jsonb(t) - '{tracked_at,horizon,generation,compacted,triggers}'::text[] order by log) from lockstep.tracked t),
           'scopes', (select jsonb_agg(to_jsonb(s) order by log, scope) from lockstep.scopes s))",
    )
    .await
}

async fn horizon(client: &Client) -> i64 {
    one(client, "select horizon from lockstep.tracked where log = 1").await.parse().expect("a number")
}

#[tokio::test]
async fn install_twice() {
    let mut client = empty("commands_install").await;
    let options = InstallOptions::default();
    assert_eq!(install::install(&mut client, &options).await.expect("installs"), Outcome::Created);
    let (before, id) = (catalog(&client).await, one(&client, "select id from lockstep.installation").await);
    assert_eq!(install::install(&mut client, &options).await.expect("again"), Outcome::Unchanged);
    assert_eq!(
        (catalog(&client).await, one(&client, "select id from lockstep.installation").await),
        (before, id)
    );
    let members =
        "select string_agg(concat_ws(' ', p.pubname, r.prrelid::regclass, p.pubinsert, p.pubdelete), '; '
        order by p.pubname) from pg_publication p left join pg_publication_rel r on r.prpubid = p.oid";
    let expected = "lockstep_tables lockstep.clients t t; lockstep_tombstones t f";
    assert_eq!(one(&client, members).await, expected);
    client.batch_execute("drop publication lockstep_tables").await.expect("dropped");
    assert_eq!(install::install(&mut client, &options).await.expect("repairs"), Outcome::Changed);
    assert_eq!(one(&client, members).await, expected);
}

#[tokio::test]
async fn two_installs_and_two_tracks_at_once() {
    let mut first = empty("commands_at_once").await;
    let mut second = connect("commands_at_once").await;
    let options = InstallOptions::default();
    let (a, b) =
        tokio::join!(install::install(&mut first, &options), install::install(&mut second, &options));
    let mut outcomes = [a.expect("one"), b.expect("two")];
    outcomes.sort_by_key(|outcome| *outcome == Outcome::Unchanged);
    assert_eq!(outcomes, [Outcome::Created, Outcome::Unchanged]);
    first.batch_execute(ITEMS).await.expect("tables");
    let (a, b) = tokio::join!(track(&mut first, "items", &["list"]), track(&mut second, "other", &[]));
    assert_eq!((a, b), (Ok(Outcome::Created), Ok(Outcome::Created)));
    let (a, b) = tokio::join!(track(&mut first, "items", &["org"]), track(&mut second, "items", &["org"]));
    let outcomes = [a, b];
    assert!(
        outcomes.contains(&Ok(Outcome::Changed)) && outcomes.contains(&Ok(Outcome::Unchanged)),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn scopes_are_added_and_raise_the_horizon() {
    let mut client = tracked("commands_scopes", ITEMS, &["list,org"]).await;
    assert!(horizon(&client).await > 0);
    let (before, low) = (state(&client).await, horizon(&client).await);
    // The same columns in another order are the same scope.
    for same in [&["list,org"][..], &["org,list"], &["list,org", "org,list,org"], &[]] {
        assert_eq!(track(&mut client, "items", same).await, Ok(Outcome::Unchanged), "{same:?}");
    }
    assert_eq!((state(&client).await, horizon(&client).await), (before, low));
    assert_eq!(track(&mut client, "items", &["org"]).await, Ok(Outcome::Changed));
    assert_eq!(
        state(&client).await,
        format!(
            "{{\"scopes\": [{{\"log\": 1, \"scope\": 1, \"attnums\": [2, 3]}}, {{\"log\": 1, \"scope\": 2, \"attnums\": \
             [3]}}], \"tracked\": [{{\"log\": 1, \"relation\": \"{}\", \"key_attnums\": [1], \"scope_attnums\": [2, 3]}}]}}",
            one(&client, "select 'items'::regclass::oid").await
        )
    );
    assert!(horizon(&client).await > low);
    writes(&client, "insert into items values (1, 2, 3)", &["put s1=2 s2=3 k1=1"]).await;
    // The horizon is one past the transaction that tracked.
    let mut fresh = installed("commands_horizon", ITEMS).await;
    let next: i64 = one(&fresh, "select pg_current_xact_id()").await.parse().expect("a number");
    track(&mut fresh, "items", &["list"]).await.expect("tracked");
    let raised = horizon(&fresh).await;
    let newest: i64 =
        one(&fresh, "select pg_snapshot_xmax(pg_current_snapshot())").await.parse().expect("a number");
    assert!(next + 1 < raised && raised <= newest, "{next} {raised} {newest}");
}

#[tokio::test]
async fn what_somebody_broke_is_made_whole() {
    let mut client = tracked("commands_repair", ITEMS, &["list"]).await;
    let expected = catalog(&client).await;
    let breakages = [
        "alter table items disable trigger all; alter table items enable trigger all",
        "drop trigger lockstep_update on items",
        "drop function lockstep.key_1",
        "alter publication lockstep_tables drop table items",
        "alter publication lockstep_tombstones drop table lockstep.tombstones_1",
        "drop table lockstep.changes_1",
    ];
    for breakage in breakages {
        let low = horizon(&client).await;
        client.batch_execute(breakage).await.expect(breakage);
        assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Changed), "{breakage}");
        assert!(horizon(&client).await > low, "{breakage}");
        assert_eq!(catalog(&client).await, expected, "{breakage}");
        let sql = "insert into items values (1, 7); delete from items";
        writes(&client, sql, &["put s1=7 k1=1", "d s1=7 k1=1"]).await;
    }
}

#[tokio::test]
async fn untrack_twice() {
    let mut client = installed("commands_untrack", ITEMS).await;
    let before = catalog(&client).await;
    track(&mut client, "items", &["list"]).await.expect("tracked");
    let patience = Patience::default();
    for outcome in [Outcome::Removed, Outcome::Unchanged] {
        assert_eq!(install::untrack(&mut client, "items", &patience).await.expect("untracked"), outcome);
        assert_eq!(catalog(&client).await, before);
        assert_eq!(one(&client, "select count(*) from lockstep.tracked").await, "0");
    }
    let missing = install::untrack(&mut client, "missing", &patience).await;
    assert_eq!(missing.expect_err("no such table").code(), "no_such_table");
}

/// `pg_dump`'s text, where this distribution of PostgreSQL has it. Newer releases print a random key per run.
fn dump(database: &str) -> Option<String> {
    let program = cluster().bin_dir().join("pg_dump");
    let output = Command::new(program).arg(cluster().url_for(database)).output().ok()?;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(
        text.lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .collect(),
    )
}

#[tokio::test]
async fn uninstall_leaves_nothing() {
    let database = "commands_uninstall";
    let mut client = empty(database).await;
    client.batch_execute(ITEMS).await.expect("tables");
    client.batch_execute("create table dropped (id int primary key)").await.expect("a table");
    client.batch_execute("drop table dropped").await.expect("its oid is used");
    let (listing, text) = (catalog(&client).await, dump(database));
    install::install(&mut client, &InstallOptions::default()).await.expect("installed");
    client.batch_execute("create table dropped (id int primary key)").await.expect("a table");
    for (table, scopes) in [("items", &["list", "org"][..]), ("other", &[]), ("dropped", &[])] {
        track(&mut client, table, scopes).await.expect("tracked");
    }
    client.batch_execute("insert into items values (1, 2, 3); delete from items").await.expect("written");
    client.batch_execute("drop table dropped cascade").await.expect("dropped");
    assert_ne!(catalog(&client).await, listing);
    let patience = Patience::default();
    assert_eq!(install::uninstall(&mut client, &patience).await.expect("uninstalled"), Outcome::Removed);
    assert_eq!(catalog(&client).await, listing);
    assert_eq!(dump(database), text);
    assert_eq!(install::uninstall(&mut client, &patience).await.expect("again"), Outcome::Unchanged);
}

#[tokio::test]
async fn uninstall_does_not_drop_what_others_built_on_it() {
    let mut client =
        installed("commands_others", "create view mine as select * from lockstep.mutations").await;
    let refused =
        install::uninstall(&mut client, &Patience::default()).await.expect_err("a view depends on it");
    assert!(refused.to_string().contains("view mine depends on table lockstep.mutations"), "{refused}");
}

#[tokio::test]
async fn what_is_printed_is_what_runs() {
    let mut by_command = installed("commands_by_command", ITEMS).await;
    let mut by_hand = empty("commands_by_hand").await;
    by_hand.batch_execute(&install::install_sql(&InstallOptions::default())).await.expect("install_sql runs");
    by_hand.batch_execute(ITEMS).await.expect("tables");
    let empty_listing = catalog(&by_hand).await;
    assert_eq!(catalog(&by_command).await, empty_listing);
    for (table, scopes) in [("other", &[][..]), ("items", &["list,org"]), ("items", &["org"])] {
        let script = install::track_sql(&mut by_hand, &request(table, scopes)).await.expect("a script");
        by_hand.batch_execute(&script).await.expect(&script);
        track(&mut by_command, table, scopes).await.expect("tracked");
        let functions = "select string_agg(pg_get_functiondef(oid), ';' order by proname) from pg_proc
                         where pronamespace = 'lockstep'::regnamespace";
        assert_eq!(one(&by_hand, functions).await, one(&by_command, functions).await);
        assert_eq!(catalog(&by_hand).await, catalog(&by_command).await);
    }
    let nothing = install::track_sql(&mut by_hand, &request("items", &["org"])).await.expect("nothing to do");
    assert_eq!(nothing, "");
    let untrack = install::untrack_sql(&mut by_hand, "other").await.expect("a script");
    by_hand.batch_execute(&untrack).await.expect(&untrack);
    install::untrack(&mut by_command, "other", &Patience::default()).await.expect("untracked");
    assert_eq!(catalog(&by_hand).await, catalog(&by_command).await);
    let uninstall = install::uninstall_sql(&mut by_hand).await.expect("a script");
    by_hand.batch_execute(&uninstall).await.expect(&uninstall);
    install::uninstall(&mut by_command, &Patience::default()).await.expect("uninstalled");
    assert_eq!(catalog(&by_hand).await, catalog(&by_command).await);
    assert_eq!(one(&by_hand, "select to_regnamespace('lockstep')").await, "");
}

#[tokio::test]
async fn an_ordinary_owner_needs_no_superuser() {
    let mut client = empty("commands_owner").await;
    let owner = "drop role if exists owner_plain; create role owner_plain;
        grant create on database commands_owner to owner_plain; create schema app authorization owner_plain;
        create table public.not_theirs (id int primary key); set role owner_plain; set search_path = app";
    client.batch_execute(owner).await.expect("a role");
    client.batch_execute(ITEMS).await.expect("its tables");
    let before = catalog(&client).await;
    install::install(&mut client, &InstallOptions::default()).await.expect("installed");
    assert_eq!(track(&mut client, "items", &["list"]).await, Ok(Outcome::Created));
    writes(&client, "insert into items values (1, 7)", &["put s1=7 k1=1"]).await;
    let denied = install::track(&mut client, &request("public.not_theirs", &[]), &Patience::default()).await;
    let sentence = denied.expect_err("somebody else's table").to_string();
    assert!(sentence.contains("permission denied for table not_theirs [42501]"), "{sentence}");
    install::uninstall(&mut client, &Patience::default()).await.expect("uninstalled");
    assert_eq!(catalog(&client).await, before);
}

/// The event trigger is there for a superuser's installation, and no statement of the application fails by it.
#[tokio::test]
async fn the_event_trigger_never_fails_an_application() {
    let mut client = tracked("commands_event", ITEMS, &["list"]).await;
    let enabled = "select string_agg(evtname || evtenabled::text, ',') from pg_event_trigger";
    assert_eq!(one(&client, enabled).await, "lockstep_schemaA");
    let role = "create role event_plain; grant create on database commands_event to event_plain;
        create schema app authorization event_plain";
    client.batch_execute(role).await.expect("a role");
    let position = "select pg_current_wal_insert_lsn()";
    for session in ["set role event_plain", "reset role", "set session_replication_role = replica"] {
        client.batch_execute(session).await.expect(session);
        let before = one(&client, position).await;
        let ddl = "create table app.t (id int primary key); alter table app.t add a int; drop table app.t;
            set default_transaction_read_only = on; reset default_transaction_read_only;
            begin; create type app.mood as enum ('a'); alter type app.mood rename value 'a' to 'b'; rollback;
            create temp table t (id int); drop table t";
        client.batch_execute(ddl).await.unwrap_or_else(|e| panic!("{session}: {e:?}"));
        assert_ne!(one(&client, position).await, before);
        client.batch_execute("reset role; reset session_replication_role").await.expect("reset");
    }
    // Somebody dropped it: `install` brings it back.
    client.batch_execute("drop event trigger lockstep_schema").await.expect("dropped");
    let again = install::install(&mut client, &InstallOptions::default()).await;
    assert_eq!(again.expect("installed"), Outcome::Changed);
    assert_eq!(one(&client, enabled).await, "lockstep_schemaA");
}
