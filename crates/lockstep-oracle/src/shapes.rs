//! Random shapes, and what PostgreSQL says that they hold.

use crate::dice::Dice;
use crate::kind::literal;
use crate::schema::{SCOPES_PER_COLUMN, Schema, Table};
use anyhow::{Context, Result};
use lockstep_client::Row;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::SimpleQueryMessage;

/// The rows of a shape by the text of their key, as the reference client keeps them.
pub type Rows = BTreeMap<String, Row>;

/// The settings under which docs/protocol.md says values are printed.
pub const PINNED: &str = "set datestyle = 'ISO, YMD'; set intervalstyle = iso_8601; set timezone = 'UTC'; \
    set bytea_output = hex; set extra_float_digits = 1; set client_encoding = 'UTF8';";

/// A shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Index of the table.
    pub table: usize,
    /// Columns that are named; None: all.
    pub columns: Option<Vec<usize>>,
    /// Scope columns and the texts of their values.
    pub scope: Vec<(usize, String)>,
    /// What else the rows must be: the same text for the node and for PostgreSQL.
    pub predicate: Option<String>,
}

impl Shape {
    /// All of a fixed table, or of the rows with this scope value.
    pub fn fixed(schema: &Schema, name: &str, scope: Option<usize>) -> Self {
        let table = schema.fixed_table(name);
        let column = schema.tables[table].scopes.first().map(|s| s[0]);
        let scope = column.zip(scope).map(|(c, v)| (c, v.to_string()));
        Self { table, columns: None, scope: scope.into_iter().collect(), predicate: None }
    }

    /// Part of a random table.
    pub fn random(schema: &Schema, dice: &mut Dice) -> Self {
        let index = schema.fixed + dice.below(schema.tables.len() - schema.fixed);
        let table = &schema.tables[index];
        let mut scope = Vec::new();
        if !table.scopes.is_empty() {
            for column in dice.pick(&table.scopes).clone() {
                let most = if table.key.contains(&column) { 16 } else { SCOPES_PER_COLUMN };
                scope.push((column, table.columns[column].kind.numbered(dice.below(most))));
            }
        }
        let mut columns = None;
        if dice.chance(35) {
            let mut rest = table.travelling();
            rest.retain(|c| table.key.contains(c) || dice.chance(50));
            columns = Some(rest);
        }
        let predicate = dice.chance(50).then(|| crate::predicates::random(table, dice));
        Self { table: index, columns, scope, predicate }
    }

    /// As docs/protocol.md has it, without `ref`.
    pub fn definition(&self, schema: &Schema) -> Json {
        let table = &schema.tables[self.table];
        let names =
            |list: &Vec<usize>| list.iter().map(|c| table.columns[*c].name.clone()).collect::<Vec<_>>();
        let scope: serde_json::Map<String, Json> = self
            .scope
            .iter()
            .map(|(c, v)| (table.columns[*c].name.clone(), table.columns[*c].kind.scope_json(v)))
            .collect();
        let scope = if scope.is_empty() { Json::Null } else { Json::Object(scope) };
        json!({
            "table": table.protocol_name(),
            "columns": self.columns.as_ref().map(names),
            "scope": scope,
            "where": self.predicate,
        })
    }

    fn travelling(&self, table: &Table) -> Vec<usize> {
        match &self.columns {
            Some(columns) => columns.clone(),
            None => table.travelling(),
        }
    }

    fn sql(&self, table: &Table, columns: &[usize]) -> String {
        let list: Vec<String> = columns.iter().map(|c| table.column(*c)).collect();
        let place = self
            .scope
            .iter()
            .map(|(c, v)| format!("{} = {}::{}", table.column(*c), literal(v), table.columns[*c].kind.sql()));
        let predicate = self.predicate.as_ref().map_or("true".to_owned(), |p| format!("({p})"));
        let place: Vec<String> = place.chain([predicate]).collect();
        format!("select {} from {} where {}", list.join(", "), table.sql(), place.join(" and "))
    }

    /// What it holds now.
    pub async fn rows(&self, schema: &Schema, client: &tokio_postgres::Client) -> Result<Rows> {
        let table = &schema.tables[self.table];
        let columns = self.travelling(table);
        let answer = client.simple_query(&self.sql(table, &columns)).await.context("reading the truth")?;
        let mut rows = Rows::new();
        for message in answer {
            let SimpleQueryMessage::Row(texts) = message else { continue };
            let value = |(at, column): (usize, &usize)| table.columns[*column].kind.wire(texts.get(at));
            let values: Vec<Json> = columns.iter().enumerate().map(value).collect();
            let key = table
                .key
                .iter()
                .filter_map(|k| columns.iter().position(|c| c == k))
                .map(|at| values[at].clone());
            let key = Json::Array(key.collect()).to_string();
            let names = columns.iter().map(|c| table.columns[*c].name.clone());
            rows.insert(key, names.zip(values).collect());
        }
        Ok(rows)
    }
}

/// The rows of many shapes, all of one snapshot.
#[derive(Debug, Default)]
pub struct Truth(BTreeMap<Shape, Arc<Rows>>);

impl Truth {
    /// Reads them.
    pub async fn read(
        schema: &Schema,
        client: &tokio_postgres::Client,
        shapes: impl IntoIterator<Item = Shape>,
    ) -> Result<Self> {
        client.batch_execute(&format!("{PINNED} begin isolation level repeatable read, read only")).await?;
        let mut all = BTreeMap::new();
        let distinct: std::collections::BTreeSet<Shape> = shapes.into_iter().collect();
        for shape in distinct {
            let rows = shape.rows(schema, client).await?;
            all.insert(shape, Arc::new(rows));
        }
        client.batch_execute("commit").await?;
        Ok(Self(all))
    }

    /// One of them.
    pub fn of(&self, shape: &Shape) -> Option<&Arc<Rows>> {
        self.0.get(shape)
    }
}
