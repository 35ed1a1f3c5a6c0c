//! Shapes by the values that their rows must have: one hash table for all sets of columns of all tables.
//!
//! A row is looked up once per set of columns in use. All of its hashes are computed and all of its slots read before
//! the first of them is looked at: with a million shapes each of these reads goes to memory, and they can go together.

use super::filters::Filters;
use super::{Member, ShapeIndex};
use crate::change::{Text, Value};
use crate::shape::Shape;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

/// A set of columns (indices into the table's) in which shapes demand values.
#[derive(Debug)]
pub(super) struct Group {
    /// Ascending.
    pub columns: Box<[usize]>,
    number: u32,
    seed: u64,
    /// Its places.
    entries: Vec<u32>,
}

impl Group {
    /// Its places, to be looked at one by one.
    pub fn entries(&self) -> &[u32] {
        &self.entries
    }
}

/// Shapes whose rows must have the same values in the same columns.
///
/// One line of the processor's cache: with a million of them each one that is looked at comes from memory.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Place {
    hash: u64,
    group: u32,
    /// Where it is in its group's list.
    at: u32,
    values: Packed,
    shapes: Shapes,
}

/// Nearly all places have one shape, about which their values alone decide.
#[derive(Debug)]
enum Shapes {
    None,
    One(ShapeIndex, Member),
    Many(Box<Several>),
}

/// More of them, and those that ask for more.
#[derive(Debug, Default)]
struct Several {
    simple: BTreeMap<ShapeIndex, Member>,
    filters: Filters,
}

/// Values as bytes, each with its length before it. Short ones lie in the place itself.
#[derive(Debug, PartialEq, Eq)]
enum Packed {
    Inline(u8, [u8; 30]),
    Heap(Box<[u8]>),
}

/// All places, and the random seed of this process by which they are hashed: clients choose the values.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Upper half of the hash, and one more than the place; 0 is free. A power of two of them, half of them free.
    slots: Vec<u64>,
    places: Vec<Option<Place>>,
    free: Vec<u32>,
    used: usize,
    random: RandomState,
    groups: u32,
}

/// A place to look for, its slot already read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    hash: u64,
    slot: u64,
}

impl Packed {
    fn of<'v>(values: impl Iterator<Item = &'v str>) -> Self {
        let mut bytes = Vec::new();
        for value in values {
            match u16::try_from(value.len()) {
                Ok(short) if short < u16::MAX => bytes.extend(short.to_le_bytes()),
                _ => {
                    bytes.extend(u16::MAX.to_le_bytes());
                    bytes.extend((value.len() as u64).to_le_bytes());
                }
            }
            bytes.extend(value.as_bytes());
        }
        let mut inline = [0; 30];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(&bytes);
                Self::Inline(length, inline)
            }
            _ => Self::Heap(bytes.into()),
        }
    }

    /// Whether these are the values.
    fn is<'v>(&self, values: impl Iterator<Item = &'v str>) -> bool {
        let mut rest: &[u8] = match self {
            Self::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Self::Heap(bytes) => bytes,
        };
        for value in values {
            let Some((head, tail)) = rest.split_first_chunk::<2>() else { return false };
            let (length, tail) = match u16::from_le_bytes(*head) {
                u16::MAX => match tail.split_first_chunk::<8>() {
                    Some((long, tail)) => (u64::from_le_bytes(*long), tail),
                    None => return false,
                },
                short => (u64::from(short), tail),
            };
            if length != value.len() as u64 || !tail.starts_with(value.as_bytes()) {
                return false;
            }
            rest = &tail[value.len()..];
        }
        rest.is_empty()
    }
}

/// Multiplies and folds: every bit of both counts.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b | 1);
    #[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    let halves = (product as u64, (product >> 64) as u64);
    halves.0 ^ halves.1
}

impl Places {
    /// A set of columns with no place yet.
    pub fn group(&mut self, columns: Box<[usize]>) -> Group {
        self.groups += 1;
        Group { columns, number: self.groups, seed: self.random.hash_one(self.groups), entries: Vec::new() }
    }

    /// A value's part of a hash.
    pub fn hash(&self, value: &str) -> u64 {
        self.random.hash_one(value)
    }

