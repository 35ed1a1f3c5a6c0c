//! `cargo x bench`: what Lockstep costs; the client's in Chromium, everything else by crates/lockstep-load.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use lockstep_pg::cluster::process::{self, Signal};

use crate::{setup, stop, workspace};

mod client;

/// Options of `cargo x bench`: those of the bench follow its name.
#[derive(clap::Args)]
pub struct Options {
    /// A bench and its options: `writes --json`, `client --json`; `cargo x bench help` says more.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "BENCH")]
    arguments: Vec<OsString>,
}

/// `cargo x bench`.
pub fn run(options: &Options) -> Result<ExitCode> {
    if let Some((name, rest)) = options.arguments.split_first()
        && name == "client"
    {
        return finish(client::command(rest)?);
    }
    let mut bench = Command::new(setup::cargo());
    bench.args(["run", "--quiet", "--release", "--package", "lockstep-load", "--"]).args(&options.arguments);
    bench.current_dir(workspace::root());
    finish(bench)
}

/// Runs it to its end, or to ours.
fn finish(mut bench: Command) -> Result<ExitCode> {
    bench.stdin(Stdio::null());
    let mut child = process::spawn_bound(bench, Signal::SIGKILL).context("cannot run the bench")?;
    let status = loop {
        if let Some(status) = process::wait_for(&mut child, Duration::from_millis(100))? {
            break status;
        }
        if stop::requested() {
            process::send(child.id(), Signal::SIGKILL)?;
            child.wait()?;
            stop::check()?;
        }
    };
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
