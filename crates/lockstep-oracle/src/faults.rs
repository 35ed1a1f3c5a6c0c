//! What goes wrong while writers write.

use crate::clock;
use crate::disk;
use crate::link::{Link, Weather};
use crate::standby;
use crate::world::World;
use anyhow::{Result, ensure};
use lockstep_pg::cluster::StopMode;
use lockstep_pg::cluster::process::{self, Signal};
use std::time::Duration;
use tokio::time::sleep;

/// A kind of fault by its name.
pub type Kind = &'static str;

/// All kinds. Consecutive worlds take consecutive pieces of it.
pub const ALL: [Kind; 26] = [
    "node-killed",
    "postgres-restarted-immediate",
    "upstream-delay",
    "sockets-cut",
    "walsender-terminated",
    "transaction-held",
    "downstream-half-open",
    "standby-promoted-lossy",
    "pool-terminated",
    "upstream-cut",
    "downstream-throttle",
    "node-stopped",
    disk::FULL,
    "postgres-restarted-fast",
    "upstream-half-open",
    "downstream-delay",
    "slot-dropped",
    "upstream-throttle",
    "standby-promoted",
    "all-nodes-killed",
    "downstream-cut",
    clock::STEP,
    "huge-transaction",
    "table-rewritten",
    "walsender-paused",
    "standby-silent",
];

/// Connections to PostgreSQL that stay open and carry nothing ever again. Only by name: what was being asked is given
/// up after the node's time-outs, two minutes for a write, which is longer than a round.
pub const DEAD: Kind = "upstream-dead";

/// Only clients notice these: a node has no reason to complain.
pub fn is_quiet(kind: Kind) -> bool {
    kind.starts_with("downstream")
        || matches!(kind, "sockets-cut" | "transaction-held" | "huge-transaction" | clock::STEP)
}

/// Strikes once. False if this kind cannot strike here; the report then says why.
pub async fn strike(world: &mut World, kind: Kind) -> Result<bool> {
    let site = world.dice.below(world.sites.len());
    match kind {
        "node-killed" => kill_node(world, site).await?,
        "all-nodes-killed" => {
            for at in 0..world.sites.len() {
                kill_node(world, at).await?;
            }
        }
        "postgres-restarted-fast" => restart(world, StopMode::Fast)?,
        "postgres-restarted-immediate" => restart(world, StopMode::Immediate)?,
        "walsender-terminated" => return terminate(world, "backend_type = 'walsender'").await,
        "pool-terminated" => return terminate(world, "backend_type = 'client backend'").await,
        "walsender-paused" => return pause(world).await,
        "standby-silent" => return await_standby(world, site).await,
        "slot-dropped" => return drop_slots(world).await,
        "node-stopped" => stop_node(world, site).await?,
        "transaction-held" => hold(world, site).await?,
        "sockets-cut" => return Ok(world.sites.iter().map(|s| s.downstream.cut()).sum::<u64>() > 0),
        "huge-transaction" => huge(world).await?,
        "table-rewritten" => rewrite(world).await?,
        "standby-promoted" => return standby::fail_over(world, false).await,
        "standby-promoted-lossy" => return standby::fail_over(world, true).await,
        disk::FULL => return fill_disk(world).await,
        clock::STEP => return step_clock(world).await,
        _ => {
            let upstream = kind.starts_with("upstream");
            let link = if upstream {
                world.sites[site].upstream.clone()
            } else {
                world.sites[site].downstream.clone()
            };
            storm(world, &link, kind.split_once('-').map_or("", |(_, what)| what)).await;
        }
    }
    Ok(true)
}

async fn kill_node(world: &mut World, at: usize) -> Result<()> {
    if let Some(mut node) = world.sites[at].node.take() {
        node.kill()?;
    }
    sleep(Duration::from_millis(world.dice.between(0, 300))).await;
    world.start_node(at)
}

fn restart(world: &mut World, mode: StopMode) -> Result<()> {
    tokio::task::block_in_place(|| world.cluster.restart(mode))
}

