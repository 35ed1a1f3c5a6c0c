//! Placeholder, replaced by the crate's own map.

pub mod cluster;
pub mod install;