    /// What to look for in a group, given its values' hashes in the order of its columns.
    pub fn probe(&self, group: &Group, hashes: impl Iterator<Item = u64>) -> Probe {
        let hash = hashes.fold(group.seed, |hash, value| mix(hash ^ value, 0x9E37_79B9_7F4A_7C15));
        let slot = if self.slots.is_empty() { 0 } else { self.slots[self.home(hash)] };
        Probe { hash, slot }
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked")]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    /// The place with these values, if there is one.
    pub fn find<'v>(
        &self,
        probe: Probe,
        group: &Group,
        values: impl Iterator<Item = &'v str> + Clone,
    ) -> Option<&Place> {
        let mut at = None;
        let mut slot = probe.slot;
        while slot != 0 {
            if slot >> 32 == probe.hash >> 32
                && let Some(place) = self.place(slot)
                && place.group == group.number
                && place.values.is(values.clone())
            {
                return Some(place);
            }
            let next = (at.unwrap_or_else(|| self.home(probe.hash)) + 1) & (self.slots.len() - 1);
            at = Some(next);
            slot = self.slots[next];
        }
        None
    }

    /// Has the places read that probes will find, all at the same time.
    pub fn fetch(&self, probes: impl Iterator<Item = Probe>) {
        let likely = probes.filter(|p| p.slot != 0 && p.slot >> 32 == p.hash >> 32);
        let touched =
            likely.filter_map(|p| self.place(p.slot)).fold(0, |touched, place| touched ^ place.hash);
        std::hint::black_box(touched);
    }

    fn place(&self, slot: u64) -> Option<&Place> {
        self.places.get((slot & 0xffff_ffff) as usize - 1)?.as_ref()
    }

    /// A place by its number.
    pub fn get(&self, number: u32) -> Option<&Place> {
        self.places.get(number as usize)?.as_ref()
    }

    fn probe_texts(&self, group: &Group, values: &[Text]) -> Probe {
        self.probe(group, values.iter().map(|v| self.hash(v)))
    }

    /// The number of the place with these values.
    fn number(&self, group: &Group, values: &[Text]) -> Option<u32> {
        let probe = self.probe_texts(group, values);
        let place = self.find(probe, group, values.iter().map(AsRef::as_ref))?;
        group.entries.get(place.at as usize).copied()
    }

    /// The place with these values, made if need be.
    pub fn at(&mut self, group: &mut Group, values: &[Text]) -> Option<&mut Place> {
        let number = match self.number(group, values) {
            Some(number) => number,
            None => self.add(group, values)?,
        };
        self.places.get_mut(number as usize)?.as_mut()
    }

