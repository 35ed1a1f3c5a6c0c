//! Which shapes a row belongs to, without looking at those that it does not.
//!
//! [`places`]: by hash of the values that a shape demands, in its scope and by equalities of its predicate; [`marks`]
//! says of most of what is not there that it is not.
//! [`filters`]: within one place, by what else a predicate demands: [`intervals`] for ranges, pieces of text for
//! patterns. What is left is evaluated, once per distinct predicate and row.

mod filters;
mod intervals;
mod marks;
mod packed;
mod places;
mod routed;

use super::merge::{Effect, Hole, effect};
use crate::catalog::Oid;
use crate::change::{Final, Key, NetChanges, OldScope, TableNet, Text, Tuple, Value};
use crate::position::ResetReason;
use crate::shape::{Shape, Untold};
use filters::Filters;
use marks::Probe;
use places::{Group, Place, Places, text};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use routed::{Routed, ShapeIndex, Touch};

/// What decides about a row that has all values of a shape's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    /// Nothing else: the shape is its scope.
    Plain,
    /// Nothing else: scope and equalities are the whole of it.
    Equal,
    /// More, or it was found by its scope alone.
    Filtered,
}

/// Where a shape was found.
const NEW: u8 = 1;
/// In the row as it was before the transaction.
const BEFORE: u8 = 2;
/// In a scope that the row left.
const LEFT: u8 = 4;
/// It must be looked at.
const LOOK: u8 = 8;
/// In its scope alone, now or before, and nothing says whether the row was in the shape.
const SCOPED: u8 = 16;

/// A shape's place: columns and the values that its rows must have.
struct Where {
    columns: Vec<usize>,
    values: Vec<Text>,
}

/// A shape, and the number of its predicate.
#[derive(Debug)]
struct Known {
    shape: Arc<Shape>,
    predicate: Option<u32>,
}

/// A table's shapes.
///
/// A row that does not have the values of a shape may still have to be removed from it, unless the stream says what
/// the row was before: for that a shape with a predicate is also found by its scope alone.
#[derive(Debug, Default)]
struct TableIndex {
    shapes: BTreeMap<ShapeIndex, Known>,
    /// Distinct predicates, by what they mean: number, and how many shapes have it.
    predicates: HashMap<String, (u32, usize)>,
    next_predicate: u32,
    /// By all that a row must have.
    exact: Vec<Group>,
    /// Shapes with predicates only, by scope.
    scopes: Vec<Group>,
}

/// Room that is used again for each row.
#[derive(Debug, Default)]
struct Scratch {
    hashes: Vec<(usize, u64)>,
    /// What to look for: its hash, in which group, and what it means to find it.
    wanted: Vec<(u64, u32, Source)>,
    /// Of each of them, where it may be.
    probes: Vec<Probe>,
    found: Vec<(ShapeIndex, Member, u8)>,
    passed: Passed,
}

/// Whether the row passes a predicate, by the predicate's number; or the row as it was before.
type Passed = HashMap<(u32, bool), Result<bool, Untold>>;

/// Which values are looked up, in which kind of group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    New,
    Before,
    /// The nth scope that the row left.
    Left(u32),
    /// The scope of the row as it is, for shapes that it may have been in.
    Scope,
    LeftScope(u32),
}

/// Shapes by table, columns and values. Finding those of a row costs one lookup per set of columns in use, however
/// many shapes there are; and one evaluation for each predicate that may pass.
#[derive(Debug, Default)]
pub struct MatchIndex {
    tables: BTreeMap<Oid, TableIndex>,
    places: Places,
    scratch: Scratch,
}

fn of_scope(shape: &Shape) -> Where {
    let (columns, values) = shape.scope().iter().cloned().unzip();
    Where { columns, values }
}

/// All that a row of the shape must have, and whether that is all that is asked of it.
fn of_all(shape: &Shape) -> (Where, Member) {
    let mut place = shape.scope().to_vec();
    let Some(predicate) = &shape.predicate else { return (of_scope(shape), Member::Plain) };
    let (equalities, whole) = predicate.equalities();
    let mut member = if whole { Member::Equal } else { Member::Filtered };
    for (column, value) in equalities {
        match place.iter().find(|(c, _)| *c == column) {
            None => place.push((column, value)),
            // It asks for two values of one column.
            Some((_, other)) if *other != value => member = Member::Filtered,
            Some(_) => {}
        }
    }
    place.sort();
    let (columns, values) = place.into_iter().unzip();
    (Where { columns, values }, member)
}

