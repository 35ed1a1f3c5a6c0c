//! `fanout`: one shape, one change to everybody, beside a bare broadcast of the same bytes.

use super::{Options, PATIENCE, World, number, percentile};
use crate::figures::{Bench, Figure, Limit};
use crate::generator::{Crowd, Delivery, Generator, Order, nanoseconds};
use crate::node::Process;
use crate::pairs::Pair;
use anyhow::{Context, Result, ensure};
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

/// A bare broadcast that takes longer per message says that the machine was busy.
const PLAUSIBLE_US: f64 = 15.0;
/// Deliveries of one run, over all clients.
const DELIVERIES: usize = 150_000;

/// The program that does nothing but broadcast.
struct Bare {
    child: Child,
    orders: ChildStdin,
    port: u16,
}

impl Bare {
    fn start(options: &Options) -> Result<Self> {
        let mut command = Command::new(options.programs.path("bare_broadcast"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_bound(command, Signal::SIGKILL).context("cannot run bare_broadcast")?;
        let orders = child.stdin.take().context("no pipe")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        Ok(Self { child, orders, port: line.trim().parse()? })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one run says: processor time per delivery in µs, and the 99th percentile of the last client's ms.
#[derive(Debug, Clone, Copy)]
struct Run {
    cpu: f64,
    last: f64,
}

/// From when each transaction was sent to when the last client had it.
fn run_of(began: &BTreeMap<u64, u64>, deliveries: &[Delivery], clients: usize, cpu: f64) -> Result<Run> {
    let mut last: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    for delivery in deliveries {
        let entry = last.entry(delivery.xid).or_default();
        *entry = (entry.0.max(delivery.at), entry.1 + 1);
    }
    let mut times = Vec::new();
    for (xid, began) in began {
        let (at, heard) = last.get(xid).copied().unwrap_or_default();
        ensure!(heard == clients, "{heard} of {clients} clients heard of a transaction");
        #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a second")]
        times.push(at.saturating_sub(*began) as f64 / 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(Run { cpu: cpu * 1e6 / number(deliveries.len()), last: percentile(&times, 99) })
}

/// Runs it.
///
/// # Errors
/// If something cannot be started, a row is wrong or missing, or the limit is implausible.
pub async fn run(options: &Options) -> Result<Bench> {
    let mut figures = Vec::new();
    let mut about = None;
    for clients in options.or([500, 10_000], [10, 50]) {
        let mut world = World::start(options, 1, 20).await?;
        world.connect(&world.crowd(clients, 1, clients))?;
        let bare = Bare::start(options)?;
        let mut listeners = Generator::start(&options.programs.path("lockstep-load"))?;
        let crowd = Crowd { port: bare.port, source: 10, bare: true, ..world.crowd(clients, 1, clients) };
        listeners.connect(&crowd)?;
        let mut pairs = (Vec::new(), Vec::new());
        let rounds = (DELIVERIES / clients).min(options.or(usize::MAX, 5));
        let mut number = 0;
        // The first pair warms both up, and is thrown away.
        for pair in 0..=options.runs {
            let ours = ours(&mut world, clients, rounds).await?;
            let theirs = theirs(&mut world, &mut listeners, &bare, clients, rounds, &mut number)?;
            if pair > 0 {
                ensure!(
                    theirs.cpu / 2.0 <= PLAUSIBLE_US || options.small,
                    "a bare broadcast took {:.1} µs a message: this machine was busy",
                    theirs.cpu / 2.0
                );
                pairs.0.push(Pair { base: theirs.cpu, with: ours.cpu });
                pairs.1.push(Pair { base: theirs.last, with: ours.last });
            }
        }
        world.verify().await?;
        let limit = Some(Limit::RatioAtMost(1.3)).filter(|_| !options.small);
        let name = |what: &str| format!("{what}_{clients}");
        figures.push(Figure::of_pairs(&name("cpu_per_delivery_us"), "µs", &pairs.0, limit));
        figures.push(Figure::of_pairs(&name("last_client_p99_ms"), "ms", &pairs.1, limit));
        about = Some((world.machine.clone(), world.versions().await?));
    }
    let (machine, versions) = about.context("no run")?;
    Ok(Bench { name: "fanout", runs: options.runs, figures, machine, versions })
}

async fn ours(world: &mut World, clients: usize, rounds: usize) -> Result<Run> {
    let before = world.node.process().cpu()?;
    let mut began = BTreeMap::new();
    for round in 0..rounds {
        let id = i32::try_from(round % 20)? + 1;
        let xid = world.touch(&[id]).await?;
        // COMMIT has returned.
        began.insert(xid, nanoseconds());
        world.clients.wait(clients, clients * (round + 1), PATIENCE)?;
    }
    let cpu = world.node.process().cpu()? - before;
    run_of(&began, &world.clients.report()?, clients, cpu)
}

/// The same frames, but for the transaction's number.
fn theirs(
    world: &mut World,
    listeners: &mut Generator,
    bare: &Bare,
    clients: usize,
    rounds: usize,
    number: &mut u64,
) -> Result<Run> {
    let shown = world.clients.order(&Order::Show, PATIENCE)?.frames;
    let (rows, commit) = (&shown[0], &shown[1]);
    let (head, tail) = commit.split_once("\"xid\":\"").context("a commit without a transaction")?;
    let (_, tail) = tail.split_once('"').context("a commit without a transaction")?;
    let process = Process(bare.child.id());
    let before = process.cpu()?;
    let mut began = BTreeMap::new();
    for round in 0..rounds {
        *number += 1;
        began.insert(*number, nanoseconds());
        let mut orders = &bare.orders;
        writeln!(orders, "{rows}\t{head}\"xid\":\"{number}\"{tail}")?;
        listeners.wait(clients, clients * (round + 1), PATIENCE)?;
    }
    let cpu = process.cpu()? - before;
    run_of(&began, &listeners.report()?, clients, cpu)
}
