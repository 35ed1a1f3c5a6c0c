//! `cargo x fuzz`: every reader of outside bytes under libFuzzer, one after the other.
//!
//! The program is an ordinary binary with coverage counters, so cargo and a C++ compiler are all it takes
//! (docs/decisions/0010-fuzzing.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{child, console, setup, stop, workspace};

/// Each target is executed at least this often, however short the time.
const EXECUTIONS: u64 = 100_000;
/// An input that takes longer is a finding. What is fuzzed takes microseconds.
const TIMEOUT_SECONDS: u32 = 10;
/// Longest input tried, and longest kept.
const LENGTH: usize = 4096;
const LENGTH_KEPT: usize = 512;

/// As cargo-fuzz sets them, without a sanitizer: counters, and what is compared with what. Checks of arithmetic and
/// `debug_assert` are on.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=1",
];

/// Options of `cargo x fuzz`.
#[derive(clap::Args)]
pub struct Options {
    /// For how long, all targets together; each is executed 100,000 times at least.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only this target; may be repeated.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Number from 1 that libFuzzer's choices follow from; without it they differ from run to run.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seed: Option<u32>,
    /// Run one input of one target, and nothing else.
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<PathBuf>,
    /// Afterwards, add inputs that reach new code to the committed corpora.
    #[arg(long)]
    keep: bool,
}

