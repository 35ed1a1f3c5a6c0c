//! `cargo x test`: every test of this repository, in parts, with one count at the end; and `cargo x ci`, which adds
//! every version of PostgreSQL and the long runs.
//!
//! Something that is missing is a failure; only tests through PgBouncer are skipped, and named, where it cannot be had.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use lockstep_pg::cluster;

use crate::{child, setup, stop, tidy, workspace};

mod browser;
mod long;
mod report;
mod rust;
mod typescript;

use report::{Part, Report};

/// Tests that have a long and a short form read this; set, it asks for the short one.
const QUICK: &str = "LOCKSTEP_QUICK";

/// Options of `cargo x test`.
#[derive(clap::Args)]
pub struct Options {
    /// Leave out the browser and whatever else takes minutes.
    #[arg(long)]
    quick: bool,
}

/// Options of `cargo x ci`.
#[derive(clap::Args)]
pub struct CiOptions {
    /// The major versions of PostgreSQL whose turn it is.
    #[arg(long, value_delimiter = ',', default_value = "14,15,16,17,18")]
    pg: Vec<u32>,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<CiPart>,
    /// How long the simulation and the fuzzing run, and the oracle on each of its versions. Each planted fault has a
    /// quarter of it to be found.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

/// What `cargo x ci` consists of.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CiPart {
    /// All of `cargo x test`.
    Test,
    /// What talks to PostgreSQL, on every version of it.
    Postgres,
    /// The simulation, and every fault that can be planted in it.
    Sim,
    /// The oracle, on 15 and 18.
    Oracle,
    /// Every fuzz target.
    Fuzz,
}

/// `cargo x test`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::default();
    report.part("set-up", |part| set_up(part, &cluster::majors()?, options.quick))?;
    ordinary(&mut report, options.quick)?;
    Ok(report.finish())
}

/// `cargo x ci`: what [`run`] does, and everything that takes too long for it.
pub fn run_ci(options: &CiOptions) -> Result<ExitCode> {
    let wanted = |part: CiPart| options.only.is_empty() || options.only.contains(&part);
    let mut report = Report::default();
    // Some tests are of one version, whatever is asked for.
    let majors: BTreeSet<u32> = options.pg.iter().copied().chain(cluster::majors()?).collect();
    let majors = Vec::from_iter(majors);
    report.part("set-up", |part| set_up(part, &majors, !wanted(CiPart::Test)))?;
    if wanted(CiPart::Test) {
        ordinary(&mut report, false)?;
    }
    if wanted(CiPart::Postgres) {
        for major in &options.pg {
            report.part(&format!("PostgreSQL {major}"), |part| rust::on_postgres(part, *major))?;
        }
    }
    if wanted(CiPart::Sim) {
        report.part("simulation", |part| long::simulation(part, options.seconds))?;
    }
    if wanted(CiPart::Oracle) {
        for major in long::ORACLE_MAJORS.iter().filter(|major| options.pg.contains(major)) {
            report.part(&format!("oracle, PostgreSQL {major}"), |part| {
                long::oracle(part, *major, options.seconds)
            })?;
        }
    }
    if wanted(CiPart::Fuzz) {
        report.part("fuzzing", |part| long::fuzzing(part, options.seconds))?;
    }
    Ok(report.finish())
}

fn ordinary(report: &mut Report, quick: bool) -> Result<()> {
    report.part("rust", |part| rust::tests(part, quick))?;
    report.part("format and lints", rust::format_and_lints)?;
    report.part("tidy", tidy_part)?;
    report.part("typescript", typescript::run)?;
    if !quick {
        report.part("browser", browser::run)?;
    }
    Ok(())
}

/// `cargo x e2e`.
pub fn run_browser_alone() -> Result<ExitCode> {
    let mut report = Report::default();
    report.part("browser", browser::run)?;
    Ok(report.finish())
}

/// Tries everything, so that one run names all that is missing.
fn set_up(part: &mut Part, majors: &[u32], quick: bool) -> Result<()> {
    for major in majors {
        part.need(&format!("PostgreSQL {major}"), setup::postgres(*major));
    }
    part.need("pg_dump", setup::pg_dump());
    part.need("the client library and the app", setup::web_app());
    if let Err(error) = setup::pgbouncer() {
        part.skip(&format!("the tests through PgBouncer: {error:#}"));
    }
    if let Err(error) = setup::nginx() {
        part.skip(&format!("the tests behind nginx: {error:#}"));
    }
    if !quick {
        part.need("Chromium", setup::chromium());
    }
    stop::check()
}

fn tidy_part(part: &mut Part) -> Result<()> {
    for (name, complaints) in tidy::all()? {
        part.check(name, &complaints.join("\n"), complaints.is_empty());
    }
    Ok(())
}

/// Runs a command that counts as one check.
fn check_command(part: &mut Part, name: &str, command: Command) -> Result<()> {
    let log: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let ended =
        child::run(command, &format!("test-{log}")).with_context(|| format!("{name} cannot be run"))?;
    part.check(name, &ended.text(), ended.status.success());
    Ok(())
}

/// `npm` at the root of the clone.
fn npm(arguments: &[&str]) -> Command {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(workspace::root());
    npm
}
