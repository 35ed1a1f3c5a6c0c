//! The replication stream's messages: an independent parser says the same, and assembling them never panics.

use crate::messages::{any, encode, likely, ours, second_opinion};
use crate::{sample, split};
use arbitrary::Unstructured;
use lockstep_core::change::{Assembler, Delivered, Final};
use lockstep_core::pgoutput::{Message, StreamFrame, decode};
use pg_walstream::parse_keepalive_message;

/// Bytes as they are; a frame; a message made from the bytes; a stream of messages.
pub fn run(data: &[u8]) {
    let (how, rest) = split(data);
    match how % 4 {
        0 => agree(rest),
        1 => frame(rest),
        2 => made(rest),
        _ => assembled(rest),
    }
}

/// Ours is exact: it reads what the other reads, to the last byte, and nothing else.
fn agree(bytes: &[u8]) {
    let decoded = decode(bytes);
    assert_eq!(decoded.as_ref().ok(), second_opinion(bytes).as_ref(), "ours: {decoded:?}; bytes: {bytes:?}");
}

fn frame(bytes: &[u8]) {
    match StreamFrame::parse(bytes) {
        Ok(StreamFrame::Data(message)) => {
            assert_eq!((bytes[0], &bytes[25..]), (b'w', message));
            agree(message);
        }
        Ok(StreamFrame::Keepalive { wal_end, reply }) => {
            let theirs = parse_keepalive_message(bytes).unwrap();
            assert_eq!((wal_end.0, reply), (theirs.wal_end, theirs.reply_requested));
            assert_eq!((bytes[0], bytes.len()), (b'k', 18));
        }
        Err(_) => {
            assert!(bytes.len() < 25 || bytes[0] != b'w', "a data frame was refused");
            assert!(bytes.len() != 18 || bytes[0] != b'k', "a keepalive was refused");
        }
    }
}

/// A whole message is read as what it was written from; cut short or changed, as the other parser says.
fn made(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let Ok(message) = any(&mut u) else { return };
    let mut encoded = encode(&message).to_vec();
    assert_eq!(decode(&encoded).ok(), ours(message), "{encoded:?}");
    let at = u.arbitrary::<u16>().unwrap_or(0) as usize % encoded.len();
    agree(&encoded[..at]);
    encoded[at] = u.arbitrary().unwrap_or(0);
    agree(&encoded);
}

/// A transaction that is delivered holds the operations since its Begin, and its net effect fits its tables.
fn assembled(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let (catalog, mut assembler, mut operations) = (sample::catalog(), Assembler::default(), 0);
    for _ in 0..60 {
        // An empty source goes on for ever, with zeros.
        let message = if u.is_empty() { return } else { likely(&mut u) };
        let Ok(message) = message else { return };
        let Ok(message) = decode(&encode(&message)) else { return };
        let kind = message.clone();
        match assembler.handle(message, 800, &catalog) {
            Ok(Some(delivered)) => {
                assert!(!assembler.in_transaction());
                fits(&delivered, operations);
            }
            Ok(None) => {
                operations = match kind {
                    Message::Begin { .. } => 0,
                    Message::Truncate { relations } => operations + relations.len(),
                    Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. } => {
                        operations + 1
                    }
                    _ => operations,
                };
            }
            // The node starts a new stream.
            Err(_) => (assembler, operations) = (Assembler::default(), 0),
        }
    }
}

fn fits(delivered: &Delivered, operations: usize) {
    let changes = delivered.transaction.changes.as_ref().unwrap();
    assert_eq!(changes.len(), operations);
    assert!(changes.iter().enumerate().all(|(i, c)| c.index as usize == i));
    for net in delivered.net.as_ref().unwrap().tables.values() {
        for (key, end, _) in net.ends() {
            if let Final::Row(row) = end {
                assert_eq!((row.len(), row[0].text()), (sample::COLUMNS.len(), Some(&*key[0])));
            }
        }
    }
}
