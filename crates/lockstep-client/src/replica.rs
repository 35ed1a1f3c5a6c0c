//! A client's state and what frames do to it.

mod held;
mod provisional;

pub(crate) use held::Held;
pub use held::row_digest;

use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// A row by column name.
pub type Row = BTreeMap<String, Json>;

/// A shape the client wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its name in the session.
    pub reference: String,
    /// `table`, `columns`, `scope` as in docs/protocol.md.
    pub definition: Json,
}

/// A mutation that is not acknowledged yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// Number.
    pub n: u64,
    /// Random id.
    pub id: String,
    /// Operations.
    pub ops: Vec<Json>,
}

impl Pending {
    /// `ops_if` if any operation has a condition.
    pub fn kind(&self) -> &'static str {
        if self.ops.iter().any(|op| op.get("if").is_some()) { "ops_if" } else { "ops" }
    }
}

/// What became of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Number.
    pub n: u64,
    /// Id.
    pub id: String,
    /// Code and sentence, if refused.
    pub refusal: Option<(String, String)>,
}

/// A batch that became visible.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Position.
    pub lsn: String,
    /// The transaction, if the batch is exactly one.
    pub xid: Option<String>,
    /// References of shapes that were loaded in full, and why.
    pub resets: Vec<(String, String)>,
    /// Rows put, patched and removed.
    pub rows: usize,
    /// Mutations decided; each is told once.
    pub outcomes: Vec<Outcome>,
    /// What came of [`Replica::renumber_when_told`].
    pub left: Option<Left>,
}

/// What the first commit after `renumber` says of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// It was numbered anew under the new client id: the caller joins anew, and sends.
    Renumbered,
    /// Some of it was decided, and another copy of the profile had the outcome forgotten. The application decides, as
    /// after `unknown_client`; this is the new client id.
    Unknown(String),
}

/// A client id is to be left.
#[derive(Debug, Clone, PartialEq)]
struct Leaving {
    /// The client id to go on under.
    client: String,
    /// Up to here the old id's mutations were decided.
    last: u64,
    /// A session under the old id began since.
    asked: bool,
}

/// What a frame meant to the caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Part of a batch, or nothing of interest.
    Nothing,
    /// A batch became visible.
    Commit(Commit),
    /// A first load may be shown that is not settled.
    Provisional,
    /// A reply: its ref, whether it is ok, and the response.
    Reply(String, bool, Json),
}

/// A frame that docs/protocol.md does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frame against the protocol: {0}")]
pub struct ReplicaError(pub String);

fn bad(what: &str) -> ReplicaError {
    ReplicaError(what.into())
}

/// All that a client keeps. Clone it to keep what a store would keep across a restart.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    /// What is subscribed to.
    pub wanted: Vec<Wanted>,
    /// The newest cursor.
    pub cursor: Option<String>,
    /// Client id, once the node has given one.
    pub client: Option<String>,
    /// Mutations not acknowledged.
    pub outbox: Vec<Pending>,
    /// Number of the last mutation made.
    pub last: u64,
    /// Outcomes up to here are stored.
    pub confirmed: u64,
    /// Frames of unknown kinds.
    pub unknown: u64,
    pub(crate) shapes: BTreeMap<String, Held>,
    leaving: Option<Leaving>,
    batch: Vec<(String, Json)>,
    /// Rows that are of no batch yet, by the names that the node gave them.
    aside: BTreeMap<String, Vec<Json>>,
    /// Its application shows a first load that is not settled, marked as such.
    pub takes_provisional: bool,
    ahead: provisional::Ahead,
}

impl Commit {
    fn at(lsn: &str) -> Self {
        let (resets, outcomes) = (Vec::new(), Vec::new());
        Self { lsn: lsn.into(), xid: None, resets, rows: 0, outcomes, left: None }
    }
}

impl Replica {
    /// A client that wants these shapes, each under its number as reference.
    pub fn new(definitions: impl IntoIterator<Item = Json>) -> Self {
        let wanted = definitions
            .into_iter()
            .enumerate()
            .map(|(i, definition)| Wanted { reference: i.to_string(), definition })
            .collect();
        Self { wanted, ..Self::default() }
    }

    /// The connection is gone: a batch without its commit never happened.
    pub fn disconnected(&mut self) {
        self.forget_batch();
        if let Some(leaving) = &mut self.leaving {
            leaving.asked = true;
        }
    }

