//! The programs that take part in a bench, and those among them that are told what to do in lines of JSON.

use anyhow::{Context, Result, bail};
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The programs that take part.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those beside this one.
    pub fn beside(program: &Path) -> Result<Self> {
        let folder = program.parent().context("a program in no folder")?.to_owned();
        Ok(Self { folder })
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A process that plays clients, from outside: it takes orders on its standard input and answers each on its standard
/// output, in lines of JSON. It ends with this.
#[derive(Debug)]
pub struct Player {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
    folder: tempfile::TempDir,
}

impl Player {
    /// Starts `lockstep-load`, told to be the process of this name.
    pub fn start(program: &Path, name: &'static str) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            spawn_bound(command, Signal::SIGKILL).with_context(|| format!("cannot run the {name}"))?;
        let orders = child.stdin.take().context("no pipe")?;
        let stdout = child.stdout.take().context("no pipe")?;
        let (line, answers) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens any more if this fails.
                let _ = line.send(text);
            }
        });
        Ok(Self { name, child, orders, answers, folder: tempfile::tempdir()? })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// For what is too long for a line.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends an order and waits for its answer.
    pub fn order<A: DeserializeOwned>(&mut self, order: &impl Serialize, patience: Duration) -> Result<A> {
        let line = serde_json::to_string(order)?;
        self.orders.write_all(format!("{line}\n").as_bytes())?;
        match self.answers.recv_timeout(patience) {
            Ok(text) => Ok(serde_json::from_str(&text)?),
            Err(why) => bail!("the {} did not answer within {patience:?} ({why}): {line}", self.name),
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
