//! Sessions: what clients say, and the shapes they hold.

use super::few::FewSet;
use super::{
    Bound, Held, Hub, MutateRequest, MutateResult, Output, ReadFrom, ReplyTo, Session, SessionId, Sub,
    SubState,
};
use crate::change::Text;
use crate::limits;
use crate::position::{Cursor, CursorHead, ResetReason, Xid};
use crate::protocol::{
    Envelope, Heartbeat, ID_RULE, Join, MutateFrame, PROVISIONAL, Reply, TOPIC, Up, UpError, VERSION, WIDEN,
    is_id, parse, phx_close, unreadable_depth,
};
use crate::shape::{Fingerprint, Shape, ShapeError, ShapeId, ShapeRequest};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// The state that a join names with its shapes, or why it names none.
type Known = Result<(Arc<CursorHead>, Vec<(ShapeId, Fingerprint)>), ResetReason>;

impl Hub {
    /// A socket was opened. Its first message decides the rest.
    pub fn handle_open(&mut self, id: SessionId) {
        if self.sessions.len() >= self.bounds.sessions {
            self.reached_bound(Bound::Sessions);
            self.outputs.push_back(Output::Close(id, 1013, "this node is full; try another"));
            return;
        }
        self.sessions.insert(id, Session::default());
    }

    /// Somebody was not let in, for the node is full.
    pub fn handle_turned_away(&mut self) {
        self.reached_bound(Bound::Sessions);
    }

    /// A socket is gone.
    pub fn handle_closed(&mut self, id: SessionId) {
        self.end_join(id);
        self.sessions.remove(&id);
        self.needy.remove(&id);
        self.holding.remove(&id);
    }

