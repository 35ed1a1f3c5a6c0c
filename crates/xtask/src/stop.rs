//! Ctrl-C and SIGTERM: remembered here, acted on where something is waited for.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// The exit code of a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

static REQUESTS: AtomicU32 = AtomicU32::new(0);

/// From here on SIGINT, SIGTERM and SIGHUP are requests to stop in good order. A third one does not wait for that.
pub fn listen() {
    let handled = ctrlc::set_handler(|| {
        // Children are told by the kernel when we go (see lockstep_pg::cluster::process).
        if REQUESTS.fetch_add(1, Ordering::SeqCst) >= 2 {
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
    if let Err(error) = handled {
        eprintln!("warning: signals are not handled: {error}");
    }
}

/// Whether somebody asked us to stop.
pub fn requested() -> bool {
    REQUESTS.load(Ordering::SeqCst) > 0
}

/// An error if somebody asked us to stop; for the places between two steps.
pub fn check() -> Result<()> {
    if requested() {
        bail!("stopped on request");
    }
    Ok(())
}
