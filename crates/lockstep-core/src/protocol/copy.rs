//! Rows to JSON straight from the bytes of COPY, which are not made into values on the way.
//!
//! ```text
//!  7 \t a "title" \t \N \n   ──►   [7,"a \"title\"",null]
//! ```
//! COPY's text format prints values as the stream does, with a backslash before what would end a value or a row.

use super::codec::open_rows;
use super::{Frame, LoadId};
use crate::catalog::Wire;
use crate::position::ResetReason;
use crate::shape::Shape;

/// Bytes that are no row of COPY's text format with the columns that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row that is not as COPY prints it")]
pub struct CopyError;

/// The rows of one read, as frames of about the same size.
#[derive(Debug)]
pub struct CopyRows<'a> {
    shape: &'a Shape,
    columns: Vec<Wire>,
    key: Vec<Wire>,
    most: usize,
    /// For the first frame.
    reset: Option<ResetReason>,
    open: Body,
    full: Vec<Body>,
    bytes: usize,
    rows: u64,
}

/// Removed keys and rows of one frame.
#[derive(Debug, Default)]
struct Body {
    remove: Vec<u8>,
    put: Vec<u8>,
}

impl Body {
    fn len(&self) -> usize {
        self.remove.len() + self.put.len()
    }
}

impl<'a> CopyRows<'a> {
    /// For a shape; `reset` drops what clients hold of it, before the first row.
    pub fn new(shape: &'a Shape, reset: Option<ResetReason>, most: usize) -> Self {
        let wire = |column: &usize| shape.table.columns[*column].wire();
        Self {
            shape,
            columns: shape.columns.iter().map(wire).collect(),
            key: shape.table.key.iter().map(wire).collect(),
            most,
            reset,
            open: Body::default(),
            full: Vec::new(),
            bytes: 0,
            rows: 0,
        }
    }

    /// A row of the shape's columns, without the newline.
    pub fn row(&mut self, line: &[u8]) -> Result<(), CopyError> {
        let before = self.open.put.len();
        let end = array(&mut self.open.put, &self.columns, line, 0)?;
        self.wrote(end == line.len(), self.open.put.len() - before)
    }

    /// Whether the key has a row in the shape (`t`, `f`), the key, and the columns.
    pub fn change(&mut self, line: &[u8]) -> Result<(), CopyError> {
        let before = self.open.len();
        let end = match line.get(..2) {
            Some(b"t\t") => {
                let columns = skip(line, 2, self.key.len())?;
                array(&mut self.open.put, &self.columns, line, columns)?
            }
            Some(b"f\t") => {
                let columns = array(&mut self.open.remove, &self.key, line, 2)?;
                // The columns of no row.
                skip(line, columns + 1, self.columns.len() - 1)?;
                line.len()
            }
            _ => return Err(CopyError),
        };
        self.wrote(end == line.len(), self.open.len() - before)
    }

    fn wrote(&mut self, whole: bool, bytes: usize) -> Result<(), CopyError> {
        self.bytes += bytes;
        self.rows += 1;
        if self.open.len() >= self.most {
            let room = self.open.put.len() + 1024;
            let next = Body { remove: Vec::new(), put: Vec::with_capacity(room.min(2 * self.most)) };
            self.full.push(std::mem::replace(&mut self.open, next));
        }
        if whole { Ok(()) } else { Err(CopyError) }
    }

    /// Bytes that were not taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rows so far, taken or not.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the frames that are full, to be set aside under a name, or to be part of a batch.
    pub fn take(&mut self, load: Option<LoadId>) -> Result<Vec<Frame>, CopyError> {
        self.bytes = self.open.len();
        let full = std::mem::take(&mut self.full);
        full.into_iter().map(|body| self.frame(&body, load)).collect()
    }

    /// Takes all that is left, after the last row.
    pub fn finish(&mut self, load: Option<LoadId>) -> Result<Vec<Frame>, CopyError> {
        let mut frames = self.take(load)?;
        let open = std::mem::take(&mut self.open);
        self.bytes = 0;
        if open.len() > 0 || self.reset.is_some() {
            frames.push(self.frame(&open, load)?);
        }
        Ok(frames)
    }

    fn frame(&mut self, body: &Body, load: Option<LoadId>) -> Result<Frame, CopyError> {
        let mut out = open_rows(self.shape, load, self.reset.take());
        out.reserve(body.len() + 32);
        for (section, rows) in [("remove", &body.remove), ("put", &body.put)] {
            if !rows.is_empty() {
                out.push_str(",\"");
                out.push_str(section);
                out.push_str("\":[");
                // Of a database that checks no encoding, PostgreSQL itself refuses to send other bytes.
                out.push_str(std::str::from_utf8(rows).map_err(|_| CopyError)?);
                out.push(']');
            }
        }
        out.push_str("}]");
        Ok(out.into())
    }
}

