//! Who PostgreSQL runs as. It refuses to run as root, so root starts it as `nobody`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `nobody` and `nogroup` have this number on Debian and its relatives.
const NOBODY: u32 = 65534;

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// The user that owns a cluster's files and runs its server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
    /// We are root and become somebody else for the server.
    dropped: bool,
}

impl Account {
    pub(super) fn current() -> Account {
        if nix::unistd::geteuid().is_root() {
            Account { uid: NOBODY, gid: NOBODY, dropped: true }
        } else {
            let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            Account { uid, gid, dropped: false }
        }
    }

    pub(super) fn is_dropped(self) -> bool {
        self.dropped
    }

    /// Makes `command` run as this user. std clears the supplementary groups when it changes the user as root.
    pub(super) fn apply(self, command: &mut Command) {
        if self.dropped {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives one file or folder to this user.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        if self.dropped { chown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// Whether this user can pass through every folder on the way to `path`, `path` included.
    pub(super) fn can_enter(self, path: &Path) -> bool {
        path.ancestors().all(|folder| folder.as_os_str().is_empty() || self.may(folder, ENTER))
    }

    /// Whether this user can read and run the program at `path`.
    pub(super) fn can_run(self, path: &Path) -> bool {
        self.may(path, READ | ENTER) && path.parent().is_some_and(|folder| self.can_enter(folder))
    }

    /// Reads the mode bits. Access lists are not looked at: they are rare, and the start reports what they forbid.
    fn may(self, path: &Path, wanted: u32) -> bool {
        let Ok(found) = fs::metadata(path) else { return false };
        let shift = match () {
            () if found.uid() == self.uid => 6,
            () if found.gid() == self.gid => 3,
            () => 0,
        };
        (found.mode() >> shift) & wanted == wanted
    }
}

/// Makes sure that `path` is a folder of ours in which nobody else can plant files.
///
/// Its name is guessable and it lies in a folder that everybody may write, so one that exists is checked, not trusted.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    let mode = if nix::unistd::geteuid().is_root() { 0o755 } else { 0o700 };
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(path)?;
    if is_ours(&found) {
        return Ok(());
    }
    let advice = format!("{} exists but is not a folder that only we can write; remove it", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, advice))
}

fn is_ours(found: &Metadata) -> bool {
    found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0
}
