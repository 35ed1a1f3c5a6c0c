//! A transaction from the stream to the sessions that it concerns.

use super::few::FewSet;
use super::{Batch, Bound, Brought, Hub, Output, ReadFrom, SessionId, SubState, Undo};
use crate::change::{Delivered, Key, NetChanges, Part, Text, Tuple};
use crate::fanout::match_index::ShapeIndex;
use crate::fanout::{Routed, Touch};
use crate::mutation::Outcome;
use crate::position::{ResetReason, Xid};
use crate::protocol::{CommitFrames, Frame, LoadId, ack_frame, loaded_frame, touches_frame, unload_frame};
use crate::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one transaction has for one session.
#[derive(Default)]
pub(super) struct Parts {
    /// What was set aside of it.
    pub(super) loads: Vec<LoadId>,
    pub(super) rows: Vec<Frame>,
    pub(super) acknowledged: Vec<Outcome>,
}

impl Hub {
    /// Takes a transaction in commit order: into the ring, to every live session that it concerns, into P. `rest` is the
    /// last part of one that is not held.
    pub(super) fn deliver(&mut self, delivered: Arc<Delivered>, rest: Option<Part>) {
        let (xid, end) = (delivered.transaction.xid, delivered.transaction.end_lsn);
        self.reference = self.reference.max(xid);
        self.counters.transactions += 1;
        self.counters.rows += delivered.net.as_ref().map_or(0, NetChanges::rows);
        if delivered.net.is_none() {
            self.reached_bound(Bound::TransactionBytes);
        }
        if self.ring.push(delivered.clone()) {
            self.reached_bound(Bound::RingBytes);
        }
        let passed = rest.map(|rest| self.end_passing(&delivered, rest));
        let routed = match &passed {
            Some(passed) => {
                self.skip(xid, &passed.fallen);
                Routed::default()
            }
            None => delivered.net.as_ref().map(|net| self.index.route(net)).unwrap_or_default(),
        };
        self.skip_holes(xid, &routed);
        self.now_sure(xid);
        let folded = self.position.as_mut().is_none_or(|position| position.fold(xid));
        if !folded {
            self.reached_bound(Bound::FoldGap);
            self.unfolded.push(xid);
        }
        if self.position.as_ref().is_some_and(|p| p.xip().len() > self.bounds.cursor_xip) {
            self.reached_bound(Bound::CursorXip);
        }
        self.watermark = self.watermark.max(end);
        let parts = match passed {
            Some(passed) => passed.parts,
            None => self.parts(&delivered, &routed),
        };
        if !parts.is_empty()
            && let Some(head) = self.stream_head()
        {
            let mut commits = CommitFrames::new(self.watermark, Some(xid), &head.head_part());
            for (session, parts) in parts {
                self.send_transaction(session, parts, xid, &mut commits);
            }
        }
        self.poll_soon();
    }

    /// Shapes that this transaction cannot be told to from the stream alone: their sessions stand before it, and
    /// are caught up past it. Everyone else goes on.
    fn skip_holes(&mut self, xid: Xid, routed: &Routed<'_>) {
        let holes = routed.hole_shapes().filter_map(|shape| self.shapes.get(&shape));
        let sessions: BTreeSet<SessionId> = holes.flat_map(|h| h.subscribers.iter().copied()).collect();
        self.skip(xid, &sessions);
    }

    fn skip(&mut self, xid: Xid, sessions: &BTreeSet<SessionId>) {
        if sessions.is_empty() {
            return;
        }
        let Some(head) = self.exact_head().map(Arc::new) else { return };
        let proof = self.proof;
        for id in sessions {
            let Some(session) = self.sessions.get_mut(id) else { continue };
            if session.established && session.base.is_none() {
                session.prove(proof);
                session.base = Some(head.clone());
                session.must_see = Some(xid);
                self.want_again_one(*id);
            }
        }
    }

    /// Encodes once per shape and sorts by session.
    fn parts(&mut self, delivered: &Delivered, routed: &Routed<'_>) -> BTreeMap<SessionId, Parts> {
        let mut parts: BTreeMap<SessionId, Parts> = BTreeMap::new();
        let Some(net) = &delivered.net else { return parts };
        for (index, touches) in routed.shapes() {
            let (Ok(touches), Some(held)) = (touches, self.shapes.get_mut(&index)) else { continue };
            let frame = frame_of(&held.shape, touches);
            if let Some(entry) = self.ring.last_mut() {
                entry.frames.insert(index, frame.clone());
            }
            let Some(frame) = frame else { continue };
            let mut sent = 0;
            for id in held.subscribers.iter() {
                let follows = self.sessions.get(id).is_some_and(|s| s.base.is_none() && s.is_live(index));
                if follows {
                    sent += 1;
                    parts.entry(*id).or_default().rows.push(frame.clone());
                }
            }
            held.frames += sent;
            held.bytes += sent * u64::try_from(frame.len()).unwrap_or(u64::MAX);
        }
        for ack in &net.acknowledged {
            let client = (ack.subject.clone(), ack.client.clone());
            for id in self.by_client.get(&client).into_iter().flat_map(FewSet::iter) {
                if self.sessions.get(id).is_some_and(|s| s.established && s.base.is_none()) {
                    parts.entry(*id).or_default().acknowledged.push(ack.outcome.clone());
                }
            }
        }
        parts
    }

