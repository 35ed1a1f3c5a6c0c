//! What a run counted, as one JSON object.

use crate::{faults, statements};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Counts of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Transactions that committed: the application's and the clients'.
    pub transactions: u64,
    /// Comparisons of a client that had at least ten changed rows.
    pub states_checked: u64,
    /// Rows of all comparisons.
    pub rows_compared: u64,
    /// Invariants checked at commit frames.
    pub invariant_checks: u64,
    /// Faults that took place, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Statements of transactions that committed, by kind.
    pub statements: BTreeMap<&'static str, u64>,
    /// Faults that cannot take place here, and why.
    pub skipped: BTreeMap<&'static str, String>,
    /// Conditional mutations that came first, and those that came too late.
    pub conditional: (u64, u64),
    /// What was wrong, each with a line that replays it.
    pub violations: Vec<String>,
}

impl Report {
    /// Notes that a fault took place.
    pub fn count(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Kinds of faults and statements that a run long enough for all of them lacks.
    pub fn missing(&self, major: u32) -> Vec<&'static str> {
        let faults = faults::ALL.into_iter().filter(|k| !self.faults.contains_key(k));
        let faults = faults.filter(|k| !self.skipped.contains_key(k));
        let statements = statements::kinds(major).into_iter().filter(|k| !self.statements.contains_key(k));
        faults.chain(statements).collect()
    }

    /// One object.
    pub fn json(&self) -> Json {
        json!({
            "transactions": self.transactions,
            "states_checked": self.states_checked,
            "rows_compared": self.rows_compared,
            "invariant_checks": self.invariant_checks,
            "faults": self.faults,
            "statements": self.statements,
            "conditional": {"applied": self.conditional.0, "conflicts": self.conditional.1},
            "skipped": self.skipped,
            "violations": self.violations.len(),
        })
    }
}
