//! Connections for large reads: few, opened when needed, and lent to one catch-up at a time.
//!
//! They speak the simple protocol alone, COPY included, so that a pooler in transaction mode may stand between. As with
//! a [`Lease`](crate::lease::Lease), one whose work did not end is closed, and the server asked to stop what it does.

use crate::connect::{Place, Stream, for_reading, stream_to};
use crate::error::PgError;
use crate::lease::within;
use crate::target::Target;
use crate::wire::Wire;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long the server may take to hear that a query is to be cancelled.
const CANCEL: Duration = Duration::from_secs(5);

/// The connections.
#[derive(Debug, Clone)]
pub struct Readers {
    target: Target,
    answer: Duration,
    room: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Open>>>,
}

#[derive(Debug)]
struct Open {
    wire: Wire<Stream>,
    place: Place,
}

/// A connection, lent.
#[derive(Debug)]
pub struct Reader {
    open: Option<Open>,
    of: Readers,
    _room: OwnedSemaphorePermit,
}

impl Readers {
    /// At most `size` connections. Nobody waits longer than `answer` for one.
    pub fn new(target: &Target, size: usize, answer: Duration) -> Self {
        let room = Arc::new(Semaphore::new(size));
        Self { target: target.clone(), answer, room, idle: Arc::default() }
    }

    /// Lends one.
    ///
    /// # Errors
    /// If all stay in use, or the server cannot be reached.
    pub async fn lend(&self) -> Result<Reader, PgError> {
        let room = tokio::time::timeout(self.answer, self.room.clone().acquire_owned()).await;
        let Ok(Ok(room)) = room else {
            return Err(PgError::Pool("all connections are in use".into()));
        };
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(mut open) = idle() {
            // Asked before it is lent: it may have fallen silent meanwhile.
            if within(self.answer, open.wire.query("")).await.is_ok() {
                return Ok(Reader { open: Some(open), of: self.clone(), _room: room });
            }
        }
        let (wire, place) = for_reading(&self.target, self.answer).await?;
        Ok(Reader { open: Some(Open { wire, place }), of: self.clone(), _room: room })
    }
}

impl Reader {
    /// Ends the work. After an error the connection is kept only if it can be rolled back in time.
    pub async fn end<T>(mut self, result: Result<T, PgError>) -> Result<T, PgError> {
        let mut usable = self.is_ready();
        if result.is_err() && usable {
            let answer = self.of.answer;
            usable = within(answer, self.query("rollback")).await.is_ok();
        }
        if let Some(open) = self.open.take_if(|_| usable) {
            self.of.idle.lock().unwrap_or_else(PoisonError::into_inner).push(open);
        }
        result
    }
}

impl Deref for Reader {
    type Target = Wire<Stream>;

    #[allow(clippy::expect_used, reason = "only `end` and `drop` empty it, and both take it away")]
    fn deref(&self) -> &Wire<Stream> {
        &self.open.as_ref().expect("a reader that has not ended").wire
    }
}

impl DerefMut for Reader {
    #[allow(clippy::expect_used, reason = "only `end` and `drop` empty it, and both take it away")]
    fn deref_mut(&mut self) -> &mut Wire<Stream> {
        &mut self.open.as_mut().expect("a reader that has not ended").wire
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(Open { wire, place }) = self.open.take() else { return };
        let Some((pid, secret)) = wire.cancel_key() else { return };
        let target = self.of.target.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let cancel = async {
                    let (mut stream, _) = stream_to(&target, &place.config, place.nth).await?;
                    let mut out = BytesMut::new();
                    frontend::cancel_request(pid, secret, &mut out);
                    stream.write_all(&out).await?;
                    stream.shutdown().await?;
                    Ok::<_, PgError>(())
                };
                // A server that cannot be reached has nothing to cancel.
                let _ = tokio::time::timeout(CANCEL, cancel).await;
                drop(wire);
            });
        }
    }
}
