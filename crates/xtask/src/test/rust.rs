//! The Rust tests, counted from what `cargo test` prints, and the checks of rustfmt and clippy.

use std::process::Command;

use anyhow::Result;

use super::report::Part;
use super::{QUICK, check_command};
use crate::{child, setup, workspace};

/// The crates whose tests talk to PostgreSQL and so have to pass on each version of it.
const ON_POSTGRES: [&str; 2] = ["lockstep-pg", "lockstep-server"];

/// `cargo test` over the workspace.
pub fn tests(part: &mut Part, quick: bool) -> Result<()> {
    let mut cargo = cargo(&["test", "--workspace", "--no-fail-fast"]);
    if quick {
        cargo.env(QUICK, "1");
    }
    count(part, cargo, "test-rust")
}

/// The tests that talk to PostgreSQL, on one major version of it.
pub fn on_postgres(part: &mut Part, major: u32) -> Result<()> {
    let mut cargo = cargo(&["test", "--no-fail-fast"]);
    for package in ON_POSTGRES {
        cargo.args(["--package", package]);
    }
    // A folder with programs is of one version, and it would win over the number.
    cargo.env_remove("LOCKSTEP_PG_BIN");
    cargo.env("LOCKSTEP_PG_MAJOR", major.to_string()).env("LOCKSTEP_PG_MAJORS", major.to_string());
    count(part, cargo, &format!("test-postgres-{major}"))
}

/// Runs a `cargo test` and counts what it says.
fn count(part: &mut Part, cargo: Command, log: &str) -> Result<()> {
    let ended = child::run(cargo, log)?;
    let text = ended.text();
    let counted = Counted::from(&text);
    part.add(counted.passed, counted.failed);
    for name in &counted.ignored {
        part.skip(name);
    }
    if counted.failed > 0 {
        part.explain(&counted.failing.join(", "), &counted.output);
    }
    if !ended.status.success() && counted.failed == 0 {
        // It did not compile, or a test program was killed before it could count.
        part.fail(&format!("cargo test ended with {}", ended.status), &workspace::tail(&ended.log, 100));
    }
    Ok(())
}

/// `cargo fmt --check` and clippy without warnings: one check each.
pub fn format_and_lints(part: &mut Part) -> Result<()> {
    for (component, arguments, what_brings_it) in [
        ("fmt", &["fmt", "--all", "--check", "--", "--color", "never"][..], "rustup component add rustfmt"),
        (
            "clippy",
            &["clippy", "--quiet", "--keep-going", "--workspace", "--all-targets", "--", "-D", "warnings"],
            "rustup component add clippy",
        ),
    ] {
        if child::ask("cargo", &[component, "--version"]).is_none() {
            part.fail(component, &format!("cargo {component} is not here: `{what_brings_it}` brings it"));
        } else {
            check_command(part, component, cargo(arguments))?;
        }
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(setup::cargo());
    cargo.args(arguments).current_dir(workspace::root()).env("CARGO_TERM_COLOR", "never");
    cargo
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    passed: u64,
    failed: u64,
    ignored: Vec<String>,
    failing: Vec<String>,
    /// What the failing tests printed.
    output: String,
}

impl Counted {
    fn from(text: &str) -> Counted {
        let mut counted = Counted::default();
        let mut in_failures = false;
        for line in text.lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                counted.passed += number_before(result, " passed");
                counted.failed += number_before(result, " failed");
                in_failures = false;
            } else if line == "failures:" {
                in_failures = true;
            } else if in_failures {
                counted.output.push_str(line);
                counted.output.push('\n');
            } else if let Some(test) = line.strip_prefix("test ") {
                counted.note(test);
            }
        }
        counted
    }

    fn note(&mut self, test: &str) {
        if let Some(name) = test.strip_suffix(" ... FAILED") {
            self.failing.push(name.to_owned());
        } else if let Some((name, reason)) = test.split_once(" ... ignored") {
            self.ignored.push(format!("{name}{reason}"));
        }
    }
}

/// The number that stands before `word`: `3` in `ok. 12 passed; 3 failed` before ` failed`.
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Counted;

    #[test]
    fn counts_what_cargo_prints() {
        let text = "
running 3 tests
test a::works ... ok
test a::later ... ignored, needs a standby
test a::breaks ... FAILED

failures:

---- a::breaks stdout ----
no good

failures:
    a::breaks

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.20s

running 12 tests
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.16s
";
        let counted = Counted::from(text);
        assert_eq!((counted.passed, counted.failed), (13, 1));
        assert_eq!(counted.failing, ["a::breaks"]);
        assert_eq!(counted.ignored, ["a::later, needs a standby"]);
        assert!(counted.output.contains("no good"));
    }
}
