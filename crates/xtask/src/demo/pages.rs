//! The built app as the demo serves it: a copy whose page knows where the SQL console listens.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Where the page has room for what a demo tells it.
const MARK: &str = "<!-- demo -->";

/// The copy; dropping it deletes it.
#[derive(Debug)]
pub struct Pages(TempDir);

impl Pages {
    /// A copy of `built`.
    pub fn with_console(built: &Path, console: &str) -> Result<Pages> {
        let folder = tempfile::tempdir().context("cannot create a folder for the demo's pages")?;
        copy(built, folder.path())?;
        let index = folder.path().join("index.html");
        let page = fs::read_to_string(&index).with_context(|| format!("cannot read {}", index.display()))?;
        ensure!(page.contains(MARK), "apps/todo/index.html has lost its line {MARK}");
        let meta = format!("<meta name=\"lockstep-console\" content=\"{console}\" />");
        fs::write(&index, page.replace(MARK, &meta))?;
        Ok(Pages(folder))
    }

    /// What to serve.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
