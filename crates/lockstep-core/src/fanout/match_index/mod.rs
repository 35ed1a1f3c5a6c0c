//! Which shapes a row belongs to, without looking at those that it does not.
//!
//! [`places`]: by hash of the values that a shape demands, in its scope and by equalities of its predicate.
//! [`filters`]: within one place, by what else a predicate demands: [`intervals`] for ranges, pieces of text for
//! patterns. What is left is evaluated, once per distinct predicate and row.
//! [`row`]: what a change then does to a shape.

mod filters;
mod intervals;
mod places;
mod routed;
mod row;

use crate::catalog::Oid;
use crate::change::{Final, NetChanges, TableNet, Text, Value};
use crate::position::ResetReason;
use crate::shape::Shape;
use filters::Filters;
use places::{Found, Group, Keys, Places, Probe, Tag};
use row::{BEFORE, Hit, LEFT, LOOK, NEW, Passed, Row, SCOPED};
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
    /// Where it is in the list of its group, and of its scope's group if it is in one.
    at: [usize; 2],
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
    /// All columns of its groups, each once.
    columns: Vec<usize>,
}

/// What a row has in a column that some shape demands a value in.
#[derive(Debug, Clone, Copy)]
enum Has {
    Nothing,
    /// Too large to be repeated: it may be any value.
    Unchanged,
    Hash(u128),
}

/// Room that is used again for each row.
#[derive(Debug, Default)]
struct Scratch {
    /// By the table's list of columns.
    has: Vec<Has>,
    /// What to look for: its tag, and what it means to find it.
    wanted: Vec<(Tag, Source)>,
    /// Of each of them, where it may be.
    probes: Vec<Probe>,
    /// The same for what is looked up by scope alone.
    wanted_scopes: Vec<(Tag, Source)>,
    scope_probes: Vec<Probe>,
    found: Vec<Hit>,
    passed: Passed,
}

/// Which values are looked up, in which kind of group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    New,
    Before,
    /// A scope that the row left.
    Left,
    /// The scope of the row as it is, for shapes that it may have been in.
    Scope,
    LeftScope,
}

/// Shapes by table, columns and values. Finding those of a row costs one lookup per set of columns in use, however
/// many shapes there are; and one evaluation for each predicate that may pass.
#[derive(Debug, Default)]
pub struct MatchIndex {
    tables: BTreeMap<Oid, TableIndex>,
    places: Both,
    scratch: Scratch,
}

/// All places.
#[derive(Debug, Default)]
struct Both {
    keys: Keys,
    /// By all that a row must have.
    exact: Places,
    /// Shapes with predicates only, by scope.
    scopes: Places,
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

impl MatchIndex {
    /// Adds a shape.
    pub fn insert(&mut self, index: ShapeIndex, shape: Arc<Shape>) {
        let table = self.tables.entry(shape.table.oid).or_default();
        let Both { keys, exact, scopes } = &mut self.places;
        let (place, member) = of_all(&shape);
        let (tag, at) = table.enlist(0, &place, index, keys);
        exact.insert(tag, index, member, (member == Member::Filtered).then_some(&*shape));
        let mut at = [at, 0];
        if member != Member::Plain {
            let (tag, nth) = table.enlist(1, &of_scope(&shape), index, keys);
            scopes.insert(tag, index, Member::Filtered, None);
            at[1] = nth;
        }
        let predicate = shape.predicate.as_ref().map(|p| table.predicate(p.sql()));
        table.shapes.insert(index, Known { shape, predicate, at });
    }

