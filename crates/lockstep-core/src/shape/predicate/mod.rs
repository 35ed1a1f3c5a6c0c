//! `where`: a small SQL expression over a row's own columns.
//!
//! One parser, one meaning: the tree is compiled to SQL for catch-ups and evaluated here for the stream, in SQL's
//! three-valued logic. What the two might not agree about is refused by name. A predicate is not a permission:
//! whatever gates sight is a scope.

mod decimal;
mod expression;
mod kind;
mod moment;
mod pattern;
mod resolve;

pub(crate) use expression::Hint;
pub use expression::Untold;
pub(crate) use kind::{Kind, Scalar, compare};

use super::ShapeError;
use crate::catalog::Table;
use crate::change::{Text, Value};
use expression::Expression;
use serde_json::Value as Json;

/// A predicate over the rows of one table.
#[derive(Debug, Clone)]
pub struct Predicate {
    /// As the client wrote it, to be resolved again when the schema changes.
    text: String,
    parameters: Vec<Json>,
    expression: Expression,
    sql: String,
}

impl Predicate {
    /// Reads the text of a `where` with its parameters, or says what is not understood.
    pub fn resolve(text: &str, parameters: &[Json], table: &Table) -> Result<Self, ShapeError> {
        let expression = resolve::resolve(text, parameters, table)?;
        let sql = expression.sql(table);
        Ok(Self { text: text.to_owned(), parameters: parameters.to_vec(), expression, sql })
    }

    /// The same over the table's present schema.
    pub fn again(&self, table: &Table) -> Result<Self, ShapeError> {
        Self::resolve(&self.text, &self.parameters, table)
    }

    /// SQL's truth: None is unknown, which does not pass. The row is a whole one of the table.
    pub fn truth(&self, table: &Table, row: &[Value]) -> Result<Option<bool>, Untold> {
        self.expression.truth(table, row)
    }

    /// Whether the row passes.
    pub fn passes(&self, table: &Table, row: &[Value]) -> Result<bool, Untold> {
        self.expression.passes(table, row)
    }

    /// What a row that passes must have besides equalities, as far as an index can use it.
    pub(crate) fn hint(&self) -> Hint {
        self.expression.hint()
    }

    /// The same as an SQL expression over a table called `t`. Equal ones are one predicate.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Columns that must have these texts for a row to pass, by column; and whether nothing else is asked of it.
    pub fn equalities(&self) -> (Vec<(usize, Text)>, bool) {
        let (mut found, whole) = self.expression.equalities();
        found.sort();
        found.dedup();
        (found, whole)
    }

    /// Whether a row has all of these texts.
    pub(crate) fn has_equalities(&self, row: &[Value]) -> bool {
        self.expression.has_equalities(row)
    }

    /// The columns that it reads, ascending.
    pub fn columns(&self) -> Vec<usize> {
        let mut found = Vec::new();
        self.expression.columns(&mut found);
        found.sort_unstable();
        found.dedup();
        found
    }
}
