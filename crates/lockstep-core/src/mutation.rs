//! Mutations: what a client may write, and how it learns what became of it.

use crate::change::{Text, Value};
use crate::limits;
use crate::protocol::unreadable;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The column order of `lockstep.clients`, as installed: subject, client, last, id, outcome, code, message.
const CLIENT_COLUMNS: usize = 7;

/// Operations as they are.
pub const KIND_OPS: &str = "ops";
/// Operations of which some are carried out only if their rows have not changed. A kind of its own: a node that knows
/// no conditions must refuse them, not overlook them.
pub const KIND_CONDITIONAL: &str = "ops_if";

/// A numbered write as it comes from a client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Mutation {
    /// Number in the client's outbox, from 1, without gaps.
    #[serde(deserialize_with = "crate::protocol::number")]
    pub n: u64,
    /// Random; tells two mutations of one number apart.
    pub id: String,
    /// How `ops` or `name` and `args` are to be understood.
    pub kind: String,
    /// Reserved: a named mutation.
    #[serde(default)]
    pub name: Option<String>,
    /// Reserved: its arguments.
    #[serde(default)]
    pub args: Option<Json>,
    /// The operations of kinds `ops` and `ops_if`, still to be read.
    #[serde(default, deserialize_with = "each_by_itself")]
    pub ops: Vec<Result<Json, String>>,
}

/// Each operation's JSON, or why it has none. A browser's text may end in half of a character, and JSON may nest too deeply:
/// that is its own mutation's end, and must not keep the others in the message, or behind it, from being read.
fn each_by_itself<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Result<Json, String>>, D::Error> {
    let raw = Vec::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(raw.iter().map(|op| serde_json::from_str(op.get()).map_err(|error| unreadable(&error))).collect())
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    /// A new row.
    Insert {
        /// Table as in a shape.
        table: String,
        /// Columns and values; others take their defaults.
        values: BTreeMap<String, Json>,
    },
    /// New values for named columns of one row.
    Update {
        /// Table as in a shape.
        table: String,
        /// Primary key.
        key: BTreeMap<String, Json>,
        /// Columns and values.
        set: BTreeMap<String, Json>,
        /// What the row must have for the mutation to be carried out.
        #[serde(default, rename = "if", deserialize_with = "given")]
        condition: Option<BTreeMap<String, Json>>,
    },
    /// Deletes one row.
    Delete {
        /// Table as in a shape.
        table: String,
        /// Primary key.
        key: BTreeMap<String, Json>,
        /// What the row must have for the mutation to be carried out.
        #[serde(default, rename = "if", deserialize_with = "given")]
        condition: Option<BTreeMap<String, Json>>,
    },
}

/// A field that may be left out, and is no null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, Json>>, D::Error> {
    BTreeMap::deserialize(deserializer).map(Some)
}

impl Operation {
    /// What its row must have, if it names that.
    pub fn condition(&self) -> Option<&BTreeMap<String, Json>> {
        match self {
            Self::Insert { .. } => None,
            Self::Update { condition, .. } | Self::Delete { condition, .. } => condition.as_ref(),
        }
    }
}

/// Why a mutation was not applied; kept in its place in the queue, so that it never blocks the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE or a word of docs/protocol.md.
    pub code: String,
    /// A sentence.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl Mutation {
    /// Its operations, or why they cannot be run.
    pub fn operations(&self) -> Result<Vec<Operation>, Refusal> {
        if self.kind != KIND_OPS && self.kind != KIND_CONDITIONAL {
            return Err(Refusal::new(
                "unknown_kind",
                format!("this node knows no mutations of kind {:?}", self.kind),
            ));
        }
        if self.ops.len() > limits::OPERATIONS_PER_MUTATION {
            let most = limits::OPERATIONS_PER_MUTATION;
            return Err(Refusal::new(
                "malformed",
                format!("more than {most} operations in one mutation; make several of it"),
            ));
        }
        let read = |(i, op): (usize, &Result<Json, String>)| {
            let malformed = |why: &str| Refusal::new("malformed", format!("operation {i}: {why}"));
            let op = op.as_ref().map_err(|why| malformed(why))?;
            let operation = Operation::deserialize(op).map_err(|e| malformed(&e.to_string()))?;
            match operation.condition() {
                Some(_) if self.kind == KIND_OPS => {
                    Err(malformed("`if` belongs to mutations of kind \"ops_if\""))
                }
                Some(condition) if condition.is_empty() => {
                    Err(malformed("`if` names no column; leave it out, or name what must not have changed"))
                }
                _ => Ok(operation),
            }
        };
        self.ops.iter().enumerate().map(read).collect()
    }
}

