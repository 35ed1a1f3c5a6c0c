//! Relations as the stream announces them.

use crate::catalog::{Oid, Table};

/// A column of a Relation message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Part of the replica identity.
    pub key: bool,
    /// Name.
    pub name: String,
    /// Type oid.
    pub type_oid: Oid,
    /// Type modifier, -1 if none.
    pub type_mod: i32,
}

/// A Relation message (PostgreSQL manual, 55.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Oid.
    pub oid: Oid,
    /// Schema, empty for pg_catalog.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `d` default, `n` nothing, `f` full, `i` index.
    pub identity: u8,
    /// Columns in the order of its tuples.
    pub columns: Vec<RelationColumn>,
}

impl Relation {
    /// Whether its tuples are the rows of `table`, column by column, and old tuples tell the key.
    pub fn fits(&self, table: &Table) -> bool {
        // By another index than the key's, an update of the key comes without the old one.
        let key = match self.identity {
            b'd' => self.columns.iter().enumerate().all(|(i, c)| c.key == table.key.contains(&i)),
            b'f' => true,
            _ => false,
        };
        key && self.oid == table.oid
            && self.schema == table.schema
            && self.name == table.name
            && self.columns.len() == table.columns.len()
            && self
                .columns
                .iter()
                .zip(&table.columns)
                .all(|(r, t)| r.name == t.name && r.type_oid == t.type_oid)
    }
}
