//! Traces by hand, of what the simulation's world does not do. The states in them are told by the reference client.

use super::{Trace, play};
use serde_json::{Value as Json, json};

/// Builds one script.
#[derive(Default)]
struct Script {
    events: Vec<Json>,
    /// Of the client's messages.
    sent: u32,
    cursor: u32,
}

fn columns(named: &[(&str, &str, &str)]) -> Json {
    named.iter().map(|(name, kind, wire)| json!({"name": name, "type": kind, "wire": wire})).collect()
}

impl Script {
    fn event(&mut self, event: Json) -> &mut Self {
        self.events.push(event);
        self
    }

    fn subscribe(&mut self, reference: &str, shape: Json) -> &mut Self {
        self.event(json!({"do": "subscribe", "ref": reference, "shape": shape}))
    }

    fn unsubscribe(&mut self, reference: &str) -> &mut Self {
        self.event(json!({"do": "unsubscribe", "ref": reference}))
    }

    fn mutate(&mut self, id: &str, ops: Json) -> &mut Self {
        self.event(json!({"do": "mutate", "id": id, "ops": ops}))
    }

    fn frame(&mut self, frame: Json) -> &mut Self {
        self.event(json!({"do": "frame", "text": frame.to_string()}))
    }

    fn reply(&mut self, kind: &str, status: &str, response: Json) -> &mut Self {
        self.sent += 1;
        let reference = format!("{kind}{}", self.sent);
        let payload = json!({"status": status, "response": response});
        let topic =
            if kind == "h" { json!([null, reference, "phoenix"]) } else { json!(["1", reference, "sync"]) };
        self.frame(json!([topic[0], topic[1], topic[2], "phx_reply", payload]))
    }

    fn join(&mut self, client: &str, references: &[&str]) -> &mut Self {
        let shapes: Vec<Json> = references.iter().map(|r| json!({"ref": r, "ok": true})).collect();
        self.event(json!({"do": "join"}));
        self.reply(
            "j",
            "ok",
            json!({"protocol": 1, "capabilities": [], "database": "script", "subject": "",
            "client": client, "shapes": shapes}),
        )
    }

    fn subscribed(&mut self, reference: &str) -> &mut Self {
        self.reply("s", "ok", json!({"shapes": [{"ref": reference, "ok": true}]}))
    }

    fn data(&mut self, event: &str, payload: Json) -> &mut Self {
        self.frame(json!([null, null, "sync", event, payload]))
    }

    fn shape(
        &mut self,
        reference: &str,
        table: &str,
        fingerprint: &str,
        named: &[(&str, &str, &str)],
    ) -> &mut Self {
        self.data(
            "shape",
            json!({"ref": reference, "shape": format!("S{reference}"), "fingerprint": fingerprint,
            "table": ["public", table], "key": ["id"], "columns": columns(named)}),
        )
    }

    fn rows(&mut self, reference: &str, mut rows: Json) -> &mut Self {
        rows["shape"] = format!("S{reference}").into();
        self.data("rows", rows)
    }

    fn ack(&mut self, mutations: Json) -> &mut Self {
        self.data("ack", json!({"mutations": mutations}))
    }

    fn commit(&mut self) -> &mut Self {
        self.cursor += 1;
        let cursor = format!("script~{}", self.cursor);
        self.data(
            "commit",
            json!({"lsn": format!("0/{:X}", self.cursor * 256), "xid": null, "cursor": cursor}),
        )
    }

    fn disconnect(&mut self) -> &mut Self {
        self.event(json!({"do": "disconnect"}))
    }

    /// A script against the rules of traces is a mistake in this file; the test of it says so.
    fn end(&mut self, name: &str, covers: &[&str]) -> Result<Trace, String> {
        let events = std::mem::take(&mut self.events);
        let from = "crates/lockstep-sim/src/trace/script.rs".to_owned();
        let mut trace = play(&Trace { name: name.into(), from, covers: Default::default(), events })
            .map_err(|e| format!("{name}: {e}"))?;
        trace.covers.extend(covers.iter().map(ToString::to_string));
        Ok(trace)
    }
}

const NARROW: &[(&str, &str, &str)] =
    &[("id", "int4", "int"), ("list", "int4", "int"), ("title", "text", "text")];
const WIDE: &[(&str, &str, &str)] =
    &[("id", "int4", "int"), ("note", "text", "text"), ("list", "int4", "int"), ("title", "text", "text")];

fn todo(list: u32) -> Json {
    json!({"table": "todos", "columns": null, "scope": {"list": list}})
}

