//! The browser tests on a running demo, and that a demo leaves nothing behind however it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lockstep_pg::cluster::process::{self, Signal};
use lockstep_pg::cluster::{Cluster, DEFAULT_MAJOR, free_port};

use super::npm;
use super::report::Part;
use crate::child::{self, Group};
use crate::demo::{Demo, Parts, Place};
use crate::{console, setup, stop, workspace};

/// A demo whose parts are built is up, or gone, long before.
const LIMIT: Duration = Duration::from_secs(90);
/// Marks all processes of one run.
const MARK: &str = "LOCKSTEP_RUN";

/// Everything that needs a whole demo.
pub fn run(part: &mut Part) -> Result<()> {
    let chromium = setup::chromium()?;
    let parts = Parts::set_up(DEFAULT_MAJOR)?;
    let mut demo = Demo::start(&parts, &Place::Temporary)?;
    let passed = demo.check(&chromium)?;
    part.check("demo --check", "see above", passed);
    let folder = tempfile::tempdir()?;
    let ready = folder.path().join("ready.json");
    demo.write_ready(&ready)?;
    browser_tests(part, &ready, &chromium)?;
    let stopped = demo.stop();
    part.check("the demo stops", &format!("{stopped:?}"), stopped.is_ok());
    for (signal, clean) in [(Signal::SIGINT, true), (Signal::SIGTERM, true), (Signal::SIGKILL, false)] {
        let result = console::step(&format!("Ending a demo by {signal}"), || leaves_nothing(signal, clean));
        stop::check()?;
        let said = result.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
        part.check(&format!("a demo ended by {signal} leaves nothing"), &said, result.is_ok());
    }
    Ok(())
}

fn browser_tests(part: &mut Part, ready: &Path, chromium: &Path) -> Result<()> {
    let mut tests = npm(&["test", "--workspace", "e2e"]);
    tests.env("LOCKSTEP_READY_FILE", ready).env("LOCKSTEP_CHECKED", "1").env("CHROMIUM", chromium);
    let ended = console::step("Running the browser tests", || child::run(tests, "test-e2e"))?;
    let text = ended.text();
    let Some((passed, failed)) = text.lines().rev().find_map(count) else {
        part.fail("npm test -w e2e did not count", &text);
        return Ok(());
    };
    part.add(passed, failed);
    if failed > 0 {
        part.explain("npm test -w e2e", &text);
    } else if !ended.status.success() {
        part.fail("npm test -w e2e", &text);
    }
    Ok(())
}

/// Reads `N passed, N failed`.
fn count(line: &str) -> Option<(u64, u64)> {
    let (passed, failed) = line.trim().split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.strip_suffix(" failed")?.parse().ok()?))
}

/// Starts a demo as a process of its own, ends it, and looks for what is left.
fn leaves_nothing(signal: Signal, clean: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    // So that PostgreSQL's user can enter it, and its command line names this folder.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let (home, ready) = (folder.path().join("home"), folder.path().join("ready.json"));
    let mark = format!("{MARK}={}", folder.path().display());
    // Not by its path: `cargo test` may have put another build there since we were started.
    let mut demo = Command::new("/proc/self/exe");
    demo.args(["demo", "--port", &free_port()?.to_string()])
        .arg("--home")
        .arg(&home)
        .arg("--ready-file")
        .arg(&ready);
    demo.env(MARK, folder.path()).current_dir(workspace::root());
    let log = workspace::log(&format!("demo-{signal}"))?;
    let mut group = Group::start(demo, &log)?;
    let up = process::wait_until(LIMIT, || {
        ready.exists() || stop::requested() || !matches!(group.ended(), Ok(None))
    });
    if !up || !ready.exists() {
        bail!("it did not come up:\n{}", workspace::tail(&log, 30));
    }
    let running = processes(&mark, &home);
    if running.len() < 3 {
        bail!("only {running:?} run: the demo, the node and PostgreSQL were expected");
    }
    process::send(group.pid(), signal)?;
    if !process::wait_until(LIMIT, || matches!(group.ended(), Ok(Some(_)))) {
        bail!("it did not end");
    }
    let status = group.ended()?.context("it ended just now")?;
    if clean && !status.success() {
        bail!("it ended with {status}:\n{}", workspace::tail(&log, 30));
    }
    // Told by the kernel, the children need a moment.
    let limit = if clean { Duration::ZERO } else { LIMIT };
    if !process::wait_until(limit, || processes(&mark, &home).is_empty()) {
        bail!("left running: {:?}", processes(&mark, &home));
    }
    if clean && ready.exists() {
        bail!("the ready file is left");
    }
    Cluster::forget(&home)
}

/// The command lines of processes that carry `mark` in their environment or name something in `home`.
fn processes(mark: &str, home: &Path) -> Vec<String> {
    let has =
        |bytes: &[u8], wanted: &[u8]| bytes.split(|byte| *byte == 0).any(|word| word.starts_with(wanted));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let line = read("cmdline");
        // A process that has ended and is not waited for yet has neither.
        if has(&read("environ"), mark.as_bytes()) || has(&line, home.as_os_str().as_encoded_bytes()) {
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}
