//! A cluster's folder: `data/`, `password`, `postgres.log` and the lock that says whose it is.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::account::Account;
use super::place;
use super::process::{self, Signal};

/// How long a lock that was given back may still be held by a process that is being started.
const FORKED: Duration = Duration::from_millis(500);
const LOCK: &str = "lock";
const PORT: &str = "port";

/// How long a server that a killed run left behind gets to finish.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);

/// The folder of one cluster, locked for this process.
#[derive(Debug)]
pub(super) struct Home {
    root: PathBuf,
    temporary: bool,
    /// Dropped with the home, which frees the lock.
    _lock: File,
}

impl Home {
    /// A new folder that [`Home::remove`] deletes.
    pub(super) fn temporary(account: Account) -> Result<Home> {
        let base = place::temporary_folder(account)?;
        sweep(&base);
        let _guard = place::lock(&base.join(LOCK))?;
        let root = base.join(format!("run-{:016x}", rand::random::<u64>()));
        make(&root, account)?;
        Home::claim(root, true)
    }

    /// The folder at `path`, or one elsewhere that `path` links to if the server's user cannot get there.
    pub(super) fn kept(path: &Path, account: Account) -> Result<Home> {
        let path = std::path::absolute(path)?;
        let parent = path.parent().context("the root folder cannot hold a cluster")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        let reachable = account.can_enter(parent);
        let root = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => elsewhere(&path)?,
            Ok(_) if reachable => path.clone(),
            Ok(_) => {
                bail!("{} cannot be entered by the user that runs PostgreSQL: remove it", path.display())
            }
            Err(_) if reachable => path.clone(),
            Err(_) => {
                let root = elsewhere(&path)?;
                symlink(&root, &path)?;
                root
            }
        };
        if !root.exists() {
            make(&root, account)?;
        }
        let home = Home::claim(root, false)?;
        end_orphan(&home.data())?;
        Ok(home)
    }

    fn claim(root: PathBuf, temporary: bool) -> Result<Home> {
        let mut lock = place::open_lock(&root.join(LOCK))?;
        // A child that another thread is about to start has a copy of every lock, until it is its own program.
        let deadline = Instant::now() + FORKED;
        while lock.try_lock().is_err() {
            if Instant::now() < deadline {
                std::thread::sleep(FORKED / 50);
                continue;
            }
            let mut holder = String::new();
            lock.read_to_string(&mut holder)?;
            bail!("the cluster in {} is in use by process {}", root.display(), holder.trim());
        }
        lock.set_len(0)?;
        lock.rewind()?;
        write!(lock, "{}", std::process::id())?;
        Ok(Home { root, temporary, _lock: lock })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.root.join("password")
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The port of the last start, so that a kept cluster's URL stays the same as long as it can.
    pub(super) fn last_port(&self) -> Option<u16> {
        fs::read_to_string(self.root.join(PORT)).ok()?.trim().parse().ok()
    }

    pub(super) fn remember_port(&self, port: u16) -> Result<()> {
        fs::write(self.root.join(PORT), port.to_string()).context("cannot write down the port")
    }

    /// Deletes a temporary home; a kept one stays.
    pub(super) fn remove_if_temporary(&self) {
        if self.temporary {
            // A folder that cannot be deleted now is swept by the next temporary cluster.
            let _ = place::remove(&self.root);
        }
    }
}

/// Deletes the kept cluster at `path`, wherever it really lies. Fails while somebody uses it.
pub(super) fn forget(path: &Path) -> Result<()> {
    let path = std::path::absolute(path)?;
    let Ok(found) = fs::symlink_metadata(&path) else { return Ok(()) };
    let root = if found.is_symlink() { elsewhere(&path)? } else { path.clone() };
    if root.exists() {
        let home = Home::claim(root.clone(), false)?;
        end_orphan(&home.data())?;
        place::remove(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        drop(home);
    }
    if found.is_symlink() {
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// The reachable folder that stands in for `path`. Computed, never read from the link: a link is not to be trusted.
fn elsewhere(path: &Path) -> Result<PathBuf> {
    let name = format!("cluster-{:016x}", place::hash(path.as_os_str().as_encoded_bytes()));
    Ok(place::state_folder()?.join(name))
}

fn make(root: &Path, account: Account) -> Result<()> {
    fs::create_dir(root).with_context(|| format!("cannot create {}", root.display()))?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
    account.own(root).with_context(|| format!("cannot give {} to the server's user", root.display()))
}

/// Deletes temporary homes whose process is gone: a killed run cannot do it.
fn sweep(base: &Path) {
    let Ok(lock) = place::open_lock(&base.join(LOCK)) else { return };
    if lock.try_lock().is_err() {
        return;
    }
    let entries = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    let runs = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run-")));
    // Claiming fails for homes in use; holding the lock meanwhile keeps out those that are just being made.
    let dead: Vec<Home> = runs.filter_map(|root| Home::claim(root, true).ok()).collect();
    drop(lock);
    for home in dead {
        let data = home.data();
        if let Some(pid) = pid_in(&data.join("postmaster.pid")).filter(|pid| serves(*pid, &data)) {
            // It was told to stop in good order when its parent ended; its data is not worth waiting for that.
            let _ = process::send(pid, Signal::SIGQUIT);
            process::wait_until(ORPHAN_LIMIT, || !serves(pid, &data));
        }
        home.remove_if_temporary();
    }
}

/// Ends a server whose parent was killed, and clears away a `postmaster.pid` whose number now means another process.
fn end_orphan(data: &Path) -> Result<()> {
    let file = data.join("postmaster.pid");
    let Some(pid) = pid_in(&file).filter(|pid| process::is_alive(*pid)) else { return Ok(()) };
    if !serves(pid, data) {
        // PostgreSQL would take the stranger for a running server and refuse to start.
        fs::remove_file(&file)?;
        return Ok(());
    }
    // We hold the lock, so nobody uses it; it was told to stop when its parent ended.
    let gone = || !serves(pid, data);
    if process::wait_until(ORPHAN_LIMIT, gone) {
        return Ok(());
    }
    process::send(pid, Signal::SIGQUIT)?;
    if process::wait_until(ORPHAN_LIMIT, gone) {
        return Ok(());
    }
    bail!("a PostgreSQL of an earlier run (process {pid}) still uses {}: end it", data.display())
}

/// The first line of a `postmaster.pid`.
fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
}

/// Whether process `pid` is a server on this data folder.
fn serves(pid: u32, data: &Path) -> bool {
    let Ok(words) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    words.split(|byte| *byte == 0).any(|word| word == data.as_os_str().as_encoded_bytes())
}