fn group_of<'g>(groups: &'g mut Vec<Group>, columns: &[usize], places: &mut Places) -> &'g Group {
    let at = groups.iter().position(|group| *group.columns == *columns).unwrap_or_else(|| {
        groups.push(places.group(columns.into()));
        groups.len() - 1
    });
    &groups[at]
}

fn take_from(groups: &mut Vec<Group>, place: &Where, places: &mut Places, change: impl FnOnce(&mut Place)) {
    let Some(at) = groups.iter().position(|group| *group.columns == *place.columns) else { return };
    places.take(&groups[at], &place.values, change);
    if places.ended(&groups[at]) {
        groups.remove(at);
    }
}

impl MatchIndex {
    /// Adds a shape.
    pub fn insert(&mut self, index: ShapeIndex, shape: Arc<Shape>) {
        let table = self.tables.entry(shape.table.oid).or_default();
        let (place, member) = of_all(&shape);
        let group = group_of(&mut table.exact, &place.columns, &mut self.places);
        let filtered = (member == Member::Filtered).then_some(&*shape);
        self.places.at(group, &place.values).insert(index, member, filtered);
        if member != Member::Plain {
            let scope = of_scope(&shape);
            let group = group_of(&mut table.scopes, &scope.columns, &mut self.places);
            self.places.at(group, &scope.values).insert(index, Member::Filtered, None);
        }
        let predicate = shape.predicate.as_ref().map(|p| table.predicate(p.sql()));
        table.shapes.insert(index, Known { shape, predicate });
    }

    /// Takes one out.
    pub fn remove(&mut self, index: ShapeIndex, shape: &Shape) {
        let Some(table) = self.tables.get_mut(&shape.table.oid) else { return };
        if table.shapes.remove(&index).is_some()
            && let Some(predicate) = &shape.predicate
        {
            table.forget(predicate.sql());
        }
        let (place, member) = of_all(shape);
        let filtered = (member == Member::Filtered).then_some(shape);
        take_from(&mut table.exact, &place, &mut self.places, |at| at.remove(index, filtered));
        if member != Member::Plain {
            take_from(&mut table.scopes, &of_scope(shape), &mut self.places, |at| at.remove(index, None));
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
    pub fn route<'n>(&mut self, net: &'n NetChanges) -> Routed<'n> {
        let mut routed = Routed(Vec::with_capacity(16));
        for (oid, table_net) in &net.tables {
            if let Some(table) = self.tables.get(oid) {
                table.route(table_net, &self.places, &mut self.scratch, &mut routed.0);
            }
        }
        // Stable: of one shape in the order of the keys.
        routed.0.sort_by_key(|(shape, _)| *shape);
        routed
    }
}

impl TableIndex {
    fn predicate(&mut self, sql: &str) -> u32 {
        if let Some((number, shapes)) = self.predicates.get_mut(sql) {
            *shapes += 1;
            return *number;
        }
        self.next_predicate += 1;
        self.predicates.insert(sql.to_owned(), (self.next_predicate, 1));
        self.next_predicate
    }

    fn forget(&mut self, sql: &str) {
        if let Some((_, shapes)) = self.predicates.get_mut(sql) {
            *shapes -= 1;
            if *shapes == 0 {
                self.predicates.remove(sql);
            }
        }
    }