    fn add(&mut self, group: &mut Group, values: &[Text]) -> Option<u32> {
        if (self.used + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let hash = self.probe_texts(group, values).hash;
        let number = self.free.pop().or_else(|| u32::try_from(self.places.len()).ok())?;
        let place = Place {
            hash,
            group: group.number,
            at: u32::try_from(group.entries.len()).ok()?,
            values: Packed::of(values.iter().map(AsRef::as_ref)),
            shapes: Shapes::None,
        };
        if number as usize == self.places.len() {
            self.places.push(Some(place));
        } else {
            self.places[number as usize] = Some(place);
        }
        group.entries.push(number);
        self.used += 1;
        self.occupy(hash, number);
        Some(number)
    }

    fn occupy(&mut self, hash: u64, number: u32) {
        let mut at = self.home(hash);
        while self.slots[at] != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = (hash >> 32 << 32) | u64::from(number + 1);
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(16);
        self.slots = vec![0; size];
        for number in 0..self.places.len() {
            if let (Some(place), Ok(number)) = (&self.places[number], u32::try_from(number)) {
                self.occupy(place.hash, number);
            }
        }
    }

    /// Lets `change` take something out of a place, which goes when nothing is left in it.
    pub fn take(&mut self, group: &mut Group, values: &[Text], change: impl FnOnce(&mut Place)) {
        let Some(number) = self.number(group, values) else { return };
        let Some(Some(place)) = self.places.get_mut(number as usize) else { return };
        change(place);
        if !place.is_empty() {
            return;
        }
        let (hash, at) = (place.hash, place.at);
        self.vacate(hash, number);
        self.places[number as usize] = None;
        self.free.push(number);
        self.used -= 1;
        group.entries.swap_remove(at as usize);
        let moved = group.entries.get(at as usize).copied();
        if let Some(Some(moved)) = moved.and_then(|moved| self.places.get_mut(moved as usize)) {
            moved.at = at;
        }
    }

    /// Frees a slot; those behind it that could not have their own move up.
    fn vacate(&mut self, hash: u64, number: u32) {
        let mask = self.slots.len() - 1;
        let mut hole = self.home(hash);
        while self.slots[hole] & 0xffff_ffff != u64::from(number + 1) {
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(place) = (self.slots[at] != 0).then(|| self.place(self.slots[at])).flatten() else {
                break;
            };
            let home = self.home(place.hash);
            // It may move if its home is not between the hole and here.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole] = 0;
    }
}

impl Place {
    fn several(&mut self) -> &mut Several {
        let several = match std::mem::replace(&mut self.shapes, Shapes::None) {
            Shapes::None => Box::default(),
            Shapes::One(index, member) => {
                Box::new(Several { simple: [(index, member)].into(), ..Several::default() })
            }
            Shapes::Many(several) => several,
        };
        self.shapes = Shapes::Many(several);
        match &mut self.shapes {
            Shapes::Many(several) => several,
            Shapes::None | Shapes::One(..) => unreachable!("it was just put there"),
        }
    }

    /// Adds a shape: one that the values alone decide about, or one that asks for more.
    pub fn insert(&mut self, index: ShapeIndex, member: Member, filtered: Option<&Shape>) {
        match (filtered, &self.shapes) {
            (Some(shape), _) => self.several().filters.insert(index, shape),
            (None, Shapes::None) => self.shapes = Shapes::One(index, member),
            (None, _) => drop(self.several().simple.insert(index, member)),
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, index: ShapeIndex, filtered: Option<&Shape>) {
        match &mut self.shapes {
            Shapes::One(only, _) if *only == index => self.shapes = Shapes::None,
            Shapes::Many(several) => {
                match filtered {
                    Some(shape) => several.filters.remove(index, shape),
                    None => drop(several.simple.remove(&index)),
                }
                if several.simple.is_empty() && several.filters.is_empty() {
                    self.shapes = Shapes::None;
                }
            }
            Shapes::None | Shapes::One(..) => {}
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.shapes, Shapes::None)
    }

    /// Those that ask for more than values.
    pub fn filters(&self) -> Option<&Filters> {
        match &self.shapes {
            Shapes::Many(several) if !several.filters.is_empty() => Some(&several.filters),
            _ => None,
        }
    }

    /// Calls `found` with each shape that the values alone decide about.
    pub fn each(&self, mut found: impl FnMut(ShapeIndex, Member)) {
        match &self.shapes {
            Shapes::None => {}
            Shapes::One(index, member) => found(*index, *member),
            Shapes::Many(several) => several.simple.iter().for_each(|(index, member)| found(*index, *member)),
        }
    }
}

/// The text of a value that can be looked up.
pub(super) fn text(value: &Value) -> Option<&str> {
    value.text()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn shapes(places: &Places, group: &Group, values: &[Text]) -> BTreeSet<ShapeIndex> {
        let probe = places.probe_texts(group, values);
        let mut found = BTreeSet::new();
        if let Some(place) = places.find(probe, group, values.iter().map(AsRef::as_ref)) {
            place.each(|index, _| {
                found.insert(index);
            });
        }
        found
    }

    proptest! {
        /// Against ordered maps: after every insertion and removal the same shapes are found everywhere.
        #[test]
        fn finds_what_a_map_finds(steps in proptest::collection::vec((any::<bool>(), 0usize..2, 0u8..12, 0u32..40), 0..120)) {
            let mut places = Places::default();
            let mut groups = [places.group([0].into()), places.group([0, 1].into())];
            let mut naive: BTreeMap<(usize, u8), BTreeSet<u32>> = BTreeMap::new();
            let values = |group: usize, value: u8| -> Vec<Text> {
                // Some are too long to lie in the place.
                let text = format!("{value}").repeat(if value.is_multiple_of(3) { 20 } else { 1 });
                vec![Text::from(text.as_str()); group + 1]
            };
            for (add, group, value, shape) in steps {
                let of = naive.entry((group, value)).or_default();
                let texts = values(group, value);
                if add {
                    of.insert(shape);
                    places.at(&mut groups[group], &texts).unwrap().insert(shape, Member::Plain, None);
                } else {
                    of.remove(&shape);
                    places.take(&mut groups[group], &texts, |place| place.remove(shape, None));
                }
                for (number, group) in groups.iter().enumerate() {
                    for value in 0..12 {
                        let wanted = naive.get(&(number, value)).cloned().unwrap_or_default();
                        prop_assert_eq!(shapes(&places, group, &values(number, value)), wanted);
                    }
                    let used = naive.iter().filter(|((g, _), s)| *g == number && !s.is_empty()).count();
                    prop_assert_eq!(group.entries().len(), used);
                }
            }
        }
    }

    #[test]
    fn a_place_is_one_line_of_the_cache() {
        assert_eq!(size_of::<Option<Place>>(), 64);
    }

    #[test]
    fn boundaries_between_values_count() {
        let packed = Packed::of(["ab", "c"].into_iter());
        assert!(packed.is(["ab", "c"].into_iter()));
        assert!(!packed.is(["a", "bc"].into_iter()) && !packed.is(["ab"].into_iter()));
        assert!(!packed.is(["ab", "c", ""].into_iter()));
        let long = "x".repeat(70_000);
        assert!(Packed::of([long.as_str(), "y"].into_iter()).is([long.as_str(), "y"].into_iter()));
    }
}
