//! Garbage collection by one node of all: whoever finds that it is due.

use crate::tasks::Database;
use lockstep_pg::connect::Pool;
use lockstep_pg::gc::{self, GcOptions, GcOutcome, GcReport};
use lockstep_pg::lease::{Lease, within};
use lockstep_pg::target::Target;
use lockstep_pg::{PgError, poll};
use std::time::Duration;
use tokio::sync::watch;

/// Between two questions whether a collection is due. The interval itself is kept in the database, so that nodes that
/// are restarted often collect as well, and several do not collect more often than one.
const LOOK: Duration = Duration::from_secs(60);
/// Between two words of a node that it still runs.
const MARK: Duration = Duration::from_secs(3600);

/// A collection that takes longer is given up; the next one goes on where it ended.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs until the node stops. A failure is logged and tried again at the next look. It has a connection of its own,
/// opened when needed: nobody waits for what it does.
pub async fn run(target: Target, answer: Duration, options: GcOptions, mut stop: watch::Receiver<bool>) {
    let look = options.at_most_every.map_or(LOOK, |every| every.clamp(Duration::from_secs(1), LOOK));
    loop {
        tokio::select! {
            () = tokio::time::sleep(look) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        match collect(&target, answer, &options).await {
            Ok(GcOutcome::Done(report)) => log(&report),
            Ok(GcOutcome::Elsewhere | GcOutcome::NotDue) => {}
            Err(error) => tracing::info!(%error, "garbage collection failed and is tried again"),
        }
    }
}

async fn collect(target: &Target, answer: Duration, options: &GcOptions) -> Result<GcOutcome, PgError> {
    let pool = Pool::new(target, 1, answer)?;
    let lease = Lease::of(&pool).await?;
    let collected = within(LONGEST, gc::run(&lease, options)).await;
    lease.end(collected, answer).await
}

fn log(report: &GcReport) {
    for log in &report.logs {
        tracing::info!(
            table = log.table,
            expired = log.expired,
            superseded = log.superseded,
            bytes_removed = log.bytes_removed,
            rows_left = log.rows_left,
            bytes_left = log.bytes_left,
            horizon_age_s = log.horizon_age,
            "collected"
        );
    }
    for (log, why) in &report.later {
        tracing::info!(log, why, "this log is collected the next time");
    }
}

/// Says now and then that this node still runs, so that its mark is kept. Ends when the database does not know the
/// mark: it was rolled back, and what follows must carry another one.
pub async fn keep_mark(database: &Database, mark: i64) {
    loop {
        let known = async {
            let lease = Lease::of(&database.control).await?;
            let known = within(database.answer, poll::keep_mark(&*lease, mark)).await;
            lease.end(known, database.answer).await
        };
        let pause = match known.await {
            Ok(true) => MARK,
            Ok(false) => return,
            // Whether the database can be reached at all is the stream's concern.
            Err(_) => LOOK,
        };
        tokio::time::sleep(pause).await;
    }
}
