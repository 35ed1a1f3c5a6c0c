//! The targets' promises on random inputs, without coverage to guide them: a short form of `cargo x fuzz`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_core::pgoutput::decode;
use lockstep_fuzz::{messages, target};
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn the_decoder_agrees_with_an_independent_parser(seed in bytes(), at: u16, byte: u8) {
        let mut u = arbitrary::Unstructured::new(&seed);
        while !u.is_empty() && let Ok(message) = messages::any(&mut u) {
            let mut encoded = messages::encode(&message).to_vec();
            prop_assert_eq!(decode(&encoded).ok(), messages::ours(message));
            let at = usize::from(at) % encoded.len();
            encoded[at] = byte;
            prop_assert_eq!(decode(&encoded).ok(), messages::second_opinion(&encoded));
            encoded.truncate(at);
            prop_assert_eq!(decode(&encoded).ok(), messages::second_opinion(&encoded));
        }
    }

    #[test]
    fn streams_are_assembled(seed in bytes()) {
        let data = [&[3], &seed[..]].concat();
        (target("decoder").unwrap().run)(&data);
    }

    #[test]
    fn what_a_node_writes_a_client_reads(seed in bytes()) {
        let data = [&[0], &seed[..]].concat();
        (target("replica").unwrap().run)(&data);
    }

    #[test]
    fn snapshots_fold_as_sets_do(seed in bytes()) {
        let data = [&[5], &seed[..]].concat();
        (target("position").unwrap().run)(&data);
    }

    #[test]
    fn pieces_do_not_matter_to_the_wire(seed in bytes(), how: u8) {
        let data = [&[how], &seed[..]].concat();
        (target("wire").unwrap().run)(&data);
    }
}
