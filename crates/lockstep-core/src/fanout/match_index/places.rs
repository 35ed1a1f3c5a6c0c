//! Shapes by the values that their rows must have: hash tables for all sets of columns of all tables.
//!
//! A row is looked up once per set of columns in use, and with a million shapes each look comes from memory. So there is
//! one to be waited for, and not one after another: four shapes share a line of the processor's cache, with nothing of
//! them but a tag of their values and their number, and all lines that a row may concern are asked for at the same time.
//!
//! Equal tags are taken for equal values. A tag is 96 bits of a keyed pseudorandom function (SipHash-1-3 with a key that
//! this process draws and tells nobody), so whoever chooses values knows nothing of their tags; a row is compared with few
//! shapes, each of which has the tag of another's values with a probability of 2^-76 among a million
//! (docs/decisions/0042-tags.md).

use super::filters::Filters;
use super::{Member, ShapeIndex};
use crate::change::Text;
use crate::shape::Shape;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Rooms of a line.
const ROOMS: usize = 4;
/// So many shapes of the same values have a room each; more share one.
const FEW: usize = 3;

/// Stands for a set of columns and the values in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    high: u64,
    low: u32,
}

/// A set of columns (indices into the table's) in which shapes demand values.
#[derive(Debug)]
pub(super) struct Group {
    /// Ascending.
    pub columns: Box<[usize]>,
    /// Of each of them.
    pub terms: Box<[Term]>,
    /// Its shapes, in no order.
    pub shapes: Vec<ShapeIndex>,
    /// What a tag has of none of its values.
    pub seed: u128,
}

/// A column of a group.
#[derive(Debug)]
pub(super) struct Term {
    /// Which it is of the columns that the table's groups have.
    pub at: usize,
    /// Odd, so that nothing of a value is lost.
    factor: u128,
}

impl Term {
    /// What a value adds to a tag, by its hash.
    pub const fn of(&self, hash: u128) -> u128 {
        hash.wrapping_mul(self.factor)
    }
}

impl Tag {
    /// Of a group's seed and all its terms.
    #[allow(clippy::cast_possible_truncation, reason = "parts of a hash")]
    pub const fn of(sum: u128) -> Self {
        Self { high: (sum >> 64) as u64, low: (sum >> 32) as u32 }
    }
}

/// The key of this process by which values are hashed: clients choose them.
#[derive(Debug)]
pub(super) struct Keys {
    values: SipHasher13,
    groups: SipHasher13,
    /// Number of the next group; none has two.
    next: u64,
}

impl Default for Keys {
    fn default() -> Self {
        let hasher = || {
            let random = RandomState::new();
            SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1))
        };
        Self { values: hasher(), groups: hasher(), next: 0 }
    }
}

impl Keys {
    /// A set of columns with no shape yet.
    pub fn group(&mut self, columns: Box<[usize]>) -> Group {
        self.next += 1;
        let random = |nth: usize| {
            let mut hasher = self.groups;
            hasher.write_u64(self.next);
            hasher.write_usize(nth);
            hasher.finish128().as_u128()
        };
        let terms = (1..=columns.len()).map(|nth| Term { at: 0, factor: random(nth) | 1 }).collect();
        Group { seed: random(0), terms, columns, shapes: Vec::new() }
    }

    /// A value's part of a tag.
    pub fn hash(&self, value: &str) -> u128 {
        self.values.hash(value.as_bytes()).as_u128()
    }

    /// The tag of these values.
    pub fn tag(&self, group: &Group, values: &[Text]) -> Tag {
        let terms = group.terms.iter().zip(values).map(|(term, value)| term.of(self.hash(value)));
        Tag::of(terms.fold(group.seed, u128::wrapping_add))
    }
}

/// What lies in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Free,
    /// It was left while its line was full: what is looked for may lie behind.
    Left,
    Shape(ShapeIndex, Member),
    /// More shapes of one tag, and those that ask for more.
    Several(u32),
}

/// Shapes of greater numbers share rooms: two bits say what lies there.
const GREATEST: u32 = u32::MAX >> 2;

impl Content {
    const fn packed(self) -> u32 {
        match self {
            Self::Free => 0,
            Self::Left => 4,
            Self::Shape(index, Member::Plain) => index << 2 | 1,
            // What else is asked of a shape's rows is known where it is found with its filters.
            Self::Shape(index, _) => index << 2 | 2,
            Self::Several(number) => number << 2 | 3,
        }
    }