/// A column is added while the client is connected, then while it is away; then the table is no longer tracked.
fn schema_changes() -> Result<Trace, String> {
    let mut s = Script::default();
    s.subscribe("a", todo(1)).subscribe("b", todo(2)).join("c1", &["a", "b"]);
    s.shape("a", "todos", "f1", NARROW)
        .rows("a", json!({"reset": "first", "put": [[1, 1, "x"], [2, 1, "y"]]}));
    s.shape("b", "todos", "f1", NARROW).rows("b", json!({"reset": "first", "put": [[3, 2, "z"]]})).commit();
    s.mutate("m1", json!([{"op": "update", "table": "todos", "key": {"id": 1}, "set": {"title": "mine"}}]));
    s.reply("m", "ok", json!({}));
    s.shape("a", "todos", "f2", WIDE)
        .rows("a", json!({"reset": "schema_changed", "put": [[1, "n", 1, "x"], [2, null, 1, "y"]]}));
    s.shape("b", "todos", "f2", WIDE)
        .rows("b", json!({"reset": "schema_changed", "put": [[3, "o", 2, "z"]]}))
        .commit();
    s.ack(json!([{"n": "1", "id": "m1", "outcome": "applied"}]))
        .rows("a", json!({"put": [[1, "n", 1, "mine"]]}))
        .commit();
    s.rows("b", json!({"patch": [[[3, null, 2, "zz"], [1]]]}));
    s.disconnect().join("c1", &["a", "b"]);
    s.shape("a", "todos", "f3", NARROW).rows("a", json!({"reset": "schema_changed"}));
    s.rows("a", json!({"put": [[1, 1, "mine"]]})).rows("a", json!({"put": [[2, 1, "y"]]}));
    s.shape("b", "todos", "f3", NARROW)
        .rows("b", json!({"reset": "schema_changed", "put": [[3, 2, "zz"]]}))
        .commit();
    s.rows("a", json!({"put": [[4, 1, "w"]], "remove": [[2]]}))
        .data("withdraw", json!({"shape": "Sb"}))
        .commit();
    s.unsubscribe("b").reply("u", "ok", json!({}));
    s.data("withdraw", json!({"shape": "Sa"})).commit();
    s.end("script-schema-changes", &["schema change"])
}

/// A row takes another key, moves between scopes, and a table is emptied, all with shapes that share rows.
fn keys_and_scopes() -> Result<Trace, String> {
    let mut s = Script::default();
    let few = json!({"table": "todos", "columns": ["id", "list"], "scope": {"list": 1}});
    let few_columns: &[(&str, &str, &str)] = &[("id", "int4", "int"), ("list", "int4", "int")];
    s.subscribe("a", todo(1)).subscribe("b", todo(2)).subscribe("c", few).join("c1", &["a", "b", "c"]);
    s.shape("a", "todos", "f", NARROW)
        .rows("a", json!({"reset": "no_cursor", "put": [[1, 1, "x"], [2, 1, "y"]]}));
    s.shape("b", "todos", "f", NARROW).rows("b", json!({"reset": "no_cursor"}));
    s.shape("c", "todos", "g", few_columns)
        .rows("c", json!({"reset": "no_cursor", "put": [[1, 1], [2, 1]]}))
        .commit();
    s.mutate("m1", json!([{"op": "update", "table": "public.todos", "key": {"id": "1"}, "set": {"id": 9, "title": "nine"}}]));
    s.mutate(
        "m2",
        json!([{"op": "update", "table": "todos", "key": {"id": 2}, "set": {"list": 2}},
        {"op": "insert", "table": "todos", "values": {"id": "5", "list": "1", "title": 7}}]),
    );
    s.mutate("m3", json!([{"op": "insert", "table": "todos", "values": {"id": 9, "list": 1}}]));
    s.reply("m", "ok", json!({}));
    s.rows("a", json!({"remove": [[1]], "put": [[9, 1, "nine"]]}))
        .rows("c", json!({"remove": [[1]], "put": [[9, 1]]}));
    s.ack(json!([{"n": "1", "id": "m1", "outcome": "applied"}])).commit();
    s.rows("a", json!({"remove": [[2]], "put": [[5, 1, "7"]]}))
        .rows("c", json!({"remove": [[2]], "put": [[5, 1]]}));
    s.rows("b", json!({"put": [[2, 2, "y"]]}));
    s.ack(json!([{"n": "2", "id": "m2", "outcome": "applied"},
        {"n": "3", "id": "m3", "outcome": "refused", "code": "23505", "message": "that key is taken"}]))
        .commit();
    s.rows("a", json!({"remove": [[5], [9]], "put": [[9, 1, "five"], [5, 1, "nine"]]})).commit();
    s.rows("a", json!({"reset": "truncated"}))
        .rows("b", json!({"reset": "truncated", "put": [[6, 2, "after"]]}));
    s.rows("c", json!({"reset": "truncated"})).commit();
    s.end("script-keys-and-scopes", &["key change", "key exchange", "truncate"])
}

