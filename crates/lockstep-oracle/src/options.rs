//! The command line.

use crate::plant::Plant;
use std::path::PathBuf;

/// Judges the real binary against a real PostgreSQL.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "lockstep-oracle")]
pub struct Options {
    /// How long.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// The major version of PostgreSQL, 14 to 18; without it the tests' default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(14..=18))]
    pub pg: Option<u32>,
    /// The first world's seed; without it a random one.
    #[arg(long)]
    pub seed: Option<u64>,
    /// A fault planted on purpose: drop-rows, swap-commits, torn-commit, cursor-ahead, lost-row,
    /// lost-change, no-tombstones, double-apply, blind-update. It must be found.
    #[arg(long, value_name = "NAME")]
    pub plant: Option<Plant>,
    /// Only this fault, again and again.
    #[arg(long, value_name = "KIND")]
    pub fault: Option<String>,
    /// Print one JSON object and nothing else on the standard output.
    #[arg(long)]
    pub json: bool,
    /// No disk of the database's own, and so none that is full: mounts belong to a thread, and a process with several
    /// runs would share them.
    #[arg(long)]
    pub no_disk: bool,
    /// The binary `lockstep`.
    #[arg(long, env = "LOCKSTEP_NODE", value_name = "FILE")]
    pub node: PathBuf,
}