    /// A text message of a client. `fresh_client` is a random id, used if the client has none.
    pub fn handle_text(&mut self, id: SessionId, text: &str, fresh_client: &str) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        let (envelope, up) = match parse(text) {
            Ok(parsed) => parsed,
            Err(UpError::Frame(_)) => {
                self.outputs.push_back(Output::Close(id, 1007, "not a Phoenix V2 text frame"));
                return;
            }
            Err(UpError::Payload(envelope, why)) => {
                if why == unreadable_depth() {
                    self.reached_bound(Bound::Nesting);
                }
                self.reply(id, &envelope, &Reply::error("malformed", why));
                return;
            }
        };
        let joined = self.sessions.get(&id).is_some_and(|s| s.joined);
        let reply = match up {
            Up::Heartbeat(Heartbeat { cursor: Some(false) }) => Some(Reply::ok(json!({"age": self.age(id)}))),
            Up::Heartbeat(_) => {
                Some(Reply::ok(json!({"cursor": self.heartbeat_cursor(id), "age": self.age(id)})))
            }
            _ if envelope.topic != TOPIC => Some(Reply {
                ok: false,
                response: json!({"reason": "unmatched topic", "code": "malformed",
                    "message": format!("the one topic is {TOPIC:?}")}),
            }),
            Up::Join(join) => {
                self.join(id, &envelope, &join, fresh_client);
                None
            }
            Up::Leave => {
                self.reply(id, &envelope, &Reply::ok(json!({})));
                self.send(id, phx_close(envelope.join_ref.as_deref()));
                self.end_join(id);
                None
            }
            _ if !joined => Some(Reply::error("not_joined", "join the topic first")),
            Up::Subscribe(subscribe) => {
                let shapes = self.subscribe(id, &subscribe.shapes, None);
                // While polling, all shapes of a session must be read in one snapshot.
                let polled = self.sessions.get(&id).is_some_and(|s| s.established && s.base.is_some());
                if polled {
                    self.want_again_one(id);
                }
                self.needy.insert(id);
                Some(Reply::ok(json!({"shapes": shapes})))
            }
            Up::Unsubscribe(unsubscribe) => {
                unsubscribe.refs.iter().for_each(|r| self.unsubscribe(id, r));
                Some(Reply::ok(json!({})))
            }
            Up::Mutate(mutate) => self.mutate(id, &envelope, mutate),
            Up::Unknown(event) => {
                let message =
                    format!("no event {event:?}: send subscribe, unsubscribe, mutate, phx_join or phx_leave");
                Some(Reply::error("malformed", message))
            }
        };
        if let Some(reply) = reply {
            self.reply(id, &envelope, &reply);
        }
    }

    fn reply(&mut self, id: SessionId, to: &Envelope, reply: &Reply) {
        let frame = reply.frame(to.join_ref.as_deref(), to.reference.as_deref(), &to.topic);
        self.send(id, frame);
    }

    /// The cursor as of all frames sent so far; None while something is on its way.
    fn heartbeat_cursor(&self, id: SessionId) -> Option<String> {
        let session = self.sessions.get(&id)?;
        let live = session.subs.values().all(|s| s.state == SubState::Live);
        if !session.established || !live || !session.batches.is_empty() {
            return None;
        }
        let head = match &session.base {
            // Too long to be sent; the next state brings another one.
            Some(base) if base.snapshot.xip().len() > self.bounds.cursor_xip => return None,
            Some(base) => CursorHead::clone(base),
            None => self.stream_head()?,
        };
        Some(head.with_shapes(&session.shapes_part))
    }

    fn join(&mut self, id: SessionId, envelope: &Envelope, join: &Join, fresh_client: &str) {
        // Who was served and joins anew is one of those who are there: it would be in the dark until its turn.
        let served = self.sessions.get(&id).is_some_and(|s| s.established);
        let admitted = self.admit(join, fresh_client);
        let admitted = admitted.and_then(|()| if served { Ok(()) } else { self.let_in(id, fresh_client) });
        if let Err(refusal) = admitted {
            self.reply(id, envelope, &refusal);
            return;
        }
        let Some(session) = self.sessions.get(&id) else { return };
        if session.joined {
            let close = phx_close(session.join_ref.as_deref());
            self.send(id, close);
            self.end_join(id);
        }
        let client = join.client.clone().filter(|c| !c.is_empty()).unwrap_or_else(|| fresh_client.to_owned());
        let key = (Text::from(join.subject.as_str()), Text::from(client.as_str()));
        self.by_client.entry(key).or_default().insert(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        self.admission.joined(id);
        session.joined = true;
        session.join_ref = envelope.join_ref.clone();
        session.subject = join.subject.clone();
        session.client = client.clone();
        session.widens = join.capabilities.iter().any(|c| c == WIDEN);
        session.takes_provisional = join.capabilities.iter().any(|c| c == PROVISIONAL);
        let cursor = join.cursor.as_deref().map(|c| c.parse::<Cursor>().map_err(|_| ResetReason::BadCursor));
        let cursor = cursor.unwrap_or(Err(ResetReason::NoCursor));
        let cursor = cursor.map(|cursor| (Arc::new(cursor.head), cursor.shapes));
        session.joined_at = cursor.as_ref().ok().map(|(head, _)| head.clone());
        let shapes = self.subscribe(id, &join.shapes, Some(&cursor));
        self.await_return(id);
        let reply = Reply::ok(json!({
            "protocol": VERSION, "capabilities": [WIDEN, PROVISIONAL], "database": self.catalog.installation,
            "subject": join.subject, "client": client, "shapes": shapes,
        }));
        self.reply(id, envelope, &reply);
    }

    fn admit(&self, join: &Join, chance: &str) -> Result<(), Reply> {
        if !self.is_ready() {
            return Err(self.not_ready(chance));
        }
        if join.protocol != VERSION {
            let message = format!(
                "this node speaks version {VERSION}, the client {}; update the older one",
                join.protocol
            );
            return Err(Reply::error("protocol_unsupported", message));
        }
        if let Some(name) = join.required.first() {
            return Err(Reply::error(
                "capability_unsupported",
                format!("this node does not know {name:?}; update it, or do without"),
            ));
        }
        if join.client.as_ref().is_some_and(|c| !c.is_empty() && !is_id(c)) {
            return Err(Reply::error("malformed", ID_RULE));
        }
        if !join.subject.is_empty() {
            return Err(Reply::error(
                "malformed",
                "a subject needs a token, and this node has none to check",
            ));
        }
        Ok(())
    }

    /// Adds shapes to a session. `cursor` is the join's; shapes added later begin from scratch.
    fn subscribe(&mut self, id: SessionId, requests: &[ShapeRequest], cursor: Option<&Known>) -> Vec<Json> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(match self.subscribe_one(id, request, cursor) {
                Ok(()) => json!({"ref": request.reference, "ok": true}),
                Err(error) => {
                    if error.at_bound {
                        self.reached_bound(Bound::Where);
                    }
                    json!({"ref": request.reference, "error": Json::from(error)})
                }
            });
        }
        answers
    }

    fn subscribe_one(
        &mut self,
        id: SessionId,
        request: &ShapeRequest,
        cursor: Option<&Known>,
    ) -> Result<(), ShapeError> {
        let shape = Shape::resolve(request, &self.catalog)?;
        let session = self.sessions.get(&id);
        let subs = session.into_iter().flat_map(|s| s.subs.iter());
        let (mut held, mut bytes) = (0, request.bytes());
        for (reference, sub) in subs {
            held += 1;
            bytes += sub.bytes;
            let same = self.shapes.get(&sub.shape).is_some_and(|h| h.shape.id == shape.id);
            if *reference == request.reference || same {
                let message = format!("the session has this shape or this ref already, as {reference:?}");
                return Err(ShapeError::new("duplicate_ref", message));
            }
        }
        if held >= limits::SESSION_SHAPES {
            self.reached_bound(Bound::SessionShapes);
            let most = limits::SESSION_SHAPES;
            let message =
                format!("a session may have {most} shapes; unsubscribe from one, or ask for larger ones");
            return Err(ShapeError::new("too_many_shapes", message));
        }
        if bytes > limits::SESSION_SHAPE_BYTES {
            self.reached_bound(Bound::SessionShapes);
            let message = "what the session's shapes are asked for by is more than one message may hold, and a client that \
                comes back asks for all in one; use shorter names and values, or fewer shapes";
            return Err(ShapeError::new("too_many_shapes", message));
        }
        let widens = self.sessions.get(&id).is_some_and(|s| s.widens);
        let (from, held) = match cursor {
            None => (ReadFrom::Scratch(ResetReason::First), None),
            Some(cursor) => read_from(request, &shape, cursor, widens),
        };
        let index = self.hold(shape, id);
        let state = SubState::Wanted(from);
        let sub =
            Sub { shape: index, state, announced: false, held, bytes: request.bytes(), aside: Vec::new() };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.subs.insert(request.reference.clone(), sub);
        }
        Ok(())
    }

    fn hold(&mut self, shape: Shape, session: SessionId) -> u32 {
        let next = self.next_shape;
        let index = *self.by_id.entry(shape.id).or_insert(next);
        if index == next {
            self.next_shape += 1;
            let shape = Arc::new(shape);
            self.index.insert(index, shape.clone());
            let mut subscribers = FewSet::default();
            subscribers.insert(session);
            self.shapes.insert(index, Held { shape, subscribers, frames: 0, bytes: 0 });
        } else if let Some(held) = self.shapes.get_mut(&index) {
            held.subscribers.insert(session);
        }
        index
    }

    pub(super) fn unsubscribe(&mut self, id: SessionId, reference: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut sub) = session.subs.remove(reference) else { return };
        sub.unload(id, &mut self.outputs);
        let shapes = &self.shapes;
        let live = session.subs.values().filter(|s| s.state == SubState::Live);
        session.shapes_part = CursorHead::shapes_part(
            live.filter_map(|s| shapes.get(&s.shape)).map(|h| (h.shape.id, h.shape.fingerprint)),
        );
        self.release_shape(id, sub.shape);
    }

    fn release_shape(&mut self, id: SessionId, index: u32) {
        let Some(held) = self.shapes.get_mut(&index) else { return };
        held.subscribers.remove(&id);
        if held.subscribers.is_empty() {
            self.index.remove(index, &held.shape);
            self.by_id.remove(&held.shape.id);
            self.shapes.remove(&index);
        }
    }

    /// Everything of a join but the socket.
    fn end_join(&mut self, id: SessionId) {
        self.admission.left(id, self.bounds.waiting_sessions);
        let Some(session) = self.sessions.insert(id, Session::default()) else { return };
        let key = (Text::from(session.subject), Text::from(session.client));
        if let Some(sessions) = self.by_client.get_mut(&key) {
            sessions.remove(&id);
            if sessions.is_empty() {
                self.by_client.remove(&key);
            }
        }
        for sub in session.subs.into_values() {
            self.release_shape(id, sub.shape);
        }
        self.needy.remove(&id);
        self.returning.remove(&id);
        self.holding.remove(&id);
    }

    fn mutate(&mut self, id: SessionId, envelope: &Envelope, frame: MutateFrame) -> Option<Reply> {
        Bound::of_mutations(&frame).for_each(|bound| self.reached_bound(bound));
        if let Err(why) = frame.check() {
            return Some(Reply::error("malformed", why));
        }
        let session = self.sessions.get(&id)?;
        let request = MutateRequest {
            session: id,
            reply: ReplyTo {
                join_ref: envelope.join_ref.clone(),
                reference: envelope.reference.clone(),
                topic: envelope.topic.clone(),
            },
            subject: session.subject.clone(),
            client: session.client.clone(),
            confirmed: frame.confirmed,
            mutations: frame.mutations,
        };
        self.outputs.push_back(Output::Mutate(Box::new(request)));
        None
    }

    /// What became of a mutate message. `committed` are transactions whose COMMIT returned, whatever came after.
    pub fn handle_mutated(
        &mut self,
        session: SessionId,
        reply: &ReplyTo,
        committed: &[Xid],
        result: MutateResult,
        fresh_client: &str,
    ) {
        self.handle_committed(committed);
        if let (MutateResult::Gap { last }, Some(session)) = (result, self.sessions.get_mut(&session)) {
            // Numbers beyond are used again, and their outcomes told again.
            session.acknowledged = session.acknowledged.min(last);
        }
        let answer = answer_to(result, fresh_client);
        if self.sessions.contains_key(&session) {
            let frame = answer.frame(reply.join_ref.as_deref(), reply.reference.as_deref(), &reply.topic);
            self.send(session, frame);
        }
        self.release_seen();
    }

    /// Transactions of mutations whose COMMIT returned.
    pub fn handle_committed(&mut self, committed: &[Xid]) {
        self.released.extend(committed.iter().filter(|x| !self.last_poll.sees(**x)));
        self.poll_soon();
        self.release_seen();
    }
}

