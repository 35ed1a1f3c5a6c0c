//! Shapes: what a client can subscribe to.

mod definition;

pub use definition::{Fingerprint, Shape, ShapeError, ShapeId, ShapeRequest, Source};
