//! Large frames, deflated once for all sockets that asked for it (docs/protocol.md, Deflated frames).

use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use lockstep_core::limits;
use lockstep_core::protocol::Frame;
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, OnceLock};

/// What a frame of rows begins with; its payload goes up to the last byte.
const ROWS: &[u8] = br#"[null,null,"sync","rows","#;
/// Phoenix' binary form of a broadcast: kind, lengths of topic and event, both texts, then the payload.
const HEADER: &[u8] = b"\x02\x04\x04syncrows";

/// A frame that may leave deflated. The first socket that sends it does the work, on its own thread of the runtime; the
/// others take what it made.
#[derive(Debug)]
pub struct Packed {
    frame: Frame,
    deflated: OnceLock<Option<Bytes>>,
}

impl Packed {
    /// The binary message; None if it would not be smaller.
    pub fn message(&self) -> Option<Bytes> {
        self.deflated.get_or_init(|| deflate(&self.frame)).clone()
    }
}

fn deflate(frame: &Frame) -> Option<Bytes> {
    let payload = frame.strip_prefix(ROWS)?.strip_suffix(b"]")?;
    let mut out = HEADER.to_vec();
    let mut encoder = ZlibEncoder::new(&mut out, Compression::fast());
    // Writing to a Vec does not fail.
    encoder.write_all(payload).ok()?;
    encoder.finish().ok()?;
    (out.len() < frame.len()).then(|| out.into())
}

/// Finds the same frame again while it is handed to many.
#[derive(Debug, Default)]
pub struct Packer(HashMap<(usize, usize), Arc<Packed>>);

impl Packer {
    /// The frame, if it is one that may be deflated. Told apart by where it lies: what is kept here keeps it there.
    pub fn pack(&mut self, frame: &Frame) -> Option<Arc<Packed>> {
        if frame.len() < limits::DEFLATE_FROM_BYTES || !frame.starts_with(ROWS) {
            return None;
        }
        let packed = || Arc::new(Packed { frame: frame.clone(), deflated: OnceLock::new() });
        Some(self.0.entry((frame.as_ptr() as usize, frame.len())).or_insert_with(packed).clone())
    }

    /// Everybody has what was handed out.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame {
        format!(r#"[null,null,"sync","rows",{{"shape":"s","put":[["{text}"]]}}]"#).into()
    }

    #[test]
    fn a_frame_is_deflated_once_and_only_if_that_helps() {
        let mut packer = Packer::default();
        let long = frame(&"abc".repeat(2_000));
        let (first, second) = (packer.pack(&long).unwrap(), packer.pack(&long.clone()).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        let message = first.message().unwrap();
        assert!(message.starts_with(HEADER) && message.len() < 200, "{}", message.len());
        assert_eq!(message.as_ptr(), second.message().unwrap().as_ptr());
        assert!(packer.pack(&frame("short")).is_none());
        let other: Frame = format!(r#"[null,null,"sync","ack",{{"x":"{}"}}]"#, "a".repeat(5_000)).into();
        assert!(packer.pack(&other).is_none());
        let mut noise = 1_u64;
        let mut random = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from_u32(0x4e00 + ((noise >> 33) % 20_000) as u32).unwrap()
        };
        let text: String = (0..2_000).map(|_| random()).collect();
        let deflated = packer.pack(&frame(&text)).unwrap().message();
        assert!(deflated.is_none_or(|d| d.len() < frame(&text).len()), "never larger than it was");
    }
}
