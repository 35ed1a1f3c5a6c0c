//! `lockstep-load`: runs one bench. Called by `cargo x bench`.

use anyhow::Result;
use clap::{Parser, Subcommand};
use lockstep_load::figures::Bench;
use lockstep_load::{load, retention, storm, writes};
use std::process::ExitCode;
use std::time::Duration;

/// Benches of Lockstep.
#[derive(Parser)]
#[command(name = "cargo x bench")]
struct Options {
    /// Print one JSON object and nothing else on the standard output.
    #[arg(long, global = true)]
    json: bool,
    /// The major version of PostgreSQL, 14 to 18; without it the tests' default.
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(14..=18))]
    pg: Option<u32>,
    #[command(subcommand)]
    bench: Which,
}

#[derive(Subcommand)]
enum Which {
    /// What tracking costs whoever writes
    Writes {
        /// Pairs of an untracked and a tracked run per figure.
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(7..))]
        pairs: u16,
        /// Length of one run.
        #[arg(long, default_value_t = 600, value_name = "MS")]
        run: u64,
        /// Only this figure; may be repeated.
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
    },
    /// What is left of a key that is written over and over
    Retention {
        /// Updates of the one key.
        #[arg(long, default_value_t = 1_000_000)]
        updates: u64,
        /// Updates between two collections.
        #[arg(long, default_value_t = 100_000)]
        collect_every: u64,
    },
    /// A first load of many rows, beside COPY of the same rows
    Load {
        /// Pairs of a copy and a load.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
        pairs: u16,
        /// Rows of the table.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
        /// Fewer rows and no limits: whether it works, not how fast.
        #[arg(long)]
        small: bool,
    },
    /// All clients at once: first loads of the same rows, and returns after the node was killed
    Storm {
        /// Runs.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
        runs: u16,
        /// Fewer clients and no limits: whether it works, not how fast.
        #[arg(long)]
        small: bool,
    },
    /// The process that plays the clients
    #[command(hide = true)]
    StormClients,
}

/// Where this program's companions are.
fn programs() -> Result<std::path::PathBuf> {
    Ok(std::env::current_exe()?.parent().map(Into::into).unwrap_or_default())
}

async fn run(options: &Options) -> Result<Bench> {
    match &options.bench {
        Which::Writes { pairs, run, only } => {
            let options = writes::Options {
                major: options.pg,
                pairs: usize::from(*pairs),
                run: Duration::from_millis(*run),
                only: only.clone(),
            };
            writes::run(&options).await
        }
        Which::Retention { updates, collect_every } => {
            let options =
                retention::Options { major: options.pg, updates: *updates, collect_every: *collect_every };
            retention::run(&options).await
        }
        Which::Load { pairs, rows, small } => {
            let rows = if *small { (*rows).min(20_000) } else { *rows };
            let (pairs, major) = (usize::from(*pairs), options.pg);
            let options = load::Options { major, pairs, rows, small: *small, programs: programs()? };
            load::run(&options).await
        }
        Which::Storm { runs, small } => {
            let (loading, returning) = if *small { (50, 200) } else { (2_000, 10_000) };
            let (runs, major, small) = (usize::from(*runs), options.pg, *small);
            let programs = programs()?;
            storm::run(&storm::Options { major, runs, loading, returning, small, programs }).await
        }
        Which::StormClients => anyhow::bail!("is no bench"),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if matches!(options.bench, Which::StormClients) {
        return match storm::clients::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let result =
        tokio::runtime::Runtime::new().map_err(Into::into).and_then(|tokio| tokio.block_on(run(&options)));
    match result {
        Ok(bench) => {
            match serde_json::to_string(&bench) {
                Ok(json) if options.json => println!("{json}"),
                _ => print!("{bench}"),
            }
            if bench.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
