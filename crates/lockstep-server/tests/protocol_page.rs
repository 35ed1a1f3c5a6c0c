//! docs/protocol.md and the code name the same things: whoever writes a client reads only the page.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

type Names = BTreeSet<String>;

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.split("#[cfg(test)]").next().unwrap().to_owned()
}

/// The part of the page between two texts.
fn part<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let after = page.split_once(from).unwrap_or_else(|| panic!("the page has no {from:?}")).1;
    after.split_once(to).unwrap_or_else(|| panic!("nothing ends {from:?}")).0
}

/// What stands in backticks in the first column of a table's rows.
fn first_column(part: &str) -> Names {
    let cells = part.lines().filter_map(|l| l.strip_prefix("| ")?.split(" |").next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned));
    names.collect()
}

/// String literals that follow one of these texts in the code.
fn literals(sources: &[&str], before: &[&str]) -> Names {
    let mut names = Names::new();
    for source in sources.iter().map(|path| file(path)) {
        for before in before {
            for after in source.split(before).skip(1) {
                let Some(text) = after.trim_start().strip_prefix('"') else { continue };
                names.insert(text.split('"').next().unwrap().to_owned());
            }
        }
    }
    names
}

/// Literals of `Self::Variant => "name"` in one function.
fn variants(path: &str, type_name: &str) -> Names {
    let source = file(path);
    let body = part(&source, &format!("impl {type_name} {{"), "\n}\n");
    let body = part(body, "fn as_str", "\n    }");
    body.split("=> \"").skip(1).map(|t| t.split('"').next().unwrap().to_owned()).collect()
}

const SESSIONS: &str = "crates/lockstep-core/src/fanout/hub/sessions.rs";
const ADMISSION: &str = "crates/lockstep-core/src/fanout/hub/admission.rs";
const SCHEMA: &str = "crates/lockstep-core/src/fanout/hub/schema.rs";
const PREDICATES: &str = "crates/lockstep-core/src/shape/predicate/resolve.rs";
const SHAPES: &str = "crates/lockstep-core/src/shape/definition.rs";
const MUTATION: &str = "crates/lockstep-core/src/mutation.rs";
const MUTATE: &str = "crates/lockstep-pg/src/mutate.rs";
const DOWN: &str = "crates/lockstep-core/src/protocol/down.rs";
const CODEC: &str = "crates/lockstep-core/src/protocol/codec.rs";
const UP: &str = "crates/lockstep-core/src/protocol/up.rs";
const SOCKET: &str = "crates/lockstep-server/src/socket.rs";
const NODE: &str = "crates/lockstep-server/src/node.rs";

#[test]
fn error_codes() {
    let page = file("docs/protocol.md");
    let join = first_column(part(&page, "\nERROR:", "A client that holds several shapes"));
    let reply = first_column(part(&page, "Errors of the reply:", "The node goes by"));
    let posts = page.split_once("| code | status |").unwrap().1;
    let source: String = file("crates/lockstep-server/src/post.rs").split_whitespace().collect();
    let calls = source.split("refuse(StatusCode::").skip(1).filter_map(|call| call.split('"').nth(1));
    let requests: Names = calls.map(str::to_owned).collect();
    assert_eq!(&first_column(posts) | &["not_ready".to_owned()].into(), requests, "errors of requests");
    let refusals = first_column(part(&page, "or these words:", "A failure that says nothing"));
    let in_code = literals(
        &[SESSIONS, ADMISSION, SHAPES, PREDICATES],
        &["Reply::error(", "ShapeError::new(", "code: ", "later("],
    );
    assert_eq!(&join | &reply, in_code, "errors of replies and shapes");
    assert_eq!(refusals, literals(&[MUTATION, MUTATE], &["Refusal::new("]), "refusals");
}

#[test]
fn reset_reasons_and_wires() {
    let page = file("docs/protocol.md");
    let reasons = first_column(part(&page, "### Reset reasons", "## Cursors"));
    assert_eq!(reasons, variants("crates/lockstep-core/src/position/cursor.rs", "ResetReason"));
    let wires = first_column(part(&page, "| wire |", "Text is as printed"));
    assert_eq!(wires, variants("crates/lockstep-core/src/catalog.rs", "Wire"));
}

#[test]
fn events() {
    let page = file("docs/protocol.md");
    let sent = first_column(part(&page, "| event |", "Example, one transaction"));
    let reserved: Names = ["remove_digest"].map(str::to_owned).into();
    let mut in_code =
        literals(&[DOWN, SESSIONS, SCHEMA], &["null, null, TOPIC, ", "topic, ", "join_ref, TOPIC, "]);
    in_code.extend(literals(&[CODEC, DOWN], &["{TOPIC}\","]));
    for reply in ["phx_reply", "phx_close"] {
        assert!(in_code.remove(reply), "{reply} in the code");
        assert!(page.contains(&format!("`{reply}`")), "{reply} on the page");
    }
    assert_eq!(&sent - &reserved, in_code, "from the node");
    assert!(reserved.is_subset(&sent));
    let connection = part(&page, "| from |", "There is one topic");
    let fields = connection.lines().filter_map(|line| line.split("\", \"").nth(1)?.split('"').next());
    let from_clients: Names = fields.map(str::to_owned).collect();
    let source = file(UP);
    let arms = part(&source, "match event.as_str()", "_ =>");
    let arms: Names = arms
        .lines()
        .filter_map(|l| Some(l.trim().strip_prefix('"')?.split('"').next()?.to_owned()))
        .collect();
    assert_eq!(from_clients, arms, "from clients");
}

#[test]
fn capabilities() {
    use lockstep_core::protocol::{PROVISIONAL, WIDEN};
    let page = file("docs/protocol.md");
    assert!(page.contains(&format!(r#""capabilities": ["{WIDEN}", "{PROVISIONAL}"]"#)), "in JOIN");
    assert!(page.contains(&format!(r#""capabilities":["{WIDEN}","{PROVISIONAL}"]"#)), "in JOINED");
    let client = file("packages/client/src/protocol.ts");
    assert!(client.contains(&format!("CAPABILITIES: readonly string[] = ['{WIDEN}', '{PROVISIONAL}']")));
}

#[test]
fn close_codes() {
    let page = file("docs/protocol.md");
    let listed = part(&page, "| close code |", "| limit |").lines();
    let listed: Names =
        listed.filter_map(|l| l.strip_prefix("| ")?.split(' ').next().map(str::to_owned)).collect();
    let mut in_code = Names::new();
    for source in [SESSIONS, SOCKET, NODE].map(file) {
        for before in ["Close(id, ", "close(", "Some(("] {
            let codes = source.split(before).skip(1).filter_map(|after| after.trim_start().get(..4));
            in_code.extend(codes.filter(|c| c.parse::<u16>().is_ok()).map(str::to_owned));
        }
    }
    assert_eq!(listed, in_code);
}

#[test]
fn limits() {
    use lockstep_core::limits;
    let page = file("docs/protocol.md");
    let table = part(&page, "| limit |", "A node reads no further");
    for number in [
        limits::CLIENT_FRAME_BYTES,
        limits::NESTING,
        limits::SESSION_SHAPES,
        limits::SESSION_SHAPE_BYTES,
        limits::MUTATIONS_PER_FRAME,
        limits::OPERATIONS_PER_MUTATION,
    ] {
        let plain = table.replace(',', "");
        assert!(plain.contains(&format!("| {number} |")), "{number}: {table}");
    }
    assert!(page.contains(&format!("about {} MiB", limits::UNSERVED_BYTES >> 20)));
}
