//! A private PostgreSQL: for tests, where it is temporary, and for the demo, where it is kept.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let cluster = lockstep_pg::cluster::Cluster::builder().setting("wal_sender_timeout", "1s").start()?;
//! println!("{}", cluster.url());
//! # Ok(())
//! # }
//! ```
//!
//! It listens on 127.0.0.1 only and has no Unix socket unless told where, because a socket's path may have 107 bytes
//! and a clone's may have more. Everything here blocks; a start takes well under a second.
//!
//! The server never outlives this process: dropping the [`Cluster`] stops it, and the kernel tells it to stop when
//! the process ends in any other way (see [`process`]). A temporary cluster's folder is deleted when it is dropped,
//! or else by the next temporary cluster. A cluster in a `static` is never dropped: that is allowed for this reason.
//!
//! Programs come from `LOCKSTEP_PG_BIN`, from `tools/postgres/<major>`, or from Debian's packages.
//! As root the server runs as `nobody`; what that user cannot reach is put into `/var/tmp/lockstep-<hash>`.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

mod account;
mod builder;
mod home;
mod place;
pub mod process;
mod programs;
mod settings;
mod template;

pub use builder::Builder;
pub use programs::{DEFAULT_MAJOR, npm_folder};

use account::Account;
use home::Home;
use process::Signal;
use programs::Programs;

/// The superuser of every cluster.
const USER: &str = "postgres";

/// A server that recovers from a crash may take this long until it answers.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Fast and smart stops write a checkpoint and wait for replication clients.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// After SIGQUIT the server waits five seconds for its children by itself.
const QUIT_LIMIT: Duration = Duration::from_secs(10);
/// A reload is done in milliseconds, and a setting that had this value already is not reported at all.
const RELOAD_LIMIT: Duration = Duration::from_secs(1);
/// A chosen port can be taken by somebody else before the server binds it.
const PORT_ATTEMPTS: u32 = 8;
/// Larger logs are set aside at the next start.
const LOG_LIMIT: u64 = 16 << 20;

/// How a server is asked to stop; the names are those of `pg_ctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until every client has left.
    Smart,
    /// Ends all sessions, writes a checkpoint.
    Fast,
    /// Ends at once without a checkpoint: the next start recovers, as after a crash.
    Immediate,
}

/// What became of [`Cluster::set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// In force for new transactions, or it was the value already.
    Now,
    /// The setting is one that only a restart changes.
    AtRestart,
}

/// A private server. Dropping it stops it.
#[derive(Debug)]
pub struct Cluster {
    home: Home,
    programs: Programs,
    account: Account,
    password: String,
    port: u16,
    /// The port was named by the caller, so no other one will do.
    port_is_fixed: bool,
    /// Where the Unix socket is; empty: nowhere.
    sockets: PathBuf,
    child: Option<Child>,
}

impl Cluster {
    /// Starts describing a cluster; without more it is temporary and of the default version.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Deletes the kept cluster at `home`. Fails while it is in use; one that is not there is fine.
    pub fn forget(home: &Path) -> Result<()> {
        home::forget(home)
    }

    /// A connection URL of the superuser for database `postgres`.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// A connection URL of the superuser for `database`, which need not exist yet.
    pub fn url_for(&self, database: &str) -> String {
        let name: String = url::form_urlencoded::byte_serialize(database.as_bytes()).collect();
        // The serializer is for forms, where a space is a plus; in a path it is not.
        format!("postgres://{USER}:{}@127.0.0.1:{}/{}", self.password, self.port, name.replace('+', "%20"))
    }

