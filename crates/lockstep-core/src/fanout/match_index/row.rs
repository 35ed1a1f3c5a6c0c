//! One row's change, and what it does to a shape that was found by it.

use super::{Known, Member, ShapeIndex, Touch};
use crate::change::{Final, Key, KeyNet, OldScope, Tuple, Value};
use crate::fanout::merge::{Effect, Hole, effect};
use crate::shape::Untold;
use std::collections::HashMap;

/// Where a shape was found.
pub(super) const NEW: u8 = 1;
/// In the row as it was before the transaction.
pub(super) const BEFORE: u8 = 2;
/// In a scope that the row left.
pub(super) const LEFT: u8 = 4;
/// It must be looked at.
pub(super) const LOOK: u8 = 8;
/// In its scope alone, now or before, and nothing says whether the row was in the shape.
pub(super) const SCOPED: u8 = 16;

/// A shape that was found, and where. Packed, since all of a row's are sorted by shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hit(u64);

impl Hit {
    pub fn new(index: ShapeIndex, member: Member, how: u8) -> Self {
        Self(u64::from(index) << 16 | u64::from(how) << 8 | member as u64)
    }

    #[allow(clippy::cast_possible_truncation, reason = "packed there")]
    pub const fn shape(self) -> ShapeIndex {
        (self.0 >> 16) as ShapeIndex
    }

    pub const fn how(self) -> u8 {
        (self.0 >> 8 & 0xff) as u8
    }

    /// Nothing else decides than its scope.
    pub const fn is_plain(self) -> bool {
        self.0 & 0xff == Member::Plain as u64
    }
}

/// Whether the row passes a predicate, by the predicate's number; or the row as it was before.
pub(super) type Passed = HashMap<(u32, bool), Result<bool, Untold>>;

/// One key's change.
pub(super) struct Row<'n, 't> {
    pub net: &'n KeyNet,
    pub key: &'n Key,
    pub end: &'n Final,
    /// As it was before the transaction, if the stream says so.
    pub before: Option<&'n Tuple>,
    pub scope_columns: &'t [usize],
}

impl<'n> Row<'n, '_> {
    /// Nothing says what the row was before, and it was.
    pub fn untold(&self) -> bool {
        self.before.is_none() && !self.net.fresh
    }

    pub fn left(&self) -> &'n [OldScope] {
        &self.net.left
    }

    pub fn old(&self, scope: &'n OldScope, column: usize) -> Option<&'n Value> {
        self.scope_columns.iter().position(|c| *c == column).and_then(|at| scope.get(at))
    }

    /// Large values that were not repeated: whoever is told of the row must be looked at.
    pub fn is_partial(&self) -> bool {
        matches!(self.end, Final::Row(row) if row.contains(&Value::Unchanged))
    }

    /// What happens to a shape about which the places where it was found say all: if its rows must have more than
    /// values, this one does not have it.
    pub fn known(&self, plain: bool, how: u8) -> Option<Touch<'n>> {
        match self.end {
            Final::Row(row) if how & NEW != 0 => return Some(Touch::Put(row)),
            _ => {}
        }
        let was_here = if plain { how & LEFT } else { how & (BEFORE | SCOPED) };
        (was_here != 0).then_some(Touch::Remove(self.key))
    }

    /// What happens to any shape. Each predicate is evaluated once for the row, and once for what it was.
    pub fn look(&self, known: &Known, passed: &mut Passed) -> Option<Touch<'n>> {
        let Known { shape, predicate, .. } = known;
        let passes = |row: &Tuple, before: bool| match predicate {
            None => Ok(true),
            Some(number) => *passed.entry((*number, before)).or_insert_with(|| shape.passes(row)),
        };
        match effect(shape, self.net, self.end, passes) {
            Ok(Effect::Put(row)) => Some(Touch::Put(row)),
            Ok(Effect::Remove) => Some(Touch::Remove(self.key)),
            Ok(Effect::Nothing) => None,
            Err(Hole) => Some(Touch::Hole),
        }
    }
}
