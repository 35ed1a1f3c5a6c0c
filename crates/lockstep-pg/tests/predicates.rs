//! Predicates mean in the core what they mean in PostgreSQL: for every type, operator and NULL.
//!
//! Random expressions over a table of awkward values: the truth of each for each row, unknown included, must be what
//! PostgreSQL says of the SQL that the core writes for it.

use lockstep_core::catalog::Table;
use lockstep_core::change::Value;
use lockstep_core::shape::Predicate;
use lockstep_pg::cluster::Cluster;
use lockstep_pg::install::{self, InstallOptions, Patience, TrackRequest};
use lockstep_pg::session;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value as Json;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Name, type, and values that are awkward for it. Each type has two columns, `NAME_a` and `NAME_b`.
const TYPES: &[(&str, &str, &[&str])] = &[
    ("b", "boolean", &["true", "false"]),
    ("i2", "int2", &["-32768", "32767", "0", "1", "-1", "7"]),
    ("i4", "int4", &["-2147483648", "2147483647", "0", "1", "-1", "10"]),
    (
        "i8",
        "int8",
        &["-9223372036854775808", "9223372036854775807", "0", "9007199254740993", "9007199254740992"],
    ),
    ("o", "oid", &["0", "4294967295", "2147483648", "1"]),
    (
        "f4",
        "float4",
        &["0", "-0", "0.1", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-37", "16777216", "0.3"],
    ),
    (
        "f8",
        "float8",
        &[
            "0",
            "-0",
            "0.1",
            "0.30000000000000004",
            "NaN",
            "Infinity",
            "-Infinity",
            "1.7976931348623157e308",
            "2.5e-308",
        ],
    ),
    (
        "n",
        "numeric",
        &[
            "0",
            "0.00",
            "1",
            "1.0",
            "1.000000000000000000001",
            "-1.5",
            "10",
            "9.99",
            "NaN",
            "Infinity",
            "-Infinity",
            "123456789012345678901234567890.5",
            "-0.5",
        ],
    ),
    ("n2", "numeric(10,2)", &["0", "1.10", "-1.10", "99999999.99", "NaN"]),
    (
        "t",
        "text",
        &[
            "", " ", "a", "A", "b", "B", "ab", "aB", "a%b", "a_b", "a\\b", "ä", "Ä", "é", "e\u{301}", "💧",
            "\u{ffff}", "it's", "x\ny", "ß", "SS", "İ", "ı",
        ],
    ),
    ("v", "varchar(20)", &["", "a", "a ", "B", "longer text", "Ünï"]),
    ("c", "text collate \"C\"", &["", "a", "A", "B", "é", "É", "💧", "\u{ffff}", "Z", "_"]),
    (
        "u",
        "uuid",
        &[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12",
        ],
    ),
    ("y", "bytea", &["\\x", "\\x00", "\\xFF", "\\x0001", "\\xdeadbeef"]),
    (
        "d",
        "date",
        &[
            "2026-11-22",
            "2000-02-29",
            "0044-03-15 BC",
            "0001-01-01",
            "infinity",
            "-infinity",
            "5874897-12-31",
            "4713-01-01 BC",
            "1969-12-31",
        ],
    ),
    ("tm", "time", &["00:00:00", "24:00:00", "12:34:56.789", "12:34:56.789001", "23:59:59.999999"]),
    (
        "ts",
        "timestamp",
        &[
            "2026-11-22 12:00:00",
            "2026-11-22T12:00:00.000001",
            "infinity",
            "-infinity",
            "0001-12-31 23:59:59 BC",
            "294276-12-31 23:59:59.999999",
            "4713-01-01 00:00:00 BC",
            "1999-12-31 23:59:59.999999",
        ],
    ),
    (
        "tz",
        "timestamptz",
        &[
            "2026-11-22 12:00:00+00",
            "2026-11-22T12:00:00Z",
            "2026-11-22 13:30:00+01:30",
            "infinity",
            "-infinity",
            "0044-03-15 10:00:00-05 BC",
            "1970-01-01 00:00:00.5+00",
        ],
    ),
    ("e", "public.mood", &["sad", "ok", "happy", "it's \"fine\""]),
];

const OPERATORS: &[&str] =
    &["=", "<>", "!=", "<", "<=", ">", ">=", "is distinct from", "is not distinct from"];

struct World {
    _cluster: Cluster,
    client: Client,
    table: Table,
    rows: Vec<Vec<Value>>,
}

/// A session that prints values as a node's sessions do.
async fn session(cluster: &Cluster) -> Client {
    let (client, connection) = tokio_postgres::connect(&cluster.url(), NoTls).await.expect("a session");
    tokio::spawn(connection);
    let set: Vec<String> =
        session::SESSION.iter().map(|(name, value)| format!("set {name} = '{value}'")).collect();
    client.batch_execute(&set.join("; ")).await.expect("its settings");
    client
}

async fn world(random: &mut StdRng) -> World {
    let cluster = Cluster::builder().setting("wal_level", "logical").start().expect("a cluster");
    let mut client = session(&cluster).await;
    install::install(&mut client, &InstallOptions::default()).await.expect("installed");
    let columns: Vec<String> =
        TYPES.iter().flat_map(|(name, of, _)| [format!("{name}_a {of}"), format!("{name}_b {of}")]).collect();
    let sql = format!(
        "create type public.mood as enum ('sad', 'ok', 'it''s \"fine\"', 'happy'); \
         create table public.v (id int primary key, {})",
        columns.join(", ")
    );
    client.batch_execute(&sql).await.expect("a table");
    for id in 0..60 {
        let mut value = |values: &[&str]| match random.random_bool(0.15) {
            true => "null".to_owned(),
            false => format!("'{}'", values.choose(random).expect("values").replace('\'', "''")),
        };
        let row: Vec<String> = TYPES.iter().flat_map(|(_, _, v)| [value(v), value(v)]).collect();
        client
            .batch_execute(&format!("insert into public.v values ({id}, {})", row.join(", ")))
            .await
            .expect("a row");
    }
    let request = TrackRequest { table: "public.v".into(), ..TrackRequest::default() };
    install::track(&mut client, &request, &Patience::default()).await.expect("tracked");
    let table = lockstep_pg::catalog::tables(&client).await.expect("the catalog").remove(0);
    let rows = read(&client, "select * from public.v order by id").await;
    World { _cluster: cluster, client, table, rows }
}

async fn read(client: &Client, sql: &str) -> Vec<Vec<Value>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e:?}"));
    let value = |v: Option<&str>| v.map_or(Value::Null, |v| Value::Text(v.into()));
    messages
        .iter()
        .filter_map(|m| match m {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| value(row.get(i))).collect()),
            _ => None,
        })
        .collect()
}

