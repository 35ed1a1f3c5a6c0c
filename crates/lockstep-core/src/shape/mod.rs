//! Shapes: what a client can subscribe to.

mod definition;
mod predicate;

pub use definition::{Fingerprint, Shape, ShapeError, ShapeId, ShapeRequest, Source};
pub(crate) use predicate::{Hint, Kind, Scalar, compare};
pub use predicate::{Predicate, Untold};
