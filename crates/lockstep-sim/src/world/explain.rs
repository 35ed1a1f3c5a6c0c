//! For people: what is wrong with a state that never was.

use super::World;
use crate::schema::Row;
use std::collections::BTreeMap;

impl World {
    /// How a client's rows differ from the database as of the first commits up to `lsn`.
    pub(super) fn explain(&self, at: usize, lsn: u64) -> String {
        let count = self.db.commits.partition_point(|c| c.end_lsn <= lsn);
        let mut out = String::new();
        let client = &self.clients[at];
        for shape in &client.shown {
            let def = &self.db.schema.shapes[*shape];
            let columns = &self.db.schema.tables[def.table].table.columns;
            let mut rows: BTreeMap<_, Row> = self.db.visible[def.table].clone();
            for commit in self.db.commits[count..].iter().rev().filter(|c| c.visible.is_some()) {
                for write in commit.writes.iter().filter(|w| w.table == def.table) {
                    set(&mut rows, &write.key, &write.before);
                }
            }
            for commit in self.db.commits[..count].iter().filter(|c| c.visible.is_none()) {
                for write in commit.writes.iter().filter(|w| w.table == def.table) {
                    set(&mut rows, &write.key, &write.after);
                }
            }
            let wanted: Vec<String> = rows.values().filter_map(|r| self.db.schema.row_text(def, r)).collect();
            let has = client.replica.rows_of(&shape.to_string()).unwrap_or_default();
            let has: Vec<String> = has
                .values()
                .map(|row| {
                    let names = def.columns.iter().map(|c| &columns[*c].name);
                    let values: Vec<_> = names.map(|n| row.get(n).cloned().unwrap_or_default()).collect();
                    serde_json::Value::from(values).to_string()
                })
                .collect();
            let ghosts: Vec<_> = has.iter().filter(|r| !wanted.contains(r)).collect();
            let missing: Vec<_> = wanted.iter().filter(|r| !has.contains(r)).collect();
            if ghosts.is_empty() && missing.is_empty() {
                continue;
            }
            out += &format!("\n  shape {shape} after commit {count}: has {ghosts:?}, lacks {missing:?}");
            let odd = self.db.commits.iter().enumerate().rev().take(400).filter(|(_, c)| {
                c.writes.iter().any(|w| {
                    if w.table != def.table {
                        return false;
                    }
                    let text = |r: &Option<Row>| r.as_ref().and_then(|r| self.db.schema.row_text(def, r));
                    let (before, after) = (text(&w.before), text(&w.after));
                    let odd = |t: &Option<String>| {
                        t.as_ref().is_some_and(|t| ghosts.contains(&t) || missing.contains(&t))
                    };
                    before != after && (odd(&before) || odd(&after))
                })
            });
            for (index, commit) in odd {
                out += &format!(
                    "\n    commit {index}: xid {}, record {:X}..{:X}, visible at {:?}",
                    commit.xid, commit.commit_lsn, commit.end_lsn, commit.visible
                );
            }
        }
        out
    }
}

fn set(
    rows: &mut BTreeMap<Vec<lockstep_core::change::Text>, Row>,
    key: &[lockstep_core::change::Text],
    row: &Option<Row>,
) {
    match row {
        Some(row) => drop(rows.insert(key.to_vec(), row.clone())),
        None => drop(rows.remove(key)),
    }
}