    fn forget_batch(&mut self) {
        self.batch.clear();
        self.aside.clear();
        self.ahead = provisional::Ahead::default();
    }

    /// All rows are dropped, as by a person who clears what a page has stored; the outbox is kept.
    pub fn forget_rows(&mut self) {
        self.forget_batch();
        self.shapes.clear();
        self.cursor = None;
    }

    /// The payload of `phx_join`.
    pub fn join(&self) -> Json {
        let capabilities = if self.takes_provisional { &["widen", "provisional"][..] } else { &["widen"] };
        let shapes: Vec<Json> = self.wanted.iter().map(|w| self.shape_request(w)).collect();
        json!({"protocol": 1, "capabilities": capabilities, "required": [], "token": null, "subject": "",
            "client": self.client, "cursor": self.cursor, "shapes": shapes})
    }

    fn shape_request(&self, wanted: &Wanted) -> Json {
        let held = self.shapes.values().find(|h| h.reference == wanted.reference);
        let mut request = wanted.definition.clone();
        request["ref"] = wanted.reference.clone().into();
        request["have"] = held.is_some().into();
        request["fingerprint"] = held.map(|h| h.fingerprint.clone()).into();
        request
    }

    /// The payload of `mutate` for all that is not acknowledged; None if there is nothing.
    pub fn mutate(&self) -> Option<Json> {
        let mutations: Vec<Json> = self
            .outbox
            .iter()
            .map(|m| json!({"n": m.n.to_string(), "id": m.id, "kind": m.kind(), "name": null, "args": null, "ops": m.ops}))
            .collect();
        (!mutations.is_empty() && self.leaving.is_none())
            .then(|| json!({"confirmed": self.confirmed.to_string(), "mutations": mutations}))
    }

    /// Puts a mutation into the outbox; returns its number.
    pub fn push(&mut self, id: impl Into<String>, ops: Vec<Json>) -> u64 {
        self.last += 1;
        self.outbox.push(Pending { n: self.last, id: id.into(), ops });
        self.last
    }

    /// The node answered `renumber`: some of the outbox may have been carried out under the old id, and would be again
    /// under the new one. The caller leaves and joins anew under the old id; the first commit then brings what was
    /// decided, and says what comes of the rest ([`Commit::left`]). Nothing is sent until then. `last` is the number
    /// that the node named.
    pub fn renumber_when_told(&mut self, client: &str, last: u64) {
        self.leaving = Some(Leaving { client: client.into(), last, asked: false });
    }

    /// The application said to send again after `unknown_client`, or what was decided under the old id is known: a new
    /// client id and numbers from 1.
    pub fn renumber(&mut self, client: &str) {
        self.client = Some(client.into());
        self.leaving = None;
        self.confirmed = 0;
        self.last = 0;
        for pending in &mut self.outbox {
            self.last += 1;
            pending.n = self.last;
        }
    }

    /// The node answered `gap`: what it has not seen and the outbox no longer holds is lost; numbers go on from its
    /// last.
    pub fn renumber_after(&mut self, last: u64) {
        if self.outbox.iter().any(|p| p.n == last + 1) {
            return;
        }
        self.last = last;
        // Outcomes above `last` belong to a history that is gone; a server told to forget them would forget new ones.
        self.confirmed = self.confirmed.min(last);
        for pending in &mut self.outbox {
            self.last += 1;
            pending.n = self.last;
        }
    }

    /// Takes one text frame.
    pub fn handle(&mut self, text: &str) -> Result<Heard, ReplicaError> {
        let frame: (Option<String>, Option<String>, String, String, Json) =
            serde_json::from_str(text).map_err(|_| bad("not a Phoenix V2 frame"))?;
        let (_, reference, topic, event, payload) = frame;
        if event == "phx_reply" {
            let ok = payload["status"] == "ok";
            return Ok(Heard::Reply(reference.unwrap_or_default(), ok, payload["response"].clone()));
        }
        if topic != "sync" {
            return Err(bad("a topic that was not joined"));
        }
        match event.as_str() {
            "shape" | "rows" | "withdraw" | "ack" => self.batch.push((event, payload)),
            "commit" => return self.commit(&payload).map(Heard::Commit),
            "load" => {
                let name =
                    payload["load"].as_str().ok_or_else(|| bad("rows without the name of their load"))?;
                self.aside.entry(name.into()).or_default().push(payload);
            }
            "loaded" | "unload" => self.end_loads(event == "loaded", &payload)?,
            "progress" => self.ahead.note(&payload)?,
            "provisional" => {
                self.show(&payload)?;
                return Ok(Heard::Provisional);
            }
            "phx_close" => self.forget_batch(),
            _ => self.unknown += 1,
        }
        Ok(Heard::Nothing)
    }

