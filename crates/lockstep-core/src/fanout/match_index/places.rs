//! Shapes by the values that their rows must have: one hash table for all sets of columns of all tables.
//!
//! A row is looked up once per set of columns in use. With a million shapes each place that is read comes from memory.
//! So a byte per place ([`marks`](super::marks)) is asked first, which are few enough to stay near, and nearly all that
//! is not there ends with them; what may be there is read all at the same time, before the first of it is looked at.

use super::filters::Filters;
use super::marks::{Marks, Probe};
use super::packed::Packed;
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
}

impl Group {
    /// Of its values' hashes in the order of its columns.
    pub fn hash(&self, values: impl Iterator<Item = u64>) -> u64 {
        values.fold(self.seed, |hash, value| mix(hash ^ value, 0x9E37_79B9_7F4A_7C15))
    }
}

/// Shapes whose rows must have the same values in the same columns.
///
/// One line of the processor's cache: with a million of them each one that is looked at comes from memory.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Place {
    hash: u64,
    /// 0 if it is a free room.
    group: u32,
    /// Where it is in its group's list.
    at: u32,
    values: Packed,
    shapes: Shapes,
}

/// Nearly all places have few shapes, about which their values alone decide: they lie in the place itself.
#[derive(Debug)]
enum Shapes {
    Few { members: [Option<Member>; 3], shapes: [ShapeIndex; 3] },
    Many(Box<Several>),
}

impl Default for Shapes {
    fn default() -> Self {
        Self::Few { members: [None; 3], shapes: [0; 3] }
    }
}

/// More of them, and those that ask for more.
#[derive(Debug, Default)]
struct Several {
    simple: BTreeMap<ShapeIndex, Member>,
    filters: Filters,
}

/// All places, and the random seed of this process by which they are hashed: clients choose the values.
#[derive(Debug, Default)]
pub(super) struct Places {
    marks: Marks,
    rooms: Vec<Place>,
    /// By a group's number, less one: the rooms of its places.
    lists: Vec<Vec<u32>>,
    /// Numbers of groups that are no more.
    free: Vec<u32>,
    random: RandomState,
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
        let number = self.free.pop().unwrap_or_else(|| {
            self.lists.push(Vec::new());
            u32::try_from(self.lists.len()).unwrap_or(u32::MAX)
        });
        Group { columns, number, seed: self.random.hash_one(number) }
    }

    /// Whether a group has no place; then it is no more, and must not be used again.
    pub fn ended(&mut self, group: &Group) -> bool {
        let list = &mut self.lists[group.number as usize - 1];
        let empty = list.is_empty();
        if empty {
            *list = Vec::new();
            self.free.push(group.number);
        }
        empty
    }

    /// A group's places, to be looked at one by one.
    pub fn of_group(&self, group: &Group) -> impl Iterator<Item = &Place> {
        self.lists[group.number as usize - 1].iter().map(|room| &self.rooms[*room as usize])
    }

    /// A value's part of a hash.
    pub fn hash(&self, value: &str) -> u64 {
        self.random.hash_one(value)
    }

    /// The place with these values, if there is one.
    pub fn find<'v>(
        &self,
        probe: Probe,
        group: &Group,
        values: impl Iterator<Item = &'v str> + Clone,
    ) -> Option<&Place> {
        self.room(probe, group, values).map(|room| &self.rooms[room])
    }

    fn room<'v>(
        &self,
        probe: Probe,
        group: &Group,
        values: impl Iterator<Item = &'v str> + Clone,
    ) -> Option<usize> {
        self.marks.find(probe, |room| {
            let place = &self.rooms[room];
            place.hash == probe.hash && place.group == group.number && place.values.is(values.clone())
        })
    }

    /// Has all that says where hashes may be read at the same time, and then all places where they are.
    pub fn probe(&self, hashes: impl Iterator<Item = u64>, probes: &mut Vec<Probe>) {
        probes.clear();
        probes.extend(hashes.map(|hash| self.marks.probe(hash)));
        let likely = probes.iter().filter_map(|probe| self.rooms.get(Marks::likely(*probe)));
        std::hint::black_box(likely.fold(0, |touched, place| touched ^ place.hash));
    }

    fn probe_texts(&self, group: &Group, values: &[Text]) -> Probe {
        self.marks.probe(group.hash(values.iter().map(|v| self.hash(v))))
    }

    /// The place with these values, made if need be.
    pub fn at(&mut self, group: &Group, values: &[Text]) -> &mut Place {
        let probe = self.probe_texts(group, values);
        let room = match self.room(probe, group, values.iter().map(AsRef::as_ref)) {
            Some(room) => room,
            None => self.add(probe.hash, group, values),
        };
        &mut self.rooms[room]
    }

    fn add(&mut self, hash: u64, group: &Group, values: &[Text]) -> usize {
        if !self.marks.has_room() {
            self.make_room();
        }
        let place = Place {
            hash,
            group: group.number,
            at: 0,
            values: Packed::of(values.iter().map(AsRef::as_ref)),
            shapes: Shapes::default(),
        };
        self.lists[group.number as usize - 1].push(0);
        let at = self.lists[group.number as usize - 1].len() - 1;
        self.put(Place { at: number(at), ..place })
    }

    /// Into a free room, of which its group's list is told.
    fn put(&mut self, place: Place) -> usize {
        let room = self.marks.take(place.hash);
        self.lists[place.group as usize - 1][place.at as usize] = number(room);
        self.rooms[room] = place;
        room
    }

    fn make_room(&mut self) {
        self.marks = Marks::for_taken(self.marks.taken());
        let rooms = std::iter::repeat_with(Place::default).take(self.marks.rooms()).collect();
        for place in std::mem::replace(&mut self.rooms, rooms) {
            if place.group != 0 {
                self.put(place);
            }
        }
    }

    /// Lets `change` take something out of a place, which goes when nothing is left in it.
    pub fn take(&mut self, group: &Group, values: &[Text], change: impl FnOnce(&mut Place)) {
        let probe = self.probe_texts(group, values);
        let Some(room) = self.room(probe, group, values.iter().map(AsRef::as_ref)) else { return };
        change(&mut self.rooms[room]);
        if !self.rooms[room].is_empty() {
            return;
        }
        let at = std::mem::take(&mut self.rooms[room]).at;
        self.marks.leave(room);
        let list = &mut self.lists[group.number as usize - 1];
        list.swap_remove(at as usize);
        if let Some(moved) = list.get(at as usize) {
            self.rooms[*moved as usize].at = at;
        }
    }
}

