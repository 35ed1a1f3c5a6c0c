//! Random conditions, in the language that the node and PostgreSQL both read.

use crate::dice::Dice;
use crate::kind::{COLOURS, Kind};
use crate::schema::Table;

/// A condition over one or two columns of the table.
pub fn random(table: &Table, dice: &mut Dice) -> String {
    let one = about(table, dice);
    match dice.below(5) {
        0 => format!("{one} and {}", about(table, dice)),
        1 => format!("{one} or {}", about(table, dice)),
        2 => format!("not ({one})"),
        3 => format!("({one}) is not true"),
        _ => one,
    }
}

fn about(table: &Table, dice: &mut Dice) -> String {
    let columns = table.travelling();
    let column = *dice.pick(&columns);
    let name = table.column(column);
    let given = match table.columns[column].kind {
        Kind::Bool => return if dice.chance(50) { name } else { format!("{name} is not true") },
        Kind::Int2 => "15000".to_owned(),
        Kind::Int4 => ["7", "100", "-1000000000"][dice.below(3)].into(),
        Kind::Int8 => (9_007_199_254_740_993 + dice.below(200)).to_string(),
        Kind::Float4 => ["0.1", "NaN", "0"][dice.below(3)].into(),
        Kind::Float8 => ["0.1", "9007199254740993", "-Infinity"][dice.below(3)].into(),
        Kind::Numeric => ["1", "NaN", "-0.5"][dice.below(3)].into(),
        Kind::Text | Kind::Varchar | Kind::Big if dice.chance(50) => {
            return format!("{name} like '{}'", ["%a%", "_%", "%\\\\%", "1%", ""][dice.below(5)]);
        }
        Kind::Text | Kind::Varchar | Kind::Big => {
            let op = ["<", ">=", "=", "is distinct from"][dice.below(4)];
            return format!("{name} collate \"C\" {op} '{}'", ["plain", "b", "", "é"][dice.below(4)]);
        }
        Kind::Timestamptz => "1970-01-01 00:00:00+00".into(),
        Kind::Timestamp => "2024-02-29 23:59:59.999".into(),
        Kind::Date => ["2024-02-29", "2000-03-04"][dice.below(2)].into(),
        Kind::Time => "12:00:00".into(),
        Kind::Uuid => "00000000-0000-4000-8000-000000000040".into(),
        Kind::Enum => COLOURS[dice.below(COLOURS.len())].replace('\'', "''"),
        Kind::Bytea => "\\x00ff5c27".into(),
        Kind::Bpchar
        | Kind::Interval
        | Kind::Jsonb
        | Kind::Json
        | Kind::IntArray
        | Kind::TextArray
        | Kind::Inet
        | Kind::Range => {
            return format!("{name} is {}null", if dice.chance(50) { "" } else { "not " });
        }
    };
    match dice.below(6) {
        0 => format!("{name} in ('{given}', null)"),
        1 => format!("{name} is null or {name} <> '{given}'"),
        2 => format!("{name} between '{given}' and '{given}'"),
        n => format!("{name} {} '{given}'", ["<", ">=", "is distinct from"][n - 3]),
    }
}