/// What is said to mutations when they were run, whichever way they came.
pub fn answer_to(result: MutateResult, fresh_client: &str) -> Reply {
    let mut answer = match result {
        MutateResult::Decided => Reply::ok(json!({})),
        MutateResult::Renumber { .. } => Reply::error(
            "renumber",
            "this number is taken: the profile was copied or restored; go on under the new client id",
        ),
        MutateResult::Gap { .. } => {
            Reply::error("gap", "an earlier mutation is missing; send from the number after `last`")
        }
        MutateResult::UnknownClient => Reply::error(
            "unknown_client",
            "this client is not known here, and what became of its mutations is unknown; tell the user, and go on under \
             the new client id",
        ),
        MutateResult::Busy => Reply::error("busy", "a passing failure; send the same again later"),
    };
    match result {
        MutateResult::Gap { last } => answer.response["last"] = last.to_string().into(),
        MutateResult::Renumber { last } => {
            answer.response["client"] = fresh_client.into();
            answer.response["last"] = last.to_string().into();
        }
        MutateResult::UnknownClient => answer.response["client"] = fresh_client.into(),
        MutateResult::Decided | MutateResult::Busy => {}
    }
    answer
}

/// Resumed only if the cursor names the shape, the client has it, and its fingerprint is still right: or was before
/// columns were added, and the client can take these. Then the number of columns that it has comes along.
fn read_from(
    request: &ShapeRequest,
    shape: &Shape,
    cursor: &Known,
    widens: bool,
) -> (ReadFrom, Option<usize>) {
    let scratch = |reason| (ReadFrom::Scratch(reason), None);
    if !request.have {
        return scratch(ResetReason::First);
    }
    let (head, shapes) = match cursor {
        Ok(cursor) => cursor,
        Err(reason) => return scratch(*reason),
    };
    let Some((_, named)) = shapes.iter().find(|(id, _)| *id == shape.id) else {
        return scratch(ResetReason::NotInCursor);
    };
    let held = request.fingerprint.as_deref().map(str::parse::<Fingerprint>);
    if held != Some(Ok(*named)) {
        return scratch(ResetReason::SchemaChanged);
    }
    let since = ReadFrom::Since(head.clone());
    let Some(reason) = shape.fingerprint.differs(*named) else { return (since, None) };
    match shape.widens(*named).filter(|_| widens) {
        Some(columns) => (since, Some(columns)),
        None => scratch(reason),
    }
}
