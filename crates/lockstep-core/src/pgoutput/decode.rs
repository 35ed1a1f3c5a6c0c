//! Bytes to messages.

use super::{DecodeError, Message, Reader};
use crate::change::{Relation, RelationColumn, Tuple, Value};
use crate::position::Lsn;

/// Decodes one message of protocol version 1, text format.
///
/// Never panics; anything that is not wholly understood is an error, and the caller reconnects.
pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let mut r = Reader::new(bytes);
    let message = match r.u8()? {
        b'B' => {
            let final_lsn = Lsn(r.u64()?);
            r.i64()?; // commit time
            Message::Begin { final_lsn, xid: r.u32()? }
        }
        b'C' => {
            r.u8()?; // flags, unused
            let commit_lsn = Lsn(r.u64()?);
            let end_lsn = Lsn(r.u64()?);
            r.i64()?;
            Message::Commit { commit_lsn, end_lsn }
        }
        b'R' => Message::Relation(relation(&mut r)?),
        b'I' => {
            let relation = r.u32()?;
            marker(&mut r, b'N')?;
            Message::Insert { relation, new: tuple(&mut r)? }
        }
        b'U' => update(&mut r)?,
        b'D' => {
            let relation = r.u32()?;
            let full = match r.u8()? {
                b'O' => true,
                b'K' => false,
                other => return Err(DecodeError::Unknown("old tuple", other)),
            };
            Message::Delete { relation, old: tuple(&mut r)?, full }
        }
        b'T' => {
            let count = r.u32()? as usize;
            r.u8()?; // cascade, restart identity
            let relations = (0..count).map(|_| r.u32()).collect::<Result<_, _>>()?;
            Message::Truncate { relations }
        }
        b'Y' => {
            r.u32()?;
            r.text()?;
            r.text()?;
            Message::Type
        }
        b'O' => {
            r.u64()?;
            r.text()?;
            Message::Origin
        }
        b'M' => {
            let transactional = r.u8()? & 1 == 1;
            r.u64()?;
            let prefix = r.text()?.to_owned();
            let length = r.u32()? as usize;
            r.take(length)?;
            Message::Logical { prefix, transactional }
        }
        other => return Err(DecodeError::Unknown("message", other)),
    };
    r.end()?;
    Ok(message)
}

fn marker(r: &mut Reader<'_>, wanted: u8) -> Result<(), DecodeError> {
    let found = r.u8()?;
    if found == wanted { Ok(()) } else { Err(DecodeError::Unknown("tuple", found)) }
}

fn relation(r: &mut Reader<'_>) -> Result<Relation, DecodeError> {
    let oid = r.u32()?;
    let schema = r.text()?;
    let schema = if schema.is_empty() { "pg_catalog" } else { schema }.to_owned();
    let name = r.text()?.to_owned();
    let identity = r.u8()?;
    let count = r.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let key = r.u8()? & 1 == 1;
        let name = r.text()?.to_owned();
        columns.push(RelationColumn { key, name, type_oid: r.u32()?, type_mod: r.i32()? });
    }
    Ok(Relation { oid, schema, name, identity, columns })
}

fn update(r: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let relation = r.u32()?;
    let old = match r.u8()? {
        b'N' => None,
        kind @ (b'K' | b'O') => {
            let old = tuple(r)?;
            marker(r, b'N')?;
            Some((old, kind == b'O'))
        }
        other => return Err(DecodeError::Unknown("tuple", other)),
    };
    Ok(Message::Update { relation, old, new: tuple(r)? })
}

fn tuple(r: &mut Reader<'_>) -> Result<Tuple, DecodeError> {
    let count = r.u16()? as usize;
    // A lying count must not allocate: each column takes at least one byte.
    if count > r.rest().len() {
        return Err(DecodeError::Short);
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(match r.u8()? {
            b'n' => Value::Null,
            b'u' => Value::Unchanged,
            b't' => {
                let length = usize::try_from(r.i32()?).map_err(|_| DecodeError::Length)?;
                let text = std::str::from_utf8(r.take(length)?).map_err(|_| DecodeError::Utf8)?;
                Value::Text(text.into())
            }
            other => return Err(DecodeError::Unknown("value", other)),
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_update_of_the_key_with_an_untouched_large_value() {
        let mut bytes = vec![b'U', 0, 0, 0, 9, b'K', 0, 2, b't', 0, 0, 0, 1, b'1', b'n', b'N', 0, 2];
        bytes.extend([b't', 0, 0, 0, 1, b'2', b'u']);
        let text = |s: &str| Value::Text(s.into());
        let old = Some((vec![text("1"), Value::Null], false));
        assert_eq!(
            decode(&bytes),
            Ok(Message::Update { relation: 9, old, new: vec![text("2"), Value::Unchanged] })
        );
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(DecodeError::Trailing));
        for end in 0..bytes.len() - 1 {
            assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in "[BCRIUDTYOM]") {
            let _ = decode(&bytes);
            let with_kind: Vec<u8> = kind.bytes().chain(bytes).collect();
            let _ = decode(&with_kind);
        }
    }
}
