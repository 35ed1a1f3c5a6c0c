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
pub fn library() -> Option<&'static Path> {
    LIBRARIES.iter().map(Path::new).find(|p| p.exists())
}

/// The file that says what time it is for the nodes of a world.
pub fn file(seed: u64) -> PathBuf {
    std::env::temp_dir().join(format!("lockstep-clock-{}-{seed}", std::process::id()))
}

/// What a node needs in its environment for its clock to be stepped; nothing without the library.
pub fn environment(seed: u64) -> Result<Vec<(String, String)>> {
    let Some(library) = library() else { return Ok(Vec::new()) };
    step(seed, 0)?;
    let pair = |k: &str, v: String| (k.to_owned(), v);
    Ok(vec![
        pair("LD_PRELOAD", library.display().to_string()),
        pair("FAKETIME_TIMESTAMP_FILE", file(seed).display().to_string()),
        pair("FAKETIME_NO_CACHE", "1".into()),
        // A step moves the wall clock; the kernel's monotonic one goes on.
        pair("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        pair("DONT_FAKE_MONOTONIC", "1".into()),
    ])
}

/// The clock is so many seconds off.
pub fn step(seed: u64, seconds: i64) -> Result<()> {
    let file = file(seed);
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{seconds:+}\n"))?;
    Ok(std::fs::rename(next, file)?)
}
