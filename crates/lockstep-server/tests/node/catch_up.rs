//! catch_up
