//! Which of many ranges hold a value: a treap by lower bound, each node with the highest upper bound below it.

use super::ShapeIndex;
use crate::shape::{Scalar, compare};
use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};

/// A range of a column. None is without end; bounds belong to it.
#[derive(Debug, Clone)]
pub(super) struct Range {
    /// From here.
    pub low: Option<Scalar>,
    /// To here.
    pub high: Option<Scalar>,
}

#[derive(Debug)]
struct Node {
    range: Range,
    shape: ShapeIndex,
    /// Of this node and those below.
    highest: Option<Scalar>,
    priority: u64,
    left: Tree,
    right: Tree,
}

type Tree = Option<Box<Node>>;

/// Ranges of values of one type.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    root: Tree,
    random: RandomState,
}

fn order(a: &Scalar, b: &Scalar) -> Ordering {
    // Values of one type always have an order.
    compare(a, b).unwrap_or(Ordering::Equal)
}

/// None first: it has no lower end.
fn by_low(a: (&Option<Scalar>, ShapeIndex), b: (&Option<Scalar>, ShapeIndex)) -> Ordering {
    let lows = match (a.0, b.0) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => order(a, b),
    };
    lows.then(a.1.cmp(&b.1))
}

/// None last: it has no upper end.
fn reaches(high: &Option<Scalar>, value: &Scalar) -> bool {
    high.as_ref().is_none_or(|high| order(high, value).is_ge())
}

impl Node {
    fn place(&self) -> (&Option<Scalar>, ShapeIndex) {
        (&self.range.low, self.shape)
    }

    fn update(&mut self) {
        let mut highest = &self.range.high;
        for below in [&self.left, &self.right].into_iter().flatten() {
            highest = match (highest, &below.highest) {
                (Some(a), Some(b)) if order(a, b).is_lt() => &below.highest,
                (Some(_), None) => &below.highest,
                _ => highest,
            };
        }
        self.highest = highest.clone();
    }
}

/// Those before a place, and those behind.
fn split(tree: Tree, at: (&Option<Scalar>, ShapeIndex)) -> (Tree, Tree) {
    let Some(mut node) = tree else { return (None, None) };
    if by_low(node.place(), at).is_lt() {
        let (left, right) = split(node.right.take(), at);
        node.right = left;
        node.update();
        (Some(node), right)
    } else {
        let (left, right) = split(node.left.take(), at);
        node.left = right;
        node.update();
        (left, Some(node))
    }
}

fn join(left: Tree, right: Tree) -> Tree {
    match (left, right) {
        (None, tree) | (tree, None) => tree,
        (Some(mut left), Some(mut right)) => Some(if left.priority > right.priority {
            left.right = join(left.right.take(), Some(right));
            left.update();
            left
        } else {
            right.left = join(Some(left), right.left.take());
            right.update();
            right
        }),
    }
}

fn take_out(tree: &mut Tree, at: (&Option<Scalar>, ShapeIndex)) {
    let Some(node) = tree else { return };
    match by_low(at, node.place()) {
        Ordering::Less => take_out(&mut node.left, at),
        Ordering::Greater => take_out(&mut node.right, at),
        Ordering::Equal => {
            *tree = join(node.left.take(), node.right.take());
            return;
        }
    }
    node.update();
}

fn visit(tree: &Tree, value: Option<&Scalar>, found: &mut impl FnMut(ShapeIndex)) {
    let Some(node) = tree else { return };
    let Some(value) = value else {
        visit(&node.left, None, found);
        found(node.shape);
        return visit(&node.right, None, found);
    };
    if !reaches(&node.highest, value) {
        return;
    }
    visit(&node.left, Some(value), found);
    if node.range.low.as_ref().is_none_or(|low| order(low, value).is_le()) {
        if reaches(&node.range.high, value) {
            found(node.shape);
        }
        visit(&node.right, Some(value), found);
    }
}

impl Intervals {
    /// Adds a range.
    pub fn insert(&mut self, range: Range, shape: ShapeIndex) {
        let priority = self.random.hash_one(shape);
        let (left, right) = split(self.root.take(), (&range.low, shape));
        let highest = range.high.clone();
        let node = Node { range, shape, highest, priority, left: None, right: None };
        self.root = join(join(left, Some(Box::new(node))), right);
    }

    /// Takes one out.
    pub fn remove(&mut self, low: &Option<Scalar>, shape: ShapeIndex) {
        take_out(&mut self.root, (low, shape));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Calls `found` with each whose range holds the value; with all of them if it is not known.
    pub fn find(&self, value: Option<&Scalar>, found: &mut impl FnMut(ShapeIndex)) {
        visit(&self.root, value, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Bounds = (Option<i64>, Option<i64>);

    proptest! {
        /// Against looking at every range, while ranges come and go.
        #[test]
        fn finds_what_looking_at_all_finds(
            steps in proptest::collection::vec((0u32..30, proptest::option::of(0i64..10), proptest::option::of(0i64..10)), 0..80),
        ) {
            let mut intervals = Intervals::default();
            let mut naive: BTreeMap<u32, Bounds> = BTreeMap::new();
            for (shape, low, high) in steps {
                match naive.remove(&shape) {
                    Some((low, _)) => intervals.remove(&low.map(Scalar::Int), shape),
                    None => {
                        naive.insert(shape, (low, high));
                        intervals.insert(Range { low: low.map(Scalar::Int), high: high.map(Scalar::Int) }, shape);
                    }
                }
                for value in -1..11 {
                    let holds = |(low, high): &Bounds| low.is_none_or(|l| l <= value) && high.is_none_or(|h| value <= h);
                    let wanted: Vec<u32> = naive.iter().filter(|(_, b)| holds(b)).map(|(s, _)| *s).collect();
                    let mut found = Vec::new();
                    intervals.find(Some(&Scalar::Int(value)), &mut |shape| found.push(shape));
                    found.sort_unstable();
                    prop_assert_eq!(found, wanted);
                }
                let mut all = 0;
                intervals.find(None, &mut |_| all += 1);
                prop_assert_eq!((all, intervals.is_empty()), (naive.len(), naive.is_empty()));
            }
        }
    }
}