/// Writes one array of the values from `at` on; returns where they end, at a tab or at the line's end.
fn array(out: &mut Vec<u8>, wires: &[Wire], line: &[u8], mut at: usize) -> Result<usize, CopyError> {
    out.extend_from_slice(if out.is_empty() { b"[" } else { b",[" });
    for (nth, wire) in wires.iter().enumerate() {
        if nth > 0 {
            if line.get(at) != Some(&b'\t') {
                return Err(CopyError);
            }
            at += 1;
            out.push(b',');
        }
        at = value(out, *wire, line, at)?;
    }
    out.push(b']');
    Ok(at)
}

/// Where the value after `count` others begins.
fn skip(line: &[u8], mut at: usize, count: usize) -> Result<usize, CopyError> {
    for _ in 0..count {
        at = end_of(line, at) + 1;
    }
    if at <= line.len() { Ok(at) } else { Err(CopyError) }
}

fn end_of(line: &[u8], at: usize) -> usize {
    line.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\t')).map_or(line.len(), |tab| at + tab)
}

fn value(out: &mut Vec<u8>, wire: Wire, line: &[u8], at: usize) -> Result<usize, CopyError> {
    let rest = line.get(at..).ok_or(CopyError)?;
    if rest.starts_with(b"\\N") && matches!(rest.get(2), None | Some(b'\t')) {
        out.extend_from_slice(b"null");
        return Ok(at + 2);
    }
    if matches!(wire, Wire::Json | Wire::Text) {
        return string(out, line, at);
    }
    let end = end_of(line, at);
    let text = &line[at..end];
    match wire {
        Wire::Bool => out.extend_from_slice(if text == b"t" { b"true" } else { b"false" }),
        // `NaN`, `Infinity`
        Wire::Float if text.ends_with(b"N") || text.ends_with(b"y") => {
            string(out, line, at)?;
        }
        _ if text.is_empty() || text.contains(&b'\\') => return Err(CopyError),
        _ => out.extend_from_slice(text),
    }
    Ok(end)
}

/// Bytes that may need to be looked at: below a space, `"` and `\`. True for eight bytes if one of them is such a byte.
fn is_special(eight: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let has = |byte: u8| {
        let x = eight ^ (ONES * u64::from(byte));
        x.wrapping_sub(ONES) & !x & HIGH
    };
    let below = eight.wrapping_sub(ONES * 0x20) & !eight & HIGH;
    (has(b'"') | has(b'\\') | below) != 0
}

/// How many bytes from `at` on are to be copied as they are.
fn plain(line: &[u8], at: usize) -> usize {
    let mut end = at;
    while let Some(eight) = line.get(end..end + 8).and_then(|b| b.try_into().ok()) {
        if is_special(u64::from_le_bytes(eight)) {
            break;
        }
        end += 8;
    }
    let tail = &line[end..];
    let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    end + tail.iter().position(special).unwrap_or(tail.len())
}

