//! Children that never outlive their parent.
//!
//! `PR_SET_PDEATHSIG` sends a signal to a child when the *thread* that created it ends, not when the process does.
//! A cluster kept in a `static` by a test would lose its server as soon as the first test's thread is done.
//! So all children are created by one thread that lives exactly as long as the process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub use nix::sys::signal::Signal;
use nix::sys::signal::{kill, killpg};
use nix::unistd::Pid;

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

/// How often a waiting function looks again.
const POLL: Duration = Duration::from_millis(5);

/// Starts `command` as the leader of its own process group; the kernel sends it `at_our_end` when this process is gone.
///
/// The group of its own keeps a Ctrl-C of the terminal away from it, so that its parent decides who stops first.
pub fn spawn_bound(mut command: Command, at_our_end: Signal) -> io::Result<Child> {
    command.process_group(0);
    bind_to_parent(&mut command, at_our_end);
    let (answer, answered) = mpsc::sync_channel(1);
    keeper()?
        .send((command, answer))
        .map_err(|_| io::Error::other("the thread that starts processes has ended"))?;
    answered.recv().map_err(|_| io::Error::other("the thread that starts processes has ended"))?
}

fn keeper() -> io::Result<mpsc::Sender<Job>> {
    static KEEPER: OnceLock<Mutex<Option<mpsc::Sender<Job>>>> = OnceLock::new();
    let mut slot = KEEPER.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = slot.as_ref() {
        return Ok(sender.clone());
    }
    let (sender, jobs) = mpsc::channel::<Job>();
    thread::Builder::new().name("process-keeper".into()).spawn(move || {
        for (mut command, answer) in jobs {
            // Nobody waits for the answer only if the asking thread was torn down with the process.
            let _ = answer.send(command.spawn());
        }
    })?;
    *slot = Some(sender.clone());
    Ok(sender)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn bind_to_parent(command: &mut Command, at_our_end: Signal) {
    let parent = nix::unistd::getpid();
    let bind = move || {
        // std changes the user before it calls this; the other way round the kernel would forget the signal.
        nix::sys::prctl::set_pdeathsig(at_our_end)?;
        if nix::unistd::getppid() != parent {
            // The parent ended before the line above: the signal would never come.
            return Err(nix::errno::Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls, both async-signal-safe; it takes no lock and
    // allocates nothing (an `io::Error` made from an errno does not allocate).
    unsafe { command.pre_exec(bind) };
}

#[cfg(not(target_os = "linux"))]
fn bind_to_parent(_: &mut Command, _: Signal) {}

/// Sends `signal` to one process. A process that is already gone is not an error.
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    absent_is_fine(kill(Pid::from_raw(pid.cast_signed()), signal))
}

/// Sends `signal` to the group that [`spawn_bound`] made for a child.
pub fn send_group(leader: u32, signal: Signal) -> io::Result<()> {
    absent_is_fine(killpg(Pid::from_raw(leader.cast_signed()), signal))
}

fn absent_is_fine(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for a child to end, at most `limit`; `None` if it still runs.
pub fn wait_for(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Waits until `done` is true, at most `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Whether a process with this number exists, whoever owns it.
pub fn is_alive(pid: u32) -> bool {
    !matches!(kill(Pid::from_raw(pid.cast_signed()), None), Err(nix::errno::Errno::ESRCH))
}
