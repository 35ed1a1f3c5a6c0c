//! Messages of the replication stream, made from bytes, and what they should be read as.

use crate::sample;
use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use lockstep_core::change::{Relation, RelationColumn, Tuple, Value};
use lockstep_core::pgoutput::Message;
use lockstep_core::position::Lsn;
use pg_walstream::{
    ColumnData, ColumnInfo, LogicalReplicationMessage as Theirs, LogicalReplicationParser, TupleData,
    encode_message_to_bytes,
};

/// What the independent parser says the bytes are, in our words; None if they are no message that we ask for.
pub fn second_opinion(bytes: &[u8]) -> Option<Message> {
    let parsed = LogicalReplicationParser::with_protocol_version(1).parse_wal_message(bytes).ok()?.message;
    // It does not mind bytes left over; the way back shows them.
    if encode(&parsed).len() != bytes.len() {
        return None;
    }
    ours(parsed)
}

/// As PostgreSQL would send it.
pub fn encode(message: &Theirs) -> Bytes {
    encode_message_to_bytes(message, 1).freeze()
}

/// The same message in our words; None for kinds, markers and binary values that are not asked for.
pub fn ours(message: Theirs) -> Option<Message> {
    Some(match message {
        Theirs::Begin { final_lsn, xid, .. } => Message::Begin { final_lsn: Lsn(final_lsn), xid },
        Theirs::Commit { commit_lsn, end_lsn, .. } => {
            Message::Commit { commit_lsn: Lsn(commit_lsn), end_lsn: Lsn(end_lsn) }
        }
        Theirs::Relation { relation_id, namespace, relation_name, replica_identity, columns } => {
            let column = |c: &ColumnInfo| RelationColumn {
                key: c.is_key(),
                name: c.name.to_string(),
                type_oid: c.type_id,
                type_mod: c.type_modifier,
            };
            Message::Relation(Relation {
                oid: relation_id,
                schema: if namespace.is_empty() { "pg_catalog".into() } else { namespace.to_string() },
                name: relation_name.to_string(),
                identity: replica_identity,
                columns: columns.iter().map(column).collect(),
            })
        }
        Theirs::Insert { relation_id, tuple } => {
            Message::Insert { relation: relation_id, new: our_tuple(&tuple)? }
        }
        Theirs::Update { relation_id, old_tuple, new_tuple, key_type } => {
            let old = match (old_tuple, key_type) {
                (Some(old), Some(kind)) => Some((our_tuple(&old)?, kind == 'O')),
                _ => None,
            };
            Message::Update { relation: relation_id, old, new: our_tuple(&new_tuple)? }
        }
        Theirs::Delete { relation_id, old_tuple, key_type: kind @ ('K' | 'O') } => {
            Message::Delete { relation: relation_id, old: our_tuple(&old_tuple)?, full: kind == 'O' }
        }
        Theirs::Truncate { relation_ids, .. } => Message::Truncate { relations: relation_ids },
        Theirs::Type { .. } => Message::Type,
        Theirs::Origin { .. } => Message::Origin,
        Theirs::Message { flags, prefix, .. } => Message::Logical { prefix, transactional: flags & 1 == 1 },
        _ => return None,
    })
}

fn our_tuple(tuple: &TupleData) -> Option<Tuple> {
    let value = |column: &ColumnData| match column.data_type {
        b'n' => Some(Value::Null),
        b'u' => Some(Value::Unchanged),
        b't' => Some(Value::Text(std::str::from_utf8(column.as_bytes()).ok()?.into())),
        _ => None,
    };
    tuple.columns.iter().map(value).collect()
}

