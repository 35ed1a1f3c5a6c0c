//! `cargo x`: the few commands of this repository. People and CI call the same ones.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod child;
mod console;
mod demo;
mod fuzz;
mod node;
mod oracle;
mod setup;
mod sim;
mod stop;
mod test;
mod tidy;
mod workspace;

/// The commands of this repository.
#[derive(Parser)]
#[command(name = "cargo x", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Set up what is missing, then run PostgreSQL, a Lockstep node and the to-do app until Ctrl-C.
    Demo(demo::Options),
    /// Run every test; the last line is `N passed, N failed`.
    Test(test::Options),
    /// Run every test on every version of PostgreSQL, and the long runs; the last line is `N passed, N failed`.
    Ci(test::CiOptions),
    /// Give every reader of outside bytes inputs that nobody thought of.
    Fuzz(fuzz::Options),
    /// Measure what Lockstep costs.
    Bench(bench::Options),
    /// Check what compilers do not: sizes, words, lock files, documents.
    Tidy,
    /// Run the browser tests alone.
    E2e,
    /// Run the real core in seeded worlds where everything goes wrong.
    Sim(sim::Options),
    /// Judge the real binary against a real PostgreSQL, with random writers and faults.
    Oracle(oracle::Options),
    /// Install what the other commands need, and nothing else.
    Setup(setup::Options),
}

fn main() -> ExitCode {
    stop::listen();
    let result = match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Ci(options) => test::run_ci(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Tidy => tidy::run(),
        Task::E2e => test::run_browser_alone(),
        Task::Sim(options) => sim::run(&options),
        Task::Oracle(options) => oracle::run(&options),
        Task::Setup(options) => setup::run(&options),
    };
    match result {
        Ok(code) => code,
        Err(_) if stop::requested() => {
            println!("Stopped.");
            ExitCode::from(stop::INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
