//! `hold`: many small transactions for a long time, to clients of which half are slow or come and go.

use super::{Options, World, at_rate, touch};
use crate::database::session;
use crate::figures::{Bench, Figure, Limit};
use crate::generator::{Crowd, Order};
use anyhow::{Result, ensure};
use rand::Rng;
use std::time::{Duration, Instant};

const SHARE: usize = 5;
const WRITERS: usize = 4;
/// Before the memory is looked at for the first time.
const WARM: Duration = Duration::from_secs(10);
/// Who is not in step after this never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it.
///
/// # Errors
/// If something cannot be started, or the load was not reached.
pub async fn run(options: &Options) -> Result<Bench> {
    let clients = options.or(2_000, 40);
    let per_second = options.or(2_000.0, 100.0);
    let length = Duration::from_secs(options.seconds.unwrap_or(options.or(600, 3)));
    let warm = if options.small { Duration::from_secs(1) } else { WARM };
    let scopes = clients / SHARE;
    let mut world = World::start(options, scopes, 5).await?;
    let crowd = Crowd { unruly: true, ..world.crowd(clients, 1, SHARE) };
    world.connect(&crowd)?;
    let rows = i32::try_from(scopes * 5)?;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let client = session(&world.database.cluster.url()).await?;
        client.batch_execute("set synchronous_commit = off").await?;
        writers.push(tokio::spawn(async move {
            let rate = per_second / f64::from(u16::try_from(WRITERS)?);
            at_rate(rate, warm + length, |_| {
                let (client, id) = (&client, rand::rng().random_range(1..=rows));
                async move { touch(client, &[id]).await.map(drop) }
            })
            .await
        }));
    }
    let process = world.node.process();
    tokio::time::sleep(warm).await;
    let (began, before, cpu) = (Instant::now(), process.rss()?, process.cpu()?);
    let mut most = before;
    while began.elapsed() < length {
        tokio::time::sleep(Duration::from_millis(200)).await;
        most = most.max(process.rss()?);
        // Deliveries are not looked at here; they would fill the generator's memory.
        world.clients.report()?;
    }
    let mut done = 0;
    for writer in writers {
        done += writer.await??;
    }
    let stopped = Instant::now();
    let cpu = process.cpu()? - cpu;
    let rate = f64::from(u32::try_from(done)?) / (began.elapsed() + warm).as_secs_f64();
    ensure!(rate > 0.95 * per_second, "only {rate:.0} transactions per second were written");
    world.clients.order(&Order::Calm, PATIENCE)?;
    let rows = world.rows().await?;
    let mut last = world.clients.verify(&rows)?;
    while last.wrong > 0 && stopped.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        last = world.clients.verify(&rows)?;
    }
    let lag = stopped.elapsed().as_secs_f64();
    most = most.max(process.rss()?);
    let wrong = f64::from(u32::try_from(last.wrong)?);
    let limit = |at: f64| Some(Limit::ValueAtMost(at)).filter(|_| !options.small);
    let figures = vec![
        Figure {
            limit: limit(64.0),
            max: Some((most - before) / 1024.0),
            min: Some((process.rss()? - before) / 1024.0),
            ..Figure::told("memory_growth_mb", "MB", (most - before) / 1024.0)
        },
        Figure { limit: Some(Limit::ValueAtMost(0.0)), ..Figure::told("wrong_sessions", "", wrong) },
        Figure { limit: limit(1.0), ..Figure::told("final_lag_s", "s", lag) },
        Figure::told("transactions_per_s", "1/s", rate),
        Figure::told("node_cpu", "cores", cpu / began.elapsed().as_secs_f64()),
        Figure::told("returned", "", super::number(last.returned)),
        Figure::told("seconds", "s", length.as_secs_f64()),
    ];
    let versions = world.versions().await?;
    Ok(Bench { name: "hold", runs: 1, figures, machine: world.machine.clone(), versions })
}