/// An expression and its parameters.
struct Writer<'r> {
    random: &'r mut StdRng,
    parameters: Vec<Json>,
}

impl Writer<'_> {
    fn constant(&mut self, values: &[&str]) -> String {
        let value = values.choose(self.random).expect("values");
        match self.random.random_range(0..10) {
            0 => "null".into(),
            1..=3 => {
                self.parameters.push(Json::from(*value));
                format!("${}", self.parameters.len())
            }
            4 => {
                self.parameters.push(Json::Null);
                format!("${}", self.parameters.len())
            }
            _ => format!("'{}'", value.replace('\'', "''")),
        }
    }

    fn leaf(&mut self) -> String {
        let (name, of, values) = TYPES.choose(self.random).expect("types");
        let is_text = of.starts_with("text") || of.starts_with("varchar");
        let column = format!("{name}_{}", if self.random.random() { "a" } else { "b" });
        let ordered =
            if *name == "t" || *name == "v" { format!("{column} collate \"C\"") } else { column.clone() };
        match self.random.random_range(0..12) {
            0 => format!("{column} is {}null", if self.random.random() { "not " } else { "" }),
            1 | 2 => {
                let list: Vec<String> =
                    (0..self.random.random_range(1..5)).map(|_| self.constant(values)).collect();
                format!("{column} {}in ({})", if self.random.random() { "not " } else { "" }, list.join(", "))
            }
            3 => {
                let (low, high) = (self.constant(values), self.constant(values));
                format!(
                    "{ordered} {}between {low} and {high}",
                    if self.random.random() { "not " } else { "" }
                )
            }
            4 | 5 if is_text => {
                let pattern: String = (0..self.random.random_range(0..4))
                    .map(|_| {
                        *["%", "_", "a", "B", "é", "\\%", "\\_", "\\\\", "💧", " "]
                            .choose(self.random)
                            .expect("one")
                    })
                    .collect();
                let not = if self.random.random() { "not " } else { "" };
                match self.random.random() {
                    true => format!("{column} {not}like '{pattern}'"),
                    false => format!("{column} collate \"C\" {not}ilike '{pattern}'"),
                }
            }
            6 => format!("{ordered} {} {name}_b", OPERATORS.choose(self.random).expect("one")),
            7 => "b_a".into(),
            8 => (*["true", "false", "null"].choose(self.random).expect("one")).into(),
            9 => {
                let (op, constant) = (*OPERATORS.choose(self.random).expect("one"), self.constant(values));
                format!("{constant} {op} {ordered}")
            }
            _ => {
                let (op, constant) = (*OPERATORS.choose(self.random).expect("one"), self.constant(values));
                format!("{ordered} {op} {constant}")
            }
        }
    }

    fn expression(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.leaf();
        }
        match self.random.random_range(0..8) {
            0 => format!("not ({})", self.expression(depth - 1)),
            1 | 2 => format!("({}) and ({})", self.expression(depth - 1), self.expression(depth - 1)),
            3 | 4 => format!("({}) or ({})", self.expression(depth - 1), self.expression(depth - 1)),
            5 => {
                let truth = *["true", "false", "unknown"].choose(self.random).expect("one");
                let not = if self.random.random() { "not " } else { "" };
                format!("({}) is {not}{truth}", self.expression(depth - 1))
            }
            _ => self.leaf(),
        }
    }
}

