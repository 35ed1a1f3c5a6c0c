//! `latency`: what the node adds between a commit in the stream and a client's frame.

use super::{Options, PATIENCE, RawReader, World, at_rate, percentile};
use crate::figures::{Bench, Figure, Limit};
use anyhow::{Result, ensure};
use std::time::Duration;

const CLIENTS: usize = 20;
const PER_SECOND: f64 = 50.0;

/// Runs it.
///
/// # Errors
/// If something cannot be started, or a row is wrong or missing.
pub async fn run(options: &Options) -> Result<Bench> {
    let mut world = World::start(options, 1, 20).await?;
    world.connect(&world.crowd(CLIENTS, 1, CLIENTS))?;
    let reader = RawReader::start(options, &world.database)?;
    let length = options.seconds.unwrap_or(options.or(10, 1));
    let (mut middle, mut slowest) = (Vec::new(), Vec::new());
    // The first run warms everything up, and is thrown away.
    for run in 0..=options.runs {
        let database = &world;
        let seconds = Duration::from_secs(if run == 0 { 1 } else { length });
        let done = at_rate(PER_SECOND, seconds, |nth| async move {
            database.touch(&[i32::try_from(nth % 20)? + 1]).await?;
            Ok(())
        })
        .await?;
        world.clients.wait(CLIENTS, done * CLIENTS, PATIENCE)?;
        let deliveries = world.clients.report()?;
        ensure!(deliveries.len() == done * CLIENTS, "a transaction was delivered twice");
        let added = reader.added(&deliveries)?;
        if run > 0 {
            middle.push(percentile(&added, 50));
            slowest.push(percentile(&added, 99));
        }
    }
    world.verify().await?;
    let limit = |at: f64| Some(Limit::ValueAtMost(at)).filter(|_| !options.small);
    let figures = vec![
        Figure::of_runs("added_p50_ms", "ms", &middle, limit(0.3)),
        Figure::of_runs("added_p99_ms", "ms", &slowest, limit(1.5)),
    ];
    let versions = world.versions().await?;
    Ok(Bench { name: "latency", runs: options.runs, figures, machine: world.machine.clone(), versions })
}
