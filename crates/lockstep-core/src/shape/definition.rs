//! A shape's definition, resolved against the catalog.

use super::predicate::{Hint, Predicate, Untold};
use crate::catalog::{Catalog, Column, Missing, Table};
use crate::change::{Text, Tuple, Value};
use crate::position::{ParseError, ResetReason};
use serde::Deserialize;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The hash of these parts; part boundaries count.
            pub fn of<T: AsRef<str>>(parts: &[T]) -> Self {
                let mut hash = Sha256::new();
                for part in parts {
                    hash.update((part.as_ref().len() as u64).to_le_bytes());
                    hash.update(part.as_ref().as_bytes());
                }
                let digest = hash.finalize();
                let mut bytes = [0; $len];
                bytes.copy_from_slice(&digest[..$len]);
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let error = || ParseError::new($what, text);
                if text.len() != 2 * $len || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(error());
                }
                let mut bytes = [0; $len];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| error())?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

hash_id!(
    /// Names a shape on the wire: a hash of its definition, equal on every node.
    ShapeId, 12, "shape id"
);
hash_id!(
    /// What a shape's rows were sent under: 8 bytes of its definition and columns, 4 of the table's log, 4 of its storage.
    Fingerprint, 16, "fingerprint"
);

/// The three parts of a fingerprint end here.
const PARTS: [usize; 3] = [8, 12, 16];

impl Fingerprint {
    fn join(definition: &[String], table: &Table) -> Self {
        let parts = [Self::of(definition), Self::of(&[&table.log_id]), Self::of(&[&table.storage_id])];
        let mut bytes = [0; PARTS[2]];
        let mut start = 0;
        for (part, end) in parts.iter().zip(PARTS) {
            bytes[start..end].copy_from_slice(&part.0[..end - start]);
            start = end;
        }
        Self(bytes)
    }

    /// Why rows held under the other must be loaded anew; None if they need not.
    pub fn differs(self, other: Self) -> Option<ResetReason> {
        let same = |from: usize, to: usize| self.0[from..to] == other.0[from..to];
        let [definition, log, storage] = PARTS;
        if !same(0, definition) {
            Some(ResetReason::SchemaChanged)
        } else if !same(log, storage) {
            // A partition comes with its triggers.
            Some(ResetReason::Rewritten)
        } else {
            (!same(definition, log)).then_some(ResetReason::NotLogged)
        }
    }
}

/// A shape as a client asks for it.
#[derive(Debug, Clone, Deserialize)]
pub struct ShapeRequest {
    /// The client's name for it.
    #[serde(rename = "ref")]
    pub reference: String,
    /// `table` or `schema.table`.
    pub table: String,
    /// Columns wanted; all if absent.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Scope columns and their values.
    #[serde(default)]
    pub scope: Option<BTreeMap<String, Json>>,
    /// A condition in SQL over the row's columns.
    #[serde(default, rename = "where")]
    pub predicate: Option<Json>,
    /// Values of its parameters, `$1` first.
    #[serde(default, rename = "params")]
    pub parameters: Option<Vec<Json>>,
    /// The client holds the rows as of its cursor.
    #[serde(default)]
    pub have: bool,
    /// The fingerprint it holds them under.
    #[serde(default)]
    pub fingerprint: Option<String>,
}

impl ShapeRequest {
    /// Bytes of all that the client chose in it, about: what a node keeps for it.
    pub fn bytes(&self) -> usize {
        let json = |value: &Json| value.to_string().len();
        let columns = self.columns.iter().flatten().map(String::len);
        let scope = self.scope.iter().flatten().map(|(name, value)| name.len() + json(value));
        let condition = self.predicate.iter().chain(self.parameters.iter().flatten()).map(json);
        self.reference.len() + self.table.len() + columns.chain(scope).chain(condition).sum::<usize>()
    }
}

/// Why a shape cannot be subscribed to; code and sentence go to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError {
    /// Machine-readable, listed in docs/protocol.md.
    pub code: &'static str,
    /// What to do, in a sentence.
    pub message: String,
    /// A bound on predicates was reached.
    pub at_bound: bool,
}

impl ShapeError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), at_bound: false }
    }
}

/// What feeds a shape. One kind today; a query becomes another one, and every place that decides by it must say what
/// it does then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The rows of the shape's table whose scope columns (indices into `table.columns`) have these values; all rows
    /// if there are none.
    Scope(Vec<(usize, Text)>),
}

/// A resolved shape: the unit of fan-out. Frames are encoded once for it and shared by its sessions.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Hash of the definition.
    pub id: ShapeId,
    /// Hash of the definition and the table's schema id.
    pub fingerprint: Fingerprint,
    /// The table as of the catalog it was resolved with.
    pub table: Arc<Table>,
    /// Indices into `table.columns`, ascending.
    pub columns: Vec<usize>,
    /// What feeds it.
    pub source: Source,
    /// Which of these rows, if not all.
    pub predicate: Option<Arc<Predicate>>,
    /// The columns were named by the client, not "all".
    pub subset: bool,
}

