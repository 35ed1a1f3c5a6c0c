//! pgoutput as a walsender writes it (PostgreSQL manual, 55.4 and 55.9), each message in its CopyData header.

use crate::schema::{CLIENTS_OID, Row, Schema};
use bytes::Bytes;
use lockstep_core::catalog::Oid;

/// One column of a tuple as sent.
pub enum Sent<'a> {
    /// `n`.
    Null,
    /// `u`.
    Unchanged,
    /// `t`.
    Text(&'a str),
}

fn data() -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.push(b'w');
    out.extend([0; 24]);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.as_bytes());
    out.push(0);
}

fn count16(out: &mut Vec<u8>, n: usize) {
    out.extend(u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes());
}

fn tuple(out: &mut Vec<u8>, values: &[Sent<'_>]) {
    count16(out, values.len());
    for value in values {
        match value {
            Sent::Null => out.push(b'n'),
            Sent::Unchanged => out.push(b'u'),
            Sent::Text(t) => {
                out.push(b't');
                out.extend(u32::try_from(t.len()).unwrap_or(0).to_be_bytes());
                out.extend(t.as_bytes());
            }
        }
    }
}

/// A whole row.
pub fn whole(row: &Row) -> Vec<Sent<'_>> {
    row.iter().map(|v| v.as_deref().map_or(Sent::Null, Sent::Text)).collect()
}

/// Begin: start of the commit record, and the low half of the xid.
pub fn begin(commit_lsn: u64, xid: u64) -> Bytes {
    let mut out = data();
    out.push(b'B');
    out.extend(commit_lsn.to_be_bytes());
    out.extend(0u64.to_be_bytes());
    out.extend((xid as u32).to_be_bytes());
    out.into()
}

/// Commit: start and end of the commit record.
pub fn commit(commit_lsn: u64, end_lsn: u64) -> Bytes {
    let mut out = data();
    out.extend([b'C', 0]);
    out.extend(commit_lsn.to_be_bytes());
    out.extend(end_lsn.to_be_bytes());
    out.extend(0u64.to_be_bytes());
    out.into()
}

/// Insert.
pub fn insert(oid: Oid, new: &[Sent<'_>]) -> Bytes {
    let mut out = data();
    out.push(b'I');
    out.extend(oid.to_be_bytes());
    out.push(b'N');
    tuple(&mut out, new);
    out.into()
}

/// Update, with the old key if it changed.
pub fn update(oid: Oid, old_key: Option<&[Sent<'_>]>, new: &[Sent<'_>]) -> Bytes {
    let mut out = data();
    out.push(b'U');
    out.extend(oid.to_be_bytes());
    if let Some(old) = old_key {
        out.push(b'K');
        tuple(&mut out, old);
    }
    out.push(b'N');
    tuple(&mut out, new);
    out.into()
}

/// Delete, by key.
pub fn delete(oid: Oid, key: &[Sent<'_>]) -> Bytes {
    let mut out = data();
    out.push(b'D');
    out.extend(oid.to_be_bytes());
    out.push(b'K');
    tuple(&mut out, key);
    out.into()
}

/// Truncate of the relations of one statement.
pub fn truncate(relations: &[Oid]) -> Bytes {
    let mut out = data();
    out.push(b'T');
    out.extend(u32::try_from(relations.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.push(0);
    out.extend(relations.iter().flat_map(|oid| oid.to_be_bytes()));
    out.into()
}

/// A keepalive.
pub fn keepalive(wal_end: u64, reply: bool) -> Bytes {
    let mut out = vec![b'k'];
    out.extend(wal_end.to_be_bytes());
    out.extend(0u64.to_be_bytes());
    out.push(u8::from(reply));
    out.into()
}

/// Relation: sent in a stream before the first row of it.
pub fn relation(schema: &Schema, oid: Oid) -> Bytes {
    let (int8, text_oid, char_oid) = (20, 25, 18);
    let mut columns: Vec<(bool, String, Oid)> = Vec::new();
    let (mut namespace, mut name) = ("public".to_owned(), String::new());
    for table in schema.tables.iter().map(|t| &t.table) {
        if table.oid == oid {
            name.clone_from(&table.name);
            let key = |i: usize| table.key.contains(&i);
            columns =
                table.columns.iter().enumerate().map(|(i, c)| (key(i), c.name.clone(), c.type_oid)).collect();
        } else if table.tombstones == oid {
            namespace = "lockstep".into();
            name = format!("tombstones_{}", table.log);
            columns.push((true, "id".into(), int8));
            let logged = (1..).zip(&table.scope_columns).map(|(n, c)| (format!("s{n}"), *c));
            let logged = logged.chain((1..).zip(&table.key).map(|(n, c)| (format!("k{n}"), *c)));
            columns.extend(logged.map(|(name, c)| (false, name, table.columns[c].type_oid)));
            columns.push((false, "xid".into(), int8));
            columns.push((false, "kind".into(), char_oid));
        }
    }
    if oid == CLIENTS_OID {
        (namespace, name) = ("lockstep".into(), "clients".into());
        let text_columns = ["id", "outcome", "code", "message"];
        columns.push((true, "subject".into(), text_oid));
        columns.push((true, "client".into(), text_oid));
        columns.push((false, "last".into(), int8));
        columns.extend(text_columns.map(|name| (false, name.to_owned(), text_oid)));
        columns.push((false, "seen_at".into(), 1184));
    }
    let mut out = data();
    out.push(b'R');
    out.extend(oid.to_be_bytes());
    text(&mut out, &namespace);
    text(&mut out, &name);
    out.push(b'd');
    count16(&mut out, columns.len());
    for (key, name, type_oid) in columns {
        out.push(u8::from(key));
        text(&mut out, &name);
        out.extend(type_oid.to_be_bytes());
        out.extend((-1i32).to_be_bytes());
    }
    out.into()
}