/// A JSON string of the value from `at` on, as [`encode_value`](super::encode_value) writes it.
fn string(out: &mut Vec<u8>, line: &[u8], mut at: usize) -> Result<usize, CopyError> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    loop {
        let end = plain(line, at);
        out.extend_from_slice(&line[at..end]);
        at = end;
        let byte = match line.get(at) {
            None | Some(b'\t') => break,
            Some(b'\\') => {
                at += 1;
                match line.get(at) {
                    Some(b'\\') => b'\\',
                    Some(b'n') => b'\n',
                    Some(b't') => b'\t',
                    Some(b'r') => b'\r',
                    Some(b'b') => 8,
                    Some(b'v') => 11,
                    Some(b'f') => 12,
                    _ => return Err(CopyError),
                }
            }
            Some(other) => *other,
        };
        at += 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(other >> 4)]);
                out.push(HEX[usize::from(other & 15)]);
            }
        }
    }
    out.push(b'"');
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Collation, Column, Missing, Table};
    use crate::change::{Tuple, Value};
    use crate::protocol::{Delta, load_frames, rows_frames};
    use crate::shape::ShapeRequest;
    use proptest::prelude::*;
    use serde_json::json;

    /// As COPY's text format prints a value.
    fn copied(value: &Value) -> String {
        let Some(text) = value.text() else { return "\\N".into() };
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\u{8}' => out.push_str("\\b"),
                '\u{b}' => out.push_str("\\v"),
                '\u{c}' => out.push_str("\\f"),
                other => out.push(other),
            }
        }
        out
    }

    fn line(values: &[Value]) -> Vec<u8> {
        values.iter().map(copied).collect::<Vec<_>>().join("\t").into_bytes()
    }

    fn shape() -> Shape {
        let column = |(attnum, (name, type_oid)): (i16, &(&str, u32))| Column {
            name: (*name).into(),
            attnum,
            type_oid: *type_oid,
            type_name: String::new(),
            type_sql: String::new(),
            is_enum: false,
            labels: Vec::new(),
            collation: Collation::Bytes,
            base_oid: None,
            base_sql: None,
            identity: String::new(),
            missing: Missing::Null,
        };
        let columns = (1..).zip(&[("id", 23), ("b", 16), ("f", 701), ("t", 25)]).map(column).collect();
        let table = Table {
            oid: 1,
            log: 1,
            tombstones: 2,
            schema: "public".into(),
            name: "x".into(),
            columns,
            key: vec![0],
            scope_columns: Vec::new(),
            scopes: Vec::new(),
            schema_id: String::new(),
            log_id: String::new(),
            storage_id: String::new(),
        };
        let catalog = Catalog::new(vec![table], 3, String::new());
        let request: ShapeRequest =
            serde_json::from_value(json!({"ref": "0", "table": "x"})).expect("a request");
        Shape::resolve(&request, &catalog).expect("a shape")
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z \"\\\\\n\t\r\u{8}\u{b}\u{c}\u{1}\u{1f}N.]{0,24}",
            any::<String>().prop_map(|t| t.replace('\0', "")),
        ]
    }

    fn row() -> impl Strategy<Value = Tuple> {
        let number = any::<i32>().prop_map(|n| Value::Text(n.to_string().into()));
        let other = |texts: &'static [&'static str]| {
            prop_oneof![
                Just(Value::Null),
                proptest::sample::select(texts).prop_map(|t| Value::Text(t.into()))
            ]
        };
        let text = prop_oneof![1 => Just(Value::Null), 8 => text().prop_map(|t| Value::Text(t.into()))];
        (number, other(&["t", "f"]), other(&["1.5", "-0", "NaN", "Infinity", "1e+20"]), text)
            .prop_map(|(a, b, c, d)| vec![a, b, c, d])
    }

    proptest! {
        /// The same bytes as by way of values, whatever is in them.
        #[test]
        fn frames_are_those_of_the_values(rows in proptest::collection::vec(row(), 0..20), most in 1usize..300) {
            let shape = shape();
            let mut copy = CopyRows::new(&shape, Some(ResetReason::First), usize::MAX);
            for row in &rows {
                copy.row(&line(row)).expect("a row of COPY");
            }
            let delta = Delta { reset: Some(ResetReason::First), put: rows.clone(), ..Delta::default() };
            prop_assert_eq!(copy.finish(None), Ok(rows_frames(&shape, &delta, usize::MAX)));
            let load = LoadId { catch_up: 3, read: 1 };
            let mut copy = CopyRows::new(&shape, Some(ResetReason::First), most);
            let mut frames = Vec::new();
            for row in &rows {
                copy.row(&line(row)).expect("a row of COPY");
                frames.extend(copy.take(Some(load)).expect("frames"));
            }
            frames.extend(copy.finish(Some(load)).expect("frames"));
            prop_assert!(frames.iter().all(|f| f.len() < most + 400));
            let joined = |frames: Vec<Frame>| -> Vec<serde_json::Value> {
                let parsed = frames.iter().map(|f| serde_json::from_slice(f).expect("JSON"));
                parsed.flat_map(|f: serde_json::Value| f[4]["put"].as_array().cloned().unwrap_or_default()).collect()
            };
            prop_assert_eq!(joined(frames), joined(load_frames(&shape, &delta, most, load)));
        }

        #[test]
        fn outside_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let shape = shape();
            let mut copy = CopyRows::new(&shape, None, 10);
            let _ = (copy.row(&bytes), copy.change(&bytes), copy.take(None));
        }
    }

    #[test]
    fn changes_are_rows_or_keys() {
        let shape = shape();
        let mut copy = CopyRows::new(&shape, None, 1000);
        assert_eq!(copy.change(b"t\t1\t1\tt\t0.5\ta\\\\b"), Ok(()));
        assert_eq!(copy.change(b"f\t2\t\\N\t\\N\t\\N\t\\N"), Ok(()));
        assert_eq!(copy.change(b"f\t3\t\\N\t\\N\t\\N\t\\N"), Ok(()));
        let frames = copy.finish(None).expect("frames");
        let frame: serde_json::Value = serde_json::from_slice(&frames[0]).expect("JSON");
        assert_eq!(
            frame[4],
            json!({"shape": shape.id.to_string(), "remove": [[2], [3]], "put": [[1, true, 0.5, "a\\b"]]})
        );
        for bad in [&b"t\t1\t1\tt\t0.5"[..], b"t\t1\t1\tt\t0.5\ta\tb", b"x\t1", b"", b"f\t1", b"t\t1\t\t\t\t"]
        {
            assert_eq!(CopyRows::new(&shape, None, 1000).change(bad), Err(CopyError), "{bad:?}");
        }
    }
}
