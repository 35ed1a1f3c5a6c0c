//! Reads what an application's types are made from: the tracked tables with nullability, defaults and foreign keys.

use crate::catalog::texts;
use crate::error::PgError;
use serde::Deserialize;
use tokio_postgres::GenericClient;

const TABLES: &str = include_str!("../sql/read_schema.sql");

/// A tracked table.
#[derive(Debug, Deserialize)]
pub struct Table {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Key columns, in the key's order.
    pub key: Vec<String>,
    /// Columns that travel.
    pub columns: Vec<Column>,
    /// Foreign keys to tracked tables.
    pub references: Vec<Reference>,
}

/// A column.
#[derive(Debug, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Oid of its type, of a domain that of its values.
    pub type_oid: u32,
    /// Its type as `format_type` prints it, that of a domain's values.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The name of its type if that is an enum.
    pub enum_name: Option<String>,
    /// An enum's labels in their order.
    pub labels: Vec<String>,
    /// It holds no NULL.
    pub not_null: bool,
    /// An insert may leave it out.
    pub has_default: bool,
    /// The database gives its value, always.
    pub fixed: bool,
}

/// A foreign key between tracked tables.
#[derive(Debug, Deserialize)]
pub struct Reference {
    /// Name of the constraint.
    pub name: String,
    /// The other table's schema.
    pub schema: String,
    /// The other table.
    pub table: String,
    /// This table's columns.
    pub from: Vec<String>,
    /// The other table's columns.
    pub to: Vec<String>,
    /// At most one row refers to each row of the other table.
    pub is_unique: bool,
}

/// The tracked tables, by schema and name.
pub async fn read<C: GenericClient>(client: &C) -> Result<Vec<Table>, PgError> {
    let installed = texts(client, "select 1::text where to_regclass('lockstep.tracked') is not null").await?;
    if installed.is_empty() {
        let message = "Lockstep is not installed in this database; run `lockstep install`";
        return Err(PgError::NotInstalled(message.into()));
    }
    let read = |json: String| serde_json::from_str(&json).map_err(|_| PgError::Protocol("the schema query"));
    texts(client, TABLES).await?.into_iter().map(read).collect()
}
