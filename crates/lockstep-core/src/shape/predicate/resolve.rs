//! From the text of a `where` to a tree over a table's columns. What cannot be expressed exactly is refused by name.

use super::expression::{Comparison, Expression, Literal, Operand};
use super::kind::Kind;
use super::pattern::Pattern;
use crate::catalog::{Collation, Table};
use crate::limits;
use crate::shape::ShapeError;
use serde_json::Value as Json;
use sqlparser::ast::{BinaryOperator, Expr, Ident, ObjectName, UnaryOperator, Value as Constant};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

type Result<T> = std::result::Result<T, ShapeError>;

/// Reads a text. Parameters are JSON values, `$1` the first.
pub(super) fn resolve(text: &str, parameters: &[Json], table: &Table) -> Result<Expression> {
    if text.len() > limits::WHERE_BYTES {
        return Err(too_large(format!("is longer than {} bytes", limits::WHERE_BYTES)));
    }
    let parsed = parse(text).map_err(|error| match error {
        ParserError::RecursionLimitExceeded => {
            too_large(format!("is nested deeper than {} levels", limits::WHERE_DEPTH))
        }
        ParserError::TokenizerError(said) | ParserError::ParserError(said) => {
            ShapeError::new("bad_where", format!("`where` cannot be read: {said}"))
        }
    })?;
    Resolver { table, parameters, terms: 0 }.condition(&parsed)
}

fn parse(text: &str) -> std::result::Result<Expr, ParserError> {
    let mut parser =
        Parser::new(&PostgreSqlDialect {}).with_recursion_limit(limits::WHERE_DEPTH).try_with_sql(text)?;
    let parsed = parser.parse_expr()?;
    match parser.peek_token().token {
        Token::EOF => Ok(parsed),
        other => Err(ParserError::ParserError(format!("{other} is one too many"))),
    }
}

fn unsupported(message: impl Into<String>) -> ShapeError {
    ShapeError::new("where_unsupported", message)
}

fn too_large(why: String) -> ShapeError {
    let message = format!("`where` {why}; say it with less, or ask for several shapes");
    ShapeError { at_bound: true, ..unsupported(message) }
}

/// A column, and whether `collate "C"` was written behind it.
#[derive(Clone, Copy)]
struct Named {
    column: usize,
    bytes: bool,
}

enum Side {
    Column(Named),
    Constant(Option<String>),
}

struct Resolver<'a> {
    table: &'a Table,
    parameters: &'a [Json],
    terms: usize,
}

