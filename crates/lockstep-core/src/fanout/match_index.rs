//! Which shapes a row belongs to, by hash of its scope values.

use super::merge::{Effect, Hole, effect};
use crate::catalog::Oid;
use crate::change::{Final, NetChanges, TableNet, Text, Value};
use crate::position::ResetReason;
use crate::protocol::Delta;
use crate::shape::Shape;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A shape's number in the hub.
pub type ShapeIndex = u32;

/// What a transaction does to the shapes that it touches.
pub type Routed = BTreeMap<ShapeIndex, Result<Delta, Hole>>;

/// Scope columns (indices into the table's columns) to the shapes by their values.
type ByValues = HashMap<Vec<Text>, BTreeSet<ShapeIndex>>;

#[derive(Debug, Default)]
struct TableIndex {
    shapes: BTreeMap<ShapeIndex, Arc<Shape>>,
    unscoped: BTreeSet<ShapeIndex>,
    scoped: BTreeMap<Vec<usize>, ByValues>,
}

/// Shapes by table, scope columns and values. Finding those of a row costs one lookup per scope of its table,
/// however many shapes there are.
#[derive(Debug, Default)]
pub struct MatchIndex {
    tables: BTreeMap<Oid, TableIndex>,
}

fn place(shape: &Shape) -> (Vec<usize>, Vec<Text>) {
    shape.scope().iter().cloned().unzip()
}

impl MatchIndex {
    /// Adds a shape.
    pub fn insert(&mut self, index: ShapeIndex, shape: Arc<Shape>) {
        let table = self.tables.entry(shape.table.oid).or_default();
        if shape.scope().is_empty() {
            table.unscoped.insert(index);
        } else {
            let (columns, values) = place(&shape);
            table.scoped.entry(columns).or_default().entry(values).or_default().insert(index);
        }
        table.shapes.insert(index, shape);
    }

    /// Takes one out.
    pub fn remove(&mut self, index: ShapeIndex, shape: &Shape) {
        let Some(table) = self.tables.get_mut(&shape.table.oid) else { return };
        table.shapes.remove(&index);
        table.unscoped.remove(&index);
        let (columns, values) = place(shape);
        if let Some(by_values) = table.scoped.get_mut(&columns)
            && let Some(shapes) = by_values.get_mut(&values)
        {
            shapes.remove(&index);
            if shapes.is_empty() {
                by_values.remove(&values);
            }
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

    fn candidates(&self, net: &TableNet, key: &crate::change::Key, end: &Final) -> BTreeSet<ShapeIndex> {
        let mut found = self.unscoped.clone();
        for (columns, by_values) in &self.scoped {
            let mut probe = |values: Option<Vec<Text>>| {
                if let Some(shapes) = values.and_then(|v| by_values.get(&v)) {
                    found.extend(shapes);
                }
            };
            if let Final::Row(row) = end {
                if columns.iter().any(|c| row[*c] == Value::Unchanged) {
                    // A scope too large to be repeated: any of them may be it.
                    found.extend(by_values.values().flatten());
                    continue;
                }
                probe(texts(columns.iter().map(|c| &row[*c])));
            }
            for scope in net.moved.get(key).into_iter().flatten() {
                let positions = self.shapes.values().next().map(|s| &s.table.scope_columns);
                let old = positions.and_then(|positions| {
                    let at = |c: &usize| positions.iter().position(|p| p == c).and_then(|p| scope.get(p));
                    let values: Option<Vec<&Value>> = columns.iter().map(at).collect();
                    texts(values?.into_iter())
                });
                probe(old);
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
