//! Rows of a large catch-up on their way from PostgreSQL to sockets: no more of them at a time than a bound.

use crate::metrics;
use crate::node::Event;
use crate::tasks::Database;
use bytes::Bytes;
use lockstep_core::fanout::hub::CatchUpId;
use lockstep_core::limits;
use lockstep_core::protocol::Frame;
use lockstep_pg::PgError;
use lockstep_pg::catch_up::Chunks;
use lockstep_pg::size::Size;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What waits is counted in pieces of so many bytes; the least frame is one.
const PIECE: usize = 1 << 10;

/// One catch-up's rows.
#[derive(Debug)]
pub struct Rows {
    id: CatchUpId,
    events: mpsc::Sender<Event>,
    room: Arc<Semaphore>,
    /// It had to wait for a socket before.
    waited: bool,
    database: Arc<Database>,
}

/// A frame that takes room until the last socket that it waits for has taken it.
struct Counted {
    frame: Frame,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Rows {
    /// Of a catch-up; what is read goes to the node as events.
    pub fn of(id: CatchUpId, events: mpsc::Sender<Event>, database: Arc<Database>) -> Self {
        let room = Arc::new(Semaphore::new(limits::CATCH_UP_AHEAD_BYTES / PIECE));
        Self { id, events, room, waited: false, database }
    }

    async fn count(&mut self, frame: Frame) -> Result<Frame, PgError> {
        let pieces = (1 + frame.len() / PIECE).min(limits::CATCH_UP_AHEAD_BYTES / PIECE);
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        if !self.waited && self.room.available_permits() < pieces as usize {
            self.waited = true;
            metrics::reached(metrics::CATCH_UP_AHEAD);
        }
        let room = self.room.clone().acquire_many_owned(pieces).await;
        let room = room.map_err(|_| PgError::Protocol("a load without room"))?;
        Ok(Bytes::from_owner(Counted { frame, _room: room }))
    }
}

impl Chunks for Rows {
    async fn take(&mut self, read: usize, frames: Vec<Frame>) -> Result<(), PgError> {
        for frame in frames {
            let frame = self.count(frame).await?;
            // The node is gone if this fails, and this task with it.
            let _ = self.events.send(Event::Rows(self.id, read, vec![frame])).await;
        }
        Ok(())
    }

    async fn expect(&mut self, read: usize, size: Size) {
        if let Some(about) = self.database.estimate(&size).await {
            // The node is gone if this fails, and this task with it.
            let _ = self.events.send(Event::Size(self.id, read, about)).await;
        }
    }
}
