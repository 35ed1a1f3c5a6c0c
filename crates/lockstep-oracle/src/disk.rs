//! A small disk for the database, so that it can be filled.

use crate::report::Report;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::{Path, PathBuf};

/// The name of the fault.
pub const FULL: &str = "disk-full";

/// Holds a cluster of these tests, its WAL included, with room to spare.
const SIZE: &str = "size=700m,mode=0755";

/// From here on this thread and those it starts have mounts of their own: they go with the process, whatever ends it.
pub fn own_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// A tmpfs; dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    point: PathBuf,
    _folder: tempfile::TempDir,
}

impl Disk {
    /// Mounts one, or says in the report why it cannot be.
    pub fn mount(report: &mut Report) -> Option<Self> {
        let attempt = || -> anyhow::Result<Self> {
            let folder = tempfile::Builder::new().prefix("lockstep-disk-").tempdir()?;
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
            let point = folder.path().join("disk");
            fs::create_dir(&point)?;
            mount(Some("lockstep"), &point, Some("tmpfs"), MsFlags::MS_NOSUID, Some(SIZE))?;
            Ok(Self { point, _folder: folder })
        };
        attempt()
            .inspect_err(|error| {
                drop(report.skipped.insert(FULL, format!("no tmpfs can be mounted: {error}")))
            })
            .ok()
    }

    /// Where a cluster may live.
    pub fn folder(&self) -> PathBuf {
        self.point.join("cluster")
    }

    /// Fills it up to the last byte.
    pub fn fill(&self) -> std::io::Result<()> {
        use std::io::Write;
        let mut file = fs::File::create(self.filler())?;
        let piece = vec![1; 64 << 10];
        let mut size = piece.len();
        while size > 0 {
            if file.write_all(&piece[..size]).is_err() {
                size /= 2;
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub fn free(&self) -> std::io::Result<()> {
        fs::remove_file(self.filler())
    }

    fn filler(&self) -> PathBuf {
        Path::new(&self.point).join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server on it was stopped before; a lazy unmount needs no patience.
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}
