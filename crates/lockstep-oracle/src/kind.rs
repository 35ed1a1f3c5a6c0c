//! Column types, their values as SQL, and how a value travels by docs/protocol.md.
//!
//! Nothing here comes from the product: it is the second opinion.

use crate::dice::Dice;
use serde_json::Value as Json;

/// A column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Varchar,
    Bpchar,
    Timestamptz,
    Timestamp,
    Date,
    Time,
    Interval,
    Jsonb,
    Json,
    Bytea,
    Uuid,
    IntArray,
    TextArray,
    Enum,
    Inet,
    Range,
    /// Long enough to be stored out of line.
    Big,
}

/// Types that any column may have.
pub const ANY: [Kind; 25] = [
    Kind::Bool,
    Kind::Int2,
    Kind::Int4,
    Kind::Int8,
    Kind::Float4,
    Kind::Float8,
    Kind::Numeric,
    Kind::Text,
    Kind::Varchar,
    Kind::Bpchar,
    Kind::Timestamptz,
    Kind::Timestamp,
    Kind::Date,
    Kind::Time,
    Kind::Interval,
    Kind::Jsonb,
    Kind::Json,
    Kind::Bytea,
    Kind::Uuid,
    Kind::IntArray,
    Kind::TextArray,
    Kind::Enum,
    Kind::Inet,
    Kind::Range,
    Kind::Big,
];
/// Types of keys.
pub const KEYS: [Kind; 6] = [Kind::Int4, Kind::Int8, Kind::Uuid, Kind::Text, Kind::Varchar, Kind::Date];
/// Types of scope columns.
pub const SCOPES: [Kind; 7] =
    [Kind::Int4, Kind::Int8, Kind::Uuid, Kind::Text, Kind::Enum, Kind::Bool, Kind::Date];

/// Texts that break encoders.
const NASTY: [&str; 14] = [
    "",
    "plain",
    "tab\there",
    "line\nbreak",
    "return\r",
    "back\\slash \\N \\.",
    "\\N",
    "quote ' and \" and `",
    "\u{1}\u{7f}\u{85}",
    "\u{2028}\u{fffd}\u{feff}",
    "žluťoučký 日本語 🦀",
    "null",
    "[1,\"a\"]",
    "\u{b}\u{c}\u{8} e\u{301}",
];

/// An SQL literal.
pub fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

const FLOAT8: &[&str] =
    &["0.1", "NaN", "-Infinity", "1e-300", "1e300", "-0", "9007199254740993", "1e21", "123456.789"];
const NUMERIC: &[&str] =
    &["1.0", "1.00", "NaN", "-0.000", "123456789012345678901234567890.123456789", "1e-20", "0", "-7"];
const TIMESTAMPTZ: &[&str] = &[
    "2024-02-29 23:59:59.999999+14",
    "infinity",
    "0044-03-15 12:00:00+00 BC",
    "1970-01-01",
    "294000-01-01",
    "2026-11-01 01:30:00.5-07",
];

