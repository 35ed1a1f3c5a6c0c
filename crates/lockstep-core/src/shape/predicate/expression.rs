//! A predicate over the columns of one table, in SQL's three-valued logic.
//!
//! One tree, two readers: [`Expression::truth`] for rows of the stream and [`Expression::sql`] for PostgreSQL.

use super::kind::{Kind, Scalar, compare};
use super::pattern::Pattern;
use crate::catalog::Table;
use crate::change::{Text, Value};
use std::cmp::Ordering;

/// Whether something holds; None is SQL's unknown.
pub(super) type Truth = Option<bool>;

/// The row's large values were not repeated, and the truth depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untold;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// The same with its sides exchanged.
    pub(super) fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }

    /// Only equality is asked, which does not depend on an order.
    pub(super) fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual)
    }
}

/// A constant: as PostgreSQL prints it and as it is compared. None is NULL.
pub(super) type Literal = Option<(Text, Scalar)>;

/// What every row that passes has, as far as an index can use it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Hint {
    /// A value between two bounds, which belong to it.
    Range {
        /// Whose.
        column: usize,
        /// How its values are read.
        kind: Kind,
        /// From here.
        low: Option<Scalar>,
        /// To here.
        high: Option<Scalar>,
    },
    /// A text that holds all of these three bytes somewhere.
    Text {
        /// Whose.
        column: usize,
        /// Once its ASCII letters are small ones.
        fold: bool,
        /// In the pattern's order.
        grams: Vec<[u8; 3]>,
    },
    /// Nothing.
    None,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Column(usize),
    Literal(Literal),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Constant(Truth),
    /// A boolean column by itself.
    Column(usize),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// `column op operand`, where `op` None is `is distinct from`. `bytes` compares texts by `collate "C"`.
    Compare {
        op: Option<Comparison>,
        kind: Kind,
        column: usize,
        with: Operand,
        bytes: bool,
    },
    In {
        kind: Kind,
        column: usize,
        list: Vec<Literal>,
    },
    IsNull(usize),
    /// `… is true`, `is false`, `is unknown`.
    Is(Box<Expression>, Truth),
    Like {
        column: usize,
        text: Text,
        pattern: Pattern,
        fold: bool,
    },
}

impl Expression {
    /// Three-valued truth of a row of the table.
    pub(super) fn truth(&self, table: &Table, row: &[Value]) -> Result<Truth, Untold> {
        Ok(match self {
            Self::Constant(truth) => *truth,
            Self::Column(column) => match read(Kind::Bool, table, row, *column)? {
                Some(Scalar::Int(n)) => Some(n == 1),
                _ => None,
            },
            Self::Not(inner) => inner.truth(table, row)?.map(|t| !t),
            Self::And(parts) => return all(parts, table, row, false),
            Self::Or(parts) => return all(parts, table, row, true),
            Self::Compare { op, kind, column, with, .. } => {
                let left = read(*kind, table, row, *column)?;
                let other;
                let right = match with {
                    Operand::Literal(literal) => literal.as_ref().map(|(_, scalar)| scalar),
                    Operand::Column(column) => {
                        other = read(*kind, table, row, *column)?;
                        other.as_ref()
                    }
                };
                match (op, left.as_ref(), right) {
                    (None, None, None) => Some(false),
                    (None, None, Some(_)) | (None, Some(_), None) => Some(true),
                    (None, Some(a), Some(b)) => Some(compare(a, b).ok_or(Untold)?.is_ne()),
                    (Some(op), Some(a), Some(b)) => Some(op.holds(compare(a, b).ok_or(Untold)?)),
                    (Some(_), _, _) => None,
                }
            }
            Self::In { kind, column, list } => {
                let Some(value) = read(*kind, table, row, *column)? else { return Ok(None) };
                let equal = |l: &Literal| {
                    l.as_ref().is_some_and(|(_, s)| compare(&value, s).is_some_and(Ordering::is_eq))
                };
                match list.iter().any(equal) {
                    true => Some(true),
                    false if list.contains(&None) => None,
                    false => Some(false),
                }
            }
            Self::IsNull(column) => match row.get(*column) {
                Some(Value::Null) => Some(true),
                // What is too large to be repeated is not NULL.
                Some(Value::Text(_) | Value::Unchanged) => Some(false),
                None => return Err(Untold),
            },
            Self::Is(inner, wanted) => Some(inner.truth(table, row)? == *wanted),
            Self::Like { column, pattern, .. } => match row.get(*column) {
                Some(Value::Null) => None,
                Some(Value::Text(text)) => Some(pattern.matches(text)),
                Some(Value::Unchanged) | None => return Err(Untold),
            },
        })
    }