/// Of places there are fewer than four thousand million: each takes 64 bytes.
fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

impl Place {
    fn several(&mut self) -> &mut Several {
        if let Shapes::Few { members, shapes } = self.shapes {
            let simple = shapes.into_iter().zip(members).filter_map(|(s, m)| Some((s, m?))).collect();
            self.shapes = Shapes::Many(Box::new(Several { simple, ..Several::default() }));
        }
        match &mut self.shapes {
            Shapes::Many(several) => several,
            Shapes::Few { .. } => unreachable!("it was just replaced"),
        }
    }

    /// Adds a shape: one that the values alone decide about, or one that asks for more.
    pub fn insert(&mut self, index: ShapeIndex, member: Member, filtered: Option<&Shape>) {
        if let Some(shape) = filtered {
            return self.several().filters.insert(index, shape);
        }
        if let Shapes::Few { members, shapes } = &mut self.shapes {
            let same = members.iter().zip(&*shapes).position(|(m, s)| m.is_some() && *s == index);
            if let Some(at) = same.or_else(|| members.iter().position(Option::is_none)) {
                (members[at], shapes[at]) = (Some(member), index);
                return;
            }
        }
        self.several().simple.insert(index, member);
    }

    /// Takes one out.
    pub fn remove(&mut self, index: ShapeIndex, filtered: Option<&Shape>) {
        match &mut self.shapes {
            Shapes::Few { members, shapes } => {
                for (member, shape) in members.iter_mut().zip(shapes) {
                    if *shape == index {
                        *member = None;
                    }
                }
            }
            Shapes::Many(several) => {
                match filtered {
                    Some(shape) => several.filters.remove(index, shape),
                    None => drop(several.simple.remove(&index)),
                }
                if several.simple.is_empty() && several.filters.is_empty() {
                    self.shapes = Shapes::default();
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.shapes, Shapes::Few { members: [None, None, None], .. })
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
            Shapes::Few { members, shapes } => {
                for (member, shape) in members.iter().zip(shapes) {
                    if let Some(member) = member {
                        found(*shape, *member);
                    }
                }
            }
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
            let groups = [places.group([0].into()), places.group([0, 1].into())];
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
                    places.at(&groups[group], &texts).insert(shape, Member::Plain, None);
                } else {
                    of.remove(&shape);
                    places.take(&groups[group], &texts, |place| place.remove(shape, None));
                }
                for (number, group) in groups.iter().enumerate() {
                    for value in 0..12 {
                        let wanted = naive.get(&(number, value)).cloned().unwrap_or_default();
                        prop_assert_eq!(shapes(&places, group, &values(number, value)), wanted);
                    }
                    let used = naive.iter().filter(|((g, _), s)| *g == number && !s.is_empty()).count();
                    prop_assert_eq!(places.of_group(group).filter(|place| place.group == group.number).count(), used);
                    prop_assert_eq!(places.of_group(group).count(), used);
                }
            }
        }
    }

    #[test]
    fn a_place_is_one_line_of_the_cache() {
        assert_eq!(size_of::<Place>(), 64);
    }
}
