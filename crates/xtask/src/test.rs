//! `cargo x test`: every test of this repository, in parts, with one count at the end.
//!
//! Something that is missing is a failure; only tests through PgBouncer are skipped, and named, where it cannot be had.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use lockstep_pg::cluster;

use crate::{child, setup, stop, tidy, workspace};

mod browser;
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

/// `cargo x test`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::default();
    report.part("set-up", |part| set_up(part, options.quick))?;
    report.part("rust", |part| rust::tests(part, options.quick))?;
    report.part("format and lints", rust::format_and_lints)?;
    report.part("tidy", tidy_part)?;
    report.part("typescript", typescript::run)?;
    if !options.quick {
        report.part("browser", browser::run)?;
    }
    Ok(report.finish())
}

/// `cargo x e2e`.
pub fn run_browser_alone() -> Result<ExitCode> {
    let mut report = Report::default();
    report.part("browser", browser::run)?;
    Ok(report.finish())
}

/// Tries everything, so that one run names all that is missing.
fn set_up(part: &mut Part, quick: bool) -> Result<()> {
    for major in cluster::majors()? {
        part.need(&format!("PostgreSQL {major}"), setup::postgres(major));
    }
    part.need("the client library and the app", setup::web_app());
    if let Err(error) = setup::pgbouncer() {
        part.skip(&format!("the tests through PgBouncer: {error:#}"));
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
