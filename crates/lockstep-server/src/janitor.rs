//! Garbage collection by one node of all: whoever finds that it is due.

use deadpool_postgres::Pool;
use lockstep_pg::gc::{self, GcOptions, GcOutcome, GcReport};
use lockstep_pg::{PgError, poll};
use std::time::Duration;
use tokio::sync::watch;

/// Between two questions whether a collection is due. The interval itself is kept in the database, so that nodes that
/// are restarted often collect as well, and several do not collect more often than one.
const LOOK: Duration = Duration::from_secs(60);
/// Between two words of a node that it still runs.
const MARK: Duration = Duration::from_secs(3600);

/// Runs until the node stops. A failure is logged and tried again at the next look.
pub async fn run(pool: Pool, options: GcOptions, mut stop: watch::Receiver<bool>) {
    let look = options.at_most_every.map_or(LOOK, |every| every.clamp(Duration::from_secs(1), LOOK));
    loop {
        tokio::select! {
            () = tokio::time::sleep(look) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        match collect(&pool, &options).await {
            Ok(GcOutcome::Done(report)) => log(&report),
            Ok(GcOutcome::Elsewhere | GcOutcome::NotDue) => {}
            Err(error) => tracing::warn!(%error, "garbage collection failed and is tried again"),
        }
    }
}

async fn collect(pool: &Pool, options: &GcOptions) -> Result<GcOutcome, PgError> {
    let client = pool.get().await.map_err(|e| PgError::Pool(e.to_string()))?;
    gc::run(&client, options).await
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
pub async fn keep_mark(pool: &Pool, mark: i64) {
    loop {
        let known = match pool.get().await.map_err(|e| PgError::Pool(e.to_string())) {
            Ok(client) => poll::keep_mark(&**client, mark).await,
            Err(error) => Err(error),
        };
        let pause = match known {
            Ok(true) => MARK,
            Ok(false) => return,
            // Whether the database can be reached at all is the stream's concern.
            Err(_) => LOOK,
        };
        tokio::time::sleep(pause).await;
    }
}
