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
        let mut lines = BufReader::new(stderr).lines();
        let mut log = Vec::new();
        let mut port = None;
        for line in lines.by_ref().map_while(Result::ok) {
            port =
                line.rsplit_once("listening on http://127.0.0.1:").and_then(|(_, p)| p.trim().parse().ok());
            log.push(line);
            if port.is_some() {
                break;
            }
        }
        let Some(port) = port else { bail!("the node said nothing about its port: {log:?}") };
        let log = Arc::new(Mutex::new(log));
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
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
        let ask = async {
            let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            socket.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.ok()?;
            serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()
        };
        tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been killed by a fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
