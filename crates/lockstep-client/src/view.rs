//! What an application sees: the rows held, with the outbox on top.

use crate::replica::{Held, Replica, Row};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};

/// The rows of every table that is subscribed to, by table and by the text of their key.
pub type View = BTreeMap<String, BTreeMap<String, Row>>;

/// One table as several shapes show it.
struct Table<'a> {
    held: Vec<&'a Held>,
    scopes: Vec<&'a Json>,
    rows: BTreeMap<String, Row>,
}

impl Replica {
    /// What an application sees: a function of rows and outbox. Only the shapes named by `shown` have rows in it; every one that is
    /// wanted keeps rows of the outbox visible that lie in its scope.
    pub fn application_view(&self, shown: &BTreeSet<String>) -> View {
        let mut tables: BTreeMap<String, Table<'_>> = BTreeMap::new();
        for wanted in &self.wanted {
            let name = table_name(&wanted.definition["table"]);
            let empty = || Table { held: Vec::new(), scopes: Vec::new(), rows: BTreeMap::new() };
            let table = tables.entry(name).or_insert_with(empty);
            table.scopes.push(&wanted.definition["scope"]);
            let held = self.shapes.values().find(|h| h.reference == wanted.reference);
            table.held.extend(held.filter(|h| shown.contains(&h.reference)));
        }
        for table in tables.values_mut() {
            table.load();
        }
        let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for op in self.outbox.iter().flat_map(|pending| &pending.ops) {
            let name = table_name(&op["table"]);
            if let Some(table) = tables.get_mut(&name) {
                written.entry(name).or_default().extend(table.operate(op));
            }
        }
        for (name, keys) in written {
            let Some(table) = tables.get_mut(&name) else { continue };
            for key in keys {
                // Outside of every scope nothing would be left of it after the acknowledgement.
                if table.rows.get(&key).is_some_and(|row| !table.in_scope(row)) {
                    table.rows.remove(&key);
                }
            }
        }
        tables.into_iter().map(|(name, table)| (name, table.rows)).collect()
    }
}

