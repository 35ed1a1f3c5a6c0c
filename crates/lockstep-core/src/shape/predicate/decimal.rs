//! `numeric`, compared by its digits: it has up to 131,072 of them before the point.

use std::cmp::Ordering;
use std::fmt;

/// A numeric value. `1.0` and `1.00` are equal; NaN is equal to itself and above everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decimal {
    NegativeInfinity,
    Finite {
        negative: bool,
        /// Digits before the point without leading zeros.
        whole: String,
        /// Digits after it without trailing zeros.
        fraction: String,
    },
    Infinity,
    NaN,
}

/// More digits before or after the point than PostgreSQL prints of a numeric (`NUMERIC_MAX_PRECISION` and above).
const MOST_DIGITS: usize = 16_000;

impl Decimal {
    /// Digits with an optional sign and point, no exponent; `NaN`, `Infinity`, `-Infinity`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "NaN" => return Some(Self::NaN),
            "Infinity" => return Some(Self::Infinity),
            "-Infinity" => return Some(Self::NegativeInfinity),
            _ => {}
        }
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(fraction) || whole.len() + fraction.len() == 0 {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let zero = whole.is_empty() && fraction.is_empty();
        Some(Self::Finite { negative: negative && !zero, whole: whole.into(), fraction: fraction.into() })
    }

    /// Short enough to be sent to PostgreSQL as a literal.
    pub(super) fn is_literal(&self) -> bool {
        match self {
            Self::Finite { whole, fraction, .. } => whole.len().max(fraction.len()) <= MOST_DIGITS,
            _ => true,
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let class = |d: &Self| match d {
            Self::NegativeInfinity => 0,
            Self::Finite { .. } => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        };
        let (
            Self::Finite { negative: n1, whole: w1, fraction: f1 },
            Self::Finite { negative: n2, whole: w2, fraction: f2 },
        ) = (self, other)
        else {
            return class(self).cmp(&class(other));
        };
        let magnitude = w1.len().cmp(&w2.len()).then_with(|| w1.cmp(w2)).then_with(|| f1.cmp(f2));
        match (n1, n2) {
            (false, false) => magnitude,
            (true, true) => magnitude.reverse(),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Finite { negative, whole, fraction } = self else {
            return f.write_str(match self {
                Self::NegativeInfinity => "-Infinity",
                Self::Infinity => "Infinity",
                _ => "NaN",
            });
        };
        let sign = if *negative { "-" } else { "" };
        let whole = if whole.is_empty() { "0" } else { whole };
        match fraction.as_str() {
            "" => write!(f, "{sign}{whole}"),
            _ => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}
