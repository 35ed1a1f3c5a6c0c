//! Rows to JSON, straight from PostgreSQL's text: once per change and shape, never per client.

use super::{Frame, LoadId, TOPIC};
use crate::catalog::Wire;
use crate::change::{Key, Tuple, Value};
use crate::position::ResetReason;
use crate::shape::Shape;

/// What one batch does to one shape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// All rows go first.
    pub reset: Option<ResetReason>,
    /// Keys that are no longer in the shape.
    pub remove: Vec<Key>,
    /// Rows in the order of the table's columns, complete or with unchanged values.
    pub put: Vec<Tuple>,
}

impl Delta {
    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.reset.is_none() && self.remove.is_empty() && self.put.is_empty()
    }
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..i]);
        plain = i + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(HEX[usize::from(other >> 4)] as char);
                out.push(HEX[usize::from(other & 15)] as char);
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

fn push_text(out: &mut String, wire: Wire, text: &str) {
    match wire {
        Wire::Bool => out.push_str(if text == "t" { "true" } else { "false" }),
        Wire::Int => out.push_str(text),
        // PostgreSQL prints finite floats as JSON numbers: `-0`, `1e+20`, `1e-05`.
        Wire::Float if !text.ends_with(['N', 'y']) => out.push_str(text),
        Wire::Float | Wire::Json | Wire::Text => push_string(out, text),
    }
}

/// Appends a value's JSON. An unchanged one is written as null; the caller lists its place.
pub fn encode_value(out: &mut String, wire: Wire, value: &Value) {
    match value.text() {
        None => out.push_str("null"),
        Some(text) => push_text(out, wire, text),
    }
}

fn push_row(out: &mut String, shape: &Shape, row: &Tuple) {
    out.push('[');
    for (i, column) in shape.columns.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        encode_value(out, shape.table.columns[*column].wire(), &row[*column]);
    }
    out.push(']');
}

fn push_key(out: &mut String, shape: &Shape, key: &Key) {
    out.push('[');
    for (i, (column, text)) in shape.table.key.iter().zip(key).enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_text(out, shape.table.columns[*column].wire(), text);
    }
    out.push(']');
}

/// The beginning of a frame of rows, of a batch or of what is sent ahead of one.
pub(super) fn open_rows(shape: &Shape, load: Option<LoadId>, reset: Option<ResetReason>) -> String {
    let mut out = match load {
        None => format!(r#"[null,null,"{TOPIC}","rows",{{"shape":"{}""#, shape.id),
        Some(load) => format!(r#"[null,null,"{TOPIC}","load",{{"load":"{load}","shape":"{}""#, shape.id),
    };
    if let Some(reason) = reset {
        out.push_str(r#","reset":""#);
        out.push_str(reason.as_str());
        out.push('"');
    }
    out
}

/// Writes frames of rows, a new one whenever the present one is large enough.
struct Writer<'a> {
    shape: &'a Shape,
    load: Option<LoadId>,
    most: usize,
    out: String,
    section: &'static str,
    frames: Vec<Frame>,
}

impl Writer<'_> {
    fn open(&mut self, reset: Option<ResetReason>) {
        self.out = open_rows(self.shape, self.load, reset);
        self.section = "";
    }

    fn item(&mut self, section: &'static str, write: impl FnOnce(&mut String)) {
        if self.out.len() >= self.most {
            self.close();
            self.open(None);
        }
        if self.section == section {
            self.out.push(',');
        } else {
            if !self.section.is_empty() {
                self.out.push(']');
            }
            self.out.push_str(",\"");
            self.out.push_str(section);
            self.out.push_str("\":[");
            self.section = section;
        }
        write(&mut self.out);
    }

    fn close(&mut self) {
        if !self.section.is_empty() {
            self.out.push(']');
        }
        self.out.push_str("}]");
        self.frames.push(std::mem::take(&mut self.out).into());
    }
}

/// The frames of a delta, each of about `most` bytes. The first carries the reset; removes come before puts.
pub fn rows_frames(shape: &Shape, delta: &Delta, most: usize) -> Vec<Frame> {
    frames(shape, most, None, delta.reset, delta.remove.iter(), delta.put.iter())
}

/// The same, to be set aside.
pub fn load_frames(shape: &Shape, delta: &Delta, most: usize, load: LoadId) -> Vec<Frame> {
    frames(shape, most, Some(load), delta.reset, delta.remove.iter(), delta.put.iter())
}

/// A frame of rows as one that is to be set aside under this name.
pub fn set_aside(rows: &Frame, load: LoadId) -> Frame {
    let payload = rows.splitn(2, |byte| *byte == b'{').nth(1).unwrap_or_default();
    let mut out = format!(r#"[null,null,"{TOPIC}","load",{{"load":"{load}","#).into_bytes();
    out.extend_from_slice(payload);
    out.into()
}

/// The one frame of a live change, from what a transaction does to the shape.
pub fn touches_frame<'n>(
    shape: &Shape,
    reset: Option<ResetReason>,
    remove: impl Iterator<Item = &'n Key>,
    put: impl Iterator<Item = &'n Tuple> + Clone,
) -> Option<Frame> {
    frames(shape, usize::MAX, None, reset, remove, put).pop()
}

/// The same of a part of a transaction, as frames of about `most` bytes that are set aside.
pub fn touches_load<'n>(
    shape: &Shape,
    most: usize,
    load: LoadId,
    remove: impl Iterator<Item = &'n Key>,
    put: impl Iterator<Item = &'n Tuple> + Clone,
) -> Vec<Frame> {
    frames(shape, most, Some(load), None, remove, put)
}

fn frames<'n>(
    shape: &Shape,
    most: usize,
    load: Option<LoadId>,
    reset: Option<ResetReason>,
    remove: impl Iterator<Item = &'n Key>,
    put: impl Iterator<Item = &'n Tuple> + Clone,
) -> Vec<Frame> {
    let mut w = Writer { shape, load, most, out: String::new(), section: "", frames: Vec::new() };
    w.open(reset);
    for key in remove {
        w.item("remove", |out| push_key(out, shape, key));
    }
    let partial = |row: &Tuple| shape.columns.iter().any(|c| row[*c] == Value::Unchanged);
    for row in put.clone().filter(|row| !partial(row)) {
        w.item("put", |out| push_row(out, shape, row));
    }
    for row in put.filter(|row| partial(row)) {
        w.item("patch", |out| {
            out.push('[');
            push_row(out, shape, row);
            out.push_str(",[");
            let unchanged = shape.columns.iter().enumerate().filter(|(_, c)| row[**c] == Value::Unchanged);
            for (nth, (i, _)) in unchanged.enumerate() {
                if nth > 0 {
                    out.push(',');
                }
                out.push_str(&i.to_string());
            }
            out.push_str("]]");
        });
    }
    if reset.is_some() || !w.section.is_empty() || !w.frames.is_empty() {
        w.close();
    }
    w.frames
}

/// The one frame of a live change; None if it does nothing.
pub fn rows_frame(shape: &Shape, delta: &Delta) -> Option<Frame> {
    rows_frames(shape, delta, usize::MAX).pop()
}