#[tokio::test]
async fn the_core_says_what_postgresql_says() {
    let mut random = StdRng::seed_from_u64(7);
    let world = world(&mut random).await;
    let (mut compared, mut unknown, mut passed) = (0, 0, 0);
    for _ in 0..60 {
        let mut predicates = Vec::new();
        for _ in 0..50 {
            let depth = random.random_range(0..4);
            let mut writer = Writer { random: &mut random, parameters: Vec::new() };
            let text = writer.expression(depth);
            let parameters = writer.parameters;
            let predicate = Predicate::resolve(&text, &parameters, &world.table)
                .unwrap_or_else(|e| panic!("{text} {parameters:?}: {e:?}"));
            predicates.push((text, parameters, predicate));
        }
        let list: Vec<String> = predicates.iter().map(|(_, _, p)| format!("({})::text", p.sql())).collect();
        let said =
            read(&world.client, &format!("select {} from public.v t order by id", list.join(", "))).await;
        for (row, said) in world.rows.iter().zip(said) {
            for ((text, parameters, predicate), said) in predicates.iter().zip(said) {
                let said = said.text().map(|t| t == "true");
                let truth = predicate.truth(&world.table, row).expect("nothing is untold");
                assert_eq!(truth, said, "{text} {parameters:?}\n{}\n{row:?}", predicate.sql());
                compared += 1;
                unknown += usize::from(truth.is_none());
                passed += usize::from(truth == Some(true));
            }
        }
    }
    // The expressions must not all be the same.
    assert!(
        compared == 60 * 50 * 60 && unknown > compared / 20 && passed > compared / 5,
        "{unknown} {passed}"
    );
}

