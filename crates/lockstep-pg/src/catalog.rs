//! Reads what is tracked.

use crate::error::PgError;
use crate::session::SET_LOCAL;
use lockstep_core::catalog::{Catalog, Collation, Column, Missing, Table};
use serde::Deserialize;
use std::collections::BTreeSet;
use tokio_postgres::{GenericClient, SimpleQueryMessage};

/// One JSON text per tracked table that can be followed. Of generated columns only those travel that are in the stream.
const TABLES: &str = include_str!("../sql/read_catalog.sql");

/// Of a node's tables: one that its role may not read, or by a policy only in part, would keep every catch-up waiting
/// that it is read with.
const READABLE: &str = "has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') \
                        and not row_security_active(c.oid)";

/// So many tables that cannot be followed are named.
const NAMED: usize = 5;

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
    log_id: String,
    storage_id: String,
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
    base_oid: Option<u32>,
    base_sql: Option<String>,
    identity: String,
    missing: Vec<Option<String>>,
}

/// The one element of a `pg_attribute.attmissingval` as PostgreSQL prints the array.
fn only_element(array: &str) -> Option<String> {
    let inner = array.strip_prefix('{')?.strip_suffix('}')?;
    let Some(quoted) = inner.strip_prefix('"').and_then(|i| i.strip_suffix('"')) else {
        return Some(inner.to_owned());
    };
    let mut out = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}

/// What rows from before the column have: one value for all partitions, or it is not known.
fn missing(of_leaves: &[Option<String>]) -> Missing {
    match of_leaves {
        [] | [None] => Missing::Null,
        [Some(array)] => only_element(array).map_or(Missing::Unknown, |text| Missing::Text(text.into())),
        _ => Missing::Unknown,
    }
}

impl Row {
    fn into_table(self) -> Result<Table, PgError> {
        let at = |attnums: &[i16]| -> Result<Vec<usize>, PgError> {
            let gone = || PgError::Protocol("a log that names a column that is gone");
            let find = |n: &i16| self.columns.iter().position(|c| c.attnum == *n).ok_or_else(gone);
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
            base_oid: c.base_oid,
            base_sql: c.base_sql,
            identity: c.identity,
            missing: missing(&c.missing),
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
            log_id: self.log_id,
            storage_id: self.storage_id,
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

/// The tracked tables, whatever the session's role may do with them.
pub async fn tables<C: GenericClient>(client: &C) -> Result<Vec<Table>, PgError> {
    tables_of(client, "true").await
}

async fn tables_of<C: GenericClient>(client: &C, only: &str) -> Result<Vec<Table>, PgError> {
    texts(client, &TABLES.replace("{only}", only)).await?.iter().map(|json| table(json)).collect()
}

/// The question for those of a node's tables that have these logs, for the price of these alone. Asked after a LOCK it
/// is answered as of that lock.
pub(crate) fn question_for(logs: &BTreeSet<i32>) -> String {
    let logs = logs.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    TABLES.replace("{only}", &format!("t.log = any('{{{logs}}}') and {READABLE}"))
}

/// A table, from a row of the answer.
pub(crate) fn table(json: &str) -> Result<Table, PgError> {
    let row: Row = serde_json::from_str(json).map_err(|_| PgError::Protocol("the catalog query"))?;
    row.into_table()
}

/// Everything that a node must know before it serves, in one snapshot. The connection is for this alone meanwhile.
pub async fn load<C: GenericClient>(client: &C) -> Result<Catalog, PgError> {
    let loaded = load_in_transaction(client).await;
    client.batch_execute(if loaded.is_ok() { "commit" } else { "rollback" }).await?;
    loaded
}

async fn load_in_transaction<C: GenericClient>(client: &C) -> Result<Catalog, PgError> {
    let begin = format!(
        "begin isolation level repeatable read, read only; {}select pg_current_snapshot()::text; \
         select to_regclass('lockstep.clients')::oid::text",
        *SET_LOCAL
    );
    let head = texts(client, &begin).await?;
    let as_of = head.first().ok_or(PgError::Protocol("a snapshot"))?.parse()?;
    let Some(clients) = head.get(1).and_then(|t| t.parse().ok()) else {
        let message = "Lockstep is not installed in this database; run `lockstep install`";
        return Err(PgError::NotInstalled(message.into()));
    };
    let installation =
        texts(client, "select id::text from lockstep.installation").await?.pop().unwrap_or_default();
    let mut catalog = Catalog::new(tables_of(client, READABLE).await?, clients, installation);
    catalog.as_of = as_of;
    catalog.defects = defects(client, &catalog).await?;
    Ok(catalog)
}

/// Why not all that is tracked is in this catalog.
async fn defects<C: GenericClient>(client: &C, catalog: &Catalog) -> Result<Vec<String>, PgError> {
    let followed: BTreeSet<String> = catalog.tables().map(|table| table.log.to_string()).collect();
    let (mut defects, mut unfollowed) = (Vec::new(), Vec::new());
    for message in client.simple_query(include_str!("../sql/read_defects.sql")).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let text = row.get(1).unwrap_or_default().to_owned();
        match row.get(0) {
            None => defects.push(text),
            Some(log) if !followed.contains(log) => unfollowed.push(text),
            Some(_) => {}
        }
    }
    // Without a publication it is all of them, and what to do was said.
    if !unfollowed.is_empty() && defects.is_empty() {
        let more = if unfollowed.len() > NAMED { ", …" } else { "" };
        unfollowed.truncate(NAMED);
        let names = unfollowed.join(", ");
        defects.push(format!("tracked, but not to be followed: {names}{more}; `lockstep doctor` says why"));
    }
    Ok(defects)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_value_is_read_from_its_array() {
        for (array, text) in
            [("{5}", "5"), (r#"{"a b"}"#, "a b"), (r#"{"{1,\"x\\\\\"}"}"#, r#"{1,"x\\"}"#), (r#"{""}"#, "")]
        {
            assert_eq!(missing(&[Some(array.into())]), Missing::Text(text.into()), "{array}");
        }
        assert_eq!(missing(&[None]), Missing::Null);
        assert_eq!(missing(&[None, Some("{5}".into())]), Missing::Unknown);
    }
}
