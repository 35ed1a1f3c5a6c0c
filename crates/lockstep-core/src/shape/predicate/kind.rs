//! Types that a predicate can compare, and how: as PostgreSQL does, from the text that it prints.
//!
//! What a type's text cannot decide exactly is not here, and is refused by name. `tests/predicates.rs` of
//! `lockstep-pg` holds every type and operator against PostgreSQL.

use super::decimal::Decimal;
use super::moment;
use crate::catalog::{Collation, Column};
use crate::change::Text;
use std::cmp::Ordering;

/// A comparable value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    /// bool, the integers, an enum's place among its labels, and points in time.
    Int(i64),
    /// float4 and float8.
    Float(f64),
    /// numeric.
    Decimal(Decimal),
    /// Ordered by bytes: text, uuid and bytea (its hexadecimal digits).
    Text(Text),
}

/// How a column's values are read and ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `f` before `t`.
    Bool,
    /// int2, int4, int8, oid: with the least and the greatest.
    Int(i64, i64),
    /// float4.
    Float4,
    /// float8.
    Float8,
    /// numeric.
    Numeric,
    /// text, varchar.
    Text,
    /// uuid.
    Uuid,
    /// bytea.
    Bytea,
    /// date.
    Date,
    /// time.
    Time,
    /// timestamp.
    Timestamp,
    /// timestamptz.
    TimestampTz,
    /// An enum.
    Enum,
}

impl Kind {
    /// Of a column, or None where only `is null` can be asked.
    pub(super) fn of(column: &Column) -> Option<Self> {
        Some(match column.type_oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            20 => Self::Int(i64::MIN, i64::MAX),
            21 => Self::Int(i16::MIN.into(), i16::MAX.into()),
            23 => Self::Int(i32::MIN.into(), i32::MAX.into()),
            26 => Self::Int(0, u32::MAX.into()),
            25 | 1043 if column.collation != Collation::Nondeterministic => Self::Text,
            700 => Self::Float4,
            701 => Self::Float8,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            _ if column.is_enum => Self::Enum,
            _ => return None,
        })
    }

    /// Reads the text that PostgreSQL prints. None for what it never prints.
    pub(crate) fn read(self, text: &Text, column: &Column) -> Option<Scalar> {
        Some(match self {
            Self::Bool => Scalar::Int(match text.as_ref() {
                "t" => 1,
                "f" => 0,
                _ => return None,
            }),
            Self::Int(..) => Scalar::Int(text.parse().ok()?),
            Self::Float4 => Scalar::Float(text.parse::<f32>().ok()?.into()),
            Self::Float8 => Scalar::Float(text.parse().ok()?),
            Self::Numeric => Scalar::Decimal(Decimal::parse(text)?),
            Self::Text | Self::Uuid | Self::Bytea => Scalar::Text(text.clone()),
            Self::Date => Scalar::Int(moment::date(text)?),
            Self::Time => Scalar::Int(moment::time(text)?),
            Self::Timestamp => Scalar::Int(moment::timestamp(text)?),
            Self::TimestampTz => Scalar::Int(moment::timestamptz(text)?),
            Self::Enum => {
                let place = column.labels.iter().position(|l| l.as_str() == text.as_ref())?;
                Scalar::Int(i64::try_from(place).ok()?)
            }
        })
    }

    /// Reads what a client wrote and gives it back as PostgreSQL prints it, or None if PostgreSQL might understand
    /// it differently.
    pub(super) fn literal(self, given: &str, column: &Column) -> Option<(Text, Scalar)> {
        let text: Text = match self {
            Self::Bool => match given.to_ascii_lowercase().as_str() {
                "true" | "t" => "t".into(),
                "false" | "f" => "f".into(),
                _ => return None,
            },
            Self::Int(least, most) => {
                let digits = given.strip_prefix('-').unwrap_or(given);
                let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                let n = plain.then(|| given.parse::<i64>().ok()).flatten()?;
                (least..=most).contains(&n).then(|| n.to_string())?.into()
            }
            Self::Float4 => float(given, |t| t.parse::<f32>().ok().map(f64::from))?.into(),
            Self::Float8 => float(given, |t| t.parse().ok())?.into(),
            Self::Numeric => Decimal::parse(given).filter(Decimal::is_literal)?.to_string().into(),
            Self::Text => (!given.contains('\0')).then_some(given)?.into(),
            Self::Uuid => column.canonical(&given.into())?,
            Self::Bytea => {
                let hex = given.strip_prefix("\\x")?.to_ascii_lowercase();
                let good = hex.len() % 2 == 0 && hex.bytes().all(|b| b.is_ascii_hexdigit());
                good.then(|| format!("\\x{hex}"))?.into()
            }
            Self::Date => moment::date(given).map(|_| given)?.into(),
            Self::Time => moment::time(given).map(|_| given)?.into(),
            Self::Timestamp => moment::plain(given, moment::timestamp)?.into(),
            Self::TimestampTz => moment::plain(given, moment::timestamptz)?.into(),
            Self::Enum => given.into(),
        };
        let scalar = self.read(&text, column)?;
        Some((text, scalar))
    }

    /// Equal values have equal texts, so that they can be looked up by hash.
    pub(super) fn text_is_unique(self) -> bool {
        !matches!(self, Self::Float4 | Self::Float8 | Self::Numeric)
    }
}

/// A float that PostgreSQL reads as Rust does: nothing that overflows or underflows, which it refuses.
fn float(given: &str, parse: impl Fn(&str) -> Option<f64>) -> Option<String> {
    if matches!(given, "NaN" | "Infinity" | "-Infinity") {
        return Some(given.to_owned());
    }
    let plain = given.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    let value = plain.then(|| parse(given)).flatten()?;
    let mantissa = given.split(['e', 'E']).next()?;
    let vanished = value == 0.0 && mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b));
    (value.is_finite() && !vanished && !value.is_subnormal()).then(|| given.to_owned())
}

/// As PostgreSQL orders two values of one kind: NaN is equal to itself and the greatest, -0 equals 0.
pub(crate) fn compare(a: &Scalar, b: &Scalar) -> Option<Ordering> {
    Some(match (a, b) {
        (Scalar::Int(a), Scalar::Int(b)) => a.cmp(b),
        (Scalar::Text(a), Scalar::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Scalar::Decimal(a), Scalar::Decimal(b)) => a.cmp(b),
        (Scalar::Float(a), Scalar::Float(b)) => match (a.is_nan(), b.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => a.partial_cmp(b)?,
        },
        _ => return None,
    })
}
