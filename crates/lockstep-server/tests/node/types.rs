//! `lockstep types` against a real catalog. What it writes here is the module that the client's type tests compile.

use crate::world::World;
use lockstep_pg::install::{self, Patience, TrackRequest};
use lockstep_pg::schema;
use lockstep_server::types::{Choices, module};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SCHEMA: &str = r#"
    drop table notes, todos, lists cascade;
    create type level as enum ('low', 'mid', 'high');
    create domain short as text check (char_length(value) < 80);
    create domain stars as int check (value between 0 and 5);
    create domain rating as stars not null default 3;
    create schema app;
    create table lists (id uuid primary key default gen_random_uuid(), name short not null, rated rating, parent uuid references lists);
    create table members (id int generated always as identity primary key, list_id uuid not null references lists,
        name text not null, born date);
    create table todos (id uuid primary key default gen_random_uuid(), list_id uuid not null references lists,
        title text not null, done bool not null default false, level level, assignee int references members,
        author int references members, position bigint not null default 0, hours numeric(10,2), weight float8,
        due timestamptz, extra jsonb, tags text[]);
    create table app."Bills of 2026" (id bigint primary key, "todo-id" uuid unique references todos, level level not null);
    create table untracked (id int primary key, list_id uuid references lists);
"#;

async fn world() -> World {
    let world = World::new().await;
    let mut client = crate::world::connect(&world.cluster.url()).await;
    for table in ["notes", "todos", "lists"] {
        install::untrack(&mut client, table, &Patience::default()).await.unwrap();
    }
    world.sql.run(SCHEMA).await;
    for table in ["lists", "members", "todos", "app.\"Bills of 2026\""] {
        let request = TrackRequest { table: table.into(), ..TrackRequest::default() };
        install::track(&mut client, &request, &Patience::default()).await.unwrap();
    }
    world
}

fn types(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command.arg("types").args(arguments).env("LOCKSTEP_DATABASE_URL", world.cluster.url()).output().unwrap()
}

/// The modules that the client's type tests compile, with the choices they are of.
const FIXTURES: [(&str, &[&str]); 2] = [
    ("schema.ts", &[]),
    (
        "schema_chosen.ts",
        &["--int8", "bigint", "--numeric", "number", "--dates", "date", "--json", "unknown"],
    ),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packages/client/test").join(name)
}

/// With `UPDATE_FIXTURES` set the fixture is written anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_module_is_the_one_that_the_clients_type_tests_compile() {
    let world = world().await;
    for (name, choices) in FIXTURES {
        let printed = types(&world, choices);
        assert!(printed.status.success(), "{printed:?}");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(fixture(name), &printed.stdout).unwrap();
        }
        let held = std::fs::read_to_string(fixture(name)).unwrap();
        assert_eq!(
            String::from_utf8(printed.stdout).unwrap(),
            held,
            "{name}: run it with UPDATE_FIXTURES=1 and look at what changed"
        );
    }
}

/// A generated column travels from PostgreSQL 18 on, if it is stored; then it can be read and not written.
#[tokio::test(flavor = "multi_thread")]
async fn a_generated_column_is_in_the_module_where_it_travels() {
    let world = world().await;
    let travels = world.cluster.major() >= 18;
    let never = if travels { ", never int generated always as (n + 1) virtual" } else { "" };
    let sql = format!(
        "create table made (id int primary key, n int, twice int generated always as (n * 2) stored{never})"
    );
    world.sql.run(&sql).await;
    let mut client = crate::world::connect(&world.cluster.url()).await;
    let request = TrackRequest { table: "made".into(), ..TrackRequest::default() };
    install::track(&mut client, &request, &Patience::default()).await.unwrap();
    let text = module(&schema::read(&world.sql.client).await.unwrap(), Choices::default());
    let (twice, fixed) =
        if travels { ("\n  readonly twice: number | null", "\"twice\"") } else { ("", "never") };
    let row = format!(
        "export interface MadeRow {{\n  readonly id: number\n  readonly n: number | null{twice}\n}}\n"
    );
    let table = format!(
        "row: MadeRow\n    input: MadeInput\n    key: \"id\"\n    required: \"id\"\n    fixed: {fixed}\n"
    );
    assert!(text.contains(&row) && text.contains(&table), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_out_of_date_fails_the_check_and_is_not_written() {
    let world = world().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schema.ts");
    let path = file.to_str().unwrap();
    let check = || types(&world, &["--check", "--out", path]);
    let missing = check();
    assert_eq!((missing.status.code(), file.exists()), (Some(1), false), "{missing:?}");
    assert!(types(&world, &["--out", path]).status.success());
    assert!(check().status.success());
    let written = std::fs::read_to_string(&file).unwrap();
    world.sql.run("alter table todos add column note text").await;
    let stale = check();
    assert_eq!(stale.status.code(), Some(1), "{stale:?}");
    let said = String::from_utf8_lossy(&stale.stderr).into_owned();
    assert!(said.contains("lockstep types --out"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    assert!(types(&world, &["--out", path]).status.success());
    assert!(check().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_changes_a_type_changes_the_module() {
    let world = world().await;
    let module = async || module(&schema::read(&world.sql.client).await.unwrap(), Choices::default());
    let mut before = module().await;
    for change in [
        "alter table todos add column note text",
        "alter table todos alter column title drop not null",
        "alter table todos alter column list_id set default gen_random_uuid()",
        "alter type level rename value 'mid' to 'middle'",
        "alter table members drop constraint members_list_id_fkey",
        "alter table todos add unique (author)",
        "alter domain rating drop not null",
    ] {
        world.sql.run(change).await;
        let after = module().await;
        assert_ne!(after, before, "{change}");
        before = after;
    }
    world.sql.run("create index on todos (title); comment on table todos is 'x'").await;
    assert_eq!(module().await, before);
}