impl Shape {
    /// Resolves a request, or says why it cannot be.
    pub fn resolve(request: &ShapeRequest, catalog: &Catalog) -> Result<Self, ShapeError> {
        let table = catalog.find(&request.table).ok_or_else(|| {
            let name = &request.table;
            ShapeError::new("unknown_table", format!("{name} is not tracked; run `lockstep track {name}`"))
        })?;
        let columns = resolve_columns(table, request.columns.as_deref())?;
        let scope = resolve_scope(table, request.scope.as_ref())?;
        let predicate = resolve_predicate(table, request)?;
        Ok(Self::build(table.clone(), columns, scope, predicate, request.columns.is_some()))
    }

    /// The same definition over the table's present schema, or why that is impossible.
    pub fn again(&self, catalog: &Catalog) -> Result<Self, ShapeError> {
        let old = &self.table;
        let names = |indices: &mut dyn Iterator<Item = usize>| {
            indices.map(|i| old.columns[i].name.clone()).collect::<Vec<_>>()
        };
        let scope = names(&mut self.scope().iter().map(|(i, _)| *i))
            .into_iter()
            .zip(self.scope().iter().map(|(_, v)| Json::from(v.as_ref())))
            .collect::<BTreeMap<_, _>>();
        let request = ShapeRequest {
            reference: String::new(),
            table: String::new(),
            columns: self.subset.then(|| names(&mut self.columns.iter().copied())),
            scope: (!scope.is_empty()).then_some(scope),
            predicate: None,
            parameters: None,
            have: false,
            fingerprint: None,
        };
        let table = catalog.table(old.oid).ok_or_else(|| {
            ShapeError::new("unknown_table", format!("{}.{} is no longer tracked", old.schema, old.name))
        })?;
        let columns = resolve_columns(table, request.columns.as_deref())?;
        let scope = resolve_scope(table, request.scope.as_ref())?;
        let predicate = self.predicate.as_ref().map(|p| p.again(table)).transpose()?.map(Arc::new);
        Ok(Self::build(table.clone(), columns, scope, predicate, self.subset))
    }

    fn build(
        table: Arc<Table>,
        columns: Vec<usize>,
        scope: Vec<(usize, Text)>,
        predicate: Option<Arc<Predicate>>,
        subset: bool,
    ) -> Self {
        let mut parts =
            vec![table.schema.clone(), table.name.clone(), if subset { "some" } else { "all" }.into()];
        if subset {
            parts.extend(columns.iter().map(|i| table.columns[*i].name.clone()));
        }
        parts.push("scope".into());
        for (column, value) in &scope {
            parts.push(table.columns[*column].name.clone());
            parts.push(value.to_string());
        }
        if let Some(predicate) = &predicate {
            parts.push("where".into());
            parts.push(predicate.sql().into());
        }
        let id = ShapeId::of(&parts);
        let source = Source::Scope(scope);
        let mut shape =
            Self { id, fingerprint: Fingerprint::of(&parts), table, columns, source, predicate, subset };
        shape.fingerprint = shape.fingerprint_of(shape.columns.len());
        shape
    }

    /// The fingerprint, had the table only the first so many of the shape's columns.
    fn fingerprint_of(&self, columns: usize) -> Fingerprint {
        let table = &self.table;
        let scope = self.scope().iter().map(|(column, _)| *column);
        let asked = self.predicate.iter().flat_map(|p| p.columns());
        let mut parts = vec![self.id.to_string(), table.schema_id.clone()];
        let kept = self.columns[..columns].iter().chain(&table.key).copied();
        for column in kept.chain(scope).chain(asked) {
            let column = &table.columns[column];
            parts.extend([column.attnum.to_string(), column.name.clone(), column.identity.clone()]);
            parts.push(column.type_oid.to_string());
        }
        Fingerprint::join(&parts, table)
    }

    /// How many columns rows held under `fingerprint` have, if the others were only added since: such rows are whole
    /// with [`Self::fill`].
    ///
    /// Exact: an added column has a greater number than all before. Every row that the table held under the earlier
    /// fingerprint and that was not written since has what PostgreSQL keeps for such rows, as long as the storage is
    /// the same; a rewrite puts it into the rows.
    pub fn widens(&self, fingerprint: Fingerprint) -> Option<usize> {
        if self.subset {
            return None;
        }
        let known = |columns: &usize| self.fingerprint_of(*columns) == fingerprint;
        let columns = (1..self.columns.len()).rev().find(known)?;
        let added = &self.columns[columns..];
        let filled = added.iter().all(|c| self.table.columns[*c].missing != Missing::Unknown);
        filled.then_some(columns)
    }

