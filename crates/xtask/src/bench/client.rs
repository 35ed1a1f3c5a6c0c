//! `cargo x bench client`: the client library in Chromium; see e2e/bench.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use lockstep_pg::cluster::process::{self, Signal};

use crate::{setup, stop, workspace};

/// Runs it with these options: `--json`, `--pairs 7`.
pub fn run(options: &[OsString]) -> Result<ExitCode> {
    setup::web_packages()?;
    let mut bench = Command::new("node");
    bench.arg("bench/run.mjs").args(options).env("CHROMIUM", setup::chromium()?);
    bench.current_dir(workspace::root().join("e2e")).stdin(Stdio::null());
    let mut child = process::spawn_bound(bench, Signal::SIGTERM).context("cannot run node")?;
    let status = loop {
        if let Some(status) = process::wait_for(&mut child, Duration::from_millis(100))? {
            break status;
        }
        if stop::requested() {
            process::send(child.id(), Signal::SIGTERM)?;
            child.wait()?;
            stop::check()?;
        }
    };
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