    /// The same for PostgreSQL, over a table that is called `t`.
    pub(super) fn sql(&self, table: &Table) -> String {
        let name = |column: &usize| format!("t.{}", quote(&table.columns[*column].name));
        let literal = |column: &usize, literal: &Literal| match literal {
            None => format!("null::{}", table.columns[*column].type_sql),
            Some((text, _)) => format!("'{}'::{}", text.replace('\'', "''"), table.columns[*column].type_sql),
        };
        match self {
            Self::Constant(None) => "null::boolean".into(),
            Self::Constant(Some(truth)) => truth.to_string(),
            Self::Column(column) => name(column),
            Self::Not(inner) => format!("(not {})", inner.sql(table)),
            Self::And(parts) => join(parts, " and ", table),
            Self::Or(parts) => join(parts, " or ", table),
            Self::Compare { op, column, with, bytes, .. } => {
                let op = op.map_or("is distinct from", Comparison::sql);
                let collate = if *bytes { " collate \"C\"" } else { "" };
                let right = match with {
                    Operand::Column(other) => name(other),
                    Operand::Literal(l) => literal(column, l),
                };
                // Named on one side it holds for both.
                format!("({}{collate} {op} {right})", name(column))
            }
            Self::In { column, list, .. } => {
                let list: Vec<String> = list.iter().map(|l| literal(column, l)).collect();
                format!("({} in ({}))", name(column), list.join(", "))
            }
            Self::IsNull(column) => format!("({} is null)", name(column)),
            Self::Is(inner, wanted) => {
                let wanted = wanted.map_or("unknown".into(), |t| t.to_string());
                format!("({} is {wanted})", inner.sql(table))
            }
            Self::Like { column, text, fold, .. } => {
                let op = if *fold { "ilike" } else { "like" };
                format!("({} collate \"C\" {op} '{}')", name(column), text.replace('\'', "''"))
            }
        }
    }

