//! What a person sees while something takes its time. On the standard error: `--json` has the output for itself.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Nothing is said about what takes less.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// Says what is begun and, if it took a while, how long.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("→ {what}");
    let begun = Instant::now();
    let result = work();
    let took = begun.elapsed();
    if result.is_ok() && took > WORTH_SAYING {
        eprintln!("  done in {}", seconds(took));
    }
    result
}

/// A duration as people say it.
pub fn seconds(took: Duration) -> String {
    if took < Duration::from_secs(60) {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{} min {} s", took.as_secs() / 60, took.as_secs() % 60)
    }
}
