//! What a transaction does to one shape.

use crate::change::{Final, KeyNet, NetChanges, Tuple, Value};
use crate::position::ResetReason;
use crate::protocol::Delta;
use crate::shape::{Shape, Untold};

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
/// A put if the final row exists, lies in the scope and passes the predicate, else a remove if it may have been there
/// before. `passes` says whether a row passes the shape's predicate; of the row as it was before with `true`.
pub(super) fn effect<'a>(
    shape: &Shape,
    net: &KeyNet,
    end: &'a Final,
    mut passes: impl FnMut(&Tuple, bool) -> Result<bool, Untold>,
) -> Result<Effect<'a>, Hole> {
    let absent = if was_here(shape, net, end, &mut passes) { Effect::Remove } else { Effect::Nothing };
    let Final::Row(row) = end else { return Ok(absent) };
    if shape.scope().iter().any(|(column, _)| row[*column] == Value::Unchanged) {
        return Err(Hole);
    }
    if !shape.covers(row) || !passes(row, false).map_err(|Untold| Hole)? {
        return Ok(absent);
    }
    let partial = shape.columns.iter().any(|c| row[*c] == Value::Unchanged);
    // With a predicate the row may enter by this update, and then the client does not hold its large values.
    if partial && (shape.predicate.is_some() || !net.left.is_empty() || net.rekeyed) {
        return Err(Hole);
    }
    Ok(Effect::Put(row))
}

/// Whether a client may hold the key in the shape: every touched key of a table without scope, and of one with scopes
/// the keys whose tombstones name this scope. Nothing tells which rows passed a predicate, unless the stream has the
/// old row; so with one, every key that is in the scope and not new.
fn was_here(
    shape: &Shape,
    net: &KeyNet,
    end: &Final,
    passes: &mut impl FnMut(&Tuple, bool) -> Result<bool, Untold>,
) -> bool {
    let left = || net.left.iter().any(|scope| shape.covers_old_scope(scope));
    if shape.predicate.is_none() {
        return shape.scope().is_empty() || left();
    }
    if let Some(before) = &net.before {
        return shape.covers(before) && passes(before, true) != Ok(false);
    }
    let stays = || matches!(end, Final::Row(row) if shape.covers(row));
    !net.fresh && (shape.scope().is_empty() || left() || stays())
}

/// A transaction's effect on one shape, by looking at every row: for catch-ups, and the matching index's oracle.
pub fn delta_for(shape: &Shape, net: &NetChanges) -> Result<Delta, Hole> {
    let mut delta = Delta::default();
    let Some(table) = net.tables.get(&shape.table.oid) else { return Ok(delta) };
    if table.unreadable {
        return Err(Hole);
    }
    delta.reset = table.truncated.then_some(ResetReason::Truncated);
    for (key, end, net) in table.ends() {
        match effect(shape, net, end, |row, _| shape.passes(row))? {
            Effect::Put(row) => delta.put.push(row.clone()),
            Effect::Remove => delta.remove.push(key.clone()),
            Effect::Nothing => {}
        }
    }
    Ok(delta)
}
