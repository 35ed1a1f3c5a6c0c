//! Where things lie: the clone, the folder for temporary clusters, and the one beside an unreachable clone.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::account::{Account, private_folder};

/// The root of the clone: the folder with `tools/postgres` above the package under test or the current folder.
pub(super) fn workspace() -> Option<PathBuf> {
    let starts = [std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from), std::env::current_dir().ok()];
    let above =
        |start: PathBuf| start.ancestors().find(|f| f.join("tools/postgres").is_dir()).map(Path::to_path_buf);
    starts.into_iter().flatten().find_map(above)
}

/// Holds what the server's user must reach when the clone is closed to it. Its name follows from the clone's path.
pub(super) fn state_folder() -> Result<PathBuf> {
    let clone = workspace().or_else(|| std::env::current_dir().ok()).unwrap_or_default();
    let state =
        PathBuf::from(format!("/var/tmp/lockstep-{:016x}", hash(clone.as_os_str().as_encoded_bytes())));
    private_folder(&state).with_context(|| format!("cannot use {}", state.display()))?;
    Ok(state)
}

/// Holds temporary clusters and what `initdb` made for them; one per user.
pub(super) fn temporary_folder(account: Account) -> Result<PathBuf> {
    let candidates = [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
    let parent = candidates
        .into_iter()
        .find(|folder| account.can_enter(folder))
        .context("no temporary folder that the server's user can enter: set TMPDIR to one")?;
    let folder = parent.join(format!("lockstep-pg-{}", nix::unistd::geteuid()));
    private_folder(&folder).with_context(|| format!("cannot use {}", folder.display()))?;
    Ok(folder)
}

/// Waits for a lock between processes; it ends with the returned file.
pub(super) fn lock(path: &Path) -> Result<File> {
    let file = open_lock(path)?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Opens a lock file without emptying it: its text says who holds it.
pub(super) fn open_lock(path: &Path) -> Result<File> {
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}

/// Removes a folder with all that is in it; one that is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// FNV-1a: short, and the same in every release, so that a folder's name can be found again.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
