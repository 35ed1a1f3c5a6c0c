//! A standby made by a base backup of the running primary, and its promotion.

use crate::world::{World, configured};
use anyhow::{Context, Result, bail};
use lockstep_pg::cluster::process::{Signal, spawn_bound};
use lockstep_pg::cluster::{Cluster, StopMode};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// A folder that goes with the world.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // One that stays is swept by the next temporary cluster.
        let _ = Cluster::forget(&self.0);
    }
}

/// A hot standby that streams from the world's primary.
async fn make(world: &mut World) -> Result<Cluster> {
    let sql = world.sql().await?;
    let old = world.cluster.major() < 15;
    let (start, stop) = if old {
        (
            "select pg_start_backup('oracle', true, false)",
            "select labelfile from pg_stop_backup(false, false)",
        )
    } else {
        ("select pg_backup_start('oracle', true)", "select labelfile from pg_backup_stop(false)")
    };
    let from = world.cluster.data_dir().parent().context("a data folder has a parent")?.to_owned();
    let beside = from.parent().context("a cluster has a place")?;
    let root = beside.join(format!("run-{:016x}", rand::random::<u64>()));
    // Whoever starts a temporary cluster sweeps folders that nobody uses, under this lock; the copy is used by nobody
    // until a server runs on it.
    let lock = fs::File::options().create(true).truncate(false).write(true).open(beside.join("lock"))?;
    tokio::task::block_in_place(|| lock.lock())?;
    sql.simple_query(start).await?;
    tokio::task::block_in_place(|| copy(&from, &root))?;
    let label: String = sql.query_one(stop, &[]).await?.get(0);
    world.folders.push(Folder(root.clone()));
    let data = root.join("data");
    let slots =
        fs::read_dir(data.join("pg_replslot")).with_context(|| format!("the copy at {}", data.display()))?;
    for slot in slots.flatten() {
        fs::remove_dir_all(slot.path()).context("removing a copied slot")?;
    }
    let owner = fs::metadata(&data)?;
    for (name, text) in [("backup_label", label.as_str()), ("standby.signal", "")] {
        let file = data.join(name);
        fs::write(&file, text)?;
        std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    let primary = format!(
        "host=127.0.0.1 port={} user=postgres password={} application_name=standby",
        world.cluster.port(),
        world.cluster.password()
    );
    let builder = configured(Cluster::builder().major(world.cluster.major()))
        .home(&root)
        .port(lockstep_pg::cluster::free_port()?)
        .setting("primary_conninfo", primary);
    drop(lock);
    let standby = tokio::task::block_in_place(|| builder.start()).context("the standby")?;
    let follows =
        "select count(*) from pg_stat_replication where application_name = 'standby' and state = 'streaming'";
    let deadline = Instant::now() + Duration::from_secs(30);
    while sql.query_one(follows, &[]).await?.get::<_, i64>(0) == 0 {
        if Instant::now() > deadline {
            bail!("the standby does not stream: {}", standby.log_tail());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(standby)
}

/// Files that vanish or change meanwhile are what a base backup is made for.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(to).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn_bound(command, Signal::SIGKILL).context("cannot run cp")?.wait()?;
    for left in ["postmaster.pid", "postmaster.opts"] {
        match fs::remove_file(to.join("data").join(left)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The primary ends and its standby takes over; with `lossy`, commits that clients have seen are gone.
pub async fn fail_over(world: &mut World, lossy: bool) -> Result<bool> {
    let standby = make(world).await?;
    let url = standby.url();
    let on_standby = crate::writer::connect(|| url.clone(), Instant::now() + Duration::from_secs(20)).await?;
    if lossy {
        on_standby.batch_execute("alter system set primary_conninfo = ''").await?;
        on_standby.batch_execute("select pg_reload_conf()").await?;
        let receiving = "select count(*) from pg_stat_wal_receiver";
        while on_standby.query_one(receiving, &[]).await?.get::<_, i64>(0) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
        // These commits will be lost; clients see them.
        let sql = world.sql().await?;
        for _ in 0..5 {
            let lost = "begin; update pulse_a set n = n + 1 where writer = 8; update pulse_b set n = n + 1 where writer = 8; commit";
            sql.batch_execute(lost).await?;
            sleep(Duration::from_millis(60)).await;
        }
    }
    let mode = if lossy { StopMode::Immediate } else { StopMode::Fast };
    tokio::task::block_in_place(|| world.cluster.stop(mode))?;
    if lossy {
        world.shared.ledger.commits_lost();
    }
    on_standby.query_one("select pg_promote(true, 60)", &[]).await?;
    // A copy of this server is to find the one that it is given.
    on_standby.batch_execute("alter system reset primary_conninfo").await?;
    let old = std::mem::replace(&mut world.cluster, standby);
    world.retired.push(old);
    *world.app.url.write().unwrap_or_else(std::sync::PoisonError::into_inner) = world.cluster.url();
    for site in &world.sites {
        site.upstream.lead_to(world.cluster.port());
        site.upstream.cut();
    }
    if lossy {
        // Acknowledgements of lost mutations may have been on their way.
        world.shared.ledger.commits_lost();
    }
    // The held transaction, if any, went with the primary.
    world.held = None;
    Ok(true)
}
