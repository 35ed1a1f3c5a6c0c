//! `lockstep-oracle`: see the library.

use clap::Parser;
use lockstep_oracle::options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    match lockstep_oracle::run(&options) {
        Ok(report) => {
            println!(
                "{}",
                if options.json { report.json().to_string() } else { format!("{:#}", report.json()) }
            );
            if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
