//! The real binary as a child, with its log.

use anyhow::{Context, Result, bail};
use lockstep_pg::cluster::process::{self, Signal, spawn_bound};
use serde_json::Value as Json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A node that has not said where it listens after this never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `lockstep serve`; dropping it kills it.
#[derive(Debug)]
pub struct Node {
    child: Child,
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts one and waits until it says where it listens.
    pub fn start(binary: &Path, database: &str, environment: &[(String, String)]) -> Result<Self> {
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("LOCKSTEP_DATABASE_URL", database)
            .env("NO_COLOR", "1")
            .envs(environment.iter().map(|(k, v)| (k, v)))
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = spawn_bound(command, Signal::SIGKILL).context("cannot run the binary `lockstep`")?;
        let stderr = child.stderr.take().context("no pipe")?;
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (found, port) = std::sync::mpsc::channel();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(port) = listens_on(&line) {
                    // Nobody waits for it a second time.
                    let _ = found.send(port);
                }
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let Ok(port) = port.recv_timeout(PATIENCE) else {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            let said = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
            bail!("the node did not say within {PATIENCE:?} on which port it listens: {said:?}");
        };
        Ok(Self { child, port, log })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its lines from the `from`th on.
    pub fn log_from(&self, from: usize) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.get(from..).unwrap_or_default().to_vec()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(process::send(self.child.id(), signal)?)
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What `/health` says; None if it does not answer.
    pub async fn health(&self) -> Option<Json> {
        serde_json::from_str(self.ask().await?.split("\r\n\r\n").nth(1)?).ok()
    }

    /// The day that it takes today for, as its HTTP answers say it.
    pub async fn day(&self) -> Option<String> {
        let answer = self.ask().await?;
        let line = answer.lines().find(|l| l.to_ascii_lowercase().starts_with("date:"))?;
        line.get("date: Mon, ".len().."date: Mon, 23 Nov 2026".len()).map(str::to_owned)
    }

    async fn ask(&self) -> Option<String> {
        let ask = async {
            let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            socket.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten()
    }
}

/// `… listening on http://127.0.0.1:PORT, for …`
fn listens_on(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on http://127.0.0.1:")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been killed by a fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
