//! Where things lie in this clone, and what it consists of.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The root of the clone.
pub fn root() -> PathBuf {
    // Cargo sets it at run time; compiled in, it would be wrong for a clone that was moved.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let start = package.or_else(|| std::env::current_dir().ok()).unwrap_or_default();
    let is_root = |folder: &&Path| folder.join("crates/xtask").is_dir();
    start.ancestors().find(is_root).map_or(start.clone(), Path::to_path_buf)
}

/// Everything that commands leave behind goes here; git ignores it.
pub fn state() -> Result<PathBuf> {
    let folder = root().join(".lockstep");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// The log of one child, emptied.
pub fn log(name: &str) -> Result<PathBuf> {
    let folder = state()?.join("logs");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.log"));
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The files that git tracks, and new ones that it does not ignore, relative to the root.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let output = git.output().context("cannot run git: `apt-get install -y git` brings it")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    // A file that was deleted but not yet committed as such is still listed.
    files.retain(|file| root().join(file).exists());
    files.sort();
    files.dedup();
    Ok(files)
}

/// Writes a file so that a reader sees all of it or nothing.
pub fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    file.write_all(text.as_bytes())?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// The end of a text file, for a message about a failure.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    // cargo's messages for programs stand between those for people.
    let all: Vec<&str> = text.lines().filter(|line| !line.starts_with("{\"reason\":")).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