/// Every way in which a value travels, and operations written as applications write them.
fn values() -> Result<Trace, String> {
    let mut s = Script::default();
    let all: &[(&str, &str, &str)] = &[
        ("id", "int8", "text"),
        ("b", "bool", "bool"),
        ("i", "int2", "int"),
        ("f", "float8", "float"),
        ("j", "jsonb", "json"),
        ("t", "text", "text"),
        ("m", "numeric", "text"),
    ];
    s.subscribe("a", json!({"table": "kinds", "columns": null, "scope": null}));
    s.mutate("m1", json!([{"op": "insert", "table": "kinds", "values": {"id": 9_007_199_254_740_993_u64.to_string(), "j": {"a": [1, null]}}}]));
    s.join("c1", &["a"]).shape("a", "kinds", "f", all);
    s.rows(
        "a",
        json!({"reset": "first", "put": [
        ["1", true, -1, 1.5, "{\"a\": [1, 2]}", "\u{0}é😀\"\\", "1.10"],
        ["2", false, 32767, "NaN", "null", "", "NaN"],
        ["3", null, null, null, null, null, null],
        ["9223372036854775807", true, 0, "-Infinity", "\"text\"", "[1]", "-0.00"]]}),
    )
    .commit();
    s.mutate("m2", json!([{"op": "update", "table": "kinds", "key": {"id": 1}, "set": {"m": 2, "f": "2.5", "i": "7", "b": false}},
        {"op": "delete", "table": "kinds", "key": {"id": 2}}]));
    s.reply("m", "ok", json!({}));
    s.rows("a", json!({"patch": [[["3", true, 5, 0.1, null, null, null], [4, 5, 6]], [["1", null, null, "Infinity", null, null, "3"], [1, 2, 4, 5]]]}));
    s.commit();
    s.ack(json!([{"n": "1", "id": "m1", "outcome": "refused", "code": "23502", "message": "null value"}]));
    s.rows("a", json!({"patch": [[["3", null, null, null, "[]", "t", null], [1, 2, 3, 6]]]})).commit();
    s.reply("h", "ok", json!({"cursor": "script~heard"}));
    s.end("script-values", &["every wire"])
}

/// Made offline before there ever was a node; numbers taken by a copy of the profile; answers lost; a half batch cut.
fn renumbered() -> Result<Trace, String> {
    let insert = |id: u32| json!([{"op": "insert", "table": "todos", "values": {"id": id, "list": 1, "title": "new"}}]);
    let mut s = Script::default();
    s.subscribe("a", todo(1)).mutate("m1", insert(1)).mutate("m2", insert(2));
    s.join("c1", &["a"]).shape("a", "todos", "f", NARROW).rows("a", json!({"reset": "first"})).commit();
    s.rows("a", json!({"put": [[1, 1, "new"]]})).ack(json!([{"n": "1", "id": "m1", "outcome": "applied"}]));
    s.disconnect().join("c1", &["a"]).shape("a", "todos", "f", NARROW);
    s.rows("a", json!({"put": [[1, 1, "new"]]}))
        .ack(json!([{"n": "1", "id": "m1", "outcome": "applied"}]))
        .commit();
    s.mutate("m3", insert(3));
    s.reply("m", "error", json!({"code": "renumber", "message": "that number is taken", "client": "c2"}));
    s.disconnect().join("c2", &["a"]).shape("a", "todos", "f", NARROW).commit();
    s.reply("m", "ok", json!({}));
    s.rows("a", json!({"put": [[2, 1, "new"]]}))
        .ack(json!([{"n": "1", "id": "m2", "outcome": "applied"}]))
        .commit();
    s.data("remove_digest", json!({"of": 1})).data("rows_of_tomorrow", json!(null));
    s.rows("a", json!({"put": [[3, 1, "new"]]}))
        .ack(json!([{"n": "2", "id": "m3", "outcome": "applied"}]))
        .commit();
    s.end("script-renumbered", &["renumber", "frames of unknown kinds"])
}

