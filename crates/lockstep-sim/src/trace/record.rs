//! Writes a client's trace while it lives.

use super::Trace;
use lockstep_client::{Commit, Heard, Replica, View};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// Of a trace from a world: small enough to be read, and to be replayed with a death at every step.
const BYTES: usize = 15 << 10;

type Rows = BTreeMap<String, Json>;

/// What a client holds.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    client: Option<String>,
    cursor: Option<String>,
    outbox: Vec<(u64, String)>,
    refused: Vec<(String, String)>,
    /// By subscription: columns and rows.
    rows: BTreeMap<String, (Vec<String>, Rows)>,
    view: View,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Recorder {
    events: Vec<Json>,
    bytes: usize,
    covers: BTreeSet<String>,
    told: State,
    wanted: BTreeMap<String, Json>,
    made: BTreeSet<String>,
    refused: Vec<(String, String)>,
    /// Shapes held as of the cursor. The reference client keeps more, which would not be resumed.
    held: BTreeSet<String>,
    /// Shapes that cursors of this session cover.
    covered: BTreeSet<String>,
    /// What this session's shapes are called.
    names: BTreeMap<String, String>,
    /// Frames of the open batch.
    batch: Vec<(String, Json)>,
    /// Rows of no batch yet.
    aside: BTreeMap<String, Vec<Json>>,
    sessions: u32,
    connected: bool,
    /// By mutation: the session that it was sent in first.
    sent: BTreeMap<String, u32>,
    frames: u32,
    /// Frames of unknown kinds are strewn in.
    strews: bool,
    /// It is full with the first commit after so many bytes.
    bytes_most: Option<usize>,
    full: bool,
    unusable: bool,
}

impl Recorder {
    /// A new one; with `strews` the node is one of a later version, which sends what this one does not know.
    pub fn new(strews: bool) -> Self {
        Self { strews, bytes_most: Some(BYTES), ..Self::default() }
    }

    /// What was written, if it can be used. A trace that never became full is one too.
    pub fn finish(self, name: String, from: String) -> Option<Trace> {
        let end = self.events.iter().rposition(|e| e["do"] == "expect")?;
        let events = self.events[..=end].to_vec();
        (!self.unusable).then_some(Trace { name, from, covers: self.covers, events })
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.full
    }

    fn push(&mut self, event: Json) {
        self.bytes += event.to_string().len();
        self.events.push(event);
    }

    fn cover(&mut self, what: impl Into<String>) {
        self.covers.insert(what.into());
    }

    /// The application may have done something.
    pub fn observe(&mut self, replica: &Replica) {
        if self.full {
            return;
        }
        let now: BTreeMap<String, Json> =
            replica.wanted.iter().map(|w| (w.reference.clone(), w.definition.clone())).collect();
        let before = std::mem::replace(&mut self.wanted, now.clone());
        for reference in before.keys().filter(|r| !now.contains_key(*r)) {
            self.covered.remove(reference);
            self.push(json!({"do": "unsubscribe", "ref": reference}));
            self.cover("unsubscribe");
        }
        for (reference, definition) in now.iter().filter(|(r, _)| !before.contains_key(*r)) {
            self.push(json!({"do": "subscribe", "ref": reference, "shape": definition}));
        }
        self.cover_shapes(replica);
        for pending in &replica.outbox {
            if self.made.insert(pending.id.clone()) {
                self.push(json!({"do": "mutate", "id": pending.id, "ops": pending.ops}));
                if !self.connected {
                    self.cover("mutation made offline");
                }
            }
        }
        self.expect(replica);
    }

    fn cover_shapes(&mut self, replica: &Replica) {
        let tables: Vec<&Json> = self.wanted.values().map(|d| &d["table"]).collect();
        if tables.iter().any(|t| tables.iter().filter(|o| o == &t).count() > 1) {
            self.covers.insert("several shapes of one table".into());
        }
        let columns = |r: &String| replica.columns_of(r).unwrap_or_default();
        for (one, rows) in &self.told.rows {
            for (other, others) in &self.told.rows {
                let same =
                    self.wanted.get(one).map(|d| &d["table"]) == self.wanted.get(other).map(|d| &d["table"]);
                if same && columns(one) != columns(other) && rows.1.keys().any(|k| others.1.contains_key(k)) {
                    self.covers.insert("one row in shapes of different columns".into());
                }
            }
        }
    }

