//! Reads what is tracked.

use crate::error::PgError;
use crate::session::BEGIN_READING;
use lockstep_core::catalog::{Catalog, Collation, Column, Table};
use serde::Deserialize;
use tokio_postgres::{GenericClient, SimpleQueryMessage};

/// One JSON text per tracked table. Generated columns do not travel: the stream of 14 to 17 lacks them.
///
/// The schema id changes with columns, types, enum labels, the key, the scopes, and with our triggers' rows:
/// `disable trigger all … enable trigger all` leaves no entry in the logs.
const TABLES: &str = include_str!("../sql/read_catalog.sql");

#[derive(Deserialize)]
struct Row {
    oid: u32,
    log: i32,
    tombstones: u32,
    schema: String,
    name: String,
    columns: Vec<ColumnRow>,
    key: Vec<i16>,
    scope_columns: Vec<i16>,
    scopes: Vec<Vec<i16>>,
    schema_id: String,
}

#[derive(Deserialize)]
struct ColumnRow {
    name: String,
    attnum: i16,
    type_oid: u32,
    type_name: String,
    type_sql: String,
    is_enum: bool,
    labels: Vec<String>,
    collation: String,
}

impl Row {
    fn into_table(self) -> Result<Table, PgError> {
        let missing = || {
            PgError::NotInstalled(format!(
                "the log of {}.{} names a column that is gone",
                self.schema, self.name
            ))
        };
        let at = |attnums: &[i16]| -> Result<Vec<usize>, PgError> {
            let find = |n: &i16| self.columns.iter().position(|c| c.attnum == *n).ok_or_else(missing);
            attnums.iter().map(find).collect()
        };
        let (key, scope_columns) = (at(&self.key)?, at(&self.scope_columns)?);
        let scopes = self.scopes.iter().map(|s| at(s)).collect::<Result<_, _>>()?;
        let columns = self.columns.into_iter().map(|c| Column {
            name: c.name,
            attnum: c.attnum,
            type_oid: c.type_oid,
            type_name: c.type_name,
            type_sql: c.type_sql,
            is_enum: c.is_enum,
            labels: c.labels,
            collation: match c.collation.as_str() {
                "bytes" => Collation::Bytes,
                "nondeterministic" => Collation::Nondeterministic,
                _ => Collation::Rules,
            },
        });
        Ok(Table {
            oid: self.oid,
            log: self.log,
            tombstones: self.tombstones,
            schema: self.schema,
            name: self.name,
            columns: columns.collect(),
            key,
            scope_columns,
            scopes,
            schema_id: self.schema_id,
        })
    }
}

/// First column of every row of a simple query; statements without rows add nothing.
pub(crate) async fn texts<C: GenericClient>(client: &C, sql: &str) -> Result<Vec<String>, PgError> {
    let messages = client.simple_query(sql).await?;
    let text = |m: SimpleQueryMessage| match m {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(text).collect())
}

/// The tracked tables. Run after a LOCK it is the catalog as of that lock.
pub async fn tables<C: GenericClient>(client: &C) -> Result<Vec<Table>, PgError> {
    let mut tables = Vec::new();
    for json in texts(client, TABLES).await? {
        let row: Row = serde_json::from_str(&json).map_err(|_| PgError::Protocol("the catalog query"))?;
        tables.push(row.into_table()?);
    }
    Ok(tables)
}

/// Everything that a node must know before it serves.
pub async fn load<C: GenericClient>(client: &C) -> Result<Catalog, PgError> {
    let begin = format!("{}select to_regclass('lockstep.clients')::oid::text", *BEGIN_READING);
    let head = texts(client, &begin).await?;
    let Some(clients) = head.first().and_then(|t| t.parse().ok()) else {
        client.batch_execute("rollback").await?;
        let message = "Lockstep is not installed in this database; run `lockstep install`";
        return Err(PgError::NotInstalled(message.into()));
    };
    let installation =
        texts(client, "select id::text from lockstep.installation").await?.pop().unwrap_or_default();
    let tables = tables(client).await?;
    client.batch_execute("commit").await?;
    Ok(Catalog::new(tables, clients, installation))
}

/// `"schema"."table"`.
pub fn qualified(table: &Table) -> String {
    format!("{}.{}", quote(&table.schema), quote(&table.name))
}

/// A quoted identifier.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted literal; sessions have `standard_conforming_strings` on.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
