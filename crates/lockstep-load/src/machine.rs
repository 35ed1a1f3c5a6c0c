//! What a bench ran on.

use serde::Serialize;
use std::fmt;
use std::fs;

/// The machine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// As the kernel names it.
    pub processor: String,
    /// Those that this process may use.
    pub cores: usize,
    /// In GB.
    pub memory_gb: u64,
    /// Its release.
    pub kernel: String,
    /// The load average of the last minute when the bench began.
    pub load: f64,
}

/// What took part.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Versions {
    /// As the server says it.
    pub postgresql: String,
    /// This workspace's.
    pub lockstep: String,
}

impl Machine {
    /// This one; what cannot be read stays empty.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        let kilobytes: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Self {
            processor: after(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gb: kilobytes.div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

impl Versions {
    /// With this server.
    pub fn with(postgresql: String) -> Self {
        Self { postgresql, lockstep: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores of {}, {} GB, load {:.2}", self.cores, self.processor, self.memory_gb, self.load)
    }
}