async fn terminate(world: &World, whom: &str) -> Result<bool> {
    let sql = world.sql().await?;
    let ended = sql
        .query_one(
            &format!(
                "select count(*) from (select pg_terminate_backend(pid) from pg_stat_activity \
                 where application_name = 'lockstep' and {whom}) t"
            ),
            &[],
        )
        .await?;
    Ok(ended.get::<_, i64>(0) > 0)
}

/// The stream lags behind what queries see, and clients come back meanwhile: what they read must wait for it.
async fn pause(world: &mut World) -> Result<bool> {
    let pids = "select pid from pg_stat_replication where application_name = 'lockstep'";
    let mut paused = false;
    for _ in 0..3 {
        let rows = world.sql().await?.query(pids, &[]).await?;
        let pids = rows.iter().filter_map(|r| u32::try_from(r.get::<_, i32>(0)).ok());
        // One that has ended meanwhile needs no pause.
        let stopped: Vec<u32> = pids.filter(|p| process::send(*p, Signal::SIGSTOP).is_ok()).collect();
        sleep(Duration::from_millis(world.dice.between(20, 200))).await;
        for site in &world.sites {
            site.downstream.cut();
        }
        sleep(Duration::from_millis(world.dice.between(200, 900))).await;
        paused |= !stopped.is_empty();
        for pid in stopped {
            process::send(pid, Signal::SIGCONT)?;
        }
        sleep(Duration::from_millis(world.dice.between(0, 200))).await;
    }
    Ok(paused)
}

/// Commits wait for a synchronous standby that is not there: they are streamed and not visible, while those that do
/// not wait for it overtake them. A node starts meanwhile, or copies its sibling's slot.
async fn await_standby(world: &mut World, site: usize) -> Result<bool> {
    let sql = world.sql().await?;
    sql.batch_execute("alter system set synchronous_standby_names = 'nobody'").await?;
    sql.batch_execute("select pg_reload_conf()").await?;
    sleep(Duration::from_millis(world.dice.between(100, 600))).await;
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    let waiting: i64 = sql.query_one(waiting, &[]).await?.get(0);
    match world.dice.below(4) {
        0 => kill_node(world, site).await?,
        1 => {
            terminate(world, "backend_type = 'walsender'").await?;
        }
        2 => {
            world.sites[site].upstream.cut();
        }
        _ => {}
    }
    sleep(Duration::from_millis(world.dice.between(100, 900))).await;
    sql.batch_execute("alter system reset synchronous_standby_names").await?;
    sql.batch_execute("select pg_reload_conf()").await?;
    Ok(waiting > 0)
}

/// Temporary slots go with their sessions; the next ones have other names.
async fn drop_slots(world: &World) -> Result<bool> {
    let sql = world.sql().await?;
    let names = "select coalesce(array_agg(slot_name::text), '{}') from pg_replication_slots where slot_name like 'lockstep%'";
    let before: Vec<String> = sql.query_one(names, &[]).await?.get(0);
    for _ in 0..3 {
        terminate(world, "backend_type = 'walsender'").await?;
        sleep(Duration::from_millis(150)).await;
    }
    let after: Vec<String> = sql.query_one(names, &[]).await?.get(0);
    Ok(before.iter().any(|name| !after.contains(name)))
}

/// Longer than `wal_sender_timeout`.
async fn stop_node(world: &World, at: usize) -> Result<()> {
    let Some(node) = &world.sites[at].node else { return Ok(()) };
    node.signal(Signal::SIGSTOP)?;
    sleep(Duration::from_millis(3200)).await;
    node.signal(Signal::SIGCONT)
}

