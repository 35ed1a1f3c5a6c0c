//! A bound on what one input may make a parser hold: lengths that an input only claims must not allocate.

use crate::Target;
use cap::Cap;
use std::alloc::System;

/// The allocator of programs that measure.
pub type Allocator = Cap<System>;

/// Bytes that an input of this length may take at most: its parts several times over as tree and text, and buffers.
pub fn bound(length: usize) -> usize {
    (1 << 20) + 256 * length
}

/// Runs a target and holds it to [`bound`]. `allocator` must be the program's, and nothing else must run.
pub fn run(allocator: &Allocator, target: &Target, data: &[u8]) {
    let (held, most) = (allocator.allocated(), allocator.max_allocated());
    (target.run)(data);
    let now_most = allocator.max_allocated();
    // The counter never falls: only a new maximum says something about this input.
    if now_most > most {
        let (took, bound) = (now_most.saturating_sub(held), bound(data.len()));
        assert!(
            took <= bound,
            "{} bytes of input took {took} bytes of memory, more than {bound}",
            data.len()
        );
    }
}
