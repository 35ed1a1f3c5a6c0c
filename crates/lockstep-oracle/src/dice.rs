//! Seeded randomness. Each part of a run has a stream of its own, so that one part's choices do not shift another's.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// A stream of choices.
#[derive(Debug, Clone)]
pub struct Dice(StdRng);

impl Dice {
    /// The stream of this name under this seed.
    pub fn new(seed: u64, stream: &str) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        for (i, byte) in stream.bytes().enumerate() {
            let at = 8 + i % 24;
            bytes[at] = bytes[at].wrapping_mul(31).wrapping_add(byte);
        }
        Self(StdRng::from_seed(bytes))
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// A number from `low` up to and including `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// True in this many of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// In another order.
    pub fn shuffle<T>(&mut self, of: &mut [T]) {
        of.shuffle(&mut self.0);
    }

    /// A random UUID.
    pub fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.0.random()).into_uuid().to_string()
    }
}
