//! Taking locks on tables that an application is using.
//!
//! Whoever waits for SHARE ROW EXCLUSIVE makes every later writer of the table wait behind it. So each attempt waits
//! for a moment only and lets everybody through before the next one.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::error::{Blocker, InstallError};

/// How long to wait for locks.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one attempt. Below `deadlock_timeout` (1 s by default): in a deadlock it is then always us who give up.
    pub lock_timeout: Duration,
    /// In all.
    pub give_up_after: Duration,
    /// Hears who is waited for, as often as that changes.
    pub on_wait: fn(&[Blocker]),
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_millis(500),
            give_up_after: Duration::from_secs(30),
            on_wait: |_| {},
        }
    }
}

/// The relations that an attempt wants to lock.
#[derive(Debug, Default, Clone)]
pub(super) struct Wanted {
    /// In SHARE ROW EXCLUSIVE: writers are in the way.
    pub from_writers: Vec<u32>,
    /// In ACCESS EXCLUSIVE: everybody is.
    pub from_everyone: Vec<u32>,
}

/// Counts attempts and says when to stop.
pub(super) struct Attempts {
    patience: Patience,
    began: Instant,
    pause: Duration,
    seen: Vec<Blocker>,
}

impl Attempts {
    pub fn new(patience: &Patience) -> Self {
        Self {
            patience: *patience,
            began: Instant::now(),
            pause: Duration::from_millis(50),
            seen: Vec::new(),
        }
    }

    /// After an attempt that did not get its lock: notes who holds it and waits a little, or gives up.
    pub async fn pause(&mut self, client: &Client, wanted: &Wanted) -> Result<(), InstallError> {
        let blockers = blockers(client, wanted).await?;
        if !blockers.is_empty() && blockers != self.seen {
            (self.patience.on_wait)(&blockers);
            self.seen = blockers;
        }
        let spent = self.began.elapsed();
        if spent >= self.patience.give_up_after {
            let blockers = std::mem::take(&mut self.seen);
            return Err(InstallError::LockTimeout { seconds: spent.as_secs_f64(), blockers });
        }
        let left = self.patience.give_up_after.saturating_sub(spent);
        tokio::time::sleep(self.pause.mul_f64(rand::random_range(0.5..1.0)).min(left)).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(2));
        Ok(())
    }
}

async fn blockers(client: &Client, wanted: &Wanted) -> Result<Vec<Blocker>, InstallError> {
    let rows = client
        .query(include_str!("../../sql/blockers.sql"), &[&wanted.from_writers, &wanted.from_everyone])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Blocker {
            pid: row.get("pid"),
            prepared: row.get("gid"),
            state: row.get("state"),
            since: row.get("since"),
            query: row.get("query"),
        })
        .collect())
}
