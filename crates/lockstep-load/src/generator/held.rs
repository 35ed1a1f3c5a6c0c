//! What one client holds: the keys of its rows and a hash of each row's text.

use crate::join::retry_in;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

/// A row: its key, and a hash of its JSON.
pub type Row = (i64, u64);

/// A frame of the node, understood as far as a client needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A shape of this number has this name from here on.
    Shape(usize, String, String),
    /// Changes of a shape, by its name.
    Rows(String, Change),
    /// The batch is complete: transaction and cursor.
    Commit(Option<u64>, String),
    /// The join was answered, or a heartbeat.
    Reply,
    /// The join is to be sent again after that time.
    Later(Duration),
    /// Nothing of interest.
    Other,
}

/// What a `rows` frame does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    reset: bool,
    remove: Vec<i64>,
    put: Vec<Row>,
}

#[derive(Deserialize)]
struct RowsPayload<'a> {
    shape: String,
    reset: Option<String>,
    #[serde(borrow, default)]
    remove: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    put: Vec<&'a RawValue>,
    #[serde(borrow)]
    patch: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ShapePayload {
    r#ref: String,
    shape: String,
    fingerprint: String,
}

#[derive(Deserialize)]
struct CommitPayload {
    xid: Option<String>,
    cursor: String,
}

#[derive(Deserialize)]
struct ReplyPayload<'a> {
    status: String,
    #[serde(borrow)]
    response: &'a RawValue,
}

/// The key of a row `[7,…]` or a key `[7]`, which is an integer and comes first.
fn key(text: &str) -> Result<i64> {
    let digits = text.trim_start_matches('[');
    let end = digits.find([',', ']']).unwrap_or(digits.len());
    digits[..end].parse().context("a key is not an integer")
}

/// Key and hash of a row's JSON.
pub fn row(text: &str) -> Result<Row> {
    let mut hash = DefaultHasher::new();
    hash.write(text.as_bytes());
    Ok((key(text)?, hash.finish()))
}

impl Said {
    /// Reads one text frame.
    pub fn parse(text: &str) -> Result<Self> {
        type Raw<'a> = (Option<&'a str>, Option<&'a str>, &'a str, &'a str, &'a RawValue);
        let (_, _, _, event, payload): Raw<'_> = serde_json::from_str(text)?;
        let payload = payload.get();
        Ok(match event {
            "rows" => {
                let rows: RowsPayload<'_> = serde_json::from_str(payload)?;
                ensure!(rows.patch.is_none(), "rows of these benches have no large values");
                let remove = rows.remove.iter().map(|k| key(k.get())).collect::<Result<_>>()?;
                let put = rows.put.iter().map(|r| row(r.get())).collect::<Result<_>>()?;
                Self::Rows(rows.shape, Change { reset: rows.reset.is_some(), remove, put })
            }
            "commit" => {
                let commit: CommitPayload = serde_json::from_str(payload)?;
                Self::Commit(commit.xid.and_then(|x| x.parse().ok()), commit.cursor)
            }
            "shape" => {
                let shape: ShapePayload = serde_json::from_str(payload)?;
                Self::Shape(shape.r#ref.parse()?, shape.shape, shape.fingerprint)
            }
            "phx_reply" => {
                let reply: ReplyPayload<'_> = serde_json::from_str(payload)?;
                let response = reply.response.get();
                if let Some(wait) = retry_in(text.as_bytes()) {
                    return Ok(Self::Later(wait));
                }
                ensure!(reply.status == "ok" && !response.contains("\"error\""), "refused: {response}");
                Self::Reply
            }
            "withdraw" => bail!("the node withdrew a shape"),
            _ => Self::Other,
        })
    }
}

/// One shape of a client.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Its scope, if it has one.
    pub scope: Option<i64>,
    pub(super) name: String,
    /// Of the rows held.
    pub fingerprint: String,
    pub(super) rows: Vec<Row>,
}

