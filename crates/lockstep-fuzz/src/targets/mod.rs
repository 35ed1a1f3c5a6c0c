//! One file per target; each says what it promises.

pub mod decoder;
pub mod frames;
pub mod position;
pub mod predicate;
pub mod replica;
pub mod url;
pub mod wire;
