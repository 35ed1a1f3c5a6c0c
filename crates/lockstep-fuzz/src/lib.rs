//! What is fuzzed: every place where bytes from outside are read.
//!
//! Each target takes any bytes and panics if what is promised of them does not hold: nothing panics, memory stays
//! within [`memory::bound`], and a second opinion agrees (an independent parser, a model, or the way back).
//! `cargo x fuzz` runs them under libFuzzer; `cargo test` runs the inputs in `fixtures` and `corpus`.
//!
//! - `fixtures/<target>`: inputs that once broke something; they run first, always.
//! - `corpus/<target>`: inputs that reach different code.
#![allow(clippy::unwrap_used, reason = "a target fails by panicking")]

pub mod memory;
pub mod messages;
pub mod sample;
mod targets;

use std::path::{Path, PathBuf};

/// Something that reads outside bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of its folders and on the command line.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "decoder", run: targets::decoder::run },
    Target { name: "wire", run: targets::wire::run },
    Target { name: "position", run: targets::position::run },
    Target { name: "frames", run: targets::frames::run },
    Target { name: "replica", run: targets::replica::run },
    Target { name: "url", run: targets::url::run },
    Target { name: "predicate", run: targets::predicate::run },
];

/// By name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

impl Target {
    /// Its committed inputs, those that once broke something first.
    pub fn inputs(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for kind in ["fixtures", "corpus"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(self.name);
            if !folder.is_dir() {
                continue;
            }
            let mut files: Vec<PathBuf> =
                std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
            files.sort();
            all.extend(files);
        }
        Ok(all)
    }
}

/// Input that chooses how the rest is read: one byte, then the rest.
fn split(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}