    const fn of(packed: u32) -> Self {
        match packed & 3 {
            1 => Self::Shape(packed >> 2, Member::Plain),
            2 => Self::Shape(packed >> 2, Member::Equal),
            3 => Self::Several(packed >> 2),
            _ if packed == 0 => Self::Free,
            _ => Self::Left,
        }
    }

    const fn is_taken(self) -> bool {
        matches!(self, Self::Shape(..) | Self::Several(_))
    }
}

/// One line of the processor's cache: what each room holds, beside each other so that all are compared at once.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Line {
    high: [u64; ROOMS],
    low: [u32; ROOMS],
    content: [u32; ROOMS],
}

impl Line {
    /// Rooms with this tag, a bit for each. Without branches: which room it is, nobody can foresee.
    fn with_tag(&self, tag: Tag) -> u32 {
        (0..ROOMS).fold(0, |rooms, nth| {
            let same = (self.high[nth] == tag.high) & (self.low[nth] == tag.low);
            rooms | u32::from(same) << nth
        })
    }

    fn has_free(&self) -> bool {
        self.content.iter().fold(false, |free, content| free | (*content == Content::Free.packed()))
    }

    fn set(&mut self, nth: usize, tag: Tag, content: Content) {
        (self.high[nth], self.low[nth], self.content[nth]) = (tag.high, tag.low, content.packed());
    }

    /// What is taken.
    fn taken(&self) -> impl Iterator<Item = (Tag, Content)> {
        let room = |nth| (Tag { high: self.high[nth], low: self.low[nth] }, Content::of(self.content[nth]));
        (0..ROOMS).map(room).filter(|(_, content)| content.is_taken())
    }
}

/// Shapes of one tag: too many, or of which some ask for more than values.
#[derive(Debug, Default)]
pub(super) struct Several {
    simple: BTreeMap<ShapeIndex, Member>,
    filters: Filters,
}

/// What was found.
pub(super) enum Found<'p> {
    /// A shape about which its values alone decide.
    Shape(ShapeIndex, Member),
    /// Shapes that ask for more.
    Filters(&'p Filters),
}

/// A tag, and the line where it is looked for first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    tag: Tag,
    line: usize,
}

/// The rooms of all shapes of a kind.
///
/// Invariant: whatever lies behind its own line passed only lines without a free room. So a room is made free only in a
/// line that has another free one, which nothing ever passed.
#[derive(Debug, Default)]
pub(super) struct Places {
    lines: Vec<Line>,
    taken: usize,
    left: usize,
    several: Vec<Several>,
    /// Numbers of those that are empty.
    free: Vec<u32>,
}

/// Where a room is.
type At = (usize, usize);

impl Places {
    /// The upper bits say where, in the order of the tags: a larger table is filled from front to back.
    #[allow(clippy::cast_possible_truncation, reason = "below the number of lines")]
    fn home(&self, tag: Tag) -> usize {
        ((u128::from(tag.high) * self.lines.len() as u128) >> 64) as usize
    }

    /// Has all lines where tags may be read at the same time.
    pub fn probe(&self, tags: impl Iterator<Item = Tag>, probes: &mut Vec<Probe>) {
        probes.clear();
        probes.extend(tags.map(|tag| Probe { tag, line: self.home(tag) }));
        let lines = probes.iter().filter_map(|probe| self.lines.get(probe.line));
        std::hint::black_box(lines.fold(0, |touched, line| touched ^ line.content[0]));
    }

    /// Calls `found` with each taken room of a tag.
    fn rooms(&self, probe: Probe, mut found: impl FnMut(At, Content)) {
        let Probe { tag, line: mut at } = probe;
        while let Some(line) = self.lines.get(at) {
            let mut rooms = line.with_tag(tag);
            while rooms != 0 {
                let nth = rooms.trailing_zeros() as usize;
                rooms &= rooms - 1;
                let content = Content::of(line.content[nth]);
                if content.is_taken() {
                    found((at, nth), content);
                }
            }
            if line.has_free() {
                return;
            }
            at = if at + 1 < self.lines.len() { at + 1 } else { 0 };
        }
    }

    /// Calls `found` with what has a tag.
    pub fn find<'p>(&'p self, probe: Probe, mut found: impl FnMut(Found<'p>)) {
        self.rooms(probe, |_, content| match content {
            Content::Shape(index, member) => found(Found::Shape(index, member)),
            Content::Several(number) => {
                let Some(several) = self.several.get(number as usize) else { return };
                several.simple.iter().for_each(|(index, member)| found(Found::Shape(*index, *member)));
                if !several.filters.is_empty() {
                    found(Found::Filters(&several.filters));
                }
            }
            Content::Free | Content::Left => {}
        });
    }

