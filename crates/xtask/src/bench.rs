//! `cargo x bench`: what Lockstep costs.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

mod client;

/// Options of `cargo x bench`: those of the bench follow its name.
#[derive(clap::Args)]
pub struct Options {
    /// A bench and its options: `client --json`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "BENCH")]
    arguments: Vec<OsString>,
}

/// `cargo x bench`.
pub fn run(options: &Options) -> Result<ExitCode> {
    match options.arguments.split_first() {
        Some((name, rest)) if name == "client" => client::run(rest),
        _ => bail!("there is one bench: `cargo x bench client`"),
    }
}
