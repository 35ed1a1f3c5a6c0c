//! What transactions in memory add for one session: to a catch-up what its snapshot does not see, to a session that comes
//! back what ends after its cursor.

use super::schema::Schema;
use super::{CatchUpId, Hub, SessionId};
use crate::catalog::Oid;
use crate::change::NetChanges;
use crate::fanout::match_index::ShapeIndex;
use crate::fanout::{Hole, RingEntry, delta_for};
use crate::mutation::Outcome;
use crate::position::{Snapshot, Xid};
use crate::protocol::{Frame, rows_frame};
use crate::shape::Shape;

/// Frames in commit order; outcomes, and the transactions that these wait for.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) frames: Vec<Frame>,
    pub(super) acknowledged: Vec<Outcome>,
    pub(super) waits: Vec<Xid>,
}

impl Merged {
    /// Outcomes of a client's mutations in this transaction.
    pub(super) fn acknowledge(&mut self, net: &NetChanges, xid: Xid, (subject, client): (&str, &str)) {
        let own = net.acknowledged.iter().filter(|a| *a.subject == *subject && *a.client == *client);
        for ack in own {
            self.acknowledged.push(ack.outcome.clone());
            self.waits.push(xid);
        }
    }

    /// The same of a transaction of the ring, whose rows may not be held.
    pub(super) fn acknowledge_by(
        &mut self,
        entry: &RingEntry,
        clients: Oid,
        client: (&str, &str),
    ) -> Result<(), Hole> {
        match &entry.delivered.net {
            Some(net) => self.acknowledge(net, entry.xid(), client),
            None if entry.delivered.transaction.touched.contains(&clients) => return Err(Hole),
            None => {}
        }
        Ok(())
    }
}

/// What a transaction of the ring does to one shape, as a frame; or that it cannot tell it: its rows are not held, are of
/// another schema, or lack a value.
pub(super) fn told(
    entry: &mut RingEntry,
    index: ShapeIndex,
    shape: &Shape,
    schema: &Schema,
) -> Result<Option<Frame>, Hole> {
    let transaction = &entry.delivered.transaction;
    let touched = shape.table.is_among(&transaction.touched);
    if touched && schema.is_before(shape.table.oid, transaction.xid, transaction.end_lsn) {
        return Err(Hole);
    }
    let Some(net) = &entry.delivered.net else { return if touched { Err(Hole) } else { Ok(None) } };
    if let Some(frame) = entry.frames.get(&index) {
        return Ok(frame.clone());
    }
    let frame = rows_frame(shape, &delta_for(shape, net)?);
    entry.frames.insert(index, frame.clone());
    Ok(frame)
}

impl Hub {
    /// In commit order every transaction of the ring that S does not see, for the shapes that were read. Fails with
    /// one that the ring cannot tell: S must see it.
    pub(super) fn merge(
        &mut self,
        id: CatchUpId,
        session: SessionId,
        snapshot: &Snapshot,
    ) -> Result<Merged, Xid> {
        let mut merged = Merged::default();
        let Some(session) = self.sessions.get(&session) else { return Ok(merged) };
        if !self.follows_stream() {
            // What S sees, and nothing else: the ring may lack what these transactions build on.
            return Ok(merged);
        }
        let mut read: Vec<ShapeIndex> =
            session.subs.values().filter(|s| s.is_read_by(id)).map(|s| s.shape).collect();
        read.sort_unstable();
        for entry in self.ring.entries_mut().filter(|e| !snapshot.sees(e.xid())) {
            let xid = entry.xid();
            for index in &read {
                let Some(held) = self.shapes.get(index) else { continue };
                let frame = told(entry, *index, &held.shape, &self.schema).map_err(|Hole| xid)?;
                merged.frames.extend(frame);
            }
            if session.establishing == Some(id) {
                let client = (&*session.subject, &*session.client);
                merged.acknowledge_by(entry, self.catalog.clients, client).map_err(|Hole| xid)?;
            }
        }
        Ok(merged)
    }
}
