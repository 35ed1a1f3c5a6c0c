//! A catalog to read messages and frames against.

use lockstep_core::catalog::{Catalog, Column, Oid, Table};

/// Oid of the tracked table.
pub const TABLE: Oid = 1;
/// Oid of its tombstones.
pub const TOMBSTONES: Oid = 2;
/// Oid of `lockstep.clients`.
pub const CLIENTS: Oid = 3;

/// Names and type oids of the table's columns: one for each way in which values are written.
pub const COLUMNS: [(&str, Oid); 6] =
    [("id", 23), ("body", 25), ("list", 20), ("done", 16), ("weight", 701), ("extra", 3802)];

/// One table with a scope, its tombstones, and the clients.
pub fn catalog() -> Catalog {
    let column = |(i, (name, type_oid)): (usize, &(&str, Oid))| Column {
        name: (*name).into(),
        attnum: i16::try_from(i + 1).unwrap(),
        type_oid: *type_oid,
        type_name: "t".into(),
        type_sql: "t".into(),
        ..Column::default()
    };
    let table = Table {
        oid: TABLE,
        log: 1,
        tombstones: TOMBSTONES,
        schema: "public".into(),
        name: "t".into(),
        columns: COLUMNS.iter().enumerate().map(column).collect(),
        key: vec![0],
        scope_columns: vec![2],
        scopes: vec![vec![], vec![2]],
        schema_id: "1".into(),
        ..Table::default()
    };
    Catalog::new(vec![table], CLIENTS, "sample".into())
}