    /// A join is sent.
    pub fn join(&mut self, replica: &Replica) {
        self.observe(replica);
        if self.full {
            return;
        }
        self.sessions += 1;
        self.connected = true;
        self.names.clear();
        self.batch.clear();
        self.aside.clear();
        self.covered = self.held.iter().filter(|r| self.wanted.contains_key(*r)).cloned().collect();
        let shapes: Vec<Json> = self
            .wanted
            .keys()
            .map(|r| {
                let fingerprint = self.held.contains(r).then(|| replica.fingerprint_of(r)).flatten();
                json!({"ref": r, "have": fingerprint.is_some(), "fingerprint": fingerprint})
            })
            .collect();
        self.push(
            json!({"do": "join", "client": replica.client, "cursor": replica.cursor, "shapes": shapes}),
        );
    }

    /// A frame arrived, and the client has taken it.
    pub fn frame(&mut self, text: &str, heard: &Heard, replica: &Replica) {
        if self.full {
            return;
        }
        self.frames += 1;
        if self.strews && self.frames.is_multiple_of(7) {
            let kind = ["remove_digest", "of_a_later_version"][self.frames as usize / 7 % 2];
            let unknown = json!([null, null, "sync", kind, {"of": self.frames, "shape": "0", "put": [[1]]}]);
            self.push(json!({"do": "frame", "text": unknown.to_string()}));
            self.cover("frames of unknown kinds");
        }
        self.push(json!({"do": "frame", "text": text}));
        match heard {
            Heard::Provisional | Heard::Nothing => self.data(text),
            Heard::Commit(commit) => self.commit(commit, replica),
            Heard::Reply(to, ok, response) => {
                let code = response["code"].as_str().unwrap_or_default();
                if !ok {
                    self.cover(format!("answer: {code}"));
                }
                if to.starts_with('h') && response["cursor"].is_string() && self.batch.is_empty() {
                    self.held = self.covered.clone();
                    self.cover("heartbeat with a cursor");
                }
            }
        }
    }

    fn data(&mut self, text: &str) {
        let frame: Json = serde_json::from_str(text).unwrap_or_default();
        let event = frame[3].as_str().unwrap_or_default().to_owned();
        let payload = &frame[4];
        match event.as_str() {
            "shape" | "rows" | "withdraw" | "ack" => self.batch.push((event, payload.clone())),
            "load" => {
                let rows = self.aside.entry(payload["load"].to_string()).or_default();
                rows.push(payload.clone());
                if rows.len() > 1 {
                    self.cover("rows set aside in several frames");
                }
            }
            "loaded" | "unload" => {
                for name in payload["loads"].as_array().into_iter().flatten() {
                    let rows = self.aside.remove(&name.to_string()).unwrap_or_default();
                    if event == "loaded" {
                        self.batch.extend(rows.into_iter().map(|rows| ("rows".to_owned(), rows)));
                    }
                }
                self.cover(event);
            }
            _ => {}
        }
    }

    fn commit(&mut self, commit: &Commit, replica: &Replica) {
        for (event, payload) in std::mem::take(&mut self.batch) {
            let name = payload["shape"].as_str().unwrap_or_default().to_owned();
            match event.as_str() {
                "shape" => {
                    let reference = payload["ref"].as_str().unwrap_or_default().to_owned();
                    self.names.insert(name, reference);
                }
                "rows" => self.rows(&name, &payload),
                "withdraw" => {
                    self.names.get(&name).map(|reference| self.covered.remove(reference));
                    self.cover("withdraw");
                }
                _ => {}
            }
        }
        for outcome in &commit.outcomes {
            if let Some((code, _)) = &outcome.refusal {
                self.refused.push((outcome.id.clone(), code.clone()));
                self.cover(format!("refused: {code}"));
            }
            if self.sent.get(&outcome.id).is_some_and(|session| *session < self.sessions) {
                self.cover("the answer to a mutation was lost");
            }
        }
        self.held = self.covered.clone();
        self.expect(replica);
        self.full = self.bytes_most.is_some_and(|most| self.bytes > most);
    }

    fn rows(&mut self, name: &str, payload: &Json) {
        let Some(reference) = self.names.get(name).cloned().filter(|r| self.wanted.contains_key(r)) else {
            return;
        };
        match payload["reset"].as_str() {
            Some(reason) => self.cover(format!("reset: {reason}")),
            // The node resumed what a client that follows the rules no longer holds.
            None => self.unusable |= !self.covered.contains(&reference),
        }
        for (list, what) in [("patch", "patch with unchanged values"), ("remove", "removed rows")] {
            if payload[list].as_array().is_some_and(|l| !l.is_empty()) {
                self.cover(what);
            }
        }
        self.covered.insert(reference);
    }

    /// Mutations are on their way to the node.
    pub fn sends(&mut self, replica: &Replica) {
        for pending in replica.outbox.iter().filter(|_| self.connected) {
            self.sent.entry(pending.id.clone()).or_insert(self.sessions);
        }
    }