impl Resolver<'_> {
    fn condition(&mut self, expr: &Expr) -> Result<Expression> {
        self.terms += 1;
        if self.terms > limits::WHERE_TERMS {
            return Err(too_large(format!("has more than {} terms", limits::WHERE_TERMS)));
        }
        Ok(match expr {
            Expr::Nested(inner) => self.condition(inner)?,
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                self.chain(expr, op)?
            }
            Expr::BinaryOp { left, op, right } => self.compare(left, Some(comparison(op)?), right)?,
            Expr::IsDistinctFrom(left, right) => self.compare(left, None, right)?,
            Expr::IsNotDistinctFrom(left, right) => not(self.compare(left, None, right)?),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => not(self.condition(expr)?),
            Expr::IsNull(inner) => Expression::IsNull(self.any_column(inner)?),
            Expr::IsNotNull(inner) => not(Expression::IsNull(self.any_column(inner)?)),
            Expr::IsTrue(inner) => self.is(inner, Some(true))?,
            Expr::IsNotTrue(inner) => not(self.is(inner, Some(true))?),
            Expr::IsFalse(inner) => self.is(inner, Some(false))?,
            Expr::IsNotFalse(inner) => not(self.is(inner, Some(false))?),
            Expr::IsUnknown(inner) => self.is(inner, None)?,
            Expr::IsNotUnknown(inner) => not(self.is(inner, None)?),
            Expr::InList { expr, list, negated } => negate(*negated, self.in_list(expr, list)?),
            Expr::Between { expr, negated, low, high } => {
                let low = self.compare(expr, Some(Comparison::GreaterOrEqual), low)?;
                let high = self.compare(expr, Some(Comparison::LessOrEqual), high)?;
                negate(*negated, Expression::And(vec![low, high]))
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                negate(*negated, self.like(expr, pattern, false)?)
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char: None } => {
                negate(*negated, self.like(expr, pattern, true)?)
            }
            Expr::Like { .. } | Expr::ILike { .. } => {
                return Err(unsupported(
                    "`like` with `any` or `escape` is not understood; escape with a backslash",
                ));
            }
            Expr::Identifier(name) => self.boolean(name)?,
            Expr::Value(value) => self.truth(&value.value)?,
            other => return Err(self.unknown(other)),
        })
    }

    /// `a and b and c`, which the parser nests to the left: a loop, so that a long one needs no deep stack.
    fn chain(&mut self, expr: &Expr, word: &BinaryOperator) -> Result<Expression> {
        let mut operands = Vec::new();
        let mut rest = expr;
        while let Expr::BinaryOp { left, op, right } = rest
            && op == word
        {
            operands.push(right.as_ref());
            rest = left;
        }
        operands.push(rest);
        let parts = operands.into_iter().rev().map(|e| self.condition(e)).collect::<Result<Vec<_>>>()?;
        Ok(match word {
            BinaryOperator::And => Expression::And(parts),
            _ => Expression::Or(parts),
        })
    }

    fn is(&mut self, inner: &Expr, wanted: Option<bool>) -> Result<Expression> {
        Ok(Expression::Is(Box::new(self.condition(inner)?), wanted))
    }

    fn compare(&mut self, left: &Expr, op: Option<Comparison>, right: &Expr) -> Result<Expression> {
        let (named, op, other) = match (self.side(left)?, self.side(right)?) {
            (Side::Column(a), other) => (a, op, other),
            (other, Side::Column(b)) => (b, op.map(Comparison::mirrored), other),
            (Side::Constant(_), Side::Constant(_)) => {
                return Err(unsupported("a comparison in `where` needs a column on one side"));
            }
        };
        let kind = self.kind(named.column)?;
        let mut bytes = named.bytes;
        let with = match other {
            Side::Constant(given) => Operand::Literal(self.literal(kind, named.column, given.as_deref())?),
            Side::Column(other) => {
                bytes |= other.bytes;
                self.same_type(named.column, other.column)?;
                Operand::Column(other.column)
            }
        };
        let ordered = op.is_some_and(|op| !op.is_equality());
        if kind == Kind::Text {
            let both = [
                Some(named.column),
                match with {
                    Operand::Column(other) => Some(other),
                    Operand::Literal(_) => None,
                },
            ];
            let by_bytes = |c: usize| self.table.columns[c].collation == Collation::Bytes;
            if ordered && !bytes && !both.into_iter().flatten().all(by_bytes) {
                let name = &self.table.columns[named.column].name;
                return Err(unsupported(format!(
                    "{name:?} is ordered by a collation that only PostgreSQL has; write {name} collate \"C\" to \
                     order by bytes"
                )));
            }
            // Equality is equality of bytes under every collation here, so that an index may serve the column's own;
            // two columns of different collations cannot be compared without naming one.
            bytes |= ordered || matches!(with, Operand::Column(_));
        } else if bytes {
            return Err(self.no_collation(named.column));
        }
        Ok(Expression::Compare { op, kind, column: named.column, with, bytes })
    }

    fn in_list(&mut self, expr: &Expr, list: &[Expr]) -> Result<Expression> {
        let named = self.column(expr)?;
        let kind = self.kind(named.column)?;
        let mut literals = Vec::with_capacity(list.len());
        for item in list {
            self.terms += 1;
            let Side::Constant(given) = self.side(item)? else {
                return Err(unsupported("`in` takes constants and parameters"));
            };
            literals.push(self.literal(kind, named.column, given.as_deref())?);
        }
        if self.terms > limits::WHERE_TERMS {
            return Err(too_large(format!("has more than {} terms", limits::WHERE_TERMS)));
        }
        Ok(Expression::In { kind, column: named.column, list: literals })
    }

    fn like(&mut self, expr: &Expr, pattern: &Expr, fold: bool) -> Result<Expression> {
        let named = self.column(expr)?;
        let column = &self.table.columns[named.column];
        if self.kind(named.column)? != Kind::Text {
            return Err(unsupported(format!(
                "`like` takes a text, and {:?} is {}",
                column.name, column.type_name
            )));
        }
        if fold && !named.bytes && column.collation != Collation::Bytes {
            let name = &column.name;
            return Err(unsupported(format!(
                "`ilike` folds letters by a collation that only PostgreSQL has; write {name} collate \"C\" ilike …, \
                 which folds ASCII letters"
            )));
        }
        let Side::Constant(given) = self.side(pattern)? else {
            return Err(unsupported("the pattern of `like` must be a constant or a parameter"));
        };
        let Some(given) = given else { return Ok(Expression::Constant(None)) };
        let good = if given.contains('\0') { None } else { Pattern::parse(&given, fold) };
        let pattern = good.ok_or_else(|| {
            ShapeError::new(
                "bad_where",
                "a pattern of `like` must not end with the escape character, nor hold U+0000",
            )
        })?;
        Ok(Expression::Like { column: named.column, text: given.into(), pattern, fold })
    }

    fn boolean(&mut self, name: &Ident) -> Result<Expression> {
        let column = self.find(name)?;
        match Kind::of(&self.table.columns[column]) {
            Some(Kind::Bool) => Ok(Expression::Column(column)),
            _ => Err(unsupported(format!("{:?} is not boolean; compare it with something", name.value))),
        }
    }

    fn truth(&mut self, constant: &Constant) -> Result<Expression> {
        match self.constant(constant)?.as_deref() {
            None => Ok(Expression::Constant(None)),
            Some("true") => Ok(Expression::Constant(Some(true))),
            Some("false") => Ok(Expression::Constant(Some(false))),
            Some(_) => Err(unsupported("a condition in `where` must be true, false or unknown")),
        }
    }

    fn side(&mut self, expr: &Expr) -> Result<Side> {
        Ok(match expr {
            Expr::Nested(inner) => self.side(inner)?,
            Expr::Value(value) => Side::Constant(self.constant(&value.value)?),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match self.side(expr)? {
                Side::Constant(Some(n)) if n.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                    Side::Constant(Some(format!("-{n}")))
                }
                _ => return Err(unsupported("`where` does not calculate")),
            },
            _ => Side::Column(self.column(expr)?),
        })
    }

    fn column(&self, expr: &Expr) -> Result<Named> {
        match expr {
            Expr::Nested(inner) => self.column(inner),
            Expr::Identifier(name) => Ok(Named { column: self.find(name)?, bytes: false }),
            Expr::Collate { expr, collation } if is_c(collation) => {
                Ok(Named { bytes: true, ..self.column(expr)? })
            }
            Expr::Collate { .. } => Err(unsupported("`where` knows the collation \"C\" only")),
            other => Err(self.unknown(other)),
        }
    }

    /// For `is null`, which every type has.
    fn any_column(&self, expr: &Expr) -> Result<usize> {
        Ok(self.column(expr)?.column)
    }

    fn find(&self, name: &Ident) -> Result<usize> {
        let wanted = match name.quote_style {
            Some(_) => name.value.clone(),
            None => name.value.to_ascii_lowercase(),
        };
        self.table.column(&wanted).ok_or_else(|| {
            let has = self.table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
            let table = format!("{}.{}", self.table.schema, self.table.name);
            ShapeError::new("unknown_column", format!("`where` names {wanted:?}; {table} has {has}"))
        })
    }

    fn kind(&self, column: usize) -> Result<Kind> {
        let column = &self.table.columns[column];
        Kind::of(column).ok_or_else(|| {
            let (name, of) = (&column.name, &column.type_name);
            let why = match column.collation {
                Collation::Nondeterministic => "its collation is not deterministic".to_owned(),
                _ => format!("{of} is not compared here"),
            };
            unsupported(format!("{name:?} can only be asked for `is null`: {why}"))
        })
    }

    fn same_type(&self, a: usize, b: usize) -> Result<()> {
        let (a, b) = (&self.table.columns[a], &self.table.columns[b]);
        if a.type_oid == b.type_oid && b.collation != Collation::Nondeterministic {
            return Ok(());
        }
        Err(unsupported(format!(
            "{:?} is {} and {:?} is {}: only columns of one type are compared with each other",
            a.name, a.type_name, b.name, b.type_name
        )))
    }

    /// A constant takes the type of the column that it is compared with.
    fn literal(&self, kind: Kind, column: usize, given: Option<&str>) -> Result<Literal> {
        let Some(given) = given else { return Ok(None) };
        let column = &self.table.columns[column];
        kind.literal(given, column).map(Some).ok_or_else(|| {
            let (name, of) = (&column.name, &column.type_name);
            ShapeError::new("bad_where", format!("a value compared with {name:?} is not a valid {of}"))
        })
    }

    fn constant(&self, constant: &Constant) -> Result<Option<String>> {
        Ok(Some(match constant {
            Constant::Null => return Ok(None),
            Constant::Number(text, false) => text.clone(),
            Constant::SingleQuotedString(text) => text.clone(),
            Constant::Boolean(truth) => truth.to_string(),
            Constant::Placeholder(name) => return self.parameter(name),
            _ => {
                return Err(unsupported(
                    "constants in `where` are numbers, 'texts', true, false, null and $1",
                ));
            }
        }))
    }

    fn parameter(&self, name: &str) -> Result<Option<String>> {
        let number = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).filter(|n| *n > 0);
        let number = number.ok_or_else(|| unsupported("parameters of `where` are called $1, $2, …"))?;
        match self.parameters.get(number - 1) {
            Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(Json::Bool(truth)) => Ok(Some(truth.to_string())),
            Some(Json::Number(n)) => Ok(Some(n.to_string())),
            Some(_) => Err(ShapeError::new(
                "bad_where",
                format!("${number} must be a text, number, boolean or null"),
            )),
            None => Err(ShapeError::new("bad_where", format!("`params` has no value for ${number}"))),
        }
    }

    fn no_collation(&self, column: usize) -> ShapeError {
        let column = &self.table.columns[column];
        unsupported(format!("{:?} is {}, which has no collation", column.name, column.type_name))
    }

    fn unknown(&self, expr: &Expr) -> ShapeError {
        let what = match expr {
            Expr::Function(_) => "functions",
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => "subqueries",
            Expr::Cast { .. } | Expr::TypedString(_) => {
                return unsupported("`where` has no casts: a constant takes the type of its column");
            }
            Expr::CompoundIdentifier(_) => "names with a table before them",
            Expr::BinaryOp { .. } | Expr::UnaryOp { .. } => "calculations",
            _ => "this expression",
        };
        unsupported(format!(
            "`where` does not know {what}: it compares columns of the row with constants (=, <>, <, <=, >, >=, in, \
             between, like, ilike, is null, is distinct from, and, or, not)"
        ))
    }
}

fn comparison(op: &BinaryOperator) -> Result<Comparison> {
    Ok(match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        other => {
            return Err(unsupported(format!(
                "`where` does not know the operator {other}: compare with =, <>, <, <=, >, >=, in, between, like, ilike, \
                 is null or is distinct from"
            )));
        }
    })
}

fn is_c(collation: &ObjectName) -> bool {
    let names: Vec<_> = collation.0.iter().filter_map(|p| p.as_ident()).collect();
    let last = |i: &Ident| i.quote_style.is_some() && i.value == "C";
    match names.as_slice() {
        [name] => last(name),
        [schema, name] => schema.value == "pg_catalog" && last(name),
        _ => false,
    }
}

fn not(inner: Expression) -> Expression {
    Expression::Not(Box::new(inner))
}

fn negate(negated: bool, inner: Expression) -> Expression {
    if negated { not(inner) } else { inner }
}
