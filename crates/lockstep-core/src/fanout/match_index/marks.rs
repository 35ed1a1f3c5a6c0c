//! Where in a hash table something may lie, told from one byte per room, so that hardly any miss reads a room.
//!
//! Eight rooms are a bucket and their bytes one word: 0 is free, 1 was left, the others are seven bits of a hash. What
//! finds its bucket full lies in the next that is not.

/// Rooms of a bucket.
const LANES: usize = 8;
/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte: the room is taken.
const TAKEN: u64 = ONES << 7;
/// A room that was left while its bucket was full: what is looked for may lie behind it.
const LEFT: u64 = 1;

/// The bytes of all rooms.
///
/// Invariant: whatever lies behind its own bucket passed only buckets without a free byte. So a byte is freed only in a
/// bucket that has another free one, which nothing ever passed.
#[derive(Debug, Default)]
pub(super) struct Marks {
    words: Vec<u64>,
    taken: usize,
    left: usize,
}

/// A hash, and the word of its bucket, already read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    /// What is looked for.
    pub hash: u64,
    bucket: usize,
    word: u64,
}

/// Those bytes' highest bits that equal `byte`. What is taken and lies above one that does may be named wrongly.
fn equal(word: u64, byte: u64) -> u64 {
    let differs = word ^ (ONES * byte);
    differs.wrapping_sub(ONES) & !differs & TAKEN
}

fn mark(hash: u64) -> u64 {
    hash & 0x7f | 0x80
}

fn has_free(word: u64) -> bool {
    equal(word, 0) != 0
}

fn room(bucket: usize, bits: u64) -> usize {
    bucket * LANES + bits.trailing_zeros() as usize / LANES
}

impl Marks {
    /// As many rooms as a table for `taken` has that is to grow by half before it is full.
    pub fn for_taken(taken: usize) -> Self {
        let buckets = (taken + taken / 2).div_ceil(LANES * 7 / 8).max(2);
        Self { words: vec![0; buckets], taken: 0, left: 0 }
    }

    /// Rooms, taken or not.
    pub fn rooms(&self) -> usize {
        self.words.len() * LANES
    }

    /// Rooms that are taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Whether another room may be taken: an eighth stays free, so that looking for something comes to an end.
    pub fn has_room(&self) -> bool {
        (self.taken + self.left + 1) * 8 <= self.rooms() * 7
    }

    /// The upper bits say where, in the order of the hashes: a larger table is filled from front to back.
    #[allow(clippy::cast_possible_truncation, reason = "below the number of buckets")]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.words.len() as u128) >> 64) as usize
    }

    /// Reads what says where a hash may be.
    pub fn probe(&self, hash: u64) -> Probe {
        let bucket = self.home(hash);
        Probe { hash, bucket, word: self.words.get(bucket).copied().unwrap_or_default() }
    }

    /// The first room in its own bucket that a probe may be in; the very first if there is none. Without a branch: one
    /// that is foretold wrongly would wait for its own word before the next is asked for.
    pub fn likely(probe: Probe) -> usize {
        let bits = equal(probe.word, mark(probe.hash));
        room(probe.bucket, bits) & usize::from(bits != 0).wrapping_neg()
    }

    /// The first room for which `is` says so, of those where the probe may be.
    pub fn find(&self, probe: Probe, mut is: impl FnMut(usize) -> bool) -> Option<usize> {
        let Probe { hash, mut bucket, mut word } = probe;
        loop {
            let mut bits = equal(word, mark(hash));
            while bits != 0 {
                let room = room(bucket, bits);
                if is(room) {
                    return Some(room);
                }
                bits &= bits - 1;
            }
            if has_free(word) {
                return None;
            }
            bucket = if bucket + 1 < self.words.len() { bucket + 1 } else { 0 };
            word = self.words[bucket];
        }
    }

    /// Takes a room. Contract: there is one.
    pub fn take(&mut self, hash: u64) -> usize {
        let mut bucket = self.home(hash);
        loop {
            let open = !self.words[bucket] & TAKEN;
            if open != 0 {
                let room = room(bucket, open);
                let shift = room % LANES * 8;
                self.left -= usize::from(self.words[bucket] >> shift & 0xff == LEFT);
                self.words[bucket] &= !(0xff << shift);
                self.words[bucket] |= mark(hash) << shift;
                self.taken += 1;
                return room;
            }
            bucket = if bucket + 1 < self.words.len() { bucket + 1 } else { 0 };
        }
    }

    /// Leaves a room that is taken.
    pub fn leave(&mut self, room: usize) {
        let (word, shift) = (&mut self.words[room / LANES], room % LANES * 8);
        let free = has_free(*word);
        *word &= !(0xff << shift);
        if !free {
            *word |= LEFT << shift;
            self.left += 1;
        }
        self.taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Few buckets and hashes that crowd in one of them, wrap around, and share their marks.
        #[test]
        fn what_was_taken_is_found_and_nothing_else(
            steps in proptest::collection::vec((0u64..3, 0u64..4, any::<bool>()), 0..200),
        ) {
            let mut marks = Marks::for_taken(20);
            let mut naive: BTreeMap<usize, u64> = BTreeMap::new();
            for (place, low, add) in steps {
                // The first bucket, one in the middle, the last.
                let hash = (u64::MAX / 2 * place).wrapping_sub(u64::from(place == 2)) & !0xff | low;
                let there = naive.iter().find(|(_, h)| **h == hash).map(|(room, _)| *room);
                match there {
                    Some(room) if !add => {
                        marks.leave(room);
                        naive.remove(&room);
                    }
                    _ if add && marks.has_room() => {
                        let room = marks.take(hash);
                        prop_assert!(naive.insert(room, hash).is_none(), "it was taken");
                    }
                    _ => {}
                }
                prop_assert_eq!(marks.taken(), naive.len());
                for (room, hash) in &naive {
                    let found = marks.find(marks.probe(*hash), |at| at == *room);
                    prop_assert_eq!(found, Some(*room));
                }
                for hash in [0, u64::MAX, u64::MAX / 2, 1, 3] {
                    let mut free = Vec::new();
                    marks.find(marks.probe(hash), |at| { free.extend((!naive.contains_key(&at)).then_some(at)); false });
                    prop_assert_eq!(free, Vec::<usize>::new());
                }
            }
        }
    }

    /// As full as it gets: many are not in their own bucket.
    #[test]
    fn many_are_found_each_in_its_own_room() {
        let mut marks = Marks::for_taken(100_000);
        let hash = |nth: u64| (nth + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rooms = Vec::new();
        while marks.has_room() {
            rooms.push(marks.take(hash(rooms.len() as u64)));
        }
        assert!(rooms.len() * 8 + 8 > marks.rooms() * 7);
        for (nth, room) in (0..).zip(&rooms) {
            assert_eq!(marks.find(marks.probe(hash(nth)), |at| at == *room), Some(*room));
        }
        rooms.sort_unstable();
        rooms.dedup();
        assert_eq!(rooms.len(), marks.taken());
    }

    #[test]
    fn an_empty_table_has_nothing() {
        let marks = Marks::default();
        assert_eq!(marks.find(marks.probe(7), |_| true), None);
        assert!(!marks.has_room());
    }
}
