//! What is tracked: tables, their columns, keys, scopes and logs, as read from PostgreSQL's catalog.

use crate::change::Text;
use crate::position::Snapshot;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Oid of a relation or type.
pub type Oid = u32;

/// How a column's values are written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `true` or `false`.
    Bool,
    /// A number.
    Int,
    /// A number; NaN and the infinities as strings.
    Float,
    /// A string that holds JSON.
    Json,
    /// The string that PostgreSQL prints.
    Text,
}

impl Wire {
    /// By type oid (`pg_type.dat`; built-in oids are fixed).
    pub fn of(type_oid: Oid) -> Self {
        match type_oid {
            16 => Self::Bool,
            21 | 23 | 26 => Self::Int,
            700 | 701 => Self::Float,
            114 | 3802 => Self::Json,
            _ => Self::Text,
        }
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

/// What a row from before a column was added has in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Missing {
    /// NULL.
    #[default]
    Null,
    /// What PostgreSQL keeps for such rows (`attmissingval`), as it prints it.
    Text(Text),
    /// Not one value for all of them.
    Unknown,
}

/// A column of a tracked table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// `attnum`.
    pub attnum: i16,
    /// Type oid.
    pub type_oid: Oid,
    /// As `format_type` prints it, for casts and for people.
    pub type_name: String,
    /// The type's quoted name without modifiers, for casts that never truncate.
    pub type_sql: String,
    /// The type is an enum, and no domain over one.
    pub is_enum: bool,
    /// Of a domain: the oid of its base type.
    pub base_oid: Option<Oid>,
    /// Of a domain: the base type's quoted name. Casts to it never fail by the domain's checks.
    pub base_sql: Option<String>,
    /// Changes with whatever makes its values other texts: the type, an enum's labels, a composite's fields.
    pub identity: String,
    /// What rows from before it was added have.
    pub missing: Missing,
    /// The labels of an enum, or of a domain's base type, in their order.
    pub labels: Vec<String>,
    /// How texts of the column are compared.
    pub collation: Collation,
}

/// How texts of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Collation {
    /// Byte by byte (`C`, `POSIX`).
    Bytes,
    /// By rules that only PostgreSQL has. Equal texts are equal bytes.
    #[default]
    Rules,
    /// Texts of different bytes may be equal.
    Nondeterministic,
}

impl Column {
    /// How its values are written.
    pub fn wire(&self) -> Wire {
        Wire::of(self.base())
    }

    /// The type, or the base type of a domain.
    pub fn base(&self) -> Oid {
        self.base_oid.unwrap_or(self.type_oid)
    }

    /// The text that PostgreSQL prints for a client's value of a scope type, or None if it is none.
    ///
    /// Scopes are compared as text, so `"07"` and `7` must become one.
    pub fn canonical(&self, value: &Json) -> Option<Text> {
        let given = match value {
            Json::String(s) => s.clone(),
            Json::Number(n) => n.to_string(),
            Json::Bool(b) => b.to_string(),
            _ => return None,
        };
        let text = match self.base() {
            16 => match given.as_str() {
                "true" | "t" => "t".to_owned(),
                "false" | "f" => "f".to_owned(),
                _ => return None,
            },
            21 => given.parse::<i16>().ok()?.to_string(),
            23 => given.parse::<i32>().ok()?.to_string(),
            20 => given.parse::<i64>().ok()?.to_string(),
            2950 => canonical_uuid(&given)?,
            1082 => is_date(&given).then_some(given)?,
            25 | 1043 => (!given.contains('\0')).then_some(given)?,
            // A text that is none of them would make the catch-up fail, for everyone in it.
            _ => self.labels.contains(&given).then_some(given)?,
        };
        Some(text.into())
    }
}

/// A day of the years 1 to 9999 as PostgreSQL prints it.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number = |s: &str, n: usize| {
        (s.len() == n && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u32>().ok()).flatten()
    };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    year > 0 && (1..=days).contains(&day)
}