    fn send_transaction(&mut self, id: SessionId, parts: Parts, xid: Xid, commits: &mut CommitFrames) {
        let mut frames = Vec::new();
        if !parts.loads.is_empty() {
            frames.push(loaded_frame(&parts.loads));
        }
        frames.extend(parts.rows);
        let mut waits = Vec::new();
        if !parts.acknowledged.is_empty() {
            frames.push(ack_frame(&parts.acknowledged));
            waits.extend((!self.is_released(xid)).then_some(xid));
        }
        let may_wait = !waits.is_empty() || self.holding.contains(&id);
        let undo = may_wait.then(|| Undo { passed: parts.loads, ..self.state_before(id, xid) });
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let told = parts.acknowledged.iter().map(|o| o.n).max().unwrap_or(0);
        session.acknowledged = session.acknowledged.max(told);
        frames.push(commits.frame(&session.shapes_part));
        if waits.is_empty() && session.batches.is_empty() {
            // Nothing holds it back.
            self.outputs.extend(frames.into_iter().map(|frame| Output::Send(id, frame)));
            return;
        }
        self.enqueue(id, Batch::new(frames, waits, undo));
    }

    /// Where a session that follows the stream stood before the transaction just delivered.
    fn state_before(&self, id: SessionId, xid: Xid) -> Undo {
        let before = self.exact_head().map(|mut head| {
            head.snapshot.hide(xid);
            head.shown.retain(|x| *x != xid);
            Arc::new(head)
        });
        let acknowledged = self.sessions.get(&id).map_or(0, |s| s.acknowledged);
        Undo { acknowledged, base: before, ..Undo::default() }
    }

    /// Queues frames for a session, behind those that still wait.
    pub(super) fn enqueue(&mut self, id: SessionId, mut batch: Batch) {
        batch.since = self.now;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.held += batch.bytes();
        session.batches.push_back(batch);
        self.flush_batches(id);
        if self.sessions.get(&id).is_some_and(|s| s.held > self.bounds.held_bytes) {
            self.reached_bound(Bound::HeldBytes);
            self.take_back_held(id);
        }
    }

    /// Too much waits for a standby: the session stands again where it stood before the first batch that waits, and is
    /// caught up once a snapshot sees the newest transaction that one of them waited for.
    fn take_back_held(&mut self, id: SessionId) {
        self.holding.remove(&id);
        let node = self.proof;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.held = 0;
        session.proof = session.proof.max(node.filter(|_| session.follows()));
        session.proof = session.proof.min(session.batches.front().map(|batch| batch.since));
        let mut preface = Vec::new();
        let mut restored = BTreeSet::new();
        for (nth, batch) in std::mem::take(&mut session.batches).into_iter().enumerate() {
            session.must_see = batch.waits.last().copied().or(session.must_see);
            let Some(undo) = batch.undo else { continue };
            if nth == 0 {
                session.acknowledged = undo.acknowledged;
                session.base = undo.base;
                // Stored outcomes are to be told again.
                session.established = false;
            }
            preface.extend(undo.preface);
            if !undo.passed.is_empty() {
                self.outputs.push_back(Output::Send(id, unload_frame(&undo.passed)));
            }
            for Brought { reference, shape, from, held, aside } in undo.read {
                let had_aside = !aside.is_empty();
                if had_aside {
                    self.outputs.push_back(Output::Send(id, unload_frame(&aside)));
                }
                let Some(sub) = session.subs.get_mut(&reference).filter(|s| s.shape == shape) else {
                    continue;
                };
                if let Some(held) = held {
                    // Its rows are still without the new columns.
                    sub.held = Some(sub.held.map_or(held, |other| other.min(held)));
                    sub.announced = false;
                }
                if !restored.insert(reference) {
                    continue;
                }
                match (&session.base, &from) {
                    // Where it was read from may be a state of what was set aside.
                    _ if had_aside => {
                        sub.state = SubState::Wanted(ReadFrom::Scratch(ResetReason::First));
                        sub.announced = false;
                    }
                    // Read again behind the first batch, from a state that was never sent.
                    (Some(base), ReadFrom::Since(_)) if nth > 0 => {
                        sub.state = SubState::Wanted(ReadFrom::Since(base.clone()));
                    }
                    _ => {
                        sub.state = SubState::Wanted(from);
                        sub.announced = false;
                    }
                }
            }
        }
        preface.append(&mut session.preface);
        session.preface = preface;
        self.want_again_one(id);
    }

    /// An acknowledgement is released when the mutation's COMMIT has returned, or a snapshot sees it: not before
    /// a synchronous standby has it, since the client forgets the mutation then.
    fn is_released(&self, xid: Xid) -> bool {
        self.released.contains(&xid) || self.identified && self.last_poll.sees(xid)
    }

