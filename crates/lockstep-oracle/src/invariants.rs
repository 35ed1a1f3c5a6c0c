//! What holds at every commit frame, whatever the moment.

use crate::ledger::CONTESTED;
use crate::schema::{MONEY, Schema};
use crate::shapes::Shape;
use lockstep_client::{Commit, Replica};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// References of the subscriptions to the fixed tables.
#[derive(Debug, Clone)]
pub struct References {
    /// `pulse_a`, `pulse_b`.
    pub pulses: [String; 2],
    /// `purse_a`, `purse_b`.
    pub purses: [String; 2],
    /// `parents`, `children`.
    pub families: [String; 2],
    /// `receipts`, `tallies`.
    pub receipts: [String; 2],
}

/// What must be remembered from one commit to the next.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pulses: BTreeMap<i64, i64>,
}

/// Reasons for which a client's state may lie before the one it had.
const REWRITTEN: [&str; 4] = ["other_timeline", "rolled_back", "future", "other_database"];

fn number(value: &Json) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Rows of two numeric columns.
fn pairs(replica: &Replica, reference: &str, first: &str, second: &str) -> Option<Vec<(i64, i64)>> {
    let (columns, rows) = replica.view(reference)?;
    let at = |name: &str| columns.iter().position(|c| c == name);
    let (first, second) = (at(first)?, at(second)?);
    rows.map(|row| Some((number(&row[first])?, number(&row[second])?))).collect()
}

/// The word that conditional mutations contend for, as the client shows it.
pub fn contested(replica: &Replica, refs: &References) -> Option<String> {
    let (columns, mut rows) = replica.view(&refs.pulses[1])?;
    let at = |name: &str| columns.iter().position(|c| c == name);
    let (writer, note) = (at("writer")?, at("note")?);
    rows.find(|row| number(&row[writer]) == Some(CONTESTED))?[note].as_str().map(str::to_owned)
}

fn both<T>(references: &[String; 2], read: impl Fn(&str) -> Option<T>) -> Option<(T, T)> {
    Some((read(&references[0])?, read(&references[1])?))
}

/// Checks everything that this client's subscriptions allow. Returns how many invariants were checked.
pub fn check(
    replica: &Replica,
    commit: &Commit,
    refs: &References,
    memory: &mut Memory,
) -> Result<u64, String> {
    let mut checks = 0;
    if let Some((a, b)) = both(&refs.pulses, |r| pairs(replica, r, "writer", "n")) {
        checks += 2;
        let (a, b): (BTreeMap<i64, i64>, BTreeMap<i64, i64>) =
            (a.into_iter().collect(), b.into_iter().collect());
        if a != b {
            return Err(format!("a transaction in part: pulse_a is {a:?}, pulse_b is {b:?}"));
        }
        let rewritten = commit.resets.iter().any(|(_, why)| REWRITTEN.contains(&why.as_str()));
        let back = a.iter().find(|(writer, n)| memory.pulses.get(writer).is_some_and(|before| before > n));
        if let (Some((writer, n)), false) = (back, rewritten) {
            return Err(format!(
                "back in time: writer {writer} is at {n} after {:?}",
                memory.pulses.get(writer)
            ));
        }
        memory.pulses = a;
    }
    if let Some((a, b)) = both(&refs.purses, |r| pairs(replica, r, "id", "amount")) {
        checks += 1;
        let sum: i64 = a.iter().chain(&b).map(|(_, amount)| amount).sum();
        if sum != MONEY {
            return Err(format!("the purses hold {sum}, not {MONEY}: {a:?} {b:?}"));
        }
    }
    let parents = pairs(replica, &refs.families[0], "id", "g");
    let children = pairs(replica, &refs.families[1], "parent_id", "g");
    if let (Some(parents), Some(children)) = (parents, children) {
        checks += 1;
        let parents: BTreeSet<(i64, i64)> = parents.into_iter().collect();
        if let Some((parent, g)) = children.iter().find(|child| !parents.contains(child)) {
            return Err(format!("a child without its parent {parent} of group {g}"));
        }
    }
    let receipts = pairs(replica, &refs.receipts[0], "who", "id");
    let tallies = pairs(replica, &refs.receipts[1], "who", "n");
    if let (Some(receipts), Some(tallies)) = (receipts, tallies) {
        checks += 1;
        let mut counted: BTreeMap<i64, i64> = BTreeMap::new();
        for (who, _) in receipts {
            *counted.entry(who).or_default() += 1;
        }
        let told: BTreeMap<i64, i64> = tallies.into_iter().filter(|(_, n)| *n > 0).collect();
        if counted != told {
            return Err(format!("receipts are {counted:?}, tallies {told:?}"));
        }
    }
    Ok(checks)
}

/// No shape shows a row that lies outside of its scope. Returns how many rows were looked at.
pub fn scopes(replica: &Replica, schema: &Schema, shapes: &[Shape]) -> Result<u64, String> {
    let mut checks = 0;
    for (at, shape) in shapes.iter().enumerate() {
        let table = &schema.tables[shape.table];
        let reference = at.to_string();
        let Some((columns, rows)) = replica.view(&reference) else { continue };
        let wanted = shape.scope.iter().filter_map(|(column, text)| {
            let column = &table.columns[*column];
            Some((columns.iter().position(|c| *c == column.name)?, column.kind.wire(Some(text))))
        });
        let wanted: Vec<(usize, Json)> = wanted.collect();
        if wanted.is_empty() {
            continue;
        }
        for row in rows {
            checks += 1;
            if wanted.iter().any(|(column, value)| row[*column] != *value) {
                return Err(format!("a row outside of the scope of {}: {row:?}", shape.definition(schema)));
            }
        }
    }
    Ok(checks)
}
