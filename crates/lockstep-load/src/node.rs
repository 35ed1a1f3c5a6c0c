//! The node of a bench: the binary `lockstep serve` as a process of its own, and what the kernel says of it.

use anyhow::{Context, Result, bail};
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A node that is not live after this never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running node; dropping it kills it.
#[derive(Debug)]
pub struct Node {
    child: Child,
    port: u16,
}

impl Node {
    /// Starts one and waits until it streams.
    pub fn start(program: &Path, database: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0"]).env("LOCKSTEP_DATABASE_URL", database);
        command.env("NO_COLOR", "1").env("LOCKSTEP_LOG", "info").current_dir(std::env::temp_dir());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn_bound(command, Signal::SIGKILL).with_context(|| {
            format!("cannot run {}: `cargo build --release -p lockstep-server`", program.display())
        })?;
        let stderr = child.stderr.take().context("no pipe")?;
        let (found, port) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on http://127.0.0.1:") {
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    // Nobody waits for it a second time.
                    let _ = found.send(digits.parse::<u16>());
                } else if line.contains(" WARN ") || line.contains(" ERROR ") {
                    eprintln!("node: {line}");
                }
            }
        });
        let port = port.recv_timeout(PATIENCE).context("the node did not say where it listens")??;
        let mut node = Self { child, port };
        let until = Instant::now() + PATIENCE;
        while !node.is_live() {
            if Instant::now() > until || node.child.try_wait()?.is_some() {
                bail!("the node did not begin to stream");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(node)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the kernel says of it.
    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    fn is_live(&self) -> bool {
        let ask = || -> Result<String> {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
            socket.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains("\"live\""))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process, as /proc shows it.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// Processor time used so far, its own and the kernel's for it, in seconds.
    pub fn cpu(self) -> Result<f64> {
        // In hundredths; the command's name before them may hold anything but this parenthesis.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let field = |at: usize| -> Result<f64> {
            Ok(fields.split_whitespace().nth(at).context("/proc/PID/stat")?.parse()?)
        };
        Ok((field(11)? + field(12)?) / 100.0)
    }

    /// Memory in use, in kB.
    pub fn rss(self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("VmRSS")?.parse()?)
    }
}
