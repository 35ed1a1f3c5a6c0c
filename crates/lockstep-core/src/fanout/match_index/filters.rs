//! Shapes of one place that ask for more than its values: by ranges, by pieces of text, and the rest.
//!
//! What is found is at least what passes; each is evaluated then.

use super::ShapeIndex;
use super::intervals::{Intervals, Range};
use crate::catalog::Table;
use crate::change::{Tuple, Value};
use crate::shape::{Hint, Kind, Shape};
use std::collections::{BTreeSet, HashMap};

/// Three bytes that a text must hold somewhere.
type Gram = [u8; 3];

/// Shapes by what their predicates demand besides equalities.
#[derive(Debug, Default)]
pub(super) struct Filters {
    ranges: Vec<(usize, Kind, Intervals)>,
    /// Column, and whether ASCII letters are folded.
    patterns: Vec<(usize, bool, Grams)>,
    rest: BTreeSet<ShapeIndex>,
}

/// Shapes by one gram of their patterns, the rarest at that time.
#[derive(Debug, Default)]
struct Grams(HashMap<Gram, BTreeSet<ShapeIndex>>);

impl Grams {
    fn insert(&mut self, grams: &[Gram], index: ShapeIndex) {
        let shapes = |gram: &Gram| self.0.get(gram).map_or(0, BTreeSet::len);
        if let Some(gram) = grams.iter().min_by_key(|gram| shapes(gram)) {
            self.0.entry(*gram).or_default().insert(index);
        }
    }

    fn remove(&mut self, grams: &[Gram], index: ShapeIndex) {
        for gram in grams {
            let Some(shapes) = self.0.get_mut(gram) else { continue };
            shapes.remove(&index);
            if shapes.is_empty() {
                self.0.remove(gram);
            }
        }
    }

    fn all(&self, found: &mut impl FnMut(ShapeIndex)) {
        self.0.values().flatten().for_each(|index| found(*index));
    }

    fn find(&self, text: &str, found: &mut impl FnMut(ShapeIndex)) {
        for gram in text.as_bytes().windows(3) {
            let shapes = <Gram>::try_from(gram).ok().and_then(|gram| self.0.get(&gram));
            shapes.into_iter().flatten().for_each(|index| found(*index));
        }
    }
}

impl Filters {
    /// Adds a shape.
    pub fn insert(&mut self, index: ShapeIndex, shape: &Shape) {
        match shape.hint() {
            Hint::Range { column, kind, low, high } => {
                let same = |(c, k, _): &&mut (usize, Kind, Intervals)| (*c, *k) == (column, kind);
                let range = Range { low, high };
                match self.ranges.iter_mut().find(same) {
                    Some((_, _, intervals)) => intervals.insert(range, index),
                    None => {
                        let mut intervals = Intervals::default();
                        intervals.insert(range, index);
                        self.ranges.push((column, kind, intervals));
                    }
                }
            }
            Hint::Text { column, fold, grams } => {
                let same = |(c, f, _): &&mut (usize, bool, Grams)| (*c, *f) == (column, fold);
                match self.patterns.iter_mut().find(same) {
                    Some((_, _, all)) => all.insert(&grams, index),
                    None => {
                        let mut all = Grams::default();
                        all.insert(&grams, index);
                        self.patterns.push((column, fold, all));
                    }
                }
            }
            Hint::None => drop(self.rest.insert(index)),
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, index: ShapeIndex, shape: &Shape) {
        match shape.hint() {
            Hint::Range { column, kind, low, .. } => {
                for (_, _, intervals) in self.ranges.iter_mut().filter(|(c, k, _)| (*c, *k) == (column, kind))
                {
                    intervals.remove(&low, index);
                }
                self.ranges.retain(|(_, _, intervals)| !intervals.is_empty());
            }
            Hint::Text { column, fold, grams } => {
                for (_, _, all) in self.patterns.iter_mut().filter(|(c, f, _)| (*c, *f) == (column, fold)) {
                    all.remove(&grams, index);
                }
                self.patterns.retain(|(_, _, all)| !all.0.is_empty());
            }
            Hint::None => drop(self.rest.remove(&index)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.patterns.is_empty() && self.rest.is_empty()
    }

    /// Calls `found` with each shape that a row of the table may pass; perhaps more than once.
    pub fn find(&self, table: &Table, row: &Tuple, found: &mut impl FnMut(ShapeIndex)) {
        for (column, kind, intervals) in &self.ranges {
            match row.get(*column) {
                Some(Value::Null) => {}
                Some(Value::Text(text)) => {
                    // What cannot be read is for PostgreSQL to judge: any of them.
                    let value = table.columns.get(*column).and_then(|c| kind.read(text, c));
                    intervals.find(value.as_ref(), found);
                }
                Some(Value::Unchanged) | None => intervals.find(None, found),
            }
        }
        for (column, fold, grams) in &self.patterns {
            match row.get(*column) {
                Some(Value::Null) => {}
                Some(Value::Text(text)) if *fold => grams.find(&text.to_ascii_lowercase(), found),
                Some(Value::Text(text)) => grams.find(text, found),
                Some(Value::Unchanged) | None => grams.all(found),
            }
        }
        self.rest.iter().for_each(|index| found(*index));
    }
}