#[tokio::test]
async fn every_type_and_operator_alone() {
    let mut random = StdRng::seed_from_u64(8);
    let world = world(&mut random).await;
    let mut predicates = Vec::new();
    for (name, of, values) in TYPES {
        let collate = if matches!(*name, "t" | "v") { " collate \"C\"" } else { "" };
        for op in OPERATORS {
            predicates.push((format!("{name}_a{collate} {op} {name}_b"), vec![]));
            predicates.push((format!("{name}_a{collate} {op} null"), vec![]));
            for value in *values {
                predicates.push((format!("{name}_a{collate} {op} $1"), vec![Json::from(*value)]));
            }
        }
        predicates.extend(["is null", "is not null"].map(|is| (format!("{name}_a {is}"), vec![])));
        for (value, other) in values.iter().zip(values.iter().cycle().skip(1)) {
            let both = vec![Json::from(*value), Json::from(*other)];
            for two in ["in ($1, $2)", "not in ($1, $2)", "in ($1, $2, null)", "not in ($1, $2, null)"] {
                predicates.push((format!("{name}_a {two}"), both.clone()));
            }
            for two in ["between $1 and $2", "not between $1 and $2"] {
                predicates.push((format!("{name}_a{collate} {two}"), both.clone()));
            }
            predicates.push((format!("{name}_a{collate} between null and $1"), vec![Json::from(*value)]));
        }
        if *of == "boolean" {
            for truth in ["true", "false", "unknown"] {
                for is in ["is", "is not"] {
                    predicates.push((format!("{name}_a {is} {truth}"), vec![]));
                    predicates.push((format!("(not {name}_a or {name}_b) {is} {truth}"), vec![]));
                }
            }
            predicates.push((format!("not {name}_a and {name}_b"), vec![]));
        }
        for value in *values {
            if of.starts_with("text") || of.starts_with("varchar") {
                let escaped = value.replace('\\', "\\\\");
                for pattern in [format!("%{escaped}%"), format!("{escaped}%"), format!("_{escaped}")] {
                    predicates.push((format!("{name}_a like $1"), vec![Json::from(pattern.clone())]));
                    predicates.push((format!("{name}_a not like $1"), vec![Json::from(pattern.clone())]));
                    predicates.push((
                        format!("{name}_a collate \"C\" not ilike $1"),
                        vec![Json::from(pattern.clone())],
                    ));
                    predicates.push((format!("{name}_a collate \"C\" ilike $1"), vec![Json::from(pattern)]));
                }
            }
        }
    }
    for chunk in predicates.chunks(100) {
        let resolved: Vec<Predicate> = chunk
            .iter()
            .map(|(text, p)| {
                Predicate::resolve(text, p, &world.table).unwrap_or_else(|e| panic!("{text} {p:?}: {e:?}"))
            })
            .collect();
        let list: Vec<String> = resolved.iter().map(|p| format!("({})::text", p.sql())).collect();
        let said =
            read(&world.client, &format!("select {} from public.v t order by id", list.join(", "))).await;
        for (row, said) in world.rows.iter().zip(said) {
            for (((text, parameters), predicate), said) in chunk.iter().zip(&resolved).zip(said) {
                let truth = predicate.truth(&world.table, row).expect("nothing is untold");
                assert_eq!(truth, said.text().map(|t| t == "true"), "{text} {parameters:?}\n{row:?}");
            }
        }
    }
}

const GOOD: &[&str] = &[
    "bytes < 'a'",
    "posix >= 'a'",
    "plain = 'a' or plain <> 'b'",
    "plain collate \"C\" < 'a'",
    "tags is null",
    "doc is not null and folded is not null",
    "mood > 'sad'",
    "\"Odd \"\"name\" = 'x'",
    "DONE",
    "not done and n = -5",
    "n in (1, 2)",
    "plain collate pg_catalog.\"C\" ilike 'x%'",
    "at > '2026-01-01T00:00:00Z'",
    "f = 0.1 -- a comment",
];

