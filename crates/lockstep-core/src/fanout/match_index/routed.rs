//! What a transaction does to the shapes that it touches.

use crate::change::{Key, Tuple};
use crate::fanout::merge::Hole;
use crate::position::ResetReason;
use crate::protocol::Delta;
use std::collections::BTreeMap;

/// A shape's number in the hub.
pub type ShapeIndex = u32;

/// What a transaction does to one key, or to all, of one shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Touch<'n> {
    /// All rows go.
    Reset(ResetReason),
    /// The row is now this.
    Put(&'n Tuple),
    /// The key is no longer in the shape.
    Remove(&'n Key),
    /// The stream alone cannot say.
    Hole,
}

/// What a transaction does to the shapes that it touches: by shape, and of each in the order of the keys.
#[derive(Debug, Default)]
pub struct Routed<'n>(pub(super) Vec<(ShapeIndex, Touch<'n>)>);

/// A shape and what happens to it, unless the stream alone cannot say.
pub type Touched<'r, 'n> = (ShapeIndex, Result<&'r [(ShapeIndex, Touch<'n>)], Hole>);

impl<'n> Routed<'n> {
    /// Each shape that is touched, with what happens to it.
    pub fn shapes(&self) -> impl Iterator<Item = Touched<'_, 'n>> {
        self.0.chunk_by(|a, b| a.0 == b.0).map(|touches| {
            let hole = touches.iter().any(|(_, touch)| *touch == Touch::Hole);
            (touches[0].0, if hole { Err(Hole) } else { Ok(touches) })
        })
    }

    /// Shapes that the stream alone cannot tell.
    pub fn hole_shapes(&self) -> impl Iterator<Item = ShapeIndex> {
        self.0.iter().filter(|(_, touch)| *touch == Touch::Hole).map(|(shape, _)| *shape)
    }

    /// The same as owned changes, by shape.
    pub fn deltas(&self) -> BTreeMap<ShapeIndex, Result<Delta, Hole>> {
        self.shapes().map(|(shape, touches)| (shape, touches.map(delta_of))).collect()
    }
}

fn delta_of(touches: &[(ShapeIndex, Touch<'_>)]) -> Delta {
    let mut delta = Delta::default();
    for (_, touch) in touches {
        match touch {
            Touch::Reset(reason) => delta.reset = Some(*reason),
            Touch::Put(row) => delta.put.push((*row).clone()),
            Touch::Remove(key) => delta.remove.push((*key).clone()),
            Touch::Hole => {}
        }
    }
    delta
}