fn canonical_uuid(text: &str) -> Option<String> {
    let hex: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// A tracked table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Oid.
    pub oid: Oid,
    /// Number of its log: `lockstep.changes_N`, `lockstep.tombstones_N`.
    pub log: i32,
    /// Oid of `lockstep.tombstones_N`.
    pub tombstones: Oid,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Columns that travel, by `attnum`.
    pub columns: Vec<Column>,
    /// Primary key: indices into `columns`, in the key's order (`k1`, `k2`, … of the log).
    pub key: Vec<usize>,
    /// Columns used by scopes: indices into `columns`, in the log's order (`s1`, `s2`, …).
    pub scope_columns: Vec<usize>,
    /// Each scope's columns.
    pub scopes: Vec<Vec<usize>>,
    /// Changes with its names and its key. Columns have an identity of their own.
    pub schema_id: String,
    /// Changes whenever writes may have gone past the log: our triggers' rows, the log's own, publication membership.
    pub log_id: String,
    /// Changes whenever rows may be others without a write: partitions, and the storage of each.
    pub storage_id: String,
}

impl Table {
    /// Whether a shape resolved with one is read from the other as it stands.
    pub fn same_schema(&self, other: &Self) -> bool {
        let ids = |t: &Self| (t.oid, t.schema_id.clone(), t.log_id.clone(), t.storage_id.clone());
        let columns = |t: &Self| {
            t.columns.iter().map(|c| (c.attnum, c.name.clone(), c.identity.clone())).collect::<Vec<_>>()
        };
        ids(self) == ids(other) && columns(self) == columns(other)
    }

    /// Whether one of these relations is the table, or has its tombstones: they alone say that a partition was truncated.
    pub fn is_among(&self, relations: &BTreeSet<Oid>) -> bool {
        relations.contains(&self.oid) || relations.contains(&self.tombstones)
    }

    /// Index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

/// All that is tracked in one database.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    tables: BTreeMap<Oid, Arc<Table>>,
    /// The snapshot that it was read in.
    pub as_of: Snapshot,
    /// Oid of `lockstep.clients`.
    pub clients: Oid,
    /// Id of the installation.
    pub installation: String,
    /// Why not everything that is tracked can be followed, in sentences for an operator.
    pub defects: Vec<String>,
}

impl Catalog {
    /// A catalog of these tables.
    pub fn new(tables: Vec<Table>, clients: Oid, installation: String) -> Self {
        let tables = tables.into_iter().map(|t| (t.oid, Arc::new(t))).collect();
        Self { tables, as_of: Snapshot::default(), clients, installation, defects: Vec::new() }
    }

    /// Whether both say the same, whenever they were read.
    pub fn same(&self, other: &Self) -> bool {
        self.same_installation(other) && self.tables == other.tables
    }

    /// Whether both are of one installation.
    pub fn same_installation(&self, other: &Self) -> bool {
        (self.clients, &self.installation) == (other.clients, &other.installation)
    }

    /// By oid.
    pub fn table(&self, oid: Oid) -> Option<&Arc<Table>> {
        self.tables.get(&oid)
    }

    /// The table whose tombstones relation this is.
    pub fn by_tombstones(&self, oid: Oid) -> Option<&Arc<Table>> {
        self.tables.values().find(|t| t.tombstones == oid)
    }

    /// By `schema.name`, or by a name that is tracked in `public` or in one schema only.
    pub fn find(&self, name: &str) -> Option<&Arc<Table>> {
        let full = |t: &Table| {
            t.schema.len() + 1 + t.name.len() == name.len()
                && name.starts_with(&t.schema)
                && name[t.schema.len()..].starts_with('.')
                && name.ends_with(&t.name)
        };
        if let Some(table) = self.tables.values().find(|t| full(t)) {
            return Some(table);
        }
        let mut named: Vec<_> = self.tables.values().filter(|t| t.name == name).collect();
        if named.len() > 1 {
            named.retain(|t| t.schema == "public");
        }
        named.pop()
    }

    /// The tables that are among these relations: see [`Table::is_among`].
    pub fn among(&self, relations: &BTreeSet<Oid>) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values().filter(|table| table.is_among(relations))
    }

    /// All tables by oid.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }
}
