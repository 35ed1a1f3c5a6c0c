//! Plays a trace to the reference client and writes it anew: the same trace, as long as nothing has changed.

use super::{Recorder, Trace};
use lockstep_client::{Heard, Replica, Wanted};
use serde_json::Value as Json;

/// Plays events; the states between them are passed over and told anew.
pub fn play(trace: &Trace) -> Result<Trace, String> {
    let mut replica = Replica::default();
    let mut recorder = Recorder::default();
    for event in &trace.events {
        let text = |field: &str| event[field].as_str().unwrap_or_default();
        match text("do") {
            "subscribe" => {
                let (reference, definition) = (text("ref").to_owned(), event["shape"].clone());
                replica.wanted.push(Wanted { reference, definition });
            }
            "unsubscribe" => replica.wanted.retain(|w| w.reference != text("ref")),
            "mutate" => {
                replica.push(text("id"), event["ops"].as_array().cloned().unwrap_or_default());
                recorder.observe(&replica);
                recorder.sends(&replica);
                continue;
            }
            "join" => {
                recorder.join(&replica);
                recorder.sends(&replica);
                continue;
            }
            "frame" => {
                let heard = replica.handle(text("text")).map_err(|e| e.to_string())?;
                recorder.frame(text("text"), &heard, &replica);
                if let Heard::Reply(to, ok, response) = heard {
                    answered(&mut replica, &to, ok, &response);
                }
            }
            "disconnect" => {
                recorder.disconnected(&replica);
                replica.disconnected();
                continue;
            }
            "expect" => continue,
            other => return Err(format!("a trace does not know {other}")),
        }
        recorder.observe(&replica);
    }
    let played =
        recorder.finish(trace.name.clone(), trace.from.clone()).ok_or("a trace that cannot be used")?;
    Ok(played)
}

/// As the simulation's application takes answers; the first letter of a ref says what was asked.
fn answered(replica: &mut Replica, to: &str, ok: bool, response: &Json) {
    let text = |field: &str| response[field].as_str().map(str::to_owned);
    match (to.get(..1), ok, text("code").as_deref()) {
        (Some("j"), true, _) => replica.client = text("client"),
        (Some("h"), true, _) => {
            if let Some(cursor) = text("cursor").filter(|_| replica.waiting() == 0) {
                replica.cursor = Some(cursor);
            }
        }
        (Some("m"), false, Some("gap")) => {
            replica.renumber_after(text("last").and_then(|n| n.parse().ok()).unwrap_or(0));
        }
        (Some("m"), false, Some("renumber" | "unknown_client")) => {
            replica.renumber(&text("client").unwrap_or_default());
        }
        _ => {}
    }
}