/// Any message of protocol version 1.
pub fn any(u: &mut Unstructured<'_>) -> Result<Theirs> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Theirs::Begin { final_lsn: u.arbitrary()?, timestamp: u.arbitrary()?, xid: u.arbitrary()? },
        1 => Theirs::Commit {
            flags: u.arbitrary()?,
            commit_lsn: u.arbitrary()?,
            end_lsn: u.arbitrary()?,
            timestamp: u.arbitrary()?,
        },
        2 => {
            let width = u.int_in_range(0..=20)?;
            Theirs::Relation {
                relation_id: u.arbitrary()?,
                namespace: name(u)?.into(),
                relation_name: name(u)?.into(),
                replica_identity: *u.choose(b"dnfi")?,
                columns: (0..width)
                    .map(|_| Ok(ColumnInfo::new(u.arbitrary()?, name(u)?, u.arbitrary()?, u.arbitrary()?)))
                    .collect::<Result<_>>()?,
            }
        }
        kind @ 3..=5 => {
            let (relation, width) = (u.arbitrary()?, u.int_in_range(0..=20)?);
            row(u, kind, relation, width)?
        }
        6 => Theirs::Truncate { relation_ids: u.arbitrary()?, flags: u.arbitrary()? },
        7 => Theirs::Type { type_id: u.arbitrary()?, namespace: name(u)?, type_name: name(u)? },
        8 => Theirs::Origin { origin_lsn: u.arbitrary()?, origin_name: name(u)? },
        _ => Theirs::Message {
            flags: u.arbitrary()?,
            lsn: u.arbitrary()?,
            prefix: name(u)?,
            content: Bytes::from(u.arbitrary::<Vec<u8>>()?),
        },
    })
}

/// A message of a stream of the sample's relations: mostly one that fits.
pub fn likely(u: &mut Unstructured<'_>) -> Result<Theirs> {
    let relation = u.int_in_range(sample::TABLE..=sample::CLIENTS + 1)?;
    let width = match relation {
        sample::TABLE => sample::COLUMNS.len(),
        sample::TOMBSTONES => 5,
        sample::CLIENTS => 7,
        _ => 1,
    };
    Ok(match u.int_in_range(0..=15)? {
        0 => any(u)?,
        1 => Theirs::Begin {
            final_lsn: u64::from(u.arbitrary::<u8>()? & 1),
            timestamp: 0,
            xid: u.arbitrary()?,
        },
        2 => Theirs::Commit {
            flags: 0,
            commit_lsn: u64::from(u.arbitrary::<u8>()? & 1),
            end_lsn: 9,
            timestamp: 0,
        },
        3 | 4 => Theirs::Relation {
            relation_id: relation,
            namespace: "public".into(),
            relation_name: "t".into(),
            replica_identity: b'd',
            columns: (0..width)
                .map(|i| sample::COLUMNS.get(i).unwrap_or(&("more", 25)))
                .map(|(name, oid)| ColumnInfo::new(u8::from(*name == "id"), (*name).into(), *oid, -1))
                .collect(),
        },
        5 => Theirs::Truncate { relation_ids: vec![relation], flags: 0 },
        kind => row(u, 3 + kind % 3, relation, width)?,
    })
}

fn row(u: &mut Unstructured<'_>, kind: usize, relation_id: u32, width: usize) -> Result<Theirs> {
    Ok(match kind {
        3 => Theirs::Insert { relation_id, tuple: tuple(u, width)? },
        4 => {
            let key_type = *u.choose(&[None, Some('K'), Some('O')])?;
            let old_tuple = key_type.map(|_| tuple(u, width)).transpose()?;
            Theirs::Update { relation_id, old_tuple, new_tuple: tuple(u, width)?, key_type }
        }
        _ => Theirs::Delete { relation_id, old_tuple: tuple(u, width)?, key_type: *u.choose(&['K', 'O'])? },
    })
}

fn tuple(u: &mut Unstructured<'_>, width: usize) -> Result<TupleData> {
    let column = |u: &mut Unstructured<'_>| {
        Ok(match u.int_in_range(0..=7)? {
            0 => ColumnData::null(),
            1 => ColumnData::unchanged(),
            2 => ColumnData::text(u.arbitrary()?),
            3 => ColumnData::text(u.arbitrary::<&str>()?.into()),
            // Few keys, so that rows meet.
            _ => ColumnData::text(u.int_in_range(0..=3)?.to_string().into()),
        })
    };
    Ok(TupleData::new((0..width).map(|_| column(u)).collect::<Result<_>>()?))
}

fn name(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(u.arbitrary::<&str>()?.replace('\0', ""))
}
