//! The generator's process: `lockstep-load generator`, orders on the standard input, answers on its output.

use super::held::{Row, row};
use super::socket::{Heard, Manner, Memo, Socket};
use super::{Answer, Crowd, Delivery, Order, nanoseconds};
use anyhow::{Context, Result};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// The waker's token.
const ORDERS: Token = Token(usize::MAX);
/// Between two heartbeats of one client.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// A slow client reads so often.
const SLOW: Duration = Duration::from_secs(3);
/// One client in so many milliseconds leaves and comes back, of those that flap.
const FLAP: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(10);

struct Process {
    poll: Poll,
    crowds: Vec<Crowd>,
    /// A client and its crowd.
    sockets: Vec<(Socket, usize)>,
    deliveries: Vec<Delivery>,
    memo: Memo,
    buffer: Vec<u8>,
    wait: Option<(usize, usize)>,
    counts: Answer,
    calm: bool,
    beaten: usize,
    flapped: usize,
    began: Instant,
    read_slowly: Instant,
    flapped_at: Instant,
    /// Clients that were told to join again later.
    later: Vec<usize>,
}

/// Runs until the standard input ends.
///
/// # Errors
/// If the process cannot listen or answer. What goes wrong at a client is told in the answers.
pub fn run() -> Result<()> {
    raise_limit()?;
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), ORDERS)?);
    let (order, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            // The process ends if either fails.
            if order.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
        drop(order);
        let _ = waker.wake();
    });
    let now = Instant::now();
    let process = Process {
        poll,
        crowds: Vec::new(),
        sockets: Vec::new(),
        deliveries: Vec::new(),
        memo: Memo::default(),
        buffer: vec![0; 256 << 10],
        wait: None,
        counts: Answer::default(),
        calm: false,
        beaten: 0,
        flapped: 0,
        began: now,
        read_slowly: now,
        flapped_at: now,
        later: Vec::new(),
    };
    process.run(&orders)
}

/// One descriptor per client.
pub fn raise_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(())
}

fn answer(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}