    fn flush_batches(&mut self, id: SessionId) {
        while let Some(batch) = self.sessions.get(&id).and_then(|s| s.batches.front()) {
            if batch.waits.iter().any(|xid| !self.is_released(*xid)) {
                self.holding.insert(id);
                self.poll_soon();
                return;
            }
            let batch = self.sessions.get_mut(&id).and_then(|s| {
                let batch = s.batches.pop_front()?;
                s.held -= batch.bytes();
                Some(batch)
            });
            for frame in batch.into_iter().flat_map(|b| b.frames) {
                self.outputs.push_back(Output::Send(id, frame));
            }
        }
        self.holding.remove(&id);
    }

    /// After a poll or a COMMIT's return: what waited may go.
    pub(super) fn release_seen(&mut self) {
        let holding: Vec<_> = self.holding.iter().copied().collect();
        for id in holding {
            self.flush_batches(id);
        }
        let last_poll = &self.last_poll;
        self.released.retain(|xid| !last_poll.sees(*xid));
    }
}

/// Keys of rows that the index gives to a shape and that are not in it: the index takes equal tags for equal values.
pub(super) fn misplaced(shape: &Shape, touches: &[(ShapeIndex, Touch<'_>)]) -> Vec<Key> {
    let wrong = touches.iter().filter_map(|(_, touch)| match touch {
        Touch::Put(row) if !has_values(shape, row) => Some(*row),
        _ => None,
    });
    let key = |row: &Tuple| shape.table.key.iter().map(|c| row[*c].text().map(Text::from)).collect();
    wrong.filter_map(key).collect()
}

/// Whether a row has the values that the shape's tag stands for; all else was evaluated when it was found.
fn has_values(shape: &Shape, row: &Tuple) -> bool {
    shape.covers(row) && shape.predicate.as_ref().is_none_or(|predicate| predicate.has_equalities(row))
}

/// What goes from a shape, and what is put there. What is misplaced goes: a remove is right of whatever is not there.
pub(super) fn split<'t>(
    shape: &'t Shape,
    touches: &'t [(ShapeIndex, Touch<'t>)],
    misplaced: &'t [Key],
) -> (impl Iterator<Item = &'t Key>, impl Iterator<Item = &'t Tuple> + Clone) {
    let remove = touches.iter().filter_map(|(_, touch)| match touch {
        Touch::Remove(key) => Some(*key),
        _ => None,
    });
    let all = misplaced.is_empty();
    let put = touches.iter().filter_map(move |(_, touch)| match touch {
        Touch::Put(row) if all || has_values(shape, row) => Some(*row),
        _ => None,
    });
    (remove.chain(misplaced), put)
}

pub(super) fn frame_of(shape: &Shape, touches: &[(ShapeIndex, Touch<'_>)]) -> Option<Frame> {
    let reset = touches.iter().find_map(|(_, touch)| match touch {
        Touch::Reset(reason) => Some(*reason),
        _ => None,
    });
    let misplaced = misplaced(shape, touches);
    let (remove, put) = split(shape, touches, &misplaced);
    touches_frame(shape, reset, remove, put)
}

impl Batch {
    pub(super) fn new(frames: Vec<Frame>, waits: Vec<Xid>, undo: Option<Undo>) -> Self {
        Self { frames, waits, since: 0, undo }
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(|f| f.len()).sum()
    }
}

impl super::Session {
    /// Whether the session is in step for this shape.
    pub(super) fn is_live(&self, index: ShapeIndex) -> bool {
        self.subs.values().any(|s| s.shape == index && s.state == SubState::Live)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::catalog::{Catalog, Column, Table};
    use crate::change::Value;

    /// As if two values had one tag.
    #[test]
    fn a_row_that_the_index_gives_to_another_shape_is_not_put_there() {
        let column =
            |name: &str, attnum| Column { name: name.into(), attnum, type_oid: 23, ..Column::default() };
        let columns = vec![column("id", 1), column("list", 2)];
        let (scopes, scope_columns) = (vec![vec![1]], vec![1]);
        let table = Table {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            columns,
            key: vec![0],
            ..Table::default()
        };
        let table = Table { scopes, scope_columns, ..table };
        let catalog = Catalog::new(vec![table], 9, String::new());
        let row = |id: &str, list: &str| vec![Value::Text(id.into()), Value::Text(list.into())];
        let (here, other, fails) = (row("1", "7"), row("2", "8"), row("30", "7"));
        let touches = [&here, &other, &fails].map(|row| (0, Touch::Put(row)));
        for (more, put, remove) in [
            (
                serde_json::json!({"where": "id = 1"}),
                serde_json::json!([[1, 7]]),
                serde_json::json!([[2], [30]]),
            ),
            (serde_json::json!({}), serde_json::json!([[1, 7], [30, 7]]), serde_json::json!([[2]])),
        ] {
            let mut request = serde_json::json!({"ref": "s", "table": "t", "scope": {"list": 7}});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let shape = Shape::resolve(&serde_json::from_value(request).unwrap(), &catalog).unwrap();
            let frame: serde_json::Value =
                serde_json::from_slice(&frame_of(&shape, &touches).unwrap()).unwrap();
            assert_eq!((&frame[4]["put"], &frame[4]["remove"]), (&put, &remove));
        }
    }
}
