//! `memory`: what a client and a shape take in the node.

use super::{Options, PATIENCE, World, number};
use crate::figures::{Bench, Figure, Limit};
use anyhow::{Result, ensure};
use std::time::Duration;

/// Frames that each client gets before it is measured.
const FRAMES: usize = 100;
/// Rows of one transaction, each of another client.
const TOUCHED: usize = 500;
/// Shapes of one client, for what a shape takes.
const SHAPES: usize = 50;

/// Runs it.
///
/// # Errors
/// If something cannot be started, or a row is wrong or missing.
pub async fn run(options: &Options) -> Result<Bench> {
    let settle = Duration::from_secs(options.seconds.unwrap_or(options.or(60, 1)));
    let clients = options.or(10_000, 100);
    let mut world = World::start(options, clients, 2).await?;
    let empty = settled(&world, Duration::from_secs(options.or(5, 1))).await?;
    world.connect(&world.crowd(clients, 1, 1))?;
    let joined = world.node.process().rss()?;
    let first: Vec<i32> = (1..=i32::try_from(clients)?).collect();
    for nth in 1..=FRAMES {
        for some in first.chunks(TOUCHED) {
            world.touch(some).await?;
        }
        world.clients.wait(clients, clients * nth, PATIENCE)?;
    }
    ensure!(world.clients.report()?.len() == clients * FRAMES, "a transaction was delivered twice");
    let busy = world.node.process().rss()?;
    let after = settled(&world, settle).await?;
    world.verify().await?;
    let machine = world.machine.clone();
    drop(world);

    let clients_of_many = options.or(1_000, 10);
    let one = many_shapes(options, clients_of_many, 1, settle).await?;
    let (many, versions) = many_shapes(options, clients_of_many, SHAPES, settle).await?;
    let shape = (many - one.0) / number(clients_of_many * (SHAPES - 1));
    let limit = |at: f64| Some(Limit::ValueAtMost(at)).filter(|_| !options.small);
    let socket = |rss: f64| (rss - empty) / number(clients);
    let figures = vec![
        Figure { limit: limit(12.0), ..Figure::told("socket_kb", "kB", socket(after)) },
        Figure { limit: limit(1.0), ..Figure::told("shape_kb", "kB", shape) },
        Figure::told("socket_kb_after_join", "kB", socket(joined)),
        Figure::told("socket_kb_while_busy", "kB", socket(busy)),
        Figure::told("empty_node_kb", "kB", empty),
    ];
    Ok(Bench { name: "memory", runs: 1, figures, machine, versions })
}

/// The node's memory with so many clients that have so many shapes each, all of them different.
async fn many_shapes(
    options: &Options,
    clients: usize,
    shapes: usize,
    settle: Duration,
) -> Result<(f64, crate::machine::Versions)> {
    let mut world = World::start(options, clients * shapes, 1).await?;
    world.connect(&world.crowd(clients, shapes, 1))?;
    let rss = settled(&world, settle.min(Duration::from_secs(15))).await?;
    world.verify().await?;
    Ok((rss, world.versions().await?))
}

async fn settled(world: &World, time: Duration) -> Result<f64> {
    tokio::time::sleep(time).await;
    world.node.process().rss()
}
