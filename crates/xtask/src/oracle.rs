//! `cargo x oracle`: the real binary judged against a real PostgreSQL; see crates/lockstep-oracle.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{child, setup};

/// Options of `cargo x oracle`.
#[derive(clap::Args)]
pub struct Options {
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The major version of PostgreSQL, 14 to 18.
    #[arg(long, default_value_t = lockstep_pg::cluster::DEFAULT_MAJOR, value_parser = clap::value_parser!(u32).range(14..=18))]
    pg: u32,
    /// The first world's seed, as a line about a violation names it.
    #[arg(long)]
    seed: Option<u64>,
    /// A fault planted on purpose: drop-rows, swap-commits, torn-commit, cursor-ahead, lost-row,
    /// lost-change, no-tombstones, double-apply, blind-update. The run must then fail.
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Only this fault, again and again.
    #[arg(long, value_name = "KIND")]
    fault: Option<String>,
    /// Print one JSON object and nothing else on the standard output.
    #[arg(long)]
    json: bool,
}

/// `cargo x oracle`.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !setup::has_postgres(options.pg) {
        setup::postgres(options.pg)?;
    }
    let node = setup::program("lockstep-server", "lockstep")?;
    let mut oracle = Command::new(setup::program("lockstep-oracle", "lockstep-oracle")?);
    oracle.args(["--seconds", &options.seconds.to_string(), "--pg", &options.pg.to_string()]);
    oracle.arg("--node").arg(node);
    let seed = options.seed.map(|seed| seed.to_string());
    for (name, value) in [("--seed", &seed), ("--plant", &options.plant), ("--fault", &options.fault)] {
        if let Some(value) = value {
            oracle.args([name, value]);
        }
    }
    if options.json {
        oracle.arg("--json");
    }
    child::hand_over(oracle, "the oracle")
}
