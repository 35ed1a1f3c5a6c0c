//! `lockstep-sim`: runs worlds until the time is up or one of them shows a violation. Called by `cargo x sim`.

use clap::Parser;
use lockstep_sim::plant::Plant;
use lockstep_sim::report::Report;
use lockstep_sim::trace;
use lockstep_sim::world::World;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A simulation of the real core in a seeded world.
#[derive(Parser)]
#[command(name = "cargo x sim")]
struct Options {
    /// How long worlds are begun.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only the world of this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// One object on standard output.
    #[arg(long)]
    json: bool,
    /// Build in a known fault; it must be found.
    #[arg(long, value_name = "NAME", value_parser = plant)]
    plant: Option<Plant>,
    /// Worlds at a time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Write traces for `vectors/` to this directory instead: those of one seed, or a choice that covers everything.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
}

fn plant(name: &str) -> Result<Plant, String> {
    let names = || Plant::ALL.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
    Plant::named(name).ok_or_else(|| format!("there are: {}", names()))
}

fn write_traces(directory: &Path, options: &Options) -> ExitCode {
    let mut traces = match options.seed {
        Some(seed) => World::new(seed, options.plant).record(seed),
        None => trace::search(Duration::from_secs(options.seconds)),
    };
    match trace::scripts() {
        Ok(scripts) if options.seed.is_none() => traces.extend(scripts),
        Ok(_) => {}
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    for trace in traces {
        match trace.write(directory) {
            Ok(path) => println!("{} ({} events)", path.display(), trace.events.len()),
            Err(error) => {
                eprintln!("{}: {error}", directory.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(directory) = &options.trace {
        return write_traces(directory, &options);
    }
    let began = Instant::now();
    let until = began + Duration::from_secs(options.seconds);
    let first = options.seed.unwrap_or(1);
    let next = AtomicU64::new(first);
    let total = Mutex::new((Report::default(), Vec::<(u64, String)>::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let stop = {
                let total = total.lock().unwrap_or_else(PoisonError::into_inner);
                !total.1.is_empty()
                    || if options.seed.is_some() { seed != first } else { Instant::now() >= until }
            };
            if stop {
                break;
            }
            let (mut report, violation) = World::new(seed, options.plant).run();
            report.violations = u64::from(violation.is_some());
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.0.add(&report);
            total.1.extend(violation.map(|what| (seed, what)));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(work);
        }
    });
    let (report, violations) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{report:#?}");
    }
    for (seed, what) in &violations {
        let plant = options.plant.map(|p| format!(" --plant {}", p.name())).unwrap_or_default();
        eprintln!("violation: {what}");
        eprintln!("replay: cargo x sim --seed {seed}{plant}");
    }
    eprintln!("{:.1} s", began.elapsed().as_secs_f64());
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
