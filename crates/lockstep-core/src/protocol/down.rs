//! Messages to clients, other than rows.

use super::{Frame, LoadId, TOPIC, encode_value};
use crate::change::Value;
use crate::mutation::Outcome;
use crate::position::{Lsn, Xid};
use crate::shape::{Shape, ShapeError};
use serde_json::{Value as Json, json};

/// A reply to one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Whether the status is `ok`.
    pub ok: bool,
    /// The response.
    pub response: Json,
}

impl Reply {
    /// Status `ok`.
    pub fn ok(response: Json) -> Self {
        Self { ok: true, response }
    }

    /// Status `error` with a code and a sentence.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Self { ok: false, response: json!({"code": code, "message": message.into()}) }
    }

    /// As a frame.
    pub fn frame(&self, join_ref: Option<&str>, reference: Option<&str>, topic: &str) -> Frame {
        let status = if self.ok { "ok" } else { "error" };
        let payload = json!({"status": status, "response": self.response});
        json!([join_ref, reference, topic, "phx_reply", payload]).to_string().into()
    }
}

impl From<ShapeError> for Json {
    fn from(error: ShapeError) -> Self {
        json!({"code": error.code, "message": error.message})
    }
}

/// Ends a join.
pub fn phx_close(join_ref: Option<&str>) -> Frame {
    json!([join_ref, join_ref, TOPIC, "phx_close", {}]).to_string().into()
}

/// Describes a shape to one session. `held`: the client's rows have only the first so many of its columns.
pub fn shape_frame(reference: &str, shape: &Shape, held: Option<usize>) -> Frame {
    let table = &shape.table;
    let columns: Vec<_> = shape
        .columns
        .iter()
        .map(|i| &table.columns[*i])
        .map(|c| json!({"name": c.name, "type": c.type_name, "wire": c.wire().as_str()}))
        .collect();
    let key: Vec<_> = table.key.iter().map(|i| &table.columns[*i].name).collect();
    let mut payload = json!({
        "ref": reference,
        "shape": shape.id.to_string(),
        "fingerprint": shape.fingerprint.to_string(),
        "table": [table.schema, table.name],
        "key": key,
        "columns": columns,
    });
    let fill = held.map(|from| fill(shape, from)).filter(|fill| !fill.is_empty());
    if let (Some(fill), Some(fields)) = (fill, payload.as_object_mut()) {
        fields.insert("fill".into(), fill.into());
    }
    json!([null, null, TOPIC, "shape", payload]).to_string().into()
}

/// What earlier rows have in added columns; NULL is left out.
fn fill(shape: &Shape, from: usize) -> serde_json::Map<String, Json> {
    let mut fill = serde_json::Map::new();
    for (column, value) in shape.fill(from).filter(|(_, value)| *value != Value::Null) {
        let mut text = String::new();
        encode_value(&mut text, column.wire(), &value);
        // What was just written is JSON; a float's digits are kept by its shortest form.
        fill.insert(column.name.clone(), serde_json::from_str(&text).unwrap_or_default());
    }
    fill
}

/// One mutation's outcome.
pub type AckFrame = Outcome;

impl From<&Outcome> for Json {
    fn from(o: &Outcome) -> Self {
        match &o.refusal {
            None => json!({"n": o.n.to_string(), "id": &*o.id, "outcome": "applied"}),
            Some(r) => json!({
                "n": o.n.to_string(), "id": &*o.id, "outcome": "refused", "code": r.code, "message": r.message,
            }),
        }
    }
}

/// Tells a session what became of its mutations.
pub fn ack_frame(outcomes: &[Outcome]) -> Frame {
    let mutations: Vec<Json> = outcomes.iter().map(Json::from).collect();
    json!([null, null, TOPIC, "ack", {"mutations": mutations}]).to_string().into()
}

/// Closes a batch: from here on it is visible.
pub fn commit_frame(lsn: Lsn, xid: Option<Xid>, cursor: &str) -> Frame {
    CommitFrames::new(lsn, xid, cursor).frame("")
}