    /// Takes one out.
    pub fn remove(&mut self, index: ShapeIndex, shape: &Shape) {
        let Some(table) = self.tables.get_mut(&shape.table.oid) else { return };
        let Some(known) = table.shapes.remove(&index) else { return };
        if let Some(predicate) = &shape.predicate {
            table.forget(predicate.sql());
        }
        let Both { keys, exact, scopes } = &mut self.places;
        let (place, member) = of_all(shape);
        let filtered = (member == Member::Filtered).then_some(shape);
        if let Some(tag) = table.delist(0, &place, known.at, keys) {
            exact.remove(tag, index, filtered);
        }
        if member != Member::Plain
            && let Some(tag) = table.delist(1, &of_scope(shape), known.at, keys)
        {
            scopes.remove(tag, index, None);
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

    const fn groups(&mut self, kind: usize) -> &mut Vec<Group> {
        if kind == 0 { &mut self.exact } else { &mut self.scopes }
    }

    /// After a group came or went.
    fn number_columns(&mut self) {
        let Self { exact, scopes, columns, .. } = self;
        columns.clear();
        for group in exact.iter_mut().chain(scopes) {
            for (column, term) in group.columns.iter().zip(&mut group.terms) {
                term.at = columns.iter().position(|other| other == column).unwrap_or_else(|| {
                    columns.push(*column);
                    columns.len() - 1
                });
            }
        }
    }

    /// Puts a shape into the list of its group, the exact one (0) or its scope's (1), which is made if need be. Says the
    /// tag of its values, and where it is in the list.
    fn enlist(&mut self, kind: usize, place: &Where, index: ShapeIndex, keys: &mut Keys) -> (Tag, usize) {
        let known = self.groups(kind).iter().position(|group| *group.columns == *place.columns);
        let number = known.unwrap_or_else(|| {
            self.groups(kind).push(keys.group(place.columns.as_slice().into()));
            self.number_columns();
            self.groups(kind).len() - 1
        });
        let group = &mut self.groups(kind)[number];
        group.shapes.push(index);
        (keys.tag(group, &place.values), group.shapes.len() - 1)
    }

    /// Takes a shape out of the list of its group, which goes when it is empty.
    fn delist(&mut self, kind: usize, place: &Where, at: [usize; 2], keys: &Keys) -> Option<Tag> {
        let groups = self.groups(kind);
        let number = groups.iter().position(|group| *group.columns == *place.columns)?;
        let group = &mut groups[number];
        let tag = keys.tag(group, &place.values);
        group.shapes.swap_remove(at[kind]);
        let moved = group.shapes.get(at[kind]).copied();
        if group.shapes.is_empty() {
            groups.remove(number);
            self.number_columns();
        }
        if let Some(moved) = moved.and_then(|moved| self.shapes.get_mut(&moved)) {
            moved.at[kind] = at[kind];
        }
        Some(tag)
    }

    fn route<'n>(
        &self,
        net: &'n TableNet,
        places: &Both,
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
        for (key, end, net) in net.ends() {
            let before = net.before.as_ref();
            let row = Row { net, key, end, before, scope_columns: &any.shape.table.scope_columns };
            let partial = row.is_partial();
            self.find(&row, places, scratch);
            let Scratch { found, passed, .. } = scratch;
            found.sort_unstable();
            passed.clear();
            for same in found.chunk_by(|a, b| a.shape() == b.shape()) {
                let how = same.iter().fold(0, |how, hit| how | hit.how());
                let touch = if partial || how & LOOK != 0 {
                    self.shapes.get(&same[0].shape()).and_then(|shape| row.look(shape, passed))
                } else {
                    row.known(same[0].is_plain(), how)
                };
                routed.extend(touch.map(|touch| (same[0].shape(), touch)));
            }
        }
    }

    /// The shapes that a key's change may concern: at least those on which it has an effect.
    fn find(&self, row: &Row<'_, '_>, places: &Both, scratch: &mut Scratch) {
        scratch.wanted.clear();
        scratch.wanted_scopes.clear();
        scratch.found.clear();
        let untold = row.untold();
        if let Final::Row(new) = row.end {
            self.has(|column| new.get(column), &places.keys, scratch);
            self.want(Source::New, scratch);
            if untold {
                self.want(Source::Scope, scratch);
            }
        }
        if let Some(before) = row.before {
            self.has(|column| before.get(column), &places.keys, scratch);
            self.want(Source::Before, scratch);
        }
        for scope in row.left() {
            self.has(|column| row.old(scope, column), &places.keys, scratch);
            self.want(Source::Left, scratch);
            if untold {
                self.want(Source::LeftScope, scratch);
            }
        }
        if *row.end == Final::Gone {
            // A delete has no row to look by: all shapes without scope.
            self.has(|_| None, &places.keys, scratch);
            self.want(Source::Left, scratch);
            if untold {
                self.want(Source::LeftScope, scratch);
            }
        }
        // Nothing is read in between: what goes to memory goes there together.
        let Scratch { wanted, probes, wanted_scopes, scope_probes, found, .. } = scratch;
        places.exact.probe(wanted.iter().map(|(tag, _)| *tag), probes);
        places.scopes.probe(wanted_scopes.iter().map(|(tag, _)| *tag), scope_probes);
        for ((_, source), probe) in wanted.iter().zip(probes) {
            self.look_up(&places.exact, *probe, *source, row, found);
        }
        for ((_, source), probe) in wanted_scopes.iter().zip(scope_probes) {
            self.look_up(&places.scopes, *probe, *source, row, found);
        }
    }

    /// What a row has in the columns of all groups.
    fn has<'v>(&self, value: impl Fn(usize) -> Option<&'v Value>, keys: &Keys, scratch: &mut Scratch) {
        scratch.has.clear();
        scratch.has.extend(self.columns.iter().map(|column| match value(*column) {
            None | Some(Value::Null) => Has::Nothing,
            Some(Value::Unchanged) => Has::Unchanged,
            Some(Value::Text(text)) => Has::Hash(keys.hash(text)),
        }));
    }

    /// Notes what to look for: one tag per group whose columns all have values.
    fn want(&self, source: Source, scratch: &mut Scratch) {
        let Scratch { has, wanted, wanted_scopes, found, .. } = scratch;
        let by_scope = matches!(source, Source::Scope | Source::LeftScope);
        let (groups, wanted) = if by_scope { (&self.scopes, wanted_scopes) } else { (&self.exact, wanted) };
        'groups: for group in groups {
            let (mut unknown, mut sum) = (false, group.seed);
            for term in &group.terms {
                match has[term.at] {
                    Has::Nothing => continue 'groups,
                    Has::Unchanged => unknown = true,
                    Has::Hash(hash) => sum = sum.wrapping_add(term.of(hash)),
                }
            }
            if unknown {
                // Any of them may be it.
                found.extend(group.shapes.iter().map(|index| Hit::new(*index, Member::Filtered, LOOK)));
                continue;
            }
            wanted.push((Tag::of(sum), source));
        }
    }

    fn look_up(&self, places: &Places, probe: Probe, source: Source, row: &Row<'_, '_>, all: &mut Vec<Hit>) {
        let how = match source {
            Source::New => NEW,
            Source::Before => BEFORE,
            Source::Left => LEFT,
            Source::Scope | Source::LeftScope => SCOPED,
        };
        places.find(probe, |found| match found {
            Found::Shape(index, member) => all.push(Hit::new(index, member, how)),
            Found::Filters(filters) => {
                self.filtered(filters, source, row, |index| {
                    all.push(Hit::new(index, Member::Filtered, LOOK))
                });
            }
        });
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
            Source::Left | Source::Scope | Source::LeftScope => None,
        };
        let Some(any) = self.shapes.values().next() else { return };
        if let Some(whole) = whole {
            filters.find(&any.shape.table, whole, &mut found);
        }
    }
}