impl Kind {
    /// As DDL writes it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric => "numeric",
            Self::Text | Self::Big => "text",
            Self::Varchar => "varchar(40)",
            Self::Bpchar => "char(8)",
            Self::Timestamptz => "timestamptz",
            Self::Timestamp => "timestamp(3)",
            Self::Date => "date",
            Self::Time => "time",
            Self::Interval => "interval",
            Self::Jsonb => "jsonb",
            Self::Json => "json",
            Self::Bytea => "bytea",
            Self::Uuid => "uuid",
            Self::IntArray => "int4[]",
            Self::TextArray => "text[]",
            Self::Enum => "colour",
            Self::Inet => "inet",
            Self::Range => "tstzrange",
        }
    }

    /// The value of a key or scope column that has this number: its text.
    pub fn numbered(self, i: usize) -> String {
        match self {
            Self::Int8 => (9_007_199_254_740_993 + i as u64).to_string(),
            Self::Uuid => format!("00000000-0000-4000-8000-{i:012x}"),
            Self::Text => format!("{i} {}", NASTY[i % NASTY.len()]),
            Self::Varchar => format!("{}{i}", ["", "Ä", "\\", "'", " "][i % 5]),
            Self::Date => format!("{:04}-{:02}-{:02}", 2000 + i / 336, 1 + i / 28 % 12, 1 + i % 28),
            Self::Enum => COLOURS[i % COLOURS.len()].to_owned(),
            Self::Bool => ["t", "f"][i % 2].to_owned(),
            _ => i.to_string(),
        }
    }

    /// A random value as an SQL expression that fits where the type is known.
    pub fn random(self, dice: &mut Dice) -> String {
        let n = dice.below(1_000_000);
        match self {
            Self::Bool => ["true", "false"][n % 2].into(),
            Self::Int2 => format!("{}", n % 32_768),
            Self::Int4 => format!("{}", dice.between(0, u64::from(u32::MAX)).cast_signed() - 2_147_483_648),
            Self::Int8 => format!("'{}'", dice.between(0, u64::MAX).cast_signed()),
            Self::Float4 => {
                pick(dice, &["1.1", "NaN", "-0", "3.4e38", "1e-40", "Infinity", "16777217", "0.1"])
            }
            Self::Float8 => pick(dice, FLOAT8),
            Self::Numeric => pick(dice, NUMERIC),
            Self::Text => literal(&format!(
                "{}{}",
                NASTY[n % NASTY.len()],
                if n.is_multiple_of(3) { n.to_string() } else { String::new() }
            )),
            Self::Varchar | Self::Bpchar => literal(["a", "", " b ", "\\", "é", "12345678"][n % 6]),
            Self::Timestamptz => pick(dice, TIMESTAMPTZ),
            Self::Timestamp => pick(
                dice,
                &["2024-02-29 23:59:59.9996", "-infinity", "0001-01-01 BC", "2026-01-01 00:00:00.1"],
            ),
            Self::Date => pick(dice, &["2024-02-29", "infinity", "0044-03-15 BC", "10000-01-01"]),
            Self::Time => pick(dice, &["00:00", "24:00", "12:34:56.789012"]),
            Self::Interval => pick(
                dice,
                &["0", "1 year -2 mons 3 days", "-04:05:06.789", "1 day -1 hour", "178000000 years"],
            ),
            Self::Jsonb | Self::Json => {
                literal(&JSONS[n % JSONS.len()].replace('#', &(n % 1000).to_string()))
            }
            Self::Bytea => format!("'\\x{}'", "00ff5c27".repeat(n % 4)),
            Self::Uuid => literal(&dice.uuid()),
            Self::IntArray => pick(dice, &["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={7,8}"]),
            Self::TextArray => literal(["{}", "{\"a,b\",NULL,\"NULL\",\"\"}", "{\"q\\\"\\\\\",é}"][n % 3]),
            Self::Enum => literal(COLOURS[n % COLOURS.len()]),
            Self::Inet => pick(dice, &["10.0.0.1", "::1/64", "192.168.0.0/16"]),
            Self::Range => pick(dice, &["empty", "[2024-01-01,infinity)", "(,2020-01-01 00:00:00.5+00]"]),
            Self::Big if n.is_multiple_of(5) => "'short'".into(),
            Self::Big => format!(
                "(select string_agg(md5((g * {n})::text), '') from generate_series(1, {}) g)",
                70 + n % 300
            ),
        }
    }

    /// How a value travels, from the text that PostgreSQL prints.
    pub fn wire(self, text: Option<&str>) -> Json {
        let Some(text) = text else { return Json::Null };
        match self {
            Self::Bool => Json::Bool(text == "t"),
            Self::Int2 | Self::Int4 => text.parse::<i64>().map_or(Json::Null, Json::from),
            Self::Float4 | Self::Float8 => match text {
                "NaN" | "Infinity" | "-Infinity" => text.into(),
                _ => serde_json::from_str(text).unwrap_or(Json::Null),
            },
            _ => text.into(),
        }
    }

    /// What a client says for the value of a scope column.
    pub fn scope_json(self, text: &str) -> Json {
        match self {
            Self::Int4 => text.parse::<i64>().map_or(Json::Null, Json::from),
            Self::Bool => Json::Bool(text == "t"),
            _ => text.into(),
        }
    }
}

fn pick(dice: &mut Dice, texts: &[&str]) -> String {
    let text: &&str = dice.pick(texts);
    literal(text)
}

/// Labels of the enum `colour`.
pub const COLOURS: [&str; 4] = ["red", "Light Green", "it's", "b\\lue\""];

const JSONS: [&str; 7] = [
    "null",
    "{}",
    "#",
    "\"text \\\"quoted\\\" \\u00e9 #\"",
    "{\"b\": [1, 2.50, null, 1e3],  \"a\": {\"n\": #}}",
    "[true, false, \"\\\\\", 12345678901234567890.10]",
    "{\"dup\": 1, \"dup\": #}",
];
