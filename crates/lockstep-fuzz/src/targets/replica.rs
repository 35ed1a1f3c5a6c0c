//! Frames to clients: what a node writes a client reads; whatever comes, nothing is visible of part of a batch.

use crate::{sample, split};
use arbitrary::{Result, Unstructured};
use lockstep_client::{Heard, Replica};
use lockstep_core::change::{Tuple, Value};
use lockstep_core::position::{Lsn, ResetReason};
use lockstep_core::protocol::{Delta, commit_frame, rows_frames, shape_frame};
use lockstep_core::shape::Shape;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Lines as frames; or deltas, written by the node's own encoder.
pub fn run(data: &[u8]) {
    let (how, rest) = split(data);
    if how == 0 {
        // The input ends where its bytes do.
        let _ = written(&mut Unstructured::new(rest));
    } else {
        lines(rest);
    }
}

fn shape() -> Shape {
    let request = serde_json::from_value(json!({"ref": "0", "table": "t"})).unwrap();
    Shape::resolve(&request, &sample::catalog()).unwrap()
}

fn handle(replica: &mut Replica, frame: &[u8]) -> Heard {
    let text = std::str::from_utf8(frame).unwrap();
    replica.handle(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut replica = Replica::new([json!({"table": "t"})]);
    handle(&mut replica, &shape_frame("0", &shape(), None));
    handle(&mut replica, &commit_frame(Lsn(1), None, "first"));
    replica.push("m", vec![]);
    for line in text.lines().take(40) {
        let visible = |r: &Replica| (r.rows_of("0"), r.cursor.clone());
        let before = visible(&replica);
        let sent = (replica.outbox.clone(), replica.confirmed);
        let heard = replica.handle(line);
        if !matches!(heard, Ok(Heard::Commit(_))) {
            let now = visible(&replica);
            let forgotten = heard.is_err() && now == (None, None);
            assert!(now == before || forgotten, "{before:?} became {now:?} by {line}");
            assert_eq!((replica.outbox.clone(), replica.confirmed), sent);
        }
        let _ = (replica.join(), replica.mutate());
    }
}

fn written(u: &mut Unstructured<'_>) -> Result<()> {
    let shape = shape();
    let mut replica = Replica::new([json!({"table": "t"})]);
    handle(&mut replica, &shape_frame("0", &shape, None));
    let mut model: BTreeMap<i32, Vec<Json>> = BTreeMap::new();
    for nth in 2..20 {
        if u.is_empty() {
            break;
        }
        let mut delta = Delta::default();
        if u.ratio(1, 8)? {
            delta.reset = Some(ResetReason::Horizon);
            model.clear();
        }
        for _ in 0..u.int_in_range(0..=2)? {
            let id = u.int_in_range(0..=5)?;
            model.remove(&id);
            delta.remove.push([id.to_string().into()].into());
        }
        let mut taken = Vec::new();
        for _ in 0..u.int_in_range(0..=3)? {
            let id = u.int_in_range(0..=5)?;
            // A batch names a key once.
            if !taken.contains(&id) {
                taken.push(id);
                let (row, told) = row(u, id, model.get(&id))?;
                model.insert(id, told);
                delta.put.push(row);
            }
        }
        for frame in rows_frames(&shape, &delta, u.int_in_range(1..=200)?) {
            handle(&mut replica, &frame);
        }
        handle(&mut replica, &commit_frame(Lsn(nth), Some(nth), "next"));
        let rows = replica.rows_of("0").unwrap();
        let names = sample::COLUMNS.map(|(name, _)| name);
        let expected = model.iter().map(|(id, row)| {
            (format!("[{id}]"), names.iter().map(|n| (*n).to_owned()).zip(row.iter().cloned()).collect())
        });
        assert_eq!(rows, expected.collect());
    }
    Ok(())
}

/// A row as PostgreSQL prints it, and the JSON that a client has of it. Large values may be unchanged if held.
fn row(u: &mut Unstructured<'_>, id: i32, held: Option<&Vec<Json>>) -> Result<(Tuple, Vec<Json>)> {
    let (mut row, mut told) = (Vec::new(), Vec::new());
    for (i, (name, _)) in sample::COLUMNS.iter().enumerate() {
        let number = u.arbitrary::<i16>()?;
        let (text, json) = match *name {
            "id" => (id.to_string(), json!(id)),
            "done" => (if number & 1 == 0 { "f" } else { "t" }.into(), json!(number & 1 == 1)),
            "weight" if number == 0 => ("-Infinity".into(), json!("-Infinity")),
            "weight" => (format!("{}", f64::from(number) / 8.0), json!(f64::from(number) / 8.0)),
            _ => {
                let text = u.arbitrary::<&str>()?.replace('\0', "");
                (text.clone(), json!(text))
            }
        };
        let unchanged = held.filter(|_| *name == "body" || *name == "extra");
        match (u.int_in_range(0..=3)?, unchanged) {
            (0, _) if *name != "id" => {
                row.push(Value::Null);
                told.push(Json::Null);
            }
            (1, Some(held)) => {
                row.push(Value::Unchanged);
                told.push(held[i].clone());
            }
            _ => {
                // Whole floats are printed without a point, as PostgreSQL does: equal, but not the same JSON.
                told.push(if *name == "weight" { serde_json::from_str(&text).unwrap_or(json) } else { json });
                row.push(Value::Text(text.into()));
            }
        }
    }
    Ok((row, told))
}
