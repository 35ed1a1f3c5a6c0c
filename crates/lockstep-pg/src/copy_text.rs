//! COPY's text format, as PostgreSQL sends it (manual, COPY, File Formats).

use crate::error::PgError;
use lockstep_core::change::Value;

/// Puts rows together from the pieces in which they come.
#[derive(Debug, Default)]
pub struct Rows {
    carried: Vec<u8>,
}

impl Rows {
    /// Takes a piece; `each` gets every row that it completes.
    pub fn push(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(Vec<Value>) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        // What is carried ends no row: it is not searched again with every piece.
        let (mut start, mut unsearched) = (0, self.carried.len());
        self.carried.extend_from_slice(piece);
        while let Some(at) = self.carried[unsearched..].iter().position(|b| *b == b'\n') {
            let end = unsearched + at;
            each(fields(&self.carried[start..end])?)?;
            (start, unsearched) = (end + 1, end + 1);
        }
        self.carried.drain(..start);
        Ok(())
    }

    /// Nothing more comes.
    pub fn finish(self) -> Result<(), PgError> {
        if self.carried.is_empty() { Ok(()) } else { Err(PgError::Protocol("a row cut short")) }
    }
}

/// The fields of one line, without its end.
pub fn fields(line: &[u8]) -> Result<Vec<Value>, PgError> {
    line.split(|b| *b == b'\t').map(field).collect()
}

fn field(raw: &[u8]) -> Result<Value, PgError> {
    if raw == b"\\N" {
        return Ok(Value::Null);
    }
    let utf8 = |bytes: &[u8]| -> Result<Value, PgError> {
        let text = std::str::from_utf8(bytes).map_err(|_| PgError::Protocol("text that is not UTF-8"))?;
        Ok(Value::Text(text.into()))
    };
    if !raw.contains(&b'\\') {
        return utf8(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(if byte != b'\\' {
            byte
        } else {
            match bytes.next() {
                Some(b'b') => 8,
                Some(b'f') => 12,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 11,
                Some(other) => other,
                None => return Err(PgError::Protocol("a lone backslash in COPY")),
            }
        });
    }
    utf8(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_copy_text() {
        let line = b"a\\tb\t\\N\t\t\\\\N\t\xc3\xa9\\n";
        let text = |t: &str| Value::Text(t.into());
        let expected = [text("a\tb"), Value::Null, text(""), text("\\N"), text("é\n")];
        assert_eq!(fields(line).unwrap(), expected);
        assert!(fields(b"a\\").is_err());
        assert!(fields(b"\xff").is_err());
    }
}
