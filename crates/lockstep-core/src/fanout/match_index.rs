//! Which shapes a row belongs to, by hash of its scope values.

use super::merge::{Effect, Hole, effect};
use crate::catalog::Oid;
use crate::change::{Final, Key, NetChanges, TableNet, Text, Value};
use crate::position::ResetReason;
use crate::protocol::Delta;
use crate::shape::Shape;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A shape's number in the hub.
pub type ShapeIndex = u32;

/// What a transaction does to the shapes that it touches.
pub type Routed = BTreeMap<ShapeIndex, Result<Delta, Hole>>;

/// Columns (indices into the table's) to the shapes by the values that these must have.
#[derive(Debug, Default)]
struct ByColumns(BTreeMap<Vec<usize>, HashMap<Vec<Text>, BTreeSet<ShapeIndex>>>);

/// Where to look for a shape: its row must have these values.
type Place = Vec<(usize, Text)>;

/// A table's shapes.
///
/// Equalities that a predicate demands narrow the place of a shape like one more scope. A row that does not have them
/// may still have to be removed from it, unless the stream says what the row was before: for that a narrowed shape is
/// also found by its scope alone.
#[derive(Debug, Default)]
struct TableIndex {
    shapes: BTreeMap<ShapeIndex, Arc<Shape>>,
    /// By all that a row must have.
    exact: ByColumns,
    /// Narrowed shapes only, by scope.
    narrowed: ByColumns,
}

/// Shapes by table, columns and values. Finding those of a row costs one lookup per set of columns in use, however
/// many shapes there are; and one evaluation for each predicate found so.
#[derive(Debug, Default)]
pub struct MatchIndex {
    tables: BTreeMap<Oid, TableIndex>,
}

/// All that a row of the shape must have, and whether that is more than its scope.
fn place(shape: &Shape) -> (Place, bool) {
    let mut place = shape.scope().to_vec();
    let scope = place.len();
    for (column, value) in shape.predicate.iter().flat_map(|p| p.equalities()) {
        if place.iter().all(|(c, _)| *c != column) {
            place.push((column, value));
        }
    }
    place.sort();
    let narrowed = place.len() > scope;
    (place, narrowed)
}

impl ByColumns {
    fn insert(&mut self, place: Place, index: ShapeIndex) {
        let (columns, values) = place.into_iter().unzip();
        self.0.entry(columns).or_default().entry(values).or_default().insert(index);
    }

    fn remove(&mut self, place: Place, index: ShapeIndex) {
        let (columns, values): (Vec<usize>, Vec<Text>) = place.into_iter().unzip();
        let Some(by_values) = self.0.get_mut(&columns) else { return };
        if let Some(shapes) = by_values.get_mut(&values) {
            shapes.remove(&index);
            if shapes.is_empty() {
                by_values.remove(&values);
            }
        }
        if by_values.is_empty() {
            self.0.remove(&columns);
        }
    }

    /// Adds the shapes whose values `value` gives by column. None is a value that no shape can have.
    fn find<'v>(&self, value: impl Fn(usize) -> Option<&'v Value>, found: &mut BTreeSet<ShapeIndex>) {
        for (columns, by_values) in &self.0 {
            let values: Option<Vec<&Value>> = columns.iter().map(|c| value(*c)).collect();
            let Some(values) = values else { continue };
            if values.contains(&&Value::Unchanged) {
                // Too large to be repeated: any of them may be it.
                found.extend(by_values.values().flatten());
            } else if let Some(shapes) = texts(values.into_iter()).and_then(|v| by_values.get(&v)) {
                found.extend(shapes);
            }
        }
    }
}

impl MatchIndex {
    /// Adds a shape.
    pub fn insert(&mut self, index: ShapeIndex, shape: Arc<Shape>) {
        let table = self.tables.entry(shape.table.oid).or_default();
        let (place, narrowed) = place(&shape);
        table.exact.insert(place, index);
        if narrowed {
            table.narrowed.insert(shape.scope().to_vec(), index);
        }
        table.shapes.insert(index, shape);
    }

