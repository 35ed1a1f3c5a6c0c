//! How old is what a session shows? Time since the last moment of which it is proven to have everything.
//!
//! ```text
//!  poll asked ──► S, F taken ──► W reaches F: everything committed before the poll was asked has been sent
//!      └─ the proof is of this moment
//! ```
//! A session that is caught up by queries has its own proof: the moment its last catch-up was asked for, or of a poll
//! that saw nothing that it lacks. A reply that carries the age is queued behind the frames that it speaks of, so
//! it tells a client the truth at the moment when it is sent; how long it travelled the client has to add.

use super::{Hub, Millis, Mode, Session, SessionId};
use crate::limits;

impl Hub {
    /// The moment of which the node is proven to have everything; None before the first proof.
    pub fn proven(&self) -> Option<Millis> {
        self.proof
    }

    /// Milliseconds since the moment of which the session is proven to have been sent everything.
    pub fn age(&self, id: SessionId) -> Option<Millis> {
        let session = self.sessions.get(&id).filter(|s| s.joined)?;
        let node = self.proof.filter(|_| session.follows());
        let proof = session.proof.max(node)?;
        // What waits for a standby keeps everything behind it.
        let proof = session.batches.front().map_or(proof, |batch| proof.min(batch.since));
        Some(self.now.saturating_sub(proof))
    }

    /// Bytes of WAL between the newest poll and what was delivered; zero without a stream.
    pub fn lag_bytes(&self) -> u64 {
        let newest = self.unsettled.back().filter(|_| self.mode == Mode::Streaming);
        newest.map_or(0, |(poll, _)| poll.fence.0.saturating_sub(self.watermark.0))
    }

    /// The oldest poll waits for the stream: it may be that the stream says nothing because nothing happens.
    pub(super) fn proof_is_late(&self) -> bool {
        let oldest = self.unsettled.front();
        oldest.is_some_and(|(_, asked)| self.now.saturating_sub(*asked) >= limits::PROOF_LATE_MS)
    }

    pub(super) fn prove_session(&mut self, id: SessionId, at: Millis) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.prove(Some(at));
        }
    }

    /// Everything that was committed when the poll was asked has been sent.
    pub(super) fn prove(&mut self, asked: Millis) {
        self.proof = self.proof.max(Some(asked));
    }
}

impl Session {
    /// It is brought forward by the stream.
    pub(super) fn follows(&self) -> bool {
        self.established && self.base.is_none()
    }

    /// It is proven to have everything as of then.
    pub(super) fn prove(&mut self, at: Option<Millis>) {
        self.proof = self.proof.max(at);
    }
}