    /// What was set aside becomes a part of the batch, or is forgotten.
    fn end_loads(&mut self, taken: bool, payload: &Json) -> Result<(), ReplicaError> {
        for name in payload["loads"].as_array().ok_or_else(|| bad("no names of loads"))? {
            let name = name.as_str().unwrap_or_default();
            let told = self.ahead.end(name, taken);
            let rows = match self.aside.remove(name) {
                Some(rows) => rows,
                // Of what is forgotten perhaps no more was told than its size.
                None if told && !taken => Vec::new(),
                None => return Err(bad("the name of a load that was not sent")),
            };
            if taken {
                self.batch.extend(rows.into_iter().map(|payload| ("rows".to_owned(), payload)));
            }
        }
        Ok(())
    }

    /// Nothing before this call is visible; everything after it is, at once. A batch that breaks off leaves no part
    /// of it behind: all rows are forgotten with the cursor, and the next join loads them anew.
    fn commit(&mut self, payload: &Json) -> Result<Commit, ReplicaError> {
        let (outbox, confirmed) = (self.outbox.clone(), self.confirmed);
        let result = self.ahead.committed(&self.aside).and_then(|()| self.apply(payload));
        if result.is_err() {
            (self.outbox, self.confirmed) = (outbox, confirmed);
            self.shapes.clear();
            self.cursor = None;
        }
        result
    }

    fn apply(&mut self, payload: &Json) -> Result<Commit, ReplicaError> {
        let mut commit = Commit::at(payload["lsn"].as_str().ok_or_else(|| bad("a commit without lsn"))?);
        commit.xid = payload["xid"].as_str().map(str::to_owned);
        for (event, payload) in std::mem::take(&mut self.batch) {
            match event.as_str() {
                "shape" => self.shape(&payload)?,
                "rows" => self.rows(&payload, &mut commit)?,
                "withdraw" => drop(self.shapes.remove(payload["shape"].as_str().unwrap_or_default())),
                _ => self.acknowledge(&payload, &mut commit)?,
            }
        }
        let cursor = payload["cursor"].as_str().ok_or_else(|| bad("a commit without cursor"))?;
        self.cursor = Some(cursor.into());
        if let Some(Leaving { client, last, .. }) = self.leaving.clone().filter(|l| l.asked) {
            if self.outbox.iter().any(|p| p.n <= last) {
                commit.left = Some(Left::Unknown(client));
            } else {
                self.renumber(&client);
                commit.left = Some(Left::Renumbered);
            }
        }
        Ok(commit)
    }

    fn shape(&mut self, payload: &Json) -> Result<(), ReplicaError> {
        let text =
            |name: &str| payload[name].as_str().map(str::to_owned).ok_or_else(|| bad("a shape's fields"));
        let columns = payload["columns"].as_array().ok_or_else(|| bad("a shape's columns"))?;
        let each = |field: &str| -> Vec<String> {
            columns.iter().map(|c| c[field].as_str().unwrap_or_default().to_owned()).collect()
        };
        let (wires, columns) = (each("wire"), each("name"));
        let key = payload["key"].as_array().ok_or_else(|| bad("a shape's key"))?;
        let at = |k: &Json| columns.iter().position(|c| k.as_str() == Some(c));
        let key: Option<Vec<usize>> = key.iter().map(at).collect();
        let (id, reference) = (text("shape")?, text("ref")?);
        self.shapes.retain(|other, held| *other == id || held.reference != reference);
        let held = self.shapes.entry(id).or_default();
        held.reference = reference;
        held.fingerprint = text("fingerprint")?;
        held.wires = wires;
        held.key = key.ok_or_else(|| bad("a key of columns that the shape lacks"))?;
        if held.columns != columns {
            held.move_to(columns, &payload["fill"]);
        }
        Ok(())
    }

