//! Thousands of clients in a process of their own.
//!
//! [`Generator`] is the bench's side: it starts the process and speaks with it in lines of JSON. [`process`] is the
//! other: one thread, one epoll, no task and no buffer per socket, so that ten thousand clients cost less than the
//! node that feeds them. [`held`] is what a client holds, and [`socket`] how it hears of it.

pub mod held;
pub mod process;
pub mod socket;

use crate::programs::Player;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which clients to connect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Crowd {
    /// Where the node listens.
    pub port: u16,
    /// How many of them.
    pub sockets: usize,
    /// Shapes of each.
    pub shapes: usize,
    /// The table that they subscribe to.
    pub table: String,
    /// Its scope column, if each shape is the next scope of it, from [`Self::first`] on.
    pub scope: Option<String>,
    /// The first scope.
    pub first: i64,
    /// So many clients have the same scopes.
    pub share: usize,
    /// The first client's address is 127.0.0.(2 + source): each has ports for 20,000.
    pub source: u8,
    /// The peer is no node: nobody joins, messages are only timed.
    pub bare: bool,
    /// A quarter reads only now and then, another one leaves and comes back.
    pub unruly: bool,
}

/// What the process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Connect these as well.
    Connect(Crowd),
    /// Answer once so many clients are in step and so many transactions were delivered.
    Wait {
        /// Clients that had their first commit.
        established: usize,
        /// Commits that named a transaction, over all clients, since the last report.
        deliveries: usize,
    },
    /// Write each delivery's transaction and time to a file, as pairs of little-endian u64, and forget them.
    Report(PathBuf),
    /// Compare every client's rows with those of a file: lines of scope, a tab, and the row as JSON.
    Verify(PathBuf),
    /// Go on in peace: everybody reads and stays.
    Calm,
    /// Show the last `rows` and `commit` frames.
    Show,
}

/// What it answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Clients that had their first commit.
    pub established: usize,
    /// Deliveries since the last report.
    pub deliveries: usize,
    /// Rows that were compared.
    pub rows: usize,
    /// Clients whose rows are others than SELECT's.
    pub wrong: usize,
    /// Times that the peer closed a connection.
    pub closed: usize,
    /// Times that a client came back.
    pub returned: usize,
    /// The last frames, if they are to be shown.
    pub frames: Vec<String>,
    /// What went wrong first.
    pub error: Option<String>,
}

/// One commit at one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The transaction.
    pub xid: u64,
    /// When it came: nanoseconds of the wall clock, which all processes of a machine share.
    pub at: u64,
}

/// Nanoseconds of the wall clock.
pub fn nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(0))
}

/// The process, from outside; it ends with this.
#[derive(Debug)]
pub struct Generator(Player);

impl Generator {
    /// Starts one. `program` is `lockstep-load`.
    pub fn start(program: &Path) -> Result<Self> {
        Player::start(program, "generator").map(Self)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Sends an order and waits for its answer.
    pub fn order(&mut self, order: &Order, patience: Duration) -> Result<Answer> {
        let answer: Answer = self.0.order(order, patience)?;
        match answer.error {
            Some(error) => bail!("the generator: {error}"),
            None => Ok(answer),
        }
    }

    /// Connects clients; they may not be in step yet.
    pub fn connect(&mut self, crowd: &Crowd) -> Result<Answer> {
        self.order(&Order::Connect(crowd.clone()), Duration::from_secs(120))
    }

    /// Waits until so many clients are in step and so many deliveries were made.
    pub fn wait(&mut self, established: usize, deliveries: usize, patience: Duration) -> Result<Answer> {
        self.order(&Order::Wait { established, deliveries }, patience)
    }

    /// All deliveries since the last report.
    pub fn report(&mut self) -> Result<Vec<Delivery>> {
        let path = self.0.folder().join("deliveries");
        self.order(&Order::Report(path.clone()), Duration::from_secs(60))?;
        Ok(read_pairs(&std::fs::read(path)?).map(|(xid, at)| Delivery { xid, at }).collect())
    }

    /// Compares every client's rows with `rows`: lines of scope, a tab, and the row as JSON.
    pub fn verify(&mut self, rows: &str) -> Result<Answer> {
        let path = self.0.folder().join("rows");
        std::fs::write(&path, rows)?;
        self.order(&Order::Verify(path), Duration::from_secs(60))
    }
}

/// Pairs of little-endian numbers.
pub fn read_pairs(bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    bytes.chunks_exact(16).map(|pair| {
        let number = |at: usize| pair[at..at + 8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        (number(0), number(8))
    })
}