    /// Name and value of the columns from a place on, for rows from before they were added.
    pub fn fill(&self, from: usize) -> impl Iterator<Item = (&Column, Value)> {
        self.columns[from..].iter().map(|c| &self.table.columns[*c]).map(|column| match &column.missing {
            Missing::Text(text) => (column, Value::Text(text.clone())),
            Missing::Null | Missing::Unknown => (column, Value::Null),
        })
    }

    /// The scope columns and their values; empty for a table without scope.
    pub fn scope(&self) -> &[(usize, Text)] {
        match &self.source {
            Source::Scope(scope) => scope,
        }
    }

    /// Whether a whole row lies in the shape's scope.
    pub fn covers(&self, row: &[Value]) -> bool {
        self.scope()
            .iter()
            .all(|(column, wanted)| matches!(row.get(*column), Some(Value::Text(v)) if v == wanted))
    }

    /// Whether a row of the shape's scope passes its predicate.
    pub fn passes(&self, row: &Tuple) -> Result<bool, Untold> {
        self.predicate.as_ref().map_or(Ok(true), |p| p.passes(&self.table, row))
    }

    /// What its rows must have besides equalities, as far as an index can use it.
    pub(crate) fn hint(&self) -> Hint {
        self.predicate.as_ref().map_or(Hint::None, |p| p.hint())
    }

    /// Whether scope values, in the order of the table's scope columns, are the shape's.
    pub fn covers_old_scope(&self, values: &[Value]) -> bool {
        self.scope().iter().all(|(column, wanted)| {
            let at = self.table.scope_columns.iter().position(|c| c == column);
            matches!(at.and_then(|at| values.get(at)), Some(Value::Text(v)) if v == wanted)
        })
    }
}

fn resolve_columns(table: &Table, names: Option<&[String]>) -> Result<Vec<usize>, ShapeError> {
    let Some(names) = names else { return Ok((0..table.columns.len()).collect()) };
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        columns.push(table.column(name).ok_or_else(|| unknown_column(table, name))?);
    }
    columns.sort_unstable();
    columns.dedup();
    if let Some(missing) = table.key.iter().find(|k| !columns.contains(k)) {
        let name = &table.columns[*missing].name;
        return Err(ShapeError::new(
            "key_missing",
            format!("`columns` must contain the primary key: add {name:?}"),
        ));
    }
    Ok(columns)
}

fn resolve_predicate(table: &Table, request: &ShapeRequest) -> Result<Option<Arc<Predicate>>, ShapeError> {
    let parameters = request.parameters.as_deref().unwrap_or_default();
    match &request.predicate {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(Arc::new(Predicate::resolve(text, parameters, table)?))),
        Some(_) => Err(ShapeError::new("bad_where", "`where` must be a text, a condition in SQL")),
    }
}

fn unknown_column(table: &Table, name: &str) -> ShapeError {
    let has = table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    ShapeError::new(
        "unknown_column",
        format!("{}.{} has no column {name:?}; it has {has}", table.schema, table.name),
    )
}

fn resolve_scope(
    table: &Table,
    scope: Option<&BTreeMap<String, Json>>,
) -> Result<Vec<(usize, Text)>, ShapeError> {
    let empty = BTreeMap::new();
    let scope = scope.unwrap_or(&empty);
    let mut resolved = Vec::new();
    for (name, value) in scope {
        let column = table.column(name).ok_or_else(|| unknown_column(table, name))?;
        let text = table.columns[column].canonical(value).ok_or_else(|| {
            let type_name = &table.columns[column].type_name;
            ShapeError::new(
                "bad_scope_value",
                format!("the value of scope column {name:?} is not a valid {type_name}"),
            )
        })?;
        resolved.push((column, text));
    }
    resolved.sort();
    let wanted: Vec<usize> = resolved.iter().map(|(c, _)| *c).collect();
    if table.scopes.is_empty() && wanted.is_empty() {
        return Ok(resolved);
    }
    let known = table.scopes.iter().any(|s| {
        let mut s = s.clone();
        s.sort_unstable();
        s == wanted
    });
    if known {
        return Ok(resolved);
    }
    let scopes = table.scopes.iter().map(|s| {
        let names: Vec<_> = s.iter().map(|c| table.columns[*c].name.as_str()).collect();
        format!("({})", names.join(", "))
    });
    let scopes = scopes.collect::<Vec<_>>().join(" or ");
    let name = format!("{}.{}", table.schema, table.name);
    Err(match (table.scopes.is_empty(), wanted.is_empty()) {
        (true, _) => {
            ShapeError::new("unknown_scope", format!("{name} is tracked without a scope; leave `scope` out"))
        }
        (_, true) => ShapeError::new("scope_required", format!("{name} is read by scope; name {scopes}")),
        _ => ShapeError::new("unknown_scope", format!("these columns are no scope of {name}; name {scopes}")),
    })
}