    /// Takes one out.
    pub fn remove(&mut self, index: ShapeIndex, shape: &Shape) {
        let Some(table) = self.tables.get_mut(&shape.table.oid) else { return };
        table.shapes.remove(&index);
        let (place, narrowed) = place(shape);
        table.exact.remove(place, index);
        if narrowed {
            table.narrowed.remove(shape.scope().to_vec(), index);
        }
        if table.shapes.is_empty() {
            self.tables.remove(&shape.table.oid);
        }
    }

    /// The shapes of a table.
    pub fn of_table(&self, oid: Oid) -> impl Iterator<Item = ShapeIndex> {
        self.tables.get(&oid).into_iter().flat_map(|t| t.shapes.keys().copied())
    }

    /// A transaction's effect on every shape that it touches.
    ///
    /// Contract: for each shape, what [`delta_for`](super::delta_for) says, and nothing for those it leaves alone.
    pub fn route(&self, net: &NetChanges) -> Routed {
        let mut routed = Routed::new();
        for (oid, table_net) in &net.tables {
            if let Some(table) = self.tables.get(oid) {
                table.route(table_net, &mut routed);
            }
        }
        routed.retain(|_, delta| !matches!(delta, Ok(d) if d.is_empty()));
        routed
    }
}

impl TableIndex {
    fn route(&self, net: &TableNet, routed: &mut Routed) {
        if net.unreadable {
            routed.extend(self.shapes.keys().map(|s| (*s, Err(Hole))));
            return;
        }
        if net.truncated {
            let reset = || Delta { reset: Some(ResetReason::Truncated), ..Delta::default() };
            routed.extend(self.shapes.keys().map(|s| (*s, Ok(reset()))));
        }
        for (key, end) in &net.rows {
            for index in self.candidates(net, key, end) {
                let shape = &self.shapes[&index];
                let slot = routed.entry(index).or_insert_with(|| Ok(Delta::default()));
                let Ok(delta) = slot else { continue };
                match effect(shape, net, key, end) {
                    Ok(Effect::Put(row)) => delta.put.push(row.clone()),
                    Ok(Effect::Remove) => delta.remove.push(key.clone()),
                    Ok(Effect::Nothing) => {}
                    Err(hole) => *slot = Err(hole),
                }
            }
        }
    }

    /// The shapes that a key's change may concern; at least those on which it has an effect.
    fn candidates(&self, net: &TableNet, key: &Key, end: &Final) -> BTreeSet<ShapeIndex> {
        let mut found = BTreeSet::new();
        let before = net.before.get(key);
        let untold = before.is_none() && !net.fresh.contains(key);
        if let Final::Row(row) = end {
            self.exact.find(|c| row.get(c), &mut found);
            if untold {
                self.narrowed.find(|c| row.get(c), &mut found);
            }
        }
        if let Some(row) = before {
            self.exact.find(|c| row.get(c), &mut found);
        }
        let Some(scope_columns) = self.shapes.values().next().map(|s| &s.table.scope_columns) else {
            return found;
        };
        for scope in net.moved.get(key).into_iter().flatten() {
            let old = |column| scope_columns.iter().position(|c| *c == column).and_then(|at| scope.get(at));
            self.exact.find(old, &mut found);
            self.narrowed.find(old, &mut found);
        }
        if *end == Final::Gone {
            // A delete has no row to look by: all shapes without scope.
            self.exact.find(|_| None, &mut found);
            if untold {
                self.narrowed.find(|_| None, &mut found);
            }
        }
        found
    }
}

fn texts<'a>(values: impl Iterator<Item = &'a Value>) -> Option<Vec<Text>> {
    values
        .map(|v| match v {
            Value::Text(t) => Some(t.clone()),
            Value::Null | Value::Unchanged => None,
        })
        .collect()
}
