//! Runs other programs so that none of them outlives us.
//!
//! Each is the leader of a process group, which is ended as a whole: `npm` starts `sh` starts `node` starts Chromium.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lockstep_pg::cluster::process::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::{console, stop, workspace};

/// Between two looks at a child.
const POLL: Duration = Duration::from_millis(20);
/// Between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// A group that was asked to end gets this long before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// How a program ended, and where its output is.
pub struct Ended {
    pub status: ExitStatus,
    pub log: PathBuf,
}

impl Ended {
    /// All that the program said.
    pub fn text(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// A running group of processes; dropping it ends them.
#[derive(Debug)]
pub struct Group {
    leader: Child,
    status: Option<ExitStatus>,
}

impl Group {
    /// Starts `command`, its output going to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Group> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let name = command.get_program().to_string_lossy().into_owned();
        let leader =
            process::spawn_bound(command, Signal::SIGTERM).with_context(|| format!("cannot run {name}"))?;
        Ok(Group { leader, status: None })
    }

    /// The process number of the leader.
    pub fn pid(&self) -> u32 {
        self.leader.id()
    }

    /// How the leader ended, if it has; nothing of its group is left then.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() && self.leader_is_over()? {
            // The leader's number is ours until it is waited for, so the signal cannot hit a stranger.
            process::send_group(self.pid(), Signal::SIGKILL)?;
            self.status = Some(self.leader.wait()?);
        }
        Ok(self.status)
    }

    /// Sends SIGTERM to the leader alone, so that it can end in its own order; then kills what is left of the group.
    /// `None` if it did not end by itself.
    pub fn stop(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended()?.is_some() {
            return Ok(self.status);
        }
        process::send(self.pid(), Signal::SIGTERM)?;
        if process::wait_until(GRACE, || self.ended().is_ok_and(|status| status.is_some())) {
            return Ok(self.status);
        }
        process::send_group(self.pid(), Signal::SIGKILL)?;
        self.status = Some(self.leader.wait()?);
        Ok(None)
    }

    /// Looks without taking the leader's number away.
    fn leader_is_over(&self) -> Result<bool> {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let found = waitid(Id::Pid(Pid::from_raw(self.pid().cast_signed())), look)?;
        Ok(found != WaitStatus::StillAlive)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nothing more can be done here than what was tried.
        let _ = self.stop();
    }
}

/// Runs `command` to its end, its output going to the log of this name.
pub fn run(command: Command, name: &str) -> Result<Ended> {
    let log = workspace::log(name)?;
    let mut group = Group::start(command, &log)?;
    let begun = Instant::now();
    let mut next_sign = SIGN_OF_LIFE;
    loop {
        if let Some(status) = group.ended()? {
            return Ok(Ended { status, log });
        }
        stop::check()?;
        if begun.elapsed() > next_sign {
            let last = workspace::tail(&log, 1);
            let last: String = last.trim().chars().take(90).collect();
            eprintln!("  … {}  {last}", console::seconds(begun.elapsed()));
            next_sign += SIGN_OF_LIFE;
        }
        std::thread::sleep(POLL);
    }
}

/// Runs a program that speaks for itself on our output, to its end or to ours.
pub fn hand_over(mut command: Command, what: &str) -> Result<ExitCode> {
    command.stdin(Stdio::null());
    let mut child =
        process::spawn_bound(command, Signal::SIGKILL).with_context(|| format!("cannot run {what}"))?;
    let status = loop {
        if let Some(status) = process::wait_for(&mut child, Duration::from_millis(100))? {
            break status;
        }
        if stop::requested() {
            process::send(child.id(), Signal::SIGKILL)?;
            child.wait()?;
            stop::check()?;
        }
    };
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Like [`run`], and an error with the end of its output if the program fails.
pub fn must(command: Command, name: &str) -> Result<Ended> {
    let said = format!("{command:?}").replace('"', "");
    let ended = run(command, name)?;
    if !ended.status.success() {
        bail!("`{said}` failed ({}):\n{}", ended.status, workspace::tail(&ended.log, 40));
    }
    Ok(ended)
}

/// What a program says on its standard output, or `None` if it is missing or fails.
pub fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