    /// The connection is gone. To be called before the client forgets its open batch.
    pub fn disconnected(&mut self, replica: &Replica) {
        self.observe(replica);
        if self.full {
            return;
        }
        if replica.waiting() > 0 {
            self.cover("cut within a batch");
        }
        if replica.aside() > 0 {
            self.cover("cut with rows set aside");
        }
        self.names.clear();
        self.batch.clear();
        self.aside.clear();
        self.connected = false;
        self.push(json!({"do": "disconnect"}));
    }

    fn state(&self, replica: &Replica) -> State {
        let held = self.held.iter().filter(|r| self.wanted.contains_key(*r));
        let rows = held.filter_map(|r| {
            let columns = replica.columns_of(r)?.to_vec();
            let values = |row: &lockstep_client::Row| columns.iter().map(|c| row[c].clone()).collect();
            let rows = replica.rows_of(r)?.iter().map(|(k, row)| (k.clone(), values(row))).collect();
            Some((r.clone(), (columns, rows)))
        });
        State {
            client: replica.client.clone(),
            cursor: replica.cursor.clone(),
            outbox: replica.outbox.iter().map(|p| (p.n, p.id.clone())).collect(),
            refused: self.refused.clone(),
            rows: rows.collect(),
            // An unsubscribed shape is held until the cursor moves, and not shown.
            view: replica
                .application_view(&self.held)
                .into_iter()
                .filter(|(_, rows)| !rows.is_empty())
                .collect(),
        }
    }

    /// Writes what is another state than the last one told.
    fn expect(&mut self, replica: &Replica) {
        let now = self.state(replica);
        if now == self.told {
            return;
        }
        let mut event = Map::from_iter([("do".to_owned(), "expect".into())]);
        let mut tell = |name: &str, changed: bool, value: Json| {
            if changed {
                event.insert(name.into(), value);
            }
        };
        let before = &self.told;
        tell("client", now.client != before.client, json!(now.client));
        tell("cursor", now.cursor != before.cursor, json!(now.cursor));
        let outbox: Vec<Json> = now.outbox.iter().map(|(n, id)| json!([n.to_string(), id])).collect();
        tell("outbox", now.outbox != before.outbox, outbox.into());
        tell("refused", now.refused != before.refused, json!(now.refused));
        let rows: Map<String, Json> = now
            .rows
            .iter()
            .filter_map(|(r, held)| shape_change(before.rows.get(r), held).map(|c| (r.clone(), c)))
            .collect();
        let gone = before.rows.keys().filter(|r| !now.rows.contains_key(*r)).map(|r| (r.clone(), Json::Null));
        let rows: Map<String, Json> = rows.into_iter().chain(gone).collect();
        tell("rows", !rows.is_empty(), rows.into());
        let view = view_change(&before.view, &now.view);
        tell("view", !view.is_empty(), view.into());
        self.told = now;
        self.push(event.into());
    }
}

fn shape_change(before: Option<&(Vec<String>, Rows)>, now: &(Vec<String>, Rows)) -> Option<Json> {
    let same_columns = before.filter(|b| b.0 == now.0);
    let empty = Rows::new();
    let old = same_columns.map_or(&empty, |b| &b.1);
    let put =
        now.1.iter().filter(|(k, row)| old.get(*k) != Some(row)).map(|(k, row)| (k.clone(), row.clone()));
    let gone = old.keys().filter(|k| !now.1.contains_key(*k)).map(|k| (k.clone(), Json::Null));
    let rows: Map<String, Json> = put.chain(gone).collect();
    match same_columns {
        Some(_) if rows.is_empty() => None,
        Some(_) => Some(json!({"rows": rows})),
        None => Some(json!({"columns": now.0, "rows": rows})),
    }
}

/// By table and key: the row, or null where there is none any more.
fn view_change(before: &View, now: &View) -> Map<String, Json> {
    let empty = BTreeMap::new();
    let mut changes = Map::new();
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for name in names {
        let (old, new) = (before.get(name).unwrap_or(&empty), now.get(name).unwrap_or(&empty));
        let mut rows: Map<String, Json> = new
            .iter()
            .filter(|(k, row)| old.get(*k) != Some(row))
            .map(|(k, row)| (k.clone(), json!(row)))
            .collect();
        rows.extend(old.keys().filter(|k| !new.contains_key(*k)).map(|k| (k.clone(), Json::Null)));
        if !rows.is_empty() {
            changes.insert(name.clone(), rows.into());
        }
    }
    changes
}
