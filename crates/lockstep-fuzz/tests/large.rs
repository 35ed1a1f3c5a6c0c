//! A megabyte of the least convenient input to every reader: time grows with the length, not with its square.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_fuzz::target;
use std::time::{Duration, Instant};

const BYTES: usize = 1 << 20;

/// Generous for a slow machine without optimizations; squared, each of these takes minutes.
const MOST: Duration = Duration::from_secs(30);

fn repeated(head: &str, part: &str, tail: &str) -> Vec<u8> {
    [head, &part.repeat(BYTES / part.len()), tail].concat().into_bytes()
}

#[test]
fn time_is_linear() {
    let xids: Vec<String> = (10..120_000).map(|x| x.to_string()).collect();
    let snapshot = format!("10:120000:{}", xids.join(","));
    let length = u32::try_from(BYTES).unwrap().to_be_bytes();
    let message = |head: &[u8], tail: &[u8]| [head, &length, &vec![b'x'; BYTES], tail].concat();
    let shape = |columns: &str| {
        format!(
            "\u{1}[null,null,\"sync\",\"shape\",{{\"ref\":\"0\",\"shape\":\"s\",\"fingerprint\":\"f\",\
             \"key\":[\"id\"],\"columns\":[{columns}]}}]\n"
        )
    };
    let commit = "]}]\n[null,null,\"sync\",\"commit\",{\"lsn\":\"0/1\",\"cursor\":\"c\"}]";
    let rows = shape("{\"name\":\"id\"}") + "[null,null,\"sync\",\"rows\",{\"shape\":\"s\",\"put\":[[0]";
    let acks = "\u{1}[null,null,\"sync\",\"ack\",{\"mutations\":[{\"n\":\"1\"}".to_owned();
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("decoder", message(b"\0I\0\0\0\x01N\0\x01t", b"")),
        ("decoder", repeated("\0T\0\u{4}\0\0\0", "\0\0\0\u{1}", "")),
        ("wire", [&b"\x02d"[..], &(4 + (1u32 << 20)).to_be_bytes(), &vec![0; BYTES]].concat()),
        ("wire", repeated("\u{2}", "d\0\0\0\u{4}", "")),
        ("wire", repeated("\u{1}", "D\0\0\0\u{6}\0\0", "")),
        ("position", format!("\0{snapshot}").into_bytes()),
        ("position", format!("\u{1}1~1~1~1~1~0/0~{snapshot}~").into_bytes()),
        ("position", repeated("\u{1}1~1~1~1~1~0/0~1:1:~", ",00112233445566778899aabb.0011223344556677", "")),
        ("position", repeated("\u{1}", "~", "")),
        ("frames", repeated("[null,null,\"sync\",\"mutate\",{\"mutations\":[0", ",{}", "]}]")),
        ("frames", repeated("[null,null,\"sync\",\"unsubscribe\",{\"refs\":[\"\"", ",\"a\"", "]}]")),
        ("frames", repeated("", "[", "")),
        (
            "frames",
            repeated(
                "[null,null,\"sync\",\"subscribe\",{\"shapes\":[{\"ref\":\"a\",\"table\":\"t\",\"columns\":[\"id\"",
                ",\"id\"",
                "]}]}]",
            ),
        ),
        ("replica", repeated(&rows, ",[1]", commit)),
        ("replica", repeated(&acks, ",{\"n\":\"1\"}", commit)),
        ("url", repeated("postgres://u:p@h", ",h", "/d")),
        ("url", repeated("postgres://u:", "%41", "@h/d")),
        ("url", repeated("host=h", " user=u", "")),
        ("url", repeated("host='", "\\'", "'")),
        ("predicate", repeated("\0id = 1", " or id = 1", "")),
        ("predicate", b"\0".iter().chain("(".repeat(16_000).as_bytes()).copied().collect()),
        ("predicate", format!("\0{}done", "not ".repeat(4_000)).into_bytes()),
        ("predicate", format!("\0id{}", " = id".repeat(3_000)).into_bytes()),
        ("predicate", format!("\0id = {}1", "-".repeat(16_000)).into_bytes()),
        (
            "predicate",
            format!("\0body like '{}'\u{1}1\u{1}{}", "%a_".repeat(5_000), "ab".repeat(BYTES / 2))
                .into_bytes(),
        ),
    ];
    for (number, (name, input)) in inputs.iter().enumerate() {
        let begun = Instant::now();
        (target(name).unwrap().run)(input);
        let took = begun.elapsed();
        println!("{name} {number}: {took:?}");
        assert!(took < MOST, "{name}, input {number}: {took:?}");
    }
}
