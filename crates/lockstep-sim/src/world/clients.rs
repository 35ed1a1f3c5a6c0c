//! Clients and their links: what they do, and how frames travel.

use super::mutations::FORBIDDEN;
use super::{Event, World};
use crate::client::Meant;
use crate::history::Position;
use crate::link::Link;
use crate::plant::Plant;
use crate::schema::{APP_TABLES, SCOPES};
use lockstep_client::{Heard, Left};
use lockstep_core::fanout::hub::SessionId;
use lockstep_core::position::Cursor;
use lockstep_core::shape::{Shape, ShapeRequest};
use serde_json::{Value as Json, json};

impl World {
    /// One step of a client's life; the next one follows by itself.
    pub(super) fn client_acts(&mut self, at: usize, generation: u64) {
        self.client_step(at, generation);
        self.clients[at].record();
    }

    fn client_step(&mut self, at: usize, generation: u64) {
        let wait = self.rng.between(2_000, 60_000);
        self.after(wait, Event::Client(at, generation));
        let client = &self.clients[at];
        if client.session.is_none() {
            if self.now >= client.offline_until || self.quiet {
                self.go_online(at);
            } else if self.rng.one_in(8) {
                // What is made offline goes to the outbox.
                self.make_mutation(at);
            } else if self.rng.one_in(8) {
                self.change_wishes(at);
            }
            return;
        }
        if self.quiet {
            self.send_outbox(at);
            return;
        }
        match self.rng.below(100) {
            0..=24 => {
                self.make_mutation(at);
                self.send_outbox(at);
            }
            25..=29 => self.send_outbox(at),
            30..=36 => self.change_wishes(at),
            37..=60 => self.heartbeat(at),
            // A lift, a tunnel: the client is back before anybody has forgotten what it missed.
            61..=63 => {
                self.fault("client_blip");
                let long = self.rng.below(150_000);
                self.go_offline(at, long);
            }
            _ => {}
        }
    }

    fn go_online(&mut self, at: usize) {
        let node = self.rng.index(self.nodes.len());
        if !self.nodes[node].alive {
            return;
        }
        let session = self.next_session;
        self.next_session += 1;
        self.links.insert(session, Link::new(at, node));
        self.nodes[node].hub.handle_open(session);
        self.drive(node);
        self.clients[at].session = Some(session);
        self.join(at, node);
    }

    fn join(&mut self, at: usize, node: usize) {
        let client = &mut self.clients[at];
        client.asked = (client.wanted().collect(), self.db.history.visible_now());
        if let Some(recorder) = &mut client.recorder {
            recorder.join(&client.replica);
        }
        let mut join = client.replica.join();
        if client.replica.cursor.is_some() && client.node.is_some_and(|n| n != node) {
            self.report.resumes_other_node += 1;
        }
        self.plant_in_join(&mut join);
        self.client_sends(at, "j", "phx_join", &join);
    }

    /// The node is crowded, or starts. Some clients stay and come when they are told to; others come by timers of their
    /// own, or by another connection.
    fn come_again(&mut self, at: usize, refusal: &Json) {
        let told = refusal["retry_in"].as_u64().filter(|_| !self.recorded);
        let (Some(told), Some(session)) = (told, self.clients[at].session) else {
            return self.go_offline(at, 20_000);
        };
        *self.report.resets.entry(format!("join: {}", refusal["code"])).or_default() += 1;
        match self.rng.below(4) {
            0 => self.go_offline(at, 20_000),
            1 => self.after(100_000, Event::Rejoin(at, session)),
            _ => self.after(told * 1_000, Event::Rejoin(at, session)),
        }
    }

    pub(super) fn rejoin(&mut self, at: usize, session: SessionId) {
        let client = &self.clients[at];
        if client.session == Some(session)
            && !client.joined
            && let Some(link) = self.links.get(&session)
        {
            self.join(at, link.node);
        }
    }

    /// Its application, or a person, clears what it has stored of rows.
    pub(super) fn clear_client(&mut self, at: usize) {
        if self.recorded {
            return;
        }
        self.fault("client_cleared");
        let wait = self.rng.between(1_000, 30_000);
        self.go_offline(at, wait);
        let client = &mut self.clients[at];
        client.replica.forget_rows();
        client.shown.clear();
        client.position = Position { branch: client.position.branch, ..Position::default() };
        client.node = None;
    }