/// Subscriptions that come and go within one session, loaded next to commits of the others.
fn comings_and_goings() -> Result<Trace, String> {
    let mut s = Script::default();
    s.subscribe("a", todo(1)).join("c1", &["a"]).shape("a", "todos", "f", NARROW);
    s.rows("a", json!({"reset": "first", "put": [[1, 1, "x"]]})).commit();
    s.subscribe("b", todo(2)).subscribed("b").rows("a", json!({"put": [[2, 1, "y"]]})).commit();
    s.shape("b", "todos", "f", NARROW).rows("b", json!({"reset": "first", "put": [[3, 2, "z"]]})).commit();
    s.unsubscribe("a").reply("u", "ok", json!({})).rows("b", json!({"put": [[4, 2, "w"]]})).commit();
    s.subscribe("a", todo(1)).subscribed("a").rows("b", json!({"remove": [[4]]})).commit();
    s.shape("a", "todos", "f", NARROW)
        .rows("a", json!({"reset": "first", "put": [[1, 1, "x"], [2, 1, "yy"]]}))
        .commit();
    s.unsubscribe("b").disconnect().subscribe("b", todo(2)).join("c1", &["a", "b"]);
    s.shape("a", "todos", "f", NARROW)
        .shape("b", "todos", "f", NARROW)
        .rows("a", json!({"put": [[5, 1, "v"]]}))
        .commit();
    s.reply("h", "ok", json!({"cursor": "script~heard"}));
    s.subscribe("d", json!({"table": "nothing"})).reply(
        "s",
        "ok",
        json!({"shapes": [{"ref": "d", "error": {"code": "unknown_table", "message": "no such table"}}]}),
    );
    s.rows("b", json!({"put": [[6, 2, "u"]]}))
        .reply("h", "ok", json!({"cursor": "script~too soon"}))
        .commit();
    s.end("script-comings-and-goings", &["subscribed again", "refused subscription"])
}

/// The server lost commits that it had acknowledged, then all that it knew of the client.
fn forgotten() -> Result<Trace, String> {
    let insert = |id: u32| json!([{"op": "insert", "table": "todos", "values": {"id": id, "list": 1, "title": "new"}}]);
    let applied = |n: u32, id: &str| json!([{"n": n.to_string(), "id": id, "outcome": "applied"}]);
    let mut s = Script::default();
    s.subscribe("a", todo(1))
        .join("c1", &["a"])
        .shape("a", "todos", "f", NARROW)
        .rows("a", json!({"reset": "first"}))
        .commit();
    for n in 1..=2 {
        s.mutate(&format!("m{n}"), insert(n)).reply("m", "ok", json!({}));
        s.rows("a", json!({"put": [[n, 1, "new"]]})).ack(applied(n, &format!("m{n}"))).commit();
    }
    s.mutate("m3", insert(3)).disconnect().mutate("m4", insert(4)).join("c1", &["a"]);
    s.shape("a", "todos", "f", NARROW)
        .rows("a", json!({"reset": "rolled_back", "put": [[1, 1, "new"]]}))
        .commit();
    s.reply("m", "error", json!({"code": "gap", "message": "a number is missing", "last": "1"}));
    s.rows("a", json!({"put": [[3, 1, "new"]]})).ack(applied(2, "m3")).commit();
    s.disconnect().join("c1", &["a"]);
    s.shape("a", "todos", "f", NARROW)
        .rows("a", json!({"reset": "other_timeline", "put": [[1, 1, "new"]]}))
        .commit();
    s.reply(
        "m",
        "error",
        json!({"code": "unknown_client", "message": "nothing is known of it", "client": "c2"}),
    );
    s.disconnect().join("c2", &["a"]).shape("a", "todos", "f", NARROW).commit().reply("m", "ok", json!({}));
    s.rows("a", json!({"put": [[4, 1, "new"]]})).ack(applied(1, "m4")).commit();
    s.end("script-forgotten", &[])
}

/// Loaded in full again and again, while the outbox waits.
fn reset_reasons() -> Result<Trace, String> {
    let mut s = Script::default();
    s.subscribe("a", todo(1)).subscribe("b", todo(2)).join("c1", &["a", "b"]);
    s.shape("a", "todos", "f", NARROW).rows("a", json!({"reset": "first", "put": [[1, 1, "x"]]}));
    s.shape("b", "todos", "f", NARROW)
        .rows("b", json!({"reset": "first", "put": [[100, 2, "stays"]]}))
        .commit();
    s.mutate("m1", json!([{"op": "update", "table": "todos", "key": {"id": 1}, "set": {"title": "mine"}}]));
    for (id, reason) in
        (2_u32..).zip(["not_in_cursor", "bad_cursor", "horizon", "other_database", "rolled_back", "future"])
    {
        s.disconnect()
            .join("c1", &["a", "b"])
            .shape("a", "todos", "f", NARROW)
            .shape("b", "todos", "f", NARROW);
        s.rows("a", json!({"reset": reason, "put": [[1, 1, reason]]}))
            .rows("a", json!({"put": [[id, 1, "y"]]}))
            .commit();
    }
    s.end("script-reset-reasons", &[])
}

/// All scripts.
pub fn scripts() -> Result<Vec<Trace>, String> {
    let all =
        [schema_changes, keys_and_scopes, values, renumbered, comings_and_goings, forgotten, reset_reasons];
    all.into_iter().map(|script| script()).collect()
}