/// What became of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its number.
    pub n: u64,
    /// Its id.
    pub id: Text,
    /// None if it was applied.
    pub refusal: Option<Refusal>,
}

/// A new row of `lockstep.clients`, seen in the stream: this client's mutation was decided in this transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Subject, empty until there are tokens.
    pub subject: Text,
    /// Client id.
    pub client: Text,
    /// What became of it.
    pub outcome: Outcome,
}

impl Acknowledged {
    /// From a tuple of `lockstep.clients`; None where no mutation was decided yet.
    pub fn from_tuple(row: &[Value]) -> Option<Self> {
        let [subject, client, last, id, outcome, code, message] = row.get(..CLIENT_COLUMNS)? else {
            return None;
        };
        let text = |v: &Value| match v {
            Value::Text(t) => Some(t.clone()),
            Value::Null | Value::Unchanged => None,
        };
        let refusal = (outcome.text()? == "refused")
            .then(|| Refusal::new(code.text().unwrap_or_default(), message.text().unwrap_or_default()));
        let outcome = Outcome { n: last.text()?.parse().ok()?, id: text(id)?, refusal };
        Some(Self { subject: text(subject)?, client: text(client)?, outcome })
    }
}

/// Classes of SQLSTATEs that say nothing about the mutation: connections, transaction state, roles and databases,
/// deadlocks and serialization, objects that are being migrated, resources, locks, operators, the system itself.
const PASSING: &[&str] =
    &["08", "0B", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "72", "F0", "HV", "XX"];

/// Whether an SQLSTATE is a refusal, which is final. Classes in [`PASSING`] are tried again under the same number;
/// of class 42 two are the mutation's own doing: no privilege, and a value for a column that is generated always.
///
/// What is not known to pass is final. An application's trigger raises under codes of its own choice, an index entry
/// can be too large (54000), a check option fails with 44000: tried again, each would be refused again, and hold up
/// everything behind it for ever.
pub fn is_refusal(sqlstate: &str) -> bool {
    let class = sqlstate.get(..2).unwrap_or_default();
    matches!(sqlstate, "42501" | "428C9") || !PASSING.contains(&class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str, op: &Json) -> Option<(String, String)> {
        let mutation = Mutation {
            n: 1,
            id: "m".into(),
            kind: kind.into(),
            name: None,
            args: None,
            ops: vec![Ok(op.clone())],
        };
        mutation.operations().err().map(|r| (r.code, r.message))
    }

    #[test]
    fn a_condition_is_never_overlooked() {
        let update = |condition: Json| serde_json::json!({"op": "update", "table": "t", "key": {"id": 1}, "set": {"a": 1}, "if": condition});
        let fine = update(serde_json::json!({"a": null}));
        assert_eq!(refused(KIND_CONDITIONAL, &fine), None);
        let insert = serde_json::json!({"op": "insert", "table": "t", "values": {}, "if": {"a": 1}});
        let bad = [(KIND_OPS, &fine), (KIND_CONDITIONAL, &insert)];
        let odd =
            [Json::Null, 7.into(), serde_json::json!([]), serde_json::json!({}), "a".into()].map(update);
        for (kind, op) in bad.into_iter().chain(odd.iter().map(|op| (KIND_CONDITIONAL, op))) {
            let (code, message) = refused(kind, op).unwrap_or_else(|| panic!("{op}"));
            assert_eq!((code.as_str(), message.contains("operation 0")), ("malformed", true), "{message}");
        }
        assert_eq!(refused("rpc", &fine).unwrap().0, "unknown_kind");
    }

    #[test]
    fn only_rules_refuse() {
        for code in [
            "22001", "22P02", "23505", "23503", "P0001", "42501", "428C9", "54000", "44000", "LS001", "45000",
        ] {
            assert!(is_refusal(code), "{code}");
        }
        for code in ["40001", "40P01", "57014", "55P03", "53100", "25006", "08006", "57P01", "42P01", "XX000"]
        {
            assert!(!is_refusal(code), "{code}");
        }
    }
}