    /// Two plants: what a wrong cursor would lead to.
    fn plant_in_join(&self, join: &mut Json) {
        let Some(mut cursor) = join["cursor"].as_str().and_then(|c| c.parse::<Cursor>().ok()) else { return };
        match self.plant {
            Some(Plant::CursorOldFence) => {
                // As old as it can be without another life of the server.
                let at = self.db.mark_at(cursor.head.incarnation);
                cursor.head.fence = at.map_or(cursor.head.fence, lockstep_core::position::Lsn);
            }
            Some(Plant::CursorUnnamedScope) => {
                let catalog = self.db.schema.catalog();
                for shape in join["shapes"].as_array_mut().into_iter().flatten() {
                    let request: Option<ShapeRequest> = serde_json::from_value(shape.clone()).ok();
                    let Some(resolved) = request.and_then(|r| Shape::resolve(&r, &catalog).ok()) else {
                        continue;
                    };
                    shape["have"] = true.into();
                    shape["fingerprint"] = resolved.fingerprint.to_string().into();
                    if !cursor.shapes.iter().any(|(id, _)| *id == resolved.id) {
                        cursor.shapes.push((resolved.id, resolved.fingerprint));
                    }
                }
            }
            _ => return,
        }
        join["cursor"] = cursor.to_string().into();
    }

    fn client_sends(&mut self, at: usize, kind: &str, event: &str, payload: &Json) {
        let client = &mut self.clients[at];
        let Some(session) = client.session else { return };
        client.next_ref += 1;
        let topic = if event == "heartbeat" { "phoenix" } else { "sync" };
        let text = json!(["1", format!("{kind}{}", client.next_ref), topic, event, payload]).to_string();
        let wait = self.rng.between(100, 4_000);
        let Some(link) = self.links.get_mut(&session) else { return };
        link.up_at = (self.now + wait).max(link.up_at + 1).max(link.stalled_until);
        let arrives = link.up_at;
        self.at(arrives, Event::Up(session, text));
    }

    pub(super) fn up(&mut self, session: SessionId, text: &str) {
        let Some(link) = self.links.get(&session) else { return };
        if self.now < link.stalled_until {
            self.at(link.stalled_until, Event::Up(session, text.to_owned()));
            return;
        }
        let node = link.node;
        let fresh = self.fresh_client();
        self.nodes[node].hub.handle_text(session, text, &fresh);
        self.drive(node);
    }

    pub(crate) fn deliver_soon(&mut self, session: SessionId) {
        let wait =
            if self.rng.one_in(40) { self.rng.between(5_000, 80_000) } else { self.rng.between(100, 3_000) };
        let Some(link) = self.links.get_mut(&session) else { return };
        if !link.scheduled {
            link.scheduled = true;
            let at = (self.now + wait).max(link.stalled_until);
            self.at(at, Event::Down(session));
        }
    }

    /// All that waits arrives.
    pub(super) fn down(&mut self, session: SessionId) {
        let Some(link) = self.links.get_mut(&session) else { return };
        link.scheduled = false;
        if self.now < link.stalled_until {
            self.deliver_soon(session);
            return;
        }
        let at = link.client;
        while self.violation.is_none()
            && let Some(frame) = self.links.get_mut(&session).and_then(|l| l.queue.pop())
        {
            if self.clients[at].session != Some(session) {
                continue;
            }
            if !self.quiet && self.rng.one_in(6_000) {
                self.kill_client(at);
                return;
            }
            match std::str::from_utf8(&frame).map(|text| self.clients[at].hear(text)) {
                Ok(Ok(heard)) => {
                    self.heard(at, heard);
                    self.clients[at].record();
                }
                Ok(Err(error)) => self.violate(format!("client {at}: {error}")),
                Err(_) => self.violate(format!("client {at}: a frame that is not UTF-8")),
            }
        }
        if self.links.get(&session).is_some_and(|l| l.closing) {
            self.hang_up(session);
        }
    }