impl Process {
    fn run(mut self, orders: &Receiver<String>) -> Result<()> {
        let mut events = Events::with_capacity(4096);
        loop {
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                polled => polled?,
            }
            let mut told = false;
            for event in &events {
                match event.token() {
                    ORDERS => told = true,
                    Token(at) if self.reads_now(at) => self.read(at),
                    _ => {}
                }
            }
            if told && !self.take(orders)? {
                return Ok(());
            }
            self.tick();
            let enough = |(clients, commits): (usize, usize)| {
                self.counts.established >= clients && self.deliveries.len() >= commits
            };
            if self.wait.is_some_and(enough) || (self.wait.is_some() && self.counts.error.is_some()) {
                self.wait = None;
                answer(&self.status())?;
            }
        }
    }

    /// Obeys what has come; false when nobody is left to say anything.
    fn take(&mut self, orders: &Receiver<String>) -> Result<bool> {
        loop {
            match orders.try_recv() {
                Ok(line) => self.obey(&serde_json::from_str(&line)?)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn status(&self) -> Answer {
        Answer { deliveries: self.deliveries.len(), ..self.counts.clone() }
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.counts.error.get_or_insert_with(|| format!("{error:#}"));
    }

    fn obey(&mut self, order: &Order) -> Result<()> {
        match order {
            Order::Connect(crowd) => {
                if let Err(error) = self.connect(crowd) {
                    self.fail(&error);
                }
                answer(&self.status())
            }
            Order::Wait { established, deliveries } => {
                self.wait = Some((*established, *deliveries));
                Ok(())
            }
            Order::Report(path) => {
                let deliveries = std::mem::take(&mut self.deliveries);
                let pairs = deliveries.iter().flat_map(|d| [d.xid, d.at]).flat_map(u64::to_le_bytes);
                std::fs::write(path, pairs.collect::<Vec<u8>>())?;
                answer(&self.status())
            }
            Order::Verify(path) => {
                match self.verify(path) {
                    Ok((rows, wrong)) => (self.counts.rows, self.counts.wrong) = (rows, wrong),
                    Err(error) => self.fail(&error),
                }
                answer(&self.status())
            }
            Order::Show => {
                let frames = self.memo.shown.iter().map(|f| String::from_utf8_lossy(f).into_owned());
                answer(&Answer { frames: frames.collect(), ..self.status() })
            }
            Order::Calm => {
                self.calm = true;
                for at in 0..self.sockets.len() {
                    self.read(at);
                }
                answer(&self.status())
            }
        }
    }

    fn connect(&mut self, crowd: &Crowd) -> Result<()> {
        self.crowds.push(crowd.clone());
        for number in 0..crowd.sockets {
            let manner = match number % 4 {
                1 if crowd.unruly => Manner::Slow,
                3 if crowd.unruly => Manner::Flapping,
                _ => Manner::Good,
            };
            let mut socket = Socket::new(number, crowd, manner);
            if crowd.bare {
                socket.held.shapes = Vec::new();
            }
            self.sockets.push((socket, self.crowds.len() - 1));
            self.open(self.sockets.len() - 1)?;
        }
        Ok(())
    }

    fn open(&mut self, at: usize) -> Result<()> {
        let (socket, crowd) = &mut self.sockets[at];
        socket.connect(&self.crowds[*crowd]).with_context(|| format!("client {at}"))?;
        self.counts.established += usize::from(socket.held.established);
        let stream = socket.stream.as_mut().context("not connected")?;
        self.poll.registry().register(stream, Token(at), Interest::READABLE)?;
        Ok(())
    }

    fn reads_now(&self, at: usize) -> bool {
        self.calm
            || self.sockets.get(at).is_some_and(|(s, _)| s.manner != Manner::Slow || !s.held.established)
    }

    fn read(&mut self, at: usize) {
        let Some((socket, _)) = self.sockets.get_mut(at) else { return };
        let was = socket.held.established;
        let deliveries = &mut self.deliveries;
        let mut commit = |xid| deliveries.push(Delivery { xid, at: nanoseconds() });
        let waits = socket.later;
        let heard = socket.read(&mut self.buffer, &mut self.memo, &mut commit);
        if waits.is_none() && socket.later.is_some() {
            self.later.push(at);
        }
        self.counts.established += usize::from(!was && socket.held.established);
        match heard {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Closed) => {
                self.counts.closed += 1;
                if !self.crowds[self.sockets[at].1].unruly {
                    self.fail(&anyhow::anyhow!("the peer closed client {at}'s connection"));
                } else if let Err(error) = self.come_back(at) {
                    self.fail(&error);
                }
            }
            Err(error) => self.fail(&error.context(format!("client {at}"))),
        }
    }

    /// Leaves, if it is still there, and connects again, with its cursor if it keeps one.
    fn come_back(&mut self, at: usize) -> Result<()> {
        let (socket, _) = &mut self.sockets[at];
        if let Some(mut stream) = socket.stream.take() {
            self.poll.registry().deregister(&mut stream)?;
        }
        self.counts.established -= usize::from(socket.held.established);
        socket.held.disconnected();
        self.counts.returned += 1;
        self.open(at)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        // Each client's turn comes once in a period.
        let count = self.sockets.len();
        let due = now.duration_since(self.began).as_secs_f64() / HEARTBEAT.as_secs_f64() * count as f64;
        while count > 0 && (self.beaten as f64) < due {
            let at = self.beaten % count;
            self.beaten += 1;
            if let Err(error) = self.sockets[at].0.heartbeat() {
                self.fail(&error);
            }
        }
        for at in std::mem::take(&mut self.later) {
            let (socket, crowd) = &mut self.sockets[at];
            if let Err(error) = socket.join_again(&self.crowds[*crowd], now) {
                self.fail(&error);
            }
            if self.sockets[at].0.later.is_some() {
                self.later.push(at);
            }
        }
        if self.calm || !self.crowds.iter().any(|c| c.unruly) {
            return;
        }
        if now.duration_since(self.read_slowly) > SLOW {
            self.read_slowly = now;
            for at in 0..count {
                if self.sockets[at].0.manner == Manner::Slow {
                    self.read(at);
                }
            }
        }
        if now.duration_since(self.flapped_at) > FLAP {
            self.flapped_at = now;
            let flapping = |at: &usize| {
                self.sockets[*at].0.manner == Manner::Flapping && self.sockets[*at].0.held.established
            };
            let next = (self.flapped..count).chain(0..self.flapped.min(count)).find(flapping);
            if let Some(at) = next {
                self.flapped = at + 1;
                if let Err(error) = self.come_back(at) {
                    self.fail(&error);
                }
            }
        }
    }

    /// Rows compared, and clients whose rows are others.
    fn verify(&self, path: &Path) -> Result<(usize, usize)> {
        let mut expected: HashMap<i64, Vec<Row>> = HashMap::new();
        let mut all: Vec<Row> = Vec::new();
        for line in std::fs::read_to_string(path)?.lines() {
            let (scope, text) = line.split_once('\t').context("a line without a tab")?;
            let row = row(text)?;
            all.push(row);
            expected.entry(scope.parse()?).or_default().push(row);
        }
        all.sort_unstable();
        expected.values_mut().for_each(|rows| rows.sort_unstable());
        let of = |scope: Option<i64>| match scope {
            None => all.as_slice(),
            Some(scope) => expected.get(&scope).map(Vec::as_slice).unwrap_or_default(),
        };
        let nodes = self.sockets.iter().filter(|(_, crowd)| !self.crowds[*crowd].bare);
        let (mut rows, mut wrong) = (0, 0);
        for (socket, _) in nodes {
            rows += socket.held.rows();
            wrong += usize::from(!socket.held.equals(of));
        }
        Ok((rows, wrong))
    }
}
