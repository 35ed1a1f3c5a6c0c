//! Steps of the node's clock by libfaketime.

use anyhow::Result;
use std::path::{Path, PathBuf};

/// The name of the fault.
pub const STEP: &str = "clock-step";

/// Where Debian and its relatives put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The library, if it is here.
fn library() -> Option<&'static Path> {
    LIBRARIES.iter().map(Path::new).find(|p| p.exists())
}

/// The clock of a world's nodes; it goes with the world.
#[derive(Debug)]
pub struct Clock {
    library: &'static Path,
    folder: tempfile::TempDir,
}

impl Clock {
    /// One that is right; None without the library.
    pub fn new() -> Result<Option<Self>> {
        let Some(library) = library() else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("lockstep-clock-").tempdir()?;
        let clock = Self { library, folder };
        clock.step(0)?;
        Ok(Some(clock))
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// What a node needs in its environment for its clock to be stepped.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pair = |k: &str, v: String| (k.to_owned(), v);
        vec![
            pair("LD_PRELOAD", self.library.display().to_string()),
            pair("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            pair("FAKETIME_NO_CACHE", "1".into()),
            // A step moves the wall clock; the kernel's monotonic one goes on.
            pair("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            pair("DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// The clock is so many seconds off.
    pub fn step(&self, seconds: i64) -> Result<()> {
        let next = self.file().with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(next, self.file())?)
    }
}
