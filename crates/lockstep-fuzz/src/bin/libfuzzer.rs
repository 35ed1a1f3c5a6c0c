//! The program that `cargo x fuzz` runs: one target, named by the environment, under libFuzzer.
#![no_main]

use cap::Cap;
use lockstep_fuzz::{Target, memory, target};
use std::alloc::System;
use std::sync::LazyLock;

#[global_allocator]
static ALLOCATOR: memory::Allocator = Cap::new(System, usize::MAX);

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("LOCKSTEP_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("LOCKSTEP_FUZZ_TARGET names no target: {name:?}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = *TARGET;
    memory::run(&ALLOCATOR, target, data);
});