    fn heard(&mut self, at: usize, heard: Heard) {
        match heard {
            Heard::Nothing => {}
            Heard::Provisional => self.judge_provisional(at),
            Heard::Commit(commit) => {
                self.judge(at, &commit);
                match commit.left {
                    None => {}
                    // A session speaks for one client id: the new one takes a new join.
                    Some(Left::Renumbered) => self.go_offline(at, 1_000),
                    Some(Left::Unknown(fresh)) => self.outcome_unknown(at, &fresh),
                }
            }
            Heard::Reply(to, ok, response) => match to.get(..1) {
                Some("j") if ok => {
                    let client = &mut self.clients[at];
                    client.joined = true;
                    client.replica.client = response["client"].as_str().map(str::to_owned);
                    self.send_outbox(at);
                }
                Some("j") => self.come_again(at, &response),
                Some("h") => {
                    let client = &mut self.clients[at];
                    if let Some(cursor) = response["cursor"].as_str()
                        && client.replica.waiting() == 0
                    {
                        client.replica.cursor = Some(cursor.to_owned());
                        if !client.replica.provisional().is_empty() {
                            self.violate(format!("client {at}: a cursor while its rows are provisional"));
                        }
                    }
                }
                Some("m") => self.mutate_answered(at, ok, &response),
                _ if !ok => self.violate(format!("client {at}: {to} refused: {response}")),
                _ => {}
            },
        }
    }

    fn mutate_answered(&mut self, at: usize, ok: bool, response: &Json) {
        self.clients[at].mutating = false;
        if ok {
            return;
        }
        self.trace(|| format!("client {at}: mutate answered {response}"));
        let code = response["code"].as_str().unwrap_or_default().to_owned();
        *self.report.resets.entry(format!("mutate: {code}")).or_default() += 1;
        let client = &mut self.clients[at];
        match code.as_str() {
            "gap" => {
                let last = response["last"].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
                client.replica.renumber_after(last);
            }
            "renumber" => {
                let last = response["last"].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
                client.replica.renumber_when_told(response["client"].as_str().unwrap_or_default(), last);
                self.go_offline(at, 1_000);
            }
            "unknown_client" => {
                let fresh = response["client"].as_str().unwrap_or_default().to_owned();
                self.outcome_unknown(at, &fresh);
            }
            "busy" => {}
            other => self.violate(format!("client {at}: a mutate message was answered with {other}")),
        }
    }

    /// The application decides: all is sent again, come what may, or given up.
    fn outcome_unknown(&mut self, at: usize, fresh: &str) {
        let sends = self.recorded || self.rng.one_in(2);
        let client = &mut self.clients[at];
        let ids = client.replica.outbox.iter().map(|p| p.id.clone());
        if sends {
            self.sent_again.extend(ids);
        } else {
            client.given_up.extend(ids);
            client.replica.outbox.clear();
        }
        client.replica.renumber(fresh);
        self.go_offline(at, 1_000);
    }

    /// One device gets what another one's store holds, as of now or as of some time ago. Both are used from then on.
    pub(super) fn copy_profile(&mut self, from: usize, to: usize, kept: bool) {
        if self.recorded || from == to {
            return;
        }
        let profile = if kept { self.kept_profile.take() } else { Some(self.clients[from].profile()) };
        let Some(mut profile) = profile else { return };
        self.fault(if kept { "profile_restored" } else { "profile_copied" });
        let client = profile.replica.client.clone().unwrap_or_default();
        *self.copies.entry(client.clone()).or_default() += 1;
        self.shared.extend(profile.replica.outbox.iter().map(|p| (p.id.clone(), client.clone())));
        self.go_offline(to, 0);
        profile.offline_until = self.now + self.rng.below(100_000);
        self.clients[to] = profile;
    }

    fn heartbeat(&mut self, at: usize) {
        self.client_sends(at, "h", "heartbeat", &json!({}));
    }

    fn send_outbox(&mut self, at: usize) {
        let client = &self.clients[at];
        if !client.joined || client.mutating && !self.rng.one_in(20) {
            return;
        }
        let client = &mut self.clients[at];
        if let Some(payload) = client.replica.mutate() {
            client.mutating = true;
            if let Some(recorder) = &mut client.recorder {
                recorder.observe(&client.replica);
                recorder.sends(&client.replica);
            }
            self.client_sends(at, "m", "mutate", &payload);
        }
    }

