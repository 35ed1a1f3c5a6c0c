//! `diverse`: each client its own scope, transactions that touch fifty of them.

use super::{Options, PATIENCE, RawReader, World, at_rate, number, percentile};
use crate::figures::{Bench, Figure, Limit};
use anyhow::{Result, ensure};
use rand::seq::index::sample;
use std::time::Duration;

const TOUCHED: usize = 50;
const PER_SECOND: f64 = 100.0;

/// A node with so many clients.
struct Side {
    world: World,
    reader: RawReader,
    clients: usize,
    cpu: Vec<f64>,
    added: Vec<f64>,
}

impl Side {
    async fn start(options: &Options, clients: usize) -> Result<Self> {
        let mut world = World::start(options, clients, 2).await?;
        world.connect(&world.crowd(clients, 1, 1))?;
        let reader = RawReader::start(options, &world.database)?;
        Ok(Self { world, reader, clients, cpu: Vec::new(), added: Vec::new() })
    }

    async fn run(&mut self, length: Duration) -> Result<()> {
        let before = self.world.node.process().cpu()?;
        let (world, clients) = (&self.world, self.clients);
        let done = at_rate(PER_SECOND, length, |_| async move {
            let scopes = sample(&mut rand::rng(), clients, TOUCHED);
            let ids: Vec<i32> = scopes.iter().map(|s| i32::try_from(s + 1)).collect::<Result<_, _>>()?;
            world.touch(&ids).await?;
            Ok(())
        })
        .await?;
        let all = done * TOUCHED;
        self.world.clients.wait(clients, all, PATIENCE)?;
        let cpu = self.world.node.process().cpu()? - before;
        let deliveries = self.world.clients.report()?;
        ensure!(deliveries.len() == all, "a transaction was delivered twice");
        self.cpu.push(cpu * 1e6 / number(all));
        self.added.push(percentile(&self.reader.added(&deliveries)?, 99));
        Ok(())
    }
}

/// Runs it.
///
/// # Errors
/// If something cannot be started, or a row is wrong or missing.
pub async fn run(options: &Options) -> Result<Bench> {
    let length = Duration::from_secs(options.seconds.unwrap_or(options.or(4, 1)));
    let mut few = Side::start(options, 100).await?;
    let mut many = Side::start(options, options.or(10_000, 200)).await?;
    // The first pair warms both up, and is thrown away.
    for _ in 0..=options.runs {
        few.run(length).await?;
        many.run(length).await?;
    }
    let mut ratios = Vec::new();
    for side in [&mut few, &mut many] {
        side.world.verify().await?;
        side.cpu.remove(0);
        side.added.remove(0);
    }
    for (few, many) in few.cpu.iter().zip(&many.cpu) {
        ratios.push(many / few);
    }
    let limit = |at: f64| Some(Limit::ValueAtMost(at)).filter(|_| !options.small);
    let figures = vec![
        Figure::of_runs("added_p99_ms", "ms", &many.added, limit(10.0)),
        Figure::of_runs("flatness", "", &ratios, limit(1.5)),
        Figure::of_runs("cpu_per_delivery_us", "µs", &many.cpu, None),
        Figure::of_runs("few_cpu_per_delivery_us", "µs", &few.cpu, None),
        Figure::of_runs("few_added_p99_ms", "ms", &few.added, None),
    ];
    let versions = many.world.versions().await?;
    Ok(Bench { name: "diverse", runs: options.runs, figures, machine: few.world.machine.clone(), versions })
}