/// All of a client's shapes, and what arrived since the last commit.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// By number.
    pub shapes: Vec<Shape>,
    pub(super) pending: Vec<(usize, Change)>,
    /// A commit came on this connection.
    pub established: bool,
    /// The last commit's, kept by clients that leave and come back.
    pub cursor: Option<String>,
}

impl Held {
    /// Takes what a frame says. Nothing is visible before its commit, which returns its transaction.
    pub fn hear(&mut self, said: &Said, keep_cursor: bool) -> Result<Option<Option<u64>>> {
        match said {
            Said::Shape(number, name, fingerprint) => {
                let shape = self.shapes.get_mut(*number).context("a shape that nobody asked for")?;
                shape.name.clone_from(name);
                shape.fingerprint.clone_from(fingerprint);
            }
            Said::Rows(name, change) => {
                let at = self.shapes.iter().position(|s| s.name == *name).context("rows of no shape")?;
                self.pending.push((at, change.clone()));
            }
            Said::Commit(xid, cursor) => {
                for (at, change) in std::mem::take(&mut self.pending) {
                    self.shapes[at].apply(&change);
                }
                self.established = true;
                if keep_cursor {
                    self.cursor = Some(cursor.clone());
                }
                return Ok(Some(*xid));
            }
            Said::Reply | Said::Later(_) | Said::Other => {}
        }
        Ok(None)
    }

    /// The connection is gone, and with it what was not committed.
    pub fn disconnected(&mut self) {
        self.pending = Vec::new();
        self.established = false;
    }

    /// Whether nothing but committed rows is here, and exactly these, by scope.
    pub fn equals<'a>(&self, expected: impl Fn(Option<i64>) -> &'a [Row]) -> bool {
        self.established
            && self.pending.is_empty()
            && self.shapes.iter().all(|shape| shape.rows == expected(shape.scope))
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.shapes.iter().map(|s| s.rows.len()).sum()
    }
}

impl Shape {
    fn apply(&mut self, change: &Change) {
        if change.reset {
            self.rows.clear();
        }
        for key in &change.remove {
            if let Ok(at) = self.rows.binary_search_by_key(key, |r| r.0) {
                self.rows.remove(at);
            }
        }
        for row in &change.put {
            match self.rows.binary_search_by_key(&row.0, |r| r.0) {
                Ok(at) => self.rows[at] = *row,
                Err(at) => self.rows.insert(at, *row),
            }
        }
        self.rows.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn rows_count_when_they_are_committed() {
        let mut held = Held { shapes: vec![Shape { scope: Some(4), ..Shape::default() }], ..Held::default() };
        let hear = |held: &mut Held, text: &str| held.hear(&Said::parse(text).unwrap(), true).unwrap();
        let expected = [row(r#"[1,"a"]"#).unwrap(), row(r#"[2,"b"]"#).unwrap()];
        let mut texts = vec![r#"[null,null,"sync","shape",{"ref":"0","shape":"s","fingerprint":"f"}]"#];
        texts.push(
            r#"[null,null,"sync","rows",{"shape":"s","reset":"first","put":[[2,"b"],[1,"x"],[3,"c"]]}]"#,
        );
        texts.push(r#"[null,null,"sync","rows",{"shape":"s","remove":[[3]],"put":[[1,"a"]]}]"#);
        for text in texts {
            assert_eq!(hear(&mut held, text), None);
            assert!(!held.equals(|_| &expected));
        }
        let commit = r#"[null,null,"sync","commit",{"lsn":"0/1","xid":"9","cursor":"1~"}]"#;
        assert_eq!(hear(&mut held, commit), Some(Some(9)));
        assert!(held.equals(|scope| if scope == Some(4) { &expected } else { &[] }));
        assert!(!held.equals(|_| &expected[..1]), "a row too many");
        assert!(Said::parse(r#"["1","1","sync","phx_reply",{"status":"error","response":{}}]"#).is_err());
    }
}
