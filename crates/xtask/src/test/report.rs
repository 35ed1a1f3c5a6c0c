//! Counts what the parts of a test run did, and says it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{console, stop};

/// More of a failure's output than this is cut in the middle; the logs have all of it.
const SHOWN_LINES: usize = 200;

/// One part of a run.
#[derive(Debug, Default)]
pub struct Part {
    name: String,
    took: Duration,
    passed: u64,
    failed: u64,
    failures: Vec<(String, String)>,
    skipped: Vec<String>,
}

impl Part {
    /// One check, with what to show if it did not pass.
    pub fn check(&mut self, name: &str, output: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.fail(name, output);
        }
    }

    /// One failure.
    pub fn fail(&mut self, name: &str, output: &str) {
        self.failed += 1;
        self.explain(name, output);
    }

    /// The output of failures that are counted by [`Part::add`].
    pub fn explain(&mut self, name: &str, output: &str) {
        println!("  FAILED {name}");
        self.failures.push((name.to_owned(), output.to_owned()));
    }

    /// What another program counted.
    pub fn add(&mut self, passed: u64, failed: u64) {
        self.passed += passed;
        self.failed += failed;
    }

    /// A test that somebody chose not to run.
    pub fn skip(&mut self, name: &str) {
        self.skipped.push(name.to_owned());
    }

    /// Something without which tests cannot run; it counts only if it is missing.
    pub fn need<T>(&mut self, name: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(name, &format!("{error:#}"));
                None
            }
        }
    }

    /// How many checks failed so far.
    pub fn failed(&self) -> u64 {
        self.failed
    }
}

/// All parts of a run.
#[derive(Debug, Default)]
pub struct Report {
    parts: Vec<Part>,
}

impl Report {
    /// Runs one part. An error in it is a failure of the run and does not keep other parts from running.
    pub fn part(&mut self, name: &str, work: impl FnOnce(&mut Part) -> Result<()>) -> Result<()> {
        println!("\n== {name}");
        let mut part = Part { name: name.to_owned(), ..Part::default() };
        let begun = Instant::now();
        let result = work(&mut part);
        stop::check()?;
        if let Err(error) = result {
            part.fail(name, &format!("{error:#}"));
        }
        part.took = begun.elapsed();
        println!("   {} passed, {} failed in {}", part.passed, part.failed, console::seconds(part.took));
        self.parts.push(part);
        Ok(())
    }

    /// Prints everything worth knowing; the count is the very last line.
    pub fn finish(&self) -> ExitCode {
        for part in &self.parts {
            for (name, output) in &part.failures {
                println!("\n==== {}: {name}\n{}", part.name, shortened(output.trim_end()));
            }
        }
        let skipped: Vec<String> = self
            .parts
            .iter()
            .flat_map(|part| part.skipped.iter().map(|name| format!("{}: {name}", part.name)))
            .collect();
        if !skipped.is_empty() {
            println!("\nSkipped:\n  {}", skipped.join("\n  "));
        }
        println!("\nMinutes:");
        for part in &self.parts {
            println!("  {:6.2}  {}", part.took.as_secs_f64() / 60.0, part.name);
        }
        let passed: u64 = self.parts.iter().map(|part| part.passed).sum();
        let failed: u64 = self.parts.iter().map(|part| part.failed).sum();
        println!("\n{passed} passed, {failed} failed");
        if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn shortened(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= SHOWN_LINES {
        return lines.join("\n");
    }
    let half = SHOWN_LINES / 2;
    let cut = format!("… {} lines …", lines.len() - 2 * half);
    [&lines[..half], &[cut.as_str()], &lines[lines.len() - half..]].concat().join("\n")
}