    fn route<'n>(
        &self,
        net: &'n TableNet,
        places: &Places,
        scratch: &mut Scratch,
        routed: &mut Vec<(ShapeIndex, Touch<'n>)>,
    ) {
        if net.unreadable {
            routed.extend(self.shapes.keys().map(|s| (*s, Touch::Hole)));
            return;
        }
        if net.truncated {
            routed.extend(self.shapes.keys().map(|s| (*s, Touch::Reset(ResetReason::Truncated))));
        }
        // Shapes of a table are of one schema.
        let Some(any) = self.shapes.values().next() else { return };
        for (key, end) in &net.rows {
            let before = net.before.get(key);
            let row = Row { net, key, end, before, scope_columns: &any.shape.table.scope_columns };
            let partial = row.is_partial();
            self.find(&row, places, scratch);
            let Scratch { found, passed, .. } = scratch;
            found.sort_unstable_by_key(|(shape, ..)| *shape);
            passed.clear();
            for same in found.chunk_by(|a, b| a.0 == b.0) {
                let how = same.iter().fold(0, |how, (.., more)| how | more);
                let touch = if partial || how & LOOK != 0 {
                    self.shapes.get(&same[0].0).and_then(|shape| row.look(shape, passed))
                } else {
                    row.known(same[0].1, how)
                };
                routed.extend(touch.map(|touch| (same[0].0, touch)));
            }
        }
    }

    /// The shapes that a key's change may concern: at least those on which it has an effect.
    fn find(&self, row: &Row<'_, '_>, places: &Places, scratch: &mut Scratch) {
        scratch.wanted.clear();
        scratch.found.clear();
        let untold = row.untold();
        if let Final::Row(new) = row.end {
            let value = |column| new.get(column);
            self.want(&self.exact, Source::New, value, places, scratch);
            if untold {
                self.want(&self.scopes, Source::Scope, value, places, scratch);
            }
        }
        if let Some(before) = row.before {
            self.want(&self.exact, Source::Before, |column| before.get(column), places, scratch);
        }
        for (nth, scope) in (0..).zip(row.left()) {
            let value = |column| row.old(scope, column);
            self.want(&self.exact, Source::Left(nth), value, places, scratch);
            if untold {
                self.want(&self.scopes, Source::LeftScope(nth), value, places, scratch);
            }
        }
        if *row.end == Final::Gone {
            // A delete has no row to look by: all shapes without scope.
            self.want(&self.exact, Source::Left(u32::MAX), |_| None, places, scratch);
            if untold {
                self.want(&self.scopes, Source::LeftScope(u32::MAX), |_| None, places, scratch);
            }
        }
        // Nothing is read in between: what goes to memory goes there together.
        let Scratch { wanted, probes, found, .. } = scratch;
        places.probe(wanted.iter().map(|(hash, ..)| *hash), probes);
        for ((_, group, source), probe) in wanted.iter().zip(probes) {
            self.look_up(*probe, *group, *source, row, places, found);
        }
    }

    /// Notes what to look for: one hash per group whose columns all have values.
    fn want<'v>(
        &self,
        groups: &[Group],
        source: Source,
        value: impl Fn(usize) -> Option<&'v Value>,
        places: &Places,
        scratch: &mut Scratch,
    ) {
        let Scratch { hashes, wanted, found, .. } = scratch;
        hashes.clear();
        'groups: for (number, group) in (0..).zip(groups) {
            let mut unknown = false;
            for column in &group.columns {
                match value(*column) {
                    None | Some(Value::Null) => continue 'groups,
                    Some(Value::Unchanged) => unknown = true,
                    Some(Value::Text(text)) => {
                        if hashes.iter().all(|(c, _)| c != column) {
                            hashes.push((*column, places.hash(text)));
                        }
                    }
                }
            }
            if unknown {
                // Too large to be repeated: any of them may be it.
                for place in places.of_group(group) {
                    let mut all = |index| found.push((index, Member::Filtered, LOOK));
                    place.each(|index, _| all(index));
                    place.filters().into_iter().for_each(|filters| filters.all(&mut all));
                }
                continue;
            }
            let of = |column: &usize| hashes.iter().find(|(c, _)| c == column).map_or(0, |(_, hash)| *hash);
            wanted.push((group.hash(group.columns.iter().map(of)), number, source));
        }
    }

    fn look_up(
        &self,
        probe: Probe,
        group: u32,
        source: Source,
        row: &Row<'_, '_>,
        places: &Places,
        found: &mut Vec<(ShapeIndex, Member, u8)>,
    ) {
        let by_scope = matches!(source, Source::Scope | Source::LeftScope(_));
        let groups = if by_scope { &self.scopes } else { &self.exact };
        let Some(group) = groups.get(group as usize) else { return };
        let values = group.columns.iter().filter_map(|column| row.value(source, *column).and_then(text));
        let Some(place) = places.find(probe, group, values) else { return };
        let how = match source {
            Source::New => NEW,
            Source::Before => BEFORE,
            Source::Left(_) => LEFT,
            Source::Scope | Source::LeftScope(_) => SCOPED,
        };
        place.each(|index, member| found.push((index, member, how)));
        let Some(filters) = place.filters() else { return };
        self.filtered(filters, source, row, |index| found.push((index, Member::Filtered, LOOK)));
    }

    fn filtered(
        &self,
        filters: &Filters,
        source: Source,
        row: &Row<'_, '_>,
        mut found: impl FnMut(ShapeIndex),
    ) {
        let whole = match source {
            Source::New => match row.end {
                Final::Row(new) => Some(new),
                Final::Gone => None,
            },
            Source::Before => row.before,
            // Of a scope that was left only its shapes are known; if nothing says what the row was, the shapes are
            // found by scope.
            Source::Left(_) | Source::Scope | Source::LeftScope(_) => None,
        };
        let Some(any) = self.shapes.values().next() else { return };
        if let Some(whole) = whole {
            filters.find(&any.shape.table, whole, &mut found);
        }
    }
}

