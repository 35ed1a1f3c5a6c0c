//! One Lockstep node as a child process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{self, Group};
use crate::{stop, workspace};

/// A node loads its catalog and connects within this time, also on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A running `lockstep serve`; dropping it stops it.
#[derive(Debug)]
pub struct Node {
    group: Group,
    port: u16,
    log: PathBuf,
}

impl Node {
    /// Starts a node and waits until it says that it is ready.
    pub fn start(program: &Path, database: &str, port: u16, pages: &Path) -> Result<Node> {
        let log = workspace::log(&format!("lockstep-{port}"))?;
        let mut serve = command(program, database);
        serve.arg("serve").arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--static").arg(pages);
        let mut node = Node { group: Group::start(serve, &log)?, port, log };
        let end = Instant::now() + START_LIMIT;
        while !node.is_healthy() {
            stop::check()?;
            node.check()?;
            if Instant::now() > end {
                bail!(
                    "the node was not ready within {START_LIMIT:?}; its log ends:\n{}",
                    workspace::tail(&node.log, 20)
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(node)
    }

    /// Where its log goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.group.ended()? {
            None => Ok(()),
            Some(status) => {
                bail!("the node ended ({status}); its log ends:\n{}", workspace::tail(&self.log, 20))
            }
        }
    }

    /// Asks it to end and waits.
    pub fn stop(&mut self) -> Result<()> {
        match self.group.stop()? {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                bail!("the node ended with {status}; its log ends:\n{}", workspace::tail(&self.log, 20))
            }
            None => bail!("the node did not end on SIGTERM and was killed"),
        }
    }

    fn is_healthy(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let request =
                format!("GET /ready HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", self.port);
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.take(4096).read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

/// `lockstep` for this database. The URL holds a password: it travels in the environment, where others do not see it.
fn command(program: &Path, database: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LOCKSTEP_DATABASE_URL", database).current_dir(workspace::root());
    command
}

/// Runs one command of `lockstep` to its end.
pub fn lockstep(program: &Path, database: &str, arguments: &[&str]) -> Result<()> {
    let mut lockstep = command(program, database);
    lockstep.args(arguments);
    child::must(lockstep, &format!("lockstep-{}", arguments[0])).map(drop)
}

/// An error that says what to do if somebody listens on this port.
pub fn require_free(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(error).with_context(|| {
            format!(
                "port {port} is taken: choose another one, such as `cargo x demo --port {}`",
                port.saturating_add(1)
            )
        }),
    }
}