/// `cargo x fuzz`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let known = targets()?;
    if let Some(unknown) = options.target.iter().find(|name| !known.contains(name)) {
        bail!("there is no target {unknown}; there are {}", known.join(", "));
    }
    let chosen = if options.target.is_empty() { known } else { options.target.clone() };
    let program = program()?;
    if let Some(file) = &options.replay {
        let [target] = &chosen[..] else { bail!("--replay takes one --target") };
        let fuzzing = Fuzzing { program, target: target.clone(), seed: None };
        if !fuzzing.replay(file)? {
            return Ok(ExitCode::FAILURE);
        }
        println!("{} breaks nothing.", file.display());
        return Ok(ExitCode::SUCCESS);
    }
    let share = Duration::from_secs(options.seconds) / u32::try_from(chosen.len())?;
    let mut failed = false;
    for target in chosen {
        stop::check()?;
        let fuzzing = Fuzzing { program: program.clone(), target, seed: options.seed };
        let passed = fuzzing.run(share)?;
        if passed && options.keep {
            fuzzing.keep()?;
        }
        failed |= !passed;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn folder() -> PathBuf {
    workspace::root().join("crates/lockstep-fuzz")
}

/// Each has a committed corpus.
pub fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder().join("corpus"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The program with all targets, built.
fn program() -> Result<PathBuf> {
    if child::ask("c++", &["--version"]).is_none() {
        bail!("libFuzzer needs a C++ compiler: `apt-get install -y g++` brings one");
    }
    let version = child::ask("rustc", &["-vV"]).context("cannot run rustc")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    console::step("Building the fuzz targets (minutes the first time)", || {
        let mut cargo = Command::new(setup::cargo());
        cargo.args(["build", "--package", "lockstep-fuzz", "--features", "libfuzzer", "--release"]);
        // With a target named, the flags are not for build scripts and macros.
        cargo
            .args(["--target", host])
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", FLAGS.join(" "));
        setup::executable(cargo, "fuzz-build")
    })
}

/// One target, to be run.
struct Fuzzing {
    program: PathBuf,
    target: String,
    seed: Option<u32>,
}

/// What one process of libFuzzer did.
struct Done {
    executions: u64,
    /// The input and what it broke.
    found: Option<(PathBuf, String)>,
}

impl Fuzzing {
    /// The fixtures, then new inputs. False if something broke.
    fn run(&self, share: Duration) -> Result<bool> {
        let begun = Instant::now();
        for file in self.committed("fixtures")? {
            if !self.replay(&file)? {
                return Ok(false);
            }
        }
        let mut executions = 0;
        let mut limit = format!("-max_total_time={}", share.as_secs().max(1));
        while executions < EXECUTIONS {
            let done = self.fuzz(&limit)?;
            executions += done.executions;
            if let Some((input, why)) = done.found {
                println!("{:<10} {executions} executions, then FAILED", self.target);
                self.explain(&input, &why);
                return Ok(false);
            }
            limit = format!("-runs={}", EXECUTIONS.saturating_sub(executions));
        }
        let inputs = fs::read_dir(self.working()?)?.count();
        let took = console::seconds(begun.elapsed());
        println!("{:<10} {executions} executions, {inputs} inputs kept, {took}", self.target);
        Ok(true)
    }

    fn explain(&self, input: &Path, why: &str) {
        println!("{why}");
        println!("Reproducer: {}", input.display());
        println!("Again:      cargo x fuzz --target {} --replay {}", self.target, input.display());
    }

    /// Runs one input. False if it breaks something.
    fn replay(&self, file: &Path) -> Result<bool> {
        if !file.is_file() {
            bail!("there is no file {}", file.display());
        }
        let mut command = self.command();
        command.arg(file);
        let ended = child::run(command, &format!("fuzz-{}-replay", self.target))?;
        if !ended.status.success() {
            println!("{:<10} FAILED", self.target);
            self.explain(file, &reason(&ended.text()));
        }
        Ok(ended.status.success())
    }

    fn fuzz(&self, limit: &str) -> Result<Done> {
        let found = workspace::state()?.join("fuzz/found");
        fs::create_dir_all(&found)?;
        let mut command = self.command();
        command.arg(self.working()?).arg(folder().join("corpus").join(&self.target)).arg(limit);
        command.arg(format!("-artifact_prefix={}/{}-", found.display(), self.target));
        command.args(["-print_final_stats=1", &format!("-max_len={LENGTH}")]);
        if let Some(seed) = self.seed {
            command.arg(format!("-seed={seed}"));
        }
        let ended = child::run(command, &format!("fuzz-{}", self.target))?;
        let text = ended.text();
        let after = |mark: &str| text.lines().find_map(|line| line.split(mark).nth(1)).map(str::trim);
        let executions = after("stat::number_of_executed_units:").and_then(|n| n.parse().ok()).unwrap_or(0);
        let input = after("Test unit written to ").map(PathBuf::from);
        match input {
            Some(input) => Ok(Done { executions, found: Some((input, reason(&text))) }),
            None if ended.status.success() && executions > 0 => Ok(Done { executions, found: None }),
            None => bail!("the fuzzer ended with {}:\n{}", ended.status, workspace::tail(&ended.log, 20)),
        }
    }

    /// Merges what was found on the way into the committed corpus: new code counts, not how often it runs.
    fn keep(&self) -> Result<()> {
        let committed = folder().join("corpus").join(&self.target);
        let before = self.committed("corpus")?.len();
        let mut command = self.command();
        command.args(["-merge=1", "-use_counters=0", &format!("-max_len={LENGTH_KEPT}")]);
        command.arg(&committed).arg(self.working()?);
        child::must(command, &format!("fuzz-{}-merge", self.target))?;
        println!(
            "{:<10} {} inputs added to its corpus",
            self.target,
            self.committed("corpus")?.len() - before
        );
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LOCKSTEP_FUZZ_TARGET", &self.target).env("RUST_BACKTRACE", "0");
        command.arg(format!("-timeout={TIMEOUT_SECONDS}")).current_dir(workspace::root());
        command
    }

    /// Where inputs of this clone's runs are kept, so that the next run goes on from them.
    fn working(&self) -> Result<PathBuf> {
        let folder = workspace::state()?.join("fuzz/corpus").join(&self.target);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn committed(&self, kind: &str) -> Result<Vec<PathBuf>> {
        let folder = folder().join(kind).join(&self.target);
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            files.push(entry?.path());
        }
        files.sort();
        Ok(files)
    }
}

/// The panic's message, or what else libFuzzer says went wrong.
fn reason(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let panic = lines.iter().position(|line| line.contains(" panicked at "));
    let Some(at) = panic.or_else(|| lines.iter().position(|line| line.contains("ERROR: libFuzzer"))) else {
        return lines[lines.len().saturating_sub(5)..].join("\n");
    };
    let told =
        lines[at..].iter().take_while(|line| !line.starts_with("note: ") && !line.starts_with("stack "));
    told.take(6).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn the_reason_is_the_panic() {
        let text = "INFO: Seed: 1\nthread '<unnamed>' (9) panicked at a.rs:1:2:\nassertion failed\n  left: 1\n\
                    note: run with `RUST_BACKTRACE=1`\n==9== ERROR: libFuzzer: deadly signal";
        assert_eq!(reason(text), "thread '<unnamed>' (9) panicked at a.rs:1:2:\nassertion failed\n  left: 1");
        assert_eq!(reason("a\n==9== ERROR: libFuzzer: timeout\nb"), "==9== ERROR: libFuzzer: timeout\nb");
    }
}
