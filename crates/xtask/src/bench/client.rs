//! `cargo x bench client`: the client library in Chromium; see e2e/bench.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::{setup, workspace};

/// The command, with these options: `--json`, `--pairs 7`.
pub fn command(options: &[OsString]) -> Result<Command> {
    setup::web_packages()?;
    let mut bench = Command::new("node");
    bench.arg("bench/run.mjs").args(options).env("CHROMIUM", setup::chromium()?);
    bench.current_dir(workspace::root().join("e2e"));
    Ok(bench)
}
