//! Frames from clients: every JSON array of the right form is a frame, and what it asks for can be answered.

use crate::sample;
use lockstep_core::protocol::{Up, UpError, parse};
use lockstep_core::shape::{Shape, ShapeRequest};
use serde_json::Value as Json;

/// Any text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = parse(text);
    if let Ok(json) = serde_json::from_str::<Json>(text) {
        let closes = matches!(parsed, Err(UpError::Frame(_)));
        assert_eq!(is_frame(&json), !closes, "{parsed:?}");
    }
    match parsed {
        Ok((_, Up::Join(join))) => {
            resolve(&join.shapes);
            if let Some(cursor) = &join.cursor {
                let _ = cursor.parse::<lockstep_core::position::Cursor>();
            }
        }
        Ok((_, Up::Subscribe(subscribe))) => resolve(&subscribe.shapes),
        Ok((_, Up::Mutate(mutate))) => {
            for mutation in &mutate.mutations {
                let refused = mutation.operations().err();
                assert!(mutation.kind == "ops" || refused.is_some_and(|r| r.code == "unknown_kind"));
            }
        }
        _ => {}
    }
}

fn is_frame(json: &Json) -> bool {
    let optional = |v: &Json| v.is_null() || v.is_string();
    matches!(json.as_array().map(Vec::as_slice), Some([join_ref, reference, topic, event, _])
        if optional(join_ref) && optional(reference) && topic.is_string() && event.is_string())
}

/// A shape that can be had is the same one when its definition is resolved again.
fn resolve(requests: &[ShapeRequest]) {
    let catalog = sample::catalog();
    for request in requests {
        if let Ok(shape) = Shape::resolve(request, &catalog) {
            let again = shape.again(&catalog).unwrap();
            assert_eq!((again.id, again.fingerprint), (shape.id, shape.fingerprint), "{request:?}");
        }
    }
}
