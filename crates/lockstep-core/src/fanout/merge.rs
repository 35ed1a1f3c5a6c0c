//! What a transaction does to one shape.

use crate::change::{Final, Key, NetChanges, TableNet, Tuple, Value};
use crate::position::ResetReason;
use crate::protocol::Delta;
use crate::shape::Shape;

/// The stream alone cannot say what the shape becomes: a row enters it whose large values were not repeated.
/// The shape is caught up to a snapshot that sees the transaction instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole;

/// What happens to one key in one shape.
pub(super) enum Effect<'a> {
    Put(&'a Tuple),
    Remove,
    Nothing,
}

/// The effect of one key's end on a shape.
///
/// A put if the final row exists and lies in the scope, else a remove if it may have been there before: every
/// touched key of a table without scope, and of one with scopes the keys whose tombstones name this scope.
pub(super) fn effect<'a>(
    shape: &Shape,
    net: &'a TableNet,
    key: &Key,
    end: &'a Final,
) -> Result<Effect<'a>, Hole> {
    let moved = net.moved.get(key);
    let was_here = shape.scope().is_empty()
        || moved.is_some_and(|scopes| scopes.iter().any(|scope| shape.covers_old_scope(scope)));
    let absent = if was_here { Effect::Remove } else { Effect::Nothing };
    let Final::Row(row) = end else { return Ok(absent) };
    if shape.scope().iter().any(|(column, _)| row[*column] == Value::Unchanged) {
        return Err(Hole);
    }
    if !shape.covers(row) {
        return Ok(absent);
    }
    let partial = shape.columns.iter().any(|c| row[*c] == Value::Unchanged);
    if partial && (moved.is_some() || net.rekeyed.contains(key)) {
        return Err(Hole);
    }
    Ok(Effect::Put(row))
}

/// A transaction's effect on one shape, by looking at every row: for catch-ups, and the matching index's oracle.
pub fn delta_for(shape: &Shape, net: &NetChanges) -> Result<Delta, Hole> {
    let mut delta = Delta::default();
    let Some(table) = net.tables.get(&shape.table.oid) else { return Ok(delta) };
    if table.unreadable {
        return Err(Hole);
    }
    delta.reset = table.truncated.then_some(ResetReason::Truncated);
    for (key, end) in &table.rows {
        match effect(shape, table, key, end)? {
            Effect::Put(row) => delta.put.push(row.clone()),
            Effect::Remove => delta.remove.push(key.clone()),
            Effect::Nothing => {}
        }
    }
    Ok(delta)
}