    fn rows(&mut self, payload: &Json, commit: &mut Commit) -> Result<(), ReplicaError> {
        let id = payload["shape"].as_str().unwrap_or_default();
        let held = self.shapes.get_mut(id).ok_or_else(|| bad("rows of a shape that was not described"))?;
        if let Some(reason) = payload["reset"].as_str() {
            held.clear();
            commit.resets.push((held.reference.clone(), reason.into()));
        }
        let list = |name: &str| payload[name].as_array().cloned().unwrap_or_default();
        for key in list("remove") {
            held.remove(&key.to_string());
            commit.rows += 1;
        }
        for row in list("put") {
            let Json::Array(row) = row else { return Err(bad("a row that is no array")) };
            if row.len() != held.columns.len() {
                return Err(bad("a row with another number of columns than its shape"));
            }
            held.put(row);
            commit.rows += 1;
        }
        for patch in list("patch") {
            let (Some(row), Some(unchanged)) = (patch[0].as_array(), patch[1].as_array()) else {
                return Err(bad("a patch"));
            };
            if row.len() != held.columns.len() {
                return Err(bad("a patch with another number of columns than its shape"));
            }
            let mut row = row.clone();
            let before =
                held.rows.get(&key_text(&held.key, &row)).ok_or_else(|| bad("a patch of a row not held"))?;
            for at in unchanged.iter().filter_map(Json::as_u64).filter_map(|at| usize::try_from(at).ok()) {
                let (Some(value), Some(before)) = (row.get_mut(at), before.get(at)) else {
                    return Err(bad("a patch's index"));
                };
                *value = before.clone();
            }
            held.put(row);
            commit.rows += 1;
        }
        Ok(())
    }

    fn acknowledge(&mut self, payload: &Json, commit: &mut Commit) -> Result<(), ReplicaError> {
        for told in payload["mutations"].as_array().into_iter().flatten() {
            let n = told["n"]
                .as_str()
                .and_then(|n| n.parse().ok())
                .ok_or_else(|| bad("an ack without a number"))?;
            let id = told["id"].as_str().unwrap_or_default();
            let before = self.outbox.len();
            // By the id: a copy of the profile may have had it carried out under another number.
            let same_number = self.outbox.iter().any(|p| p.n == n && p.id == id);
            self.outbox.retain(|p| p.id != id);
            if self.outbox.len() == before {
                continue;
            }
            self.confirmed = self.confirmed.max(if same_number { n } else { 0 });
            let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
            let refusal = (told["outcome"] == "refused").then(|| (text("code"), text("message")));
            commit.outcomes.push(Outcome { n, id: id.into(), refusal });
        }
        Ok(())
    }

    /// The rows of a subscription, by the text of their key; None before its first commit.
    pub fn rows_of(&self, reference: &str) -> Option<BTreeMap<String, Row>> {
        self.shapes.values().find(|h| h.reference == reference).map(Held::named)
    }

    /// A subscription's columns, in the order in which its values travel; None before its first commit.
    pub fn columns_of(&self, reference: &str) -> Option<&[String]> {
        self.shapes.values().find(|h| h.reference == reference).map(|h| h.columns.as_slice())
    }

    /// The fingerprint under which a subscription's rows are held; None before its first commit.
    pub fn fingerprint_of(&self, reference: &str) -> Option<&str> {
        self.shapes.values().find(|h| h.reference == reference).map(|h| h.fingerprint.as_str())
    }

    /// The columns of a subscription and its rows, uncopied; None before its first commit.
    pub fn view(&self, reference: &str) -> Option<(&[String], impl Iterator<Item = &[Json]>)> {
        let held = self.shapes.values().find(|h| h.reference == reference)?;
        Some((&held.columns, held.rows.values().map(Vec::as_slice)))
    }

    /// A digest of a subscription's rows, whatever their order; None before its first commit.
    pub fn digest(&self, reference: &str) -> Option<u64> {
        self.shapes.values().find(|h| h.reference == reference).map(|h| h.digest)
    }

    /// One column of a subscription's rows, sorted.
    pub fn column(&self, reference: &str, column: &str) -> Vec<String> {
        let text = |v: &Json| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let rows = self.rows_of(reference).unwrap_or_default();
        let mut values: Vec<String> = rows.values().filter_map(|r| r.get(column)).map(text).collect();
        values.sort();
        values
    }

    /// Frames that are set aside.
    pub fn aside(&self) -> usize {
        self.aside.values().map(Vec::len).sum()
    }

    /// Frames of a batch that is not committed yet.
    pub fn waiting(&self) -> usize {
        self.batch.len()
    }
}

fn key_text(key: &[usize], row: &[Json]) -> String {
    Json::Array(key.iter().map(|at| row[*at].clone()).collect()).to_string()
}

#[cfg(test)]
mod tests;
