//! `cargo x sim`: the real core in seeded worlds; see crates/lockstep-sim.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{child, setup, workspace};

/// Options of `cargo x sim`.
#[derive(clap::Args)]
pub struct Options {
    /// How long worlds are begun.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only the world of this seed, as a line about a violation names it.
    #[arg(long)]
    seed: Option<u64>,
    /// A known fault, built in: it must be found, and the run ends with 1.
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Every known fault in turn, each for so many seconds at most; the run ends with 1 if one is not found.
    #[arg(long, conflicts_with_all = ["plant", "seed", "trace"])]
    plants: bool,
    /// Print one JSON object and nothing else on the standard output.
    #[arg(long)]
    json: bool,
    /// Write traces for `vectors/` to this directory instead: of one seed, or a choice that covers what worlds show.
    #[arg(long, value_name = "DIR")]
    trace: Option<std::path::PathBuf>,
}

/// `cargo x sim`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut sim = Command::new(setup::cargo());
    sim.args(["run", "--quiet", "--profile", "sim", "--package", "lockstep-sim"]);
    // With the faults that can be built in; alone, so that no other build has them.
    sim.args(["--features", "plants", "--", "--seconds", &options.seconds.to_string()]);
    let seed = options.seed.map(|seed| seed.to_string());
    for (name, value) in [("--seed", &seed), ("--plant", &options.plant)] {
        if let Some(value) = value {
            sim.args([name, value]);
        }
    }
    if options.plants {
        sim.arg("--plants");
    }
    if options.json {
        sim.arg("--json");
    }
    if let Some(directory) = &options.trace {
        sim.arg("--trace").arg(std::path::absolute(directory)?);
    }
    sim.current_dir(workspace::root());
    child::hand_over(sim, "the simulation")
}
