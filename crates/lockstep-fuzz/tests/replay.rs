//! Every committed input again: those that once broke something first, then the corpora.
//!
//! Alone in its program: memory is measured, and another test's would be counted as well.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cap::Cap;
use lockstep_fuzz::{TARGETS, memory};
use std::alloc::System;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[global_allocator]
static ALLOCATOR: memory::Allocator = Cap::new(System, usize::MAX);

#[test]
fn committed_inputs_break_nothing() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let inputs = target.inputs().unwrap();
        assert!(inputs.len() > 20, "{} has no corpus", target.name);
        for path in inputs {
            let data = std::fs::read(&path).unwrap();
            let ran = catch_unwind(AssertUnwindSafe(|| memory::run(&ALLOCATOR, target, &data)));
            if ran.is_err() {
                broken.push(format!("cargo x fuzz --target {} --replay {}", target.name, path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "run again:\n{}", broken.join("\n"));
}
