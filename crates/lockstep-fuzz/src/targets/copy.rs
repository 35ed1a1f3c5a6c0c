//! COPY's text format: what PostgreSQL prints is read back, whatever the pieces in which it comes.

use crate::split;
use arbitrary::Unstructured;
use lockstep_core::change::Value;
use lockstep_pg::copy_text::{Rows, fields};

/// Bytes as they are, in pieces; or values, printed as PostgreSQL prints them.
pub fn run(data: &[u8]) {
    let (how, rest) = split(data);
    if how == 0 {
        printed(rest);
    } else {
        in_pieces(rest, usize::from(how));
    }
}

fn in_pieces(bytes: &[u8], size: usize) {
    let (mut rows, mut read) = (Rows::default(), Vec::new());
    for piece in bytes.chunks(size) {
        let taken = rows.push(piece, |row| {
            read.push(row);
            Ok(())
        });
        if taken.is_err() {
            // Then so is the row by itself.
            assert!(bytes.split(|b| *b == b'\n').any(|line| fields(line).is_err()));
            return;
        }
    }
    assert_eq!(rows.finish().is_ok(), bytes.is_empty() || bytes.ends_with(b"\n"));
    let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    lines.pop();
    let whole: Vec<Vec<Value>> = lines.iter().map(|line| fields(line).unwrap()).collect();
    assert_eq!(read, whole);
    for (line, row) in lines.iter().zip(&whole) {
        assert_eq!(row.len(), 1 + line.iter().filter(|b| **b == b'\t').count());
    }
}

/// As `CopyAttributeOutText` does.
fn printed(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let Ok(values) = u.arbitrary::<Vec<Option<&str>>>() else { return };
    if values.is_empty() {
        return;
    }
    let mut line = String::new();
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            line.push('\t');
        }
        let Some(text) = value else {
            line.push_str("\\N");
            continue;
        };
        for c in text.chars() {
            match c {
                '\u{8}' => line.push_str("\\b"),
                '\u{c}' => line.push_str("\\f"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                '\u{b}' => line.push_str("\\v"),
                '\\' => line.push_str("\\\\"),
                other => line.push(other),
            }
        }
    }
    let expected: Vec<Value> =
        values.iter().map(|v| v.map_or(Value::Null, |text| Value::Text(text.into()))).collect();
    assert_eq!(fields(line.as_bytes()).unwrap(), expected);
}