    /// Whether a row passes: not, if one part of a conjunction says so, whatever of the others is not told.
    pub(super) fn passes(&self, table: &Table, row: &[Value]) -> Result<bool, Untold> {
        let Self::And(parts) = self else { return Ok(self.truth(table, row)? == Some(true)) };
        let mut result = Ok(true);
        for part in parts {
            match part.passes(table, row) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(Untold) => result = Err(Untold),
            }
        }
        result
    }

    /// Parts that must all hold for the whole to hold.
    fn conjuncts<'e>(&'e self, into: &mut Vec<&'e Self>) {
        match self {
            Self::And(parts) => parts.iter().for_each(|p| p.conjuncts(into)),
            other => into.push(other),
        }
    }

    /// Column and value of every equality that must hold for the whole to hold, where equal values have one text; and
    /// whether there is nothing else.
    pub(super) fn equalities(&self) -> (Vec<(usize, Text)>, bool) {
        let mut parts = Vec::new();
        self.conjuncts(&mut parts);
        let found: Vec<_> = parts.iter().filter_map(|p| p.equality()).collect();
        let whole = found.len() == parts.len();
        (found, whole)
    }

    /// Whether a row has what these equalities demand.
    pub(super) fn has_equalities(&self, row: &[Value]) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.has_equalities(row)),
            other => other.demanded().is_none_or(
                |(column, wanted)| matches!(row.get(column), Some(Value::Text(text)) if **text == *wanted),
            ),
        }
    }

    /// What the first part says that an index can use: both ends of a range if another part has the other one.
    pub(super) fn hint(&self) -> Hint {
        let mut parts = Vec::new();
        self.conjuncts(&mut parts);
        let ranges: Vec<_> = parts.iter().filter_map(|p| p.range()).collect();
        if let Some((column, kind, ..)) = ranges.first() {
            let mut bounds = (None, None);
            for (_, _, low, high) in ranges.iter().filter(|(c, k, ..)| (c, k) == (column, kind)) {
                // Any of several will do.
                bounds = (bounds.0.or_else(|| low.clone()), bounds.1.or_else(|| high.clone()));
            }
            return Hint::Range { column: *column, kind: *kind, low: bounds.0, high: bounds.1 };
        }
        let text = parts.iter().find_map(|part| match part {
            Self::Like { column, pattern, fold, .. } => {
                let grams = pattern.grams();
                (!grams.is_empty()).then_some(Hint::Text { column: *column, fold: *fold, grams })
            }
            _ => None,
        });
        text.unwrap_or(Hint::None)
    }

    /// Column, type and bounds between which its values must lie, the bounds included.
    fn range(&self) -> Option<(usize, Kind, Option<Scalar>, Option<Scalar>)> {
        match self {
            Self::Compare {
                op: Some(op), kind, column, with: Operand::Literal(Some((_, value))), ..
            } => {
                let value = Some(value.clone());
                let (low, high) = match op {
                    Comparison::Equal => (value.clone(), value),
                    Comparison::Less | Comparison::LessOrEqual => (None, value),
                    Comparison::Greater | Comparison::GreaterOrEqual => (value, None),
                    Comparison::NotEqual => return None,
                };
                Some((*column, *kind, low, high))
            }
            Self::In { kind, column, list } => {
                let values = list.iter().flatten().map(|(_, value)| value);
                let order = |a: &&Scalar, b: &&Scalar| compare(a, b).unwrap_or(Ordering::Equal);
                let (low, high) = (values.clone().min_by(order)?, values.max_by(order)?);
                Some((*column, *kind, Some(low.clone()), Some(high.clone())))
            }
            _ => None,
        }
    }

    fn equality(&self) -> Option<(usize, Text)> {
        self.demanded().map(|(column, text)| (column, text.into()))
    }

    /// The text that a column must have for this to hold.
    fn demanded(&self) -> Option<(usize, &str)> {
        match self {
            Self::Column(column) => Some((*column, "t")),
            Self::Compare {
                op: Some(Comparison::Equal),
                kind,
                column,
                with: Operand::Literal(Some((text, _))),
                ..
            } if kind.text_is_unique() => Some((*column, text)),
            _ => None,
        }
    }

    /// The columns that it reads.
    pub(super) fn columns(&self, into: &mut Vec<usize>) {
        match self {
            Self::Constant(_) => {}
            Self::Column(column) | Self::IsNull(column) => into.push(*column),
            Self::Not(inner) | Self::Is(inner, _) => inner.columns(into),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|p| p.columns(into)),
            Self::Compare { column, with, .. } => {
                into.push(*column);
                if let Operand::Column(other) = with {
                    into.push(*other);
                }
            }
            Self::In { column, .. } | Self::Like { column, .. } => into.push(*column),
        }
    }
}

/// A conjunction, or with `decisive` true a disjunction. A part that decides does so whatever is not told.
fn all(parts: &[Expression], table: &Table, row: &[Value], decisive: bool) -> Result<Truth, Untold> {
    let mut result = Ok(Some(!decisive));
    for part in parts {
        match part.truth(table, row) {
            Ok(Some(truth)) if truth == decisive => return Ok(Some(decisive)),
            Ok(Some(_)) => {}
            Ok(None) => result = result.and(Ok(None)),
            Err(Untold) => result = Err(Untold),
        }
    }
    result
}

fn read(kind: Kind, table: &Table, row: &[Value], column: usize) -> Result<Option<Scalar>, Untold> {
    match row.get(column) {
        Some(Value::Null) => Ok(None),
        // A text that cannot be read is for PostgreSQL to judge: the row is read again.
        Some(Value::Text(text)) => kind.read(text, &table.columns[column]).map(Some).ok_or(Untold),
        Some(Value::Unchanged) | None => Err(Untold),
    }
}

fn join(parts: &[Expression], word: &str, table: &Table) -> String {
    let parts: Vec<String> = parts.iter().map(|p| p.sql(table)).collect();
    format!("({})", parts.join(word))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