/// One key's change.
struct Row<'n, 't> {
    net: &'n TableNet,
    key: &'n Key,
    end: &'n Final,
    /// As it was before the transaction, if the stream says so.
    before: Option<&'n Tuple>,
    scope_columns: &'t [usize],
}

impl<'n> Row<'n, '_> {
    /// Nothing says what the row was before, and it was.
    fn untold(&self) -> bool {
        self.before.is_none() && !self.net.fresh.contains(self.key)
    }

    fn left(&self) -> &'n [OldScope] {
        self.net.moved.get(self.key).map(Vec::as_slice).unwrap_or_default()
    }

    fn old(&self, scope: &'n OldScope, column: usize) -> Option<&'n Value> {
        self.scope_columns.iter().position(|c| *c == column).and_then(|at| scope.get(at))
    }

    fn value(&self, source: Source, column: usize) -> Option<&'n Value> {
        match source {
            Source::New | Source::Scope => match self.end {
                Final::Row(row) => row.get(column),
                Final::Gone => None,
            },
            Source::Before => self.before?.get(column),
            Source::Left(nth) | Source::LeftScope(nth) => self.old(self.left().get(nth as usize)?, column),
        }
    }

    /// Large values that were not repeated: whoever is told of the row must be looked at.
    fn is_partial(&self) -> bool {
        matches!(self.end, Final::Row(row) if row.contains(&Value::Unchanged))
    }

    /// What happens to a shape about which the places where it was found say all: if its rows must have more than
    /// values, this one does not have it.
    fn known(&self, member: Member, how: u8) -> Option<Touch<'n>> {
        match self.end {
            Final::Row(row) if how & NEW != 0 => return Some(Touch::Put(row)),
            _ => {}
        }
        let was_here = match member {
            Member::Plain => how & LEFT,
            Member::Equal | Member::Filtered => how & (BEFORE | SCOPED),
        };
        (was_here != 0).then_some(Touch::Remove(self.key))
    }

    /// What happens to any shape. Each predicate is evaluated once for the row, and once for what it was.
    fn look(&self, known: &Known, passed: &mut Passed) -> Option<Touch<'n>> {
        let Known { shape, predicate } = known;
        let passes = |row: &Tuple, before: bool| match predicate {
            None => Ok(true),
            Some(number) => *passed.entry((*number, before)).or_insert_with(|| shape.passes(row)),
        };
        match effect(shape, self.net, self.key, self.end, passes) {
            Ok(Effect::Put(row)) => Some(Touch::Put(row)),
            Ok(Effect::Remove) => Some(Touch::Remove(self.key)),
            Ok(Effect::Nothing) => None,
            Err(Hole) => Some(Touch::Hole),
        }
    }
}
