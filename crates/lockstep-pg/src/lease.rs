//! A pooled connection that goes back to its pool only when its work has ended.
//!
//! A future may be dropped at any await: a catch-up that nobody waits for any more, a question that took too long.
//! Its connection is then in the middle of something, perhaps inside a transaction, and whoever got it next would
//! work inside that transaction. Such a connection is closed, and the server is asked to stop what it does.

use crate::connect::Pool;
use crate::error::PgError;
use crate::tls::Tls;
use deadpool_postgres::Object;
use std::ops::Deref;
use std::time::Duration;
use tokio_postgres::Client;

/// How long the server may take to hear that a query is to be cancelled.
const CANCEL: Duration = Duration::from_secs(5);

/// A connection, lent.
#[derive(Debug)]
pub struct Lease(Option<Object>, Tls);

impl Lease {
    /// Waits for a connection as long as the pool allows.
    pub async fn of(pool: &Pool) -> Result<Self, PgError> {
        Ok(Self(Some(pool.get().await?), pool.tls()))
    }

    /// Ends the work. After an error the connection is given back only if it can be rolled back within `answer`.
    pub async fn end<T>(mut self, result: Result<T, PgError>, answer: Duration) -> Result<T, PgError> {
        let usable = match &result {
            Ok(_) => true,
            Err(PgError::Silent(_)) => false,
            Err(_) => within(answer, async { Ok(self.batch_execute("rollback").await?) }).await.is_ok(),
        };
        if usable {
            drop(self.0.take());
        }
        result
    }
}

impl Deref for Lease {
    type Target = Client;

    #[allow(clippy::expect_used, reason = "only `end` and `drop` empty it, and both take it away")]
    fn deref(&self) -> &Client {
        self.0.as_ref().expect("a lease that has not ended")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(object) = self.0.take() else { return };
        let (cancel, tls) = (object.cancel_token(), self.1.clone());
        // Closes the socket; the pool makes another connection when it needs one.
        drop(Object::take(object));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A server that cannot be reached has nothing to cancel.
                let _ = tokio::time::timeout(CANCEL, cancel.cancel_query(tls)).await;
            });
        }
    }
}

/// An answer within `limit`, or [`PgError::Silent`].
pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(PgError::Silent(limit)))
}