/// The commits of one batch for sessions with different shapes: all but these is written once.
#[derive(Debug)]
pub struct CommitFrames {
    before: String,
    after: String,
    last: Option<(String, Frame)>,
}

impl CommitFrames {
    /// `cursor` is what the sessions' cursors have in common: [`CursorHead::head_part`](crate::position::CursorHead).
    ///
    /// Nothing in a cursor has to be escaped.
    pub fn new(lsn: Lsn, xid: Option<Xid>, cursor: &str) -> Self {
        let before = format!(r#"[null,null,"{TOPIC}","commit",{{"cursor":"{cursor}"#);
        let after = match xid {
            Some(xid) => format!(r#"","lsn":"{lsn}","xid":"{xid}"}}]"#),
            None => format!(r#"","lsn":"{lsn}","xid":null}}]"#),
        };
        Self { before, after, last: None }
    }

    /// The commit for a session whose cursor ends like this. Sessions with the same shapes share it.
    pub fn frame(&mut self, shapes_part: &str) -> Frame {
        if let Some((shapes, frame)) = &self.last
            && shapes == shapes_part
        {
            return frame.clone();
        }
        let frame = Frame::from([&self.before, shapes_part, &self.after].concat());
        self.last = Some((shapes_part.to_owned(), frame.clone()));
        frame
    }
}

fn names(loads: &[LoadId]) -> Vec<String> {
    loads.iter().map(LoadId::to_string).collect()
}

/// What was set aside under these names, in this order, belongs to the batch.
pub fn loaded_frame(loads: &[LoadId]) -> Frame {
    json!([null, null, TOPIC, "loaded", {"loads": names(loads)}]).to_string().into()
}

/// What was set aside under these names is to be forgotten.
pub fn unload_frame(loads: &[LoadId]) -> Frame {
    json!([null, null, TOPIC, "unload", {"loads": names(loads)}]).to_string().into()
}

/// About how many rows will be set aside under this name.
pub fn progress_frame(load: LoadId, about: u64) -> Frame {
    json!([null, null, TOPIC, "progress", {"load": load.to_string(), "about": about}]).to_string().into()
}

/// What was set aside under these names is all of a first load, and may be shown before its batch.
pub fn provisional_frame(loads: &[LoadId]) -> Frame {
    json!([null, null, TOPIC, "provisional", {"loads": names(loads)}]).to_string().into()
}

/// Whether a frame holds rows that are set aside.
pub fn is_load(frame: &Frame) -> bool {
    frame.starts_with(br#"[null,null,"sync","load","#)
}

/// Whether a frame belongs to a batch. What is set aside travels outside of batches.
pub fn is_part(frame: &Frame) -> bool {
    let Some(event) = frame.strip_prefix(br#"[null,null,"sync",""#) else { return false };
    let apart = [&br#"load","#[..], br#"unload","#, br#"progress","#, br#"provisional","#];
    !apart.iter().any(|name| event.starts_with(name))
}

/// Whether a frame closes one.
pub fn is_commit(frame: &Frame) -> bool {
    frame.starts_with(br#"[null,null,"sync","commit","#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::set_aside;

    #[test]
    fn what_is_of_no_batch_opens_none() {
        let load = LoadId { catch_up: 7, read: 1 };
        let rows: Frame = r#"[null,null,"sync","rows",{"shape":"s{","put":[["{"]]}]"#.into();
        let aside = set_aside(&rows, load);
        assert_eq!(aside, r#"[null,null,"sync","load",{"load":"7.1","shape":"s{","put":[["{"]]}]"#);
        assert!(is_load(&aside) && is_part(&rows));
        for apart in [aside, progress_frame(load, 9), provisional_frame(&[load]), unload_frame(&[load])] {
            assert!(!is_part(&apart), "{apart:?}");
        }
        assert!(is_part(&loaded_frame(&[load])));
    }
}
