//! Changes of the schema: a column at the end of a table comes, goes, gets another name or another type.
//!
//! ```text
//!  ALTER TABLE: nobody else has the table ──► record written ──► flushed ──► visible: from here on rows are others
//! ```

use super::{Db, Stuck, TxId};
use crate::schema::{Row, Schema};
use lockstep_client::row_digest;
use lockstep_core::change::Text;

/// What is done to the last column.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new one, with this value in every row.
    Add(Option<Text>),
    /// It goes.
    Drop,
    /// It gets another name.
    Rename,
    /// It gets another type: the table is written anew.
    Retype,
}

/// A table that is about to look different.
#[derive(Debug, Clone)]
pub struct Migration {
    /// Table.
    pub table: usize,
    /// All tables as they will be.
    pub schema: Schema,
    change: Change,
}

impl Migration {
    fn row(&self, row: &Row) -> Row {
        let mut row = row.clone();
        match &self.change {
            Change::Add(value) => row.push(value.clone()),
            Change::Drop => drop(row.pop()),
            Change::Rename | Change::Retype => {}
        }
        row
    }
}

impl Db {
    /// ALTER TABLE. The table is locked against everyone until it is visible.
    pub fn migrate(&mut self, id: TxId, table: usize, change: Change) -> Result<(), Stuck> {
        if self.table_locks[table].is_some() || self.lock_counts[table] > 0 {
            return Err(Stuck::Locked);
        }
        self.table_locks[table] = Some(id);
        self.assign(id);
        self.write_wal(300);
        let mut schema = self.schema.clone();
        schema.migrate(table, &change, self.versions.len());
        if let Some(tx) = self.open.get_mut(&id) {
            tx.migration = Some(Box::new(Migration { table, schema, change }));
        }
        Ok(())
    }

    /// What it does to the digests of shapes.
    pub(super) fn migration_deltas(&self, migration: &Migration) -> Vec<(usize, u64)> {
        let mut deltas = Vec::new();
        let digest = |schema: &Schema, shape: usize, row: &Row| {
            schema.row_text(&schema.shapes[shape], row).map_or(0, |text| row_digest(&text))
        };
        let shapes = self.schema.shapes.iter().enumerate().filter(|(_, s)| s.table == migration.table);
        for (shape, _) in shapes {
            let rows = self.visible[migration.table].values();
            let delta = rows.fold(0u64, |sum, row| {
                let now = digest(&migration.schema, shape, &migration.row(row));
                sum.wrapping_add(now).wrapping_sub(digest(&self.schema, shape, row))
            });
            if delta != 0 {
                deltas.push((shape, delta));
            }
        }
        deltas
    }

    /// From now on rows are the new ones.
    pub(super) fn migrated(&mut self, migration: &Migration, commit: usize) {
        for row in self.visible[migration.table].values_mut() {
            *row = migration.row(row);
        }
        self.schema = migration.schema.clone();
        self.versions.push((commit, migration.schema.clone()));
    }

    /// The schema as of a commit, and its number.
    pub fn version_at(&self, commit: usize) -> (usize, &Schema) {
        let at = self.versions.partition_point(|(first, _)| *first <= commit) - 1;
        (at, &self.versions[at].1)
    }
}