    /// A mutation goes into the outbox, which is stored before it is sent.
    fn make_mutation(&mut self, at: usize) {
        if self.clients[at].replica.outbox.len() > 20 {
            return;
        }
        self.next_mutation += 1;
        let id = format!("m{}", self.next_mutation);
        let table = self.rng.index(APP_TABLES);
        let some = |world: &mut Self| {
            let rows = &world.db.visible[table];
            let nth = world.rng.index(rows.len());
            rows.keys().nth(nth).map(|k| k.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let n = self.rng.below(600);
        let list = self.rng.between(1, SCOPES);
        let (op, meant) = match (self.rng.below(10), table, some(self)) {
            (0, ..) => {
                let key = self.fresh_key();
                (
                    json!({"op": "insert", "table": "lists", "values": {"id": &*key, "n": FORBIDDEN}}),
                    Meant::Forbidden,
                )
            }
            (1..=2, 1, Some(key)) => {
                let values = json!({"id": key[0], "list_id": list, "n": n, "note": "again"});
                (json!({"op": "insert", "table": "todos", "values": values}), Meant::MaybeTaken)
            }
            (3..=4, 0, Some(key)) => (
                json!({"op": "update", "table": "lists", "key": {"id": key[0]}, "set": {"n": n}}),
                Meant::Allowed,
            ),
            (3..=6, 2, Some(key)) => {
                let key = json!({"org": key[0], "id": key[1]});
                (
                    json!({"op": "update", "table": "members", "key": key, "set": {"team": list}}),
                    Meant::Allowed,
                )
            }
            (7, 1, Some(key)) => {
                (json!({"op": "delete", "table": "todos", "key": {"id": key[0]}}), Meant::Allowed)
            }
            _ => {
                let key = self.fresh_key();
                let values = json!({"id": &*key, "list_id": list, "n": n, "note": id});
                (json!({"op": "insert", "table": "todos", "values": values}), Meant::Allowed)
            }
        };
        let client = &mut self.clients[at];
        client.made.insert(id.clone(), meant);
        client.replica.push(id, vec![op]);
    }

    /// Another shape, or one fewer.
    fn change_wishes(&mut self, at: usize) {
        let shape = self.rng.index(self.db.schema.shapes.len());
        let client = &mut self.clients[at];
        let reference = shape.to_string();
        if client.replica.wanted.iter().any(|w| w.reference == reference) {
            if client.replica.wanted.len() > 2 {
                client.replica.wanted.retain(|w| w.reference != reference);
                client.shown.remove(&shape);
                client.fresh.remove(&shape);
                if client.session.is_some() {
                    client.left.insert(shape);
                }
                if client.joined {
                    self.client_sends(at, "u", "unsubscribe", &json!({"refs": [reference]}));
                }
            }
        } else if !client.left.contains(&shape)
            && client.replica.wanted.len() < 5
            && (client.session.is_none() || client.joined)
        {
            client.want(&self.db.schema, shape);
            if client.joined {
                client.fresh.insert(shape);
                let mut request = self.db.schema.shapes[shape].definition.clone();
                request["ref"] = reference.into();
                self.client_sends(at, "s", "subscribe", &json!({"shapes": [request]}));
            }
        }
    }

    /// The client closes its connection, and is away for so long.
    pub(super) fn go_offline(&mut self, at: usize, long: u64) {
        self.clients[at].offline_until = self.now + long;
        if let Some(session) = self.clients[at].session {
            self.hang_up(session);
        }
    }

    /// Its process ends; what its store holds is left.
    pub(super) fn kill_client(&mut self, at: usize) {
        self.fault("client_killed");
        let mut stored = self.clients[at].replica.clone();
        stored.disconnected();
        let wait = self.rng.between(1_000, 300_000);
        self.go_offline(at, wait);
        self.clients[at].replica = stored;
    }

    /// Both ends learn that the connection is gone.
    pub(super) fn hang_up(&mut self, session: SessionId) {
        let Some(link) = self.links.get(&session) else { return };
        let node = link.node;
        self.drop_link(session);
        self.nodes[node].last_commit.remove(&session);
        if self.nodes[node].alive {
            self.nodes[node].hub.handle_closed(session);
            self.drive(node);
        }
    }

    /// The client's end.
    pub(super) fn drop_link(&mut self, session: SessionId) {
        let Some(link) = self.links.remove(&session) else { return };
        let client = &mut self.clients[link.client];
        if client.session == Some(session) {
            client.disconnected();
        }
    }
}
