//! `cargo x bench`: what Lockstep costs; the client's in Chromium, everything else by crates/lockstep-load.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{child, setup, workspace};

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
        return child::hand_over(client::command(rest)?, "the bench");
    }
    // Benches start the node and their limits as programs of their own, which are beside them.
    let mut build = Command::new(setup::cargo());
    build.args([
        "build",
        "--quiet",
        "--release",
        "--bins",
        "--package",
        "lockstep-server",
        "--package",
        "lockstep-load",
    ]);
    build.current_dir(workspace::root());
    child::must(build, "bench-build")?;
    let mut bench = Command::new(setup::cargo());
    bench.args(["run", "--quiet", "--release", "--package", "lockstep-load", "--"]).args(&options.arguments);
    bench.current_dir(workspace::root());
    child::hand_over(bench, "the bench")
}