/// A transaction that wrote stays open over the following rounds; a node starts meanwhile and cannot make a slot.
async fn hold(world: &mut World, site: usize) -> Result<()> {
    // An earlier one would be waited for.
    world.held = None;
    let sql = world.sql().await?;
    sql.batch_execute(
        "begin; update pulse_a set n = n + 1 where writer = 10; savepoint s; update pulse_b set n = n + 1 where writer = 10; \
         insert into receipts (who, what, fine) values (999, '00000000-0000-4000-8000-000000000000', true)",
    )
    .await?;
    world.held = Some(sql);
    match world.dice.below(3) {
        0 => kill_node(world, site).await?,
        1 => {
            for at in 0..world.sites.len() {
                kill_node(world, at).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// More than a node holds in memory.
async fn huge(world: &mut World) -> Result<()> {
    let megabytes = world.dice.between(10, 45);
    let sql = world.sql().await?;
    sql.batch_execute("alter table children alter column body set storage external").await?;
    sql.batch_execute(&format!(
        "begin; insert into parents select i, i % 3, 'many' from generate_series(1000, 1039) i on conflict do nothing;
         insert into children select 5000000000 + i * 1000 + random() * 900, 1000 + i % 40, (1000 + i % 40) % 3,
           (select string_agg(md5((i * g)::text), '') from generate_series(1, 1000) g) from generate_series(1, {}) i on conflict do nothing;
         update pulse_a set n = n + 1 where writer = 9; update pulse_b set n = n + 1 where writer = 9; commit",
        megabytes * 32
    ))
    .await?;
    sleep(Duration::from_millis(world.dice.between(0, 500))).await;
    sql.batch_execute("delete from parents where id >= 1000").await?;
    Ok(())
}

/// Every row moves to a new file; a snapshot that is older reads none of them.
async fn rewrite(world: &mut World) -> Result<()> {
    let at = world.shared.schema.fixed
        + world.dice.below(world.shared.schema.tables.len() - world.shared.schema.fixed);
    let name = world.shared.schema.tables[at].sql();
    let sql = world.sql().await?;
    sql.batch_execute("set lock_timeout = '5s'").await?;
    for _ in 0..3 {
        // It may not get its lock among all these writers; what matters is that others wait behind it.
        let _ = sql.batch_execute(&format!("vacuum full {name}")).await;
        let _ = sql.batch_execute("vacuum full pulse_a").await;
    }
    Ok(())
}

async fn storm(world: &mut World, link: &Link, what: &str) {
    let milliseconds = world.dice.between(300, 1500);
    match what {
        "delay" => link.set(Weather::Delay(world.dice.between(5, 120))),
        "throttle" => link.set(Weather::Throttle(world.dice.between(20_000, 200_000))),
        "half-open" => link.set(Weather::Stalled),
        "dead" => link.bury(),
        _ => link.set(Weather::Closed),
    }
    if what == "cut" {
        link.cut();
    }
    // Half-open for longer than the time-outs of both sides, then gone without a farewell.
    sleep(Duration::from_millis(if what == "half-open" { 2600 + milliseconds } else { milliseconds })).await;
    if what == "half-open" {
        link.cut();
    }
    link.set(Weather::Calm);
}

async fn fill_disk(world: &mut World) -> Result<bool> {
    let Some(disk) = &world.disk else { return Ok(false) };
    tokio::task::block_in_place(|| disk.fill())?;
    sleep(Duration::from_millis(1200)).await;
    disk.free()?;
    // It may have given up: a server that cannot write its WAL ends.
    sleep(Duration::from_millis(300)).await;
    if !world.cluster.is_running() {
        tokio::task::block_in_place(|| world.cluster.start_again())?;
    }
    Ok(true)
}

/// Forward, back behind where it was, and right again.
async fn step_clock(world: &mut World) -> Result<bool> {
    if world.clock.is_none() {
        world.report.skipped.insert(
            clock::STEP,
            "libfaketime is not here: `apt-get install -y libfaketime` brings it".into(),
        );
        return Ok(false);
    }
    let tomorrow = "select to_char(now() at time zone 'UTC' + interval '1 day', 'DD Mon YYYY')";
    let tomorrow: String = world.sql().await?.query_one(tomorrow, &[]).await?.get(0);
    for seconds in [86_400, -7_200, 0] {
        if let Some(clock) = &world.clock {
            clock.step(seconds)?;
        }
        sleep(Duration::from_millis(500)).await;
        if let (86_400, Some(node)) = (seconds, &world.sites[0].node) {
            let day = node.day().await.unwrap_or_default();
            ensure!(day == tomorrow, "libfaketime does not move the node's clock: {day}, not {tomorrow}");
        }
    }
    Ok(true)
}