impl Table<'_> {
    /// The union of the shapes; columns of several are merged.
    fn load(&mut self) {
        for held in &self.held {
            for (key, values) in &held.rows {
                let row = self.rows.entry(key.clone()).or_default();
                for ((name, wire), value) in held.columns.iter().zip(&held.wires).zip(values) {
                    row.insert(name.clone(), decoded(wire, value));
                }
            }
        }
    }

    /// The value as it will look once the node has sent it back, as far as can be told.
    fn guess(&self, name: &str, value: &Json) -> Json {
        let wire = self.held.iter().find_map(|h| {
            let at = h.columns.iter().position(|c| c == name)?;
            h.wires.get(at).map(String::as_str)
        });
        match (wire, value) {
            (Some("text"), Json::Number(_) | Json::Bool(_)) => value.to_string().into(),
            (Some("int"), Json::String(text)) => {
                text.parse::<i64>().map_or_else(|_| value.clone(), Json::from)
            }
            (Some("float"), Json::String(text)) => decoded("float", &text.as_str().into()),
            _ => value.clone(),
        }
    }

    /// Before the table was described its key is `id`, or else all that an insert gives. None with a NULL in it.
    fn key_of(&self, values: &Row) -> Option<String> {
        let names: Vec<&str> = match self.held.first() {
            Some(held) => held.key.iter().map(|at| held.columns[*at].as_str()).collect(),
            None if values.contains_key("id") => vec!["id"],
            None => values.keys().map(String::as_str).collect(),
        };
        let key: Vec<Json> = names.iter().map(|n| values.get(*n).cloned().unwrap_or_default()).collect();
        (!key.contains(&Json::Null)).then(|| Json::Array(key).to_string())
    }

    fn guessed(&self, values: &Json) -> Row {
        let empty = Map::new();
        let values = values.as_object().unwrap_or(&empty);
        values.iter().map(|(name, value)| (name.clone(), self.guess(name, value))).collect()
    }

    /// Carries out one operation; returns the keys of the rows that it wrote.
    fn operate(&mut self, op: &Json) -> Vec<String> {
        match op["op"].as_str() {
            Some("insert") => {
                let given = self.guessed(&op["values"]);
                let Some(key) = self.key_of(&given) else { return Vec::new() };
                let columns = self.held.iter().flat_map(|h| &h.columns);
                let mut row: Row = columns.map(|name| (name.clone(), Json::Null)).collect();
                row.extend(given);
                self.rows.insert(key.clone(), row);
                vec![key]
            }
            Some("update") => {
                let set = self.guessed(&op["set"]);
                let Some(key) = self.key_of(&self.guessed(&op["key"])) else { return Vec::new() };
                let Some(mut row) = self.rows.remove(&key) else { return Vec::new() };
                row.extend(set);
                let new = self.key_of(&row).unwrap_or_else(|| key.clone());
                self.rows.insert(new.clone(), row);
                vec![key, new]
            }
            Some("delete") => {
                if let Some(key) = self.key_of(&self.guessed(&op["key"])) {
                    self.rows.remove(&key);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn in_scope(&self, row: &Row) -> bool {
        let same = |a: &Json, b: &Json| plain(a) == plain(b);
        self.scopes.iter().any(|scope| match scope {
            Json::Object(scope) => {
                scope.iter().all(|(name, value)| row.get(name).is_none_or(|has| same(has, value)))
            }
            _ => true,
        })
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `public.` is left out.
fn table_name(name: &Json) -> String {
    let name = name.as_str().unwrap_or_default();
    name.strip_prefix("public.").unwrap_or(name).to_owned()
}

/// A value as an application sees it; the floats that JSON lacks stay text.
fn decoded(wire: &str, value: &Json) -> Json {
    match (wire, value) {
        ("json", Json::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        ("float", Json::String(text)) => text
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map_or_else(|| value.clone(), Json::from),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn held() -> (Replica, BTreeSet<String>) {
        let mut replica = Replica::new([json!({"table": "public.t", "scope": {"list": 1}})]);
        let columns = json!([{"name": "id", "wire": "int"}, {"name": "list", "wire": "int"}, {"name": "v", "wire": "text"}]);
        let shape = json!({"ref": "0", "shape": "s", "fingerprint": "f", "table": ["public", "t"], "key": ["id"], "columns": columns});
        for (event, payload) in [
            ("shape", shape),
            ("rows", json!({"shape": "s", "reset": "first", "put": [[1, 1, "a"], [2, 1, "b"]]})),
            ("commit", json!({"lsn": "0/1", "xid": null, "cursor": "c"})),
        ] {
            replica.handle(&json!([null, null, "sync", event, payload]).to_string()).unwrap();
        }
        (replica, BTreeSet::from(["0".to_owned()]))
    }

    #[test]
    fn the_outbox_lies_on_top_of_the_rows() {
        let (mut replica, shown) = held();
        let ops = vec![
            json!({"op": "update", "table": "t", "key": {"id": "1"}, "set": {"v": 7}}),
            json!({"op": "delete", "table": "public.t", "key": {"id": 2}}),
            json!({"op": "insert", "table": "t", "values": {"id": 3, "list": "1"}}),
            json!({"op": "insert", "table": "t", "values": {"id": 4, "list": 2}}),
            json!({"op": "insert", "table": "elsewhere", "values": {"id": 5}}),
        ];
        replica.push("m", ops);
        let view = json!(replica.application_view(&shown));
        let rows = json!({"[1]": {"id": 1, "list": 1, "v": "7"}, "[3]": {"id": 3, "list": 1, "v": null}});
        assert_eq!(view, json!({"t": rows}));
        assert_eq!(
            json!(replica.application_view(&BTreeSet::new())),
            json!({"t": {"[3]": {"id": 3, "list": "1"}}})
        );
    }

    #[test]
    fn an_update_may_move_a_row_to_another_key_or_out_of_scope() {
        let (mut replica, shown) = held();
        replica.push("m", vec![json!({"op": "update", "table": "t", "key": {"id": 1}, "set": {"id": 9}})]);
        replica.push("n", vec![json!({"op": "update", "table": "t", "key": {"id": 2}, "set": {"list": 2}})]);
        let view = json!(replica.application_view(&shown));
        assert_eq!(view, json!({"t": {"[9]": {"id": 9, "list": 1, "v": "a"}}}));
    }
}