    fn of(&self, tag: Tag) -> Vec<(At, Content)> {
        let mut rooms = Vec::new();
        self.rooms(Probe { tag, line: self.home(tag) }, |at, content| rooms.push((at, content)));
        rooms
    }

    /// Adds a shape: one that its values alone decide about, or one that asks for more.
    pub fn insert(&mut self, tag: Tag, index: ShapeIndex, member: Member, filtered: Option<&Shape>) {
        let rooms = self.of(tag);
        let same = |content: &Content| matches!(content, Content::Shape(other, _) if *other == index);
        let several = rooms.iter().find_map(|(_, content)| match content {
            Content::Several(number) => Some(*number),
            _ => None,
        });
        let before = rooms.iter().find(|(_, content)| same(content));
        if let Some((at, _)) = before {
            self.leave(*at);
        }
        let others = rooms.len() - usize::from(before.is_some());
        if several.is_none() && filtered.is_none() && index <= GREATEST && others < FEW {
            return self.take(tag, Content::Shape(index, member));
        }
        let number = several.unwrap_or_else(|| self.gather(tag, &rooms, index));
        let several = &mut self.several[number as usize];
        match filtered {
            Some(shape) => several.filters.insert(index, shape),
            None => drop(several.simple.insert(index, member)),
        }
    }

    /// Makes one room of those that have a tag, all but this shape's.
    fn gather(&mut self, tag: Tag, rooms: &[(At, Content)], but: ShapeIndex) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.several.push(Several::default());
            u32::try_from(self.several.len() - 1).unwrap_or(GREATEST)
        });
        for (at, content) in rooms {
            if let Content::Shape(index, member) = content
                && *index != but
            {
                self.leave(*at);
                self.several[number as usize].simple.insert(*index, *member);
            }
        }
        self.take(tag, Content::Several(number));
        number
    }

    /// Takes a shape out.
    pub fn remove(&mut self, tag: Tag, index: ShapeIndex, filtered: Option<&Shape>) {
        for (at, content) in self.of(tag) {
            match content {
                Content::Shape(other, _) if other == index => self.leave(at),
                Content::Several(number) => {
                    let several = &mut self.several[number as usize];
                    match filtered {
                        Some(shape) => several.filters.remove(index, shape),
                        None => drop(several.simple.remove(&index)),
                    }
                    if several.simple.is_empty() && several.filters.is_empty() {
                        *several = Several::default();
                        self.free.push(number);
                        self.leave(at);
                    }
                }
                _ => {}
            }
        }
    }

    /// Puts something into the first room of a tag that is not taken.
    fn take(&mut self, tag: Tag, content: Content) {
        // Half stays free, so that few lines are full and looking for something hardly ever goes on to another one: that
        // would be a second wait, and a branch that nobody can foresee.
        if (self.taken + self.left + 1) * 2 > self.lines.len() * ROOMS {
            self.grow();
        }
        self.put(tag, content);
    }

    fn put(&mut self, tag: Tag, content: Content) {
        let mut at = self.home(tag);
        loop {
            let line = &mut self.lines[at];
            if let Some(open) = line.content.iter().position(|content| !Content::of(*content).is_taken()) {
                self.left -= usize::from(Content::of(line.content[open]) == Content::Left);
                self.taken += 1;
                line.set(open, tag, content);
                return;
            }
            at = if at + 1 < self.lines.len() { at + 1 } else { 0 };
        }
    }

    fn grow(&mut self) {
        let lines = (self.taken + self.taken / 2).div_ceil(ROOMS / 2).max(2);
        let before = std::mem::replace(&mut self.lines, vec![Line::default(); lines]);
        (self.taken, self.left) = (0, 0);
        for (tag, content) in before.iter().flat_map(Line::taken) {
            self.put(tag, content);
        }
    }

    fn leave(&mut self, (line, nth): At) {
        let free = self.lines[line].has_free();
        let content = if free { Content::Free } else { Content::Left };
        self.lines[line].set(nth, Tag { high: 0, low: 0 }, content);
        self.left += usize::from(!free);
        self.taken -= 1;
    }
}

#[cfg(test)]
mod tests;