    /// The port on 127.0.0.1. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        self.programs.major()
    }

    /// The folder with `postgres` and `initdb`, and whatever else this distribution of PostgreSQL has.
    pub fn bin_dir(&self) -> &Path {
        &self.programs.bin
    }

    /// The data folder. As root, its owner is `nobody`.
    pub fn data_dir(&self) -> PathBuf {
        self.home.data()
    }

    /// The server's log.
    pub fn log_path(&self) -> PathBuf {
        self.home.log()
    }

    /// The number of the server's first process, or `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether the server runs; it may have ended without our doing.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The end of the server's log, for a message about a failure.
    pub fn log_tail(&self) -> String {
        let text = self.log_since(self.log_length().saturating_sub(8 << 10));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Stops the server and waits until it is gone. A stopped server may be stopped again.
    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        let signal = match mode {
            StopMode::Smart => Signal::SIGTERM,
            StopMode::Fast => Signal::SIGINT,
            StopMode::Immediate => Signal::SIGQUIT,
        };
        process::send(child.id(), signal)?;
        if process::wait_for(child, STOP_LIMIT)?.is_none() {
            bail!(
                "PostgreSQL did not stop within {STOP_LIMIT:?} ({mode:?}); its log ends:\n{}",
                self.log_tail()
            );
        }
        self.child = None;
        Ok(())
    }

    /// Stops the server and starts it on the same data and port.
    pub fn restart(&mut self, mode: StopMode) -> Result<()> {
        self.stop(mode)?;
        self.start_again()
    }

    /// Starts the server after [`Cluster::stop`], or after it ended by itself.
    pub fn start_again(&mut self) -> Result<()> {
        if let Some(child) = self.child.as_mut()
            && child.try_wait()?.is_none()
        {
            bail!("PostgreSQL is running already (process {})", child.id());
        }
        self.child = None;
        self.launch()
    }

    /// Changes a setting as `ALTER SYSTEM` does and reloads. It outlives restarts.
    pub fn set(&self, key: &str, value: &str) -> Result<Applied> {
        let file = self.home.data().join(settings::AUTO_FILE);
        let text = fs::read_to_string(&file).unwrap_or_default();
        settings::write(&file, &settings::replaced(&text, key, value), self.account)?;
        let Some(pid) = self.pid() else { return Ok(Applied::AtRestart) };
        let start = self.log_length();
        process::send(pid, Signal::SIGHUP)?;
        let mut said = None;
        process::wait_until(RELOAD_LIMIT, || {
            // Other settings that wait for a restart are reported on every reload.
            let names_key = |line: &&str| line.contains(&format!("parameter \"{key}\""));
            said = self.log_since(start).lines().find(names_key).map(str::to_owned);
            said.is_some()
        });
        match said {
            Some(line) if line.contains("cannot be changed without restarting") => {
                return Ok(Applied::AtRestart);
            }
            Some(line) if !line.contains("changed to") => {
                settings::write(&file, &text, self.account)?;
                bail!("PostgreSQL refuses {key} = '{value}': {line}");
            }
            _ => {}
        }
        Ok(Applied::Now)
    }

    /// Starts the server and waits until it answers; leaves nothing running when it fails.
    fn launch(&mut self) -> Result<()> {
        self.set_log_aside();
        for attempt in 1.. {
            let start = self.log_length();
            self.child = Some(self.spawn()?);
            let Err(error) = self.wait_ready() else { return Ok(()) };
            self.kill();
            let said = self.log_since(start);
            let port_taken = said.contains("could not bind IPv4 address");
            if port_taken && !self.port_is_fixed && attempt < PORT_ATTEMPTS {
                self.port = free_port()?;
            } else if port_taken {
                bail!("port {} is taken: choose another one, or none to have a free one chosen", self.port);
            } else {
                return Err(
                    error.context(format!("PostgreSQL did not start; its log says:\n{}", self.log_tail()))
                );
            }
        }
        unreachable!("the last attempt returns")
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.home.log())?;
        let mut command = template::clean_command(&self.programs.bin.join("postgres"), self.home.root());
        command.arg("-D").arg(self.home.data()).arg("-p").arg(self.port.to_string());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c"]);
        command.arg(format!("unix_socket_directories={}", self.sockets.display()));
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        self.account.apply(&mut command);
        // SIGINT asks for a fast stop: everything is written, nobody is waited for.
        process::spawn_bound(command, Signal::SIGINT)
            .with_context(|| format!("cannot run {}", self.programs.bin.join("postgres").display()))
    }

    fn wait_ready(&mut self) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        let file = self.home.data().join("postmaster.pid");
        let child = self.child.as_mut().context("nothing was started")?;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            // Line 8 is what `pg_ctl --wait` reads; the connection proves that it is this server's port.
            let text = fs::read_to_string(&file).unwrap_or_default();
            let is_ours = text.lines().next().is_some_and(|line| line.trim() == child.id().to_string());
            // A hot standby says `standby` once it answers.
            let is_ready = text.lines().nth(7).is_some_and(|line| matches!(line.trim(), "ready" | "standby"));
            if is_ours && is_ready && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("it was not ready within {START_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the server, whatever it takes. Used where an error could not be reported.
    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let gentle = (Signal::SIGINT, STOP_LIMIT);
        let steps = [gentle, (Signal::SIGQUIT, QUIT_LIMIT), (Signal::SIGKILL, QUIT_LIMIT)];
        // Data that is deleted next needs no checkpoint.
        let skipped = usize::from(self.home.is_temporary());
        for (signal, limit) in &steps[skipped..] {
            let _ = process::send(child.id(), *signal);
            if matches!(process::wait_for(&mut child, *limit), Ok(Some(_)) | Err(_)) {
                return;
            }
        }
    }

    fn log_length(&self) -> u64 {
        fs::metadata(self.home.log()).map_or(0, |found| found.len())
    }

    fn log_since(&self, start: u64) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(self.home.log()) {
            let _ = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn set_log_aside(&self) {
        if self.log_length() > LOG_LIMIT {
            // Only convenience is lost if this fails.
            let _ = fs::rename(self.home.log(), self.home.root().join("postgres.log.old"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
        self.home.remove_if_temporary();
    }
}

/// The major versions that tests of version differences go through: those of `LOCKSTEP_PG_MAJORS`, else 15 and 17.
pub fn majors() -> Result<Vec<u32>> {
    let named = std::env::var("LOCKSTEP_PG_MAJORS").unwrap_or_default();
    let words = if named.trim().is_empty() { "15,17" } else { &named };
    let numbers = words.split([',', ' ']).filter(|word| !word.is_empty()).map(|word| {
        word.parse().with_context(|| format!("LOCKSTEP_PG_MAJORS has `{word}`, not a number such as 17"))
    });
    numbers.collect()
}

/// A port that nobody listens on. It is below the range from which the kernel takes ports for outgoing connections,
/// so that none of those takes it while the server is down for a restart.
pub fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let port = rand::random_range(15_000..32_000);
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("found no free port on 127.0.0.1")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