const REFUSED: &[&str] = &[
    "plain < 'a'",
    "folded = 'a'",
    "folded like 'a'",
    "plain between 'a' and 'b'",
    "plain ilike 'a%'",
    "fixed = 'a'",
    "tags = '{}'",
    "doc = '{}'",
    "span > '1 day'",
    "net = '::1'",
    "now() > at",
    "n + 1 = 2",
    "n = (select 1)",
    "exists (select 1)",
    "n = any('{1}')",
    "n::text = '1'",
    "at > timestamp '2026-01-01'",
    "v.n = 1",
    "n = big",
    "1 = 1",
    "n",
    "n in (n)",
    "plain like n",
    "plain like 'a' escape 'x'",
    "plain similar to 'a'",
    "plain ~ 'a'",
    "doc -> 'a' is null",
    "case when done then true else false end",
    "n collate \"C\" = 1",
    "plain collate \"de_DE\" < 'a'",
    "row(n) = row(1)",
    "plain = E'a'",
    "n = :n",
    "coalesce(done, true)",
];

const BAD: &[&str] = &[
    "",
    "n =",
    "n = 1 n",
    "(n = 1",
    "n = 'x'",
    "n = 2147483648",
    "n = 1.5",
    "f = 1e99",
    "f = 1e-60",
    "mood = 'angry'",
    "at > '2026-01-01 00:00:00'",
    "at > 'yesterday'",
    "at > '2026-02-30 00:00:00+00'",
    "plain like 'a\\'",
    "n = $1",
    "done = 2",
    "n = 1; drop table v",
];

/// Collations, labels and what is refused, as the catalog of a real table has them.
#[tokio::test]
async fn what_only_postgresql_can_decide_is_refused() {
    let cluster = Cluster::builder().setting("wal_level", "logical").start().expect("a cluster");
    let mut client = session(&cluster).await;
    install::install(&mut client, &InstallOptions::default()).await.expect("installed");
    let sql = "create collation public.posix from \"POSIX\"; \
        create collation public.rules (locale = 'C.UTF-8'); \
        create collation public.folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false); create type public.mood as enum ('sad', 'happy'); \
        create table public.v (id int primary key, plain text collate public.rules, folded text collate public.folding, bytes text collate \"C\", \
        posix text collate public.posix, fixed char(5), tags text[], doc jsonb, span interval, net inet, \
        mood public.mood, n int, big int8, f float4, at timestamptz, done bool, \"Odd \"\"name\" text)";
    client.batch_execute(sql).await.expect("a table");
    let request = TrackRequest { table: "public.v".into(), ..TrackRequest::default() };
    install::track(&mut client, &request, &Patience::default()).await.expect("tracked");
    let table = lockstep_pg::catalog::tables(&client).await.expect("the catalog").remove(0);
    let code =
        |text: &str, p: &[Json]| Predicate::resolve(text, p, &table).map(|_| "ok").unwrap_or_else(|e| e.code);
    for good in GOOD {
        assert_eq!(code(good, &[]), "ok", "{good}");
    }
    for refused in REFUSED {
        assert_eq!(code(refused, &[]), "where_unsupported", "{refused}");
    }
    for bad in BAD {
        assert_eq!(code(bad, &[]), "bad_where", "{bad}");
    }
    assert_eq!(code("n = $1", &[serde_json::json!([1])]), "bad_where");
    assert_eq!(code("nothing = 1", &[]), "unknown_column");
    assert_eq!(code(&format!("n = {}", "(".repeat(10_000)), &[]), "where_unsupported");
    assert_eq!(code(&format!("n = 1 {}", "or n = 1 ".repeat(1_000)), &[]), "where_unsupported");
    assert_eq!(code(&"not ".repeat(5_000), &[]), "where_unsupported");
    // The parser gives up one `not` too deep, and takes it for a name.
    assert_eq!(code(&format!("{} done", "not ".repeat(4_000)), &[]), "bad_where");
}
