//! `if` of an operation: is the row as it was when the client saw it?

use super::{Statement, column, find, key_condition, parameter};
use crate::catalog::{literal, qualified, quote};
use lockstep_core::catalog::{Catalog, Collation, Column};
use lockstep_core::mutation::{Operation, Refusal};

/// Types whose `=` is true of values that print alike, and of others only where nobody would call it a change: `1.0`
/// and `1.00`, an instant in two offsets. By oid, which is fixed for built-in types.
const COMPARED: &[u32] = &[
    16, 17, 18, 19, 20, 21, 23, 25, 26, 650, 700, 701, 774, 790, 829, 869, 1042, 1043, 1082, 1083, 1114,
    1184, 1186, 1266, 1560, 1562, 1700, 2950, 3220, 3802,
];

/// Without an equality of its own; as jsonb it has one, and neither blanks nor the order of names matter.
const JSON: u32 = 114;
/// Their `=` may be told by a collation.
const TEXTS: &[u32] = &[19, 25, 1042, 1043];

/// A statement that locks the row, if the operation is conditional. Its one row holds the names of the columns that
/// are not as they were seen; no row: there is none under this key.
pub(super) fn compile(operation: &Operation, catalog: &Catalog) -> Result<Option<Statement>, Refusal> {
    let (table, key, condition) = match operation {
        Operation::Update { table, key, condition: Some(condition), .. }
        | Operation::Delete { table, key, condition: Some(condition) } => (table, key, condition),
        _ => return Ok(None),
    };
    let table = find(catalog, table)?;
    let mut values = Vec::new();
    let mut changed = Vec::new();
    for (name, value) in condition {
        let column = column(table, name)?;
        values.push(parameter(column, value)?);
        let differs = differs(column, values.len());
        changed.push(format!("case when {differs} then {}::text end", literal(&column.name)));
    }
    let key = key_condition(table, key, &mut values)?;
    let sql = format!(
        "select pg_catalog.concat_ws(', ', {}) from {} where {key} for update",
        changed.join(", "),
        qualified(table)
    );
    Ok(Some(Statement { sql, values }))
}

/// Whether the column's value is another one than the parameter's. Of a domain the base type's: a value that the
/// domain does not allow is no value of the row, and no mistake.
fn differs(column: &Column, parameter: usize) -> String {
    let name = quote(&column.name);
    let type_sql = column.base_sql.as_ref().unwrap_or(&column.type_sql);
    let seen = format!("${parameter}::{type_sql}");
    let base = column.base();
    if base == JSON {
        return format!("{name}::pg_catalog.jsonb is distinct from ${parameter}::pg_catalog.jsonb");
    }
    if TEXTS.contains(&base) && column.collation == Collation::Nondeterministic {
        return format!("{name} collate \"C\" is distinct from {seen} collate \"C\"");
    }
    let is_enum = column.is_enum || !column.labels.is_empty();
    if COMPARED.contains(&base) || is_enum {
        return format!("{name} is distinct from {seen}");
    }
    format!("{name}::text is distinct from {seen}::text")
}
