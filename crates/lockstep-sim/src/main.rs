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
    /// Every known fault in turn; each must be found within the time.
    #[arg(long)]
    plants: bool,
    /// Worlds at a time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Write traces for `vectors/` to this directory instead: those of one seed, or a choice that covers everything in
    /// the place of those that are there.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
}

fn plant(name: &str) -> Result<Plant, String> {
    let names = || Plant::ALL.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
    Plant::named(name).ok_or_else(|| format!("there are: {}", names()))
}

/// Worlds that traces are chosen from.
const TRACED_SEEDS: u64 = 24;

fn forget_worlds(directory: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("world-")) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn write_traces(directory: &Path, options: &Options) -> ExitCode {
    let mut traces = match options.seed {
        Some(seed) => World::new(seed, options.plant).record(seed),
        None => trace::search(TRACED_SEEDS),
    };
    if options.seed.is_none()
        && let Err(error) = forget_worlds(directory)
    {
        eprintln!("{}: {error}", directory.display());
        return ExitCode::FAILURE;
    }
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
    if options.plants {
        return find_plants(&options);
    }
    let (report, violations, began) = run(&options, options.plant);
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

/// One line each: where it was found, or that it was not.
fn find_plants(options: &Options) -> ExitCode {
    let mut missed = 0;
    for plant in Plant::ALL {
        let (report, violations, began) = run(options, Some(*plant));
        let (name, seconds) = (plant.name(), began.elapsed().as_secs_f64());
        match violations.first() {
            Some((seed, what)) => {
                let what: String = what.chars().take(100).collect();
                println!("found   {seconds:>5.1} s  cargo x sim --seed {seed} --plant {name}  {what}");
            }
            None => {
                missed += 1;
                println!("MISSED  {seconds:>5.1} s  {name}, in {} worlds", report.seeds);
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs worlds until the time is up or one shows a violation: seed and what it is.
fn run(options: &Options, plant: Option<Plant>) -> (Report, Vec<(u64, String)>, Instant) {
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
            let (mut report, violation) = World::new(seed, plant).run();
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
    (report, violations, began)
}
