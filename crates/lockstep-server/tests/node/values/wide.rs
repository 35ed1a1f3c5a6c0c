//! One table with a column for every type, for its array, and for a domain over it.

use super::samples::{NEVER, TYPES};
use super::track;
use crate::world::{Sql, World};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// A column of the wide table: its type and the expression of its value in each row.
pub struct Column {
    pub name: String,
    pub type_name: String,
    pub values: Vec<String>,
}

pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A connection that prints as a node's do.
pub async fn pinned(world: &World) -> Sql {
    let sql = world.connect().await;
    for (name, value) in lockstep_pg::session::SESSION {
        sql.run(&format!("set {name} = {}", literal(value))).await;
    }
    sql
}

/// The types of this server with their samples. One built without libxml has no values of xml.
async fn types(sql: &Sql) -> Vec<(&'static str, Vec<String>)> {
    let listed: BTreeSet<String> = TYPES
        .iter()
        .map(|(t, _)| *t)
        .chain(NEVER.iter().map(|(t, _)| *t))
        .map(|t| t.replace('"', ""))
        .collect();
    let of_server = "select typname::text from pg_type where typnamespace = 'pg_catalog'::regnamespace \
                     and typtype in ('b', 'r', 'm') and not (typcategory = 'A' and typelem <> 0 and typlen = -1 \
                     and typname like '\\_%') order by oid";
    let of_server: BTreeSet<String> =
        sql.rows(of_server).await.into_iter().filter_map(|r| r[0].clone()).collect();
    assert_eq!(
        of_server.difference(&listed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "types without a sample"
    );
    assert_eq!(
        listed.difference(&of_server).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "types that do not exist"
    );
    for (name, why) in NEVER {
        let refused = sql.client.batch_execute(&format!("select ''::{name}")).await.expect_err(why);
        assert_eq!(refused.code().map(|c| c.code().to_owned()), Some("0A000".into()), "{name}: {why}");
    }
    let xml = match sql.client.batch_execute("select '<a/>'::xml").await {
        Ok(()) => true,
        Err(error) if error.code().is_some_and(|c| c.code() == "0A000") => false,
        Err(error) => panic!("{error:?}"),
    };
    let mut all = Vec::new();
    for (name, samples) in TYPES.iter().filter(|(name, _)| xml || *name != "xml") {
        let mut samples: Vec<String> = samples.iter().map(|s| (*s).to_owned()).collect();
        match *name {
            "numeric" => samples.push(format!("-{}.{}", "9".repeat(500), "1".repeat(500))),
            "text" | "json" => samples.push(format!("\"{}\"", "é\\\\".repeat(5_000))),
            "bytea" => samples.push(format!("\\x{}", "00ff5c".repeat(4_000))),
            _ => {}
        }
        all.push((*name, samples));
    }
    all
}

const USER_TYPES: &str = "
    create type mood as enum ('so so', 'O''Neil \"q\"', 'é, {}', '\\');
    create domain gloom as mood;
    create domain deeper as gloom;
    create type pair as (\"a b\" text, n numeric);
    create type nest as (p pair, ps pair[], m mood);
    create domain paired as pair;
    create type textrange as range (subtype = text, multirange_type_name = textranges);
    create domain few as int4 check (value < 9);";

fn user_columns() -> Vec<Column> {
    let pair = |a: &str| format!("row({}, 1.10)::pair", literal(a));
    let own = |type_name: &str, values: Vec<String>| (type_name.to_owned(), values);
    [
        own("mood", vec!["'so so'".into(), literal("O'Neil \"q\""), literal("é, {}"), literal("\\")]),
        own("mood[]", vec!["enum_range(null::mood) || null::mood".into(), "'{}'".into()]),
        own("gloom", vec![literal("é, {}")]),
        own("deeper", vec![literal("\\")]),
        own("deeper[]", vec!["array['so so', null]::deeper[]".into()]),
        own("pair", vec![pair(""), pair("a\"b,\\)("), "row(null, null)::pair".into(), pair(" \t\n")]),
        own("pair[]", vec![format!("array[{}, null, {}]", pair("{\"}"), pair("\\\\"))]),
        own("nest", vec![format!("row({}, array[{}], 'so so')::nest", pair("x"), pair("\"\""))]),
        own("paired", vec![pair("domain")]),
        own("textrange", vec!["'[a,\"b, \"\"c\"\"\"]'".into(), "'empty'".into()]),
        own("textranges", vec!["'{[a,b),[\"c d\",e]}'".into(), "'{}'".into()]),
        own("few", vec!["8".into()]),
        own("few[]", vec!["'{1,2,NULL}'".into()]),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (type_name, values))| Column { name: format!("u{i}"), type_name, values })
    .collect()
}

/// For each type a column of it, of its array and of a domain over it; and all of them as one composite.
async fn columns(world: &World) -> Vec<Column> {
    let sql = pinned(world).await;
    let types = types(&sql).await;
    let mut script = USER_TYPES.to_owned();
    let mut columns = Vec::new();
    let mut fields = Vec::new();
    for (i, (name, samples)) in types.iter().enumerate() {
        // bit without a length is bit(1); character without one would be.
        let plain: Vec<String> = samples.iter().map(|s| format!("{}::{name}", literal(s))).collect();
        _ = write!(script, "create domain dom{i} as {name};");
        let arrays = vec![
            format!("array[{}, null]::{name}[]", plain.join(", ")),
            format!("'{{}}'::{name}[]"),
            format!("array_fill({}, array[1, 2], array[2, 0])", plain[0]),
        ];
        fields.push(format!("f{i} {name}"));
        let of = |prefix: &str, type_name: String, values| Column {
            name: format!("{prefix}{i}"),
            type_name,
            values,
        };
        columns.push(of("v", (*name).to_owned(), plain.clone()));
        columns.push(of("a", format!("{name}[]"), arrays));
        columns.push(of("d", format!("dom{i}"), plain));
    }
    _ = write!(script, "create type every as ({});", fields.join(", "));
    let row = |pick: &dyn Fn(&Vec<String>) -> String| {
        let values: Vec<String> = types.iter().map(|(_, s)| pick(s)).collect();
        format!("row({})::every", values.join(", "))
    };
    let first = row(&|s| literal(&s[0]));
    let last = row(&|s| literal(s.last().unwrap()));
    let none = row(&|_| "null".into());
    columns.push(Column {
        name: "e".into(),
        type_name: "every".into(),
        values: vec![first.clone(), last, none],
    });
    let both = format!("array[{first}, null]");
    columns.push(Column { name: "es".into(), type_name: "every[]".into(), values: vec![both] });
    columns.extend(user_columns());
    world.sql.run(&script).await;
    columns
}

/// The wide table, and the statement that fills it.
pub async fn wide(world: &mut World) -> (Vec<Column>, String) {
    let columns = columns(world).await;
    let rows = columns.iter().map(|c| c.values.len()).max().unwrap() + 1;
    let declared: Vec<String> = columns.iter().map(|c| format!("{} {}", c.name, c.type_name)).collect();
    world
        .sql
        .run(&format!("create table wide (id int primary key, marker int, {})", declared.join(", ")))
        .await;
    track(world, "wide", &[]).await;
    let mut fill = String::new();
    for row in 0..rows {
        let values: Vec<&str> = columns.iter().map(|c| c.values.get(row).map_or("null", |v| v)).collect();
        _ = write!(fill, "insert into wide values ({row}, 0, {});", values.join(", "));
    }
    (columns, fill)
}
