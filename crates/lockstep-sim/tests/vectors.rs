//! The traces of `vectors/traces`, played to the reference client: it comes to the states that they tell.

#![allow(clippy::unwrap_used, reason = "a test")]

use lockstep_sim::trace::{Trace, play, scripts};
use lockstep_sim::world::World;
use std::collections::BTreeSet;
use std::path::Path;

fn committed() -> Vec<Trace> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/traces");
    let files = std::fs::read_dir(directory).unwrap().map(|f| f.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let trace = Trace::read(&name, &text).unwrap();
        assert_eq!(trace.text(), text, "{name} is not as it was written");
        trace
    };
    files.filter(|p| p.extension().is_some_and(|e| e == "json")).map(read).collect()
}

#[test]
fn the_reference_client_comes_to_the_states_of_every_trace() {
    let traces = committed();
    assert!(traces.len() >= 10);
    for trace in traces {
        let played = play(&trace).unwrap();
        for (at, (now, then)) in played.events.iter().zip(&trace.events).enumerate() {
            assert_eq!(now, then, "{}, event {at}", trace.name);
        }
        assert_eq!(played.events.len(), trace.events.len(), "{}", trace.name);
    }
}

#[test]
fn scripts_are_as_committed() {
    let traces = committed();
    for script in scripts().unwrap() {
        let same = traces.iter().find(|t| t.name == script.name);
        assert_eq!(same, Some(&script), "cargo x sim --trace vectors/traces writes it anew");
    }
}

/// A change of the core or of the simulation leads to other worlds: then they are written anew, and both clients replay
/// what is new in them.
#[test]
fn worlds_are_as_committed() {
    let traces = committed();
    let seed = |name: &str| name.strip_prefix("world-")?.split('-').next()?.parse::<u64>().ok();
    let seeds: BTreeSet<u64> = traces.iter().filter_map(|t| seed(&t.name)).collect();
    assert!(seeds.len() >= 3, "{seeds:?}");
    let again: Vec<Trace> = std::thread::scope(|scope| {
        let worlds = seeds.iter().map(|seed| scope.spawn(|| World::new(*seed, None).record(*seed)));
        let worlds: Vec<_> = worlds.collect();
        worlds.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    for trace in traces.iter().filter(|t| seed(&t.name).is_some()) {
        let same = again.iter().find(|t| t.name == trace.name).map(Trace::text);
        assert!(
            same == Some(trace.text()),
            "{}: cargo x sim --trace vectors/traces writes it anew",
            trace.name
        );
    }
}

#[test]
fn together_the_traces_show_everything() {
    let shown: BTreeSet<String> = committed().into_iter().flat_map(|t| t.covers).collect();
    let wanted = [
        "answer: busy",
        "answer: gap",
        "answer: renumber",
        "answer: unknown_client",
        "cut with rows set aside",
        "cut within a batch",
        "every wire",
        "frames of unknown kinds",
        "heartbeat with a cursor",
        "key change",
        "key exchange",
        "loaded",
        "mutation made offline",
        "one row in shapes of different columns",
        "patch with unchanged values",
        "refused subscription",
        "refused: 23505",
        "refused: P0001",
        "removed rows",
        "reset: first",
        "reset: horizon",
        "reset: no_cursor",
        "reset: not_in_cursor",
        "reset: other_timeline",
        "reset: schema_changed",
        "reset: truncated",
        "rows set aside in several frames",
        "schema change",
        "several shapes of one table",
        "subscribed again",
        "the answer to a mutation was lost",
        "truncate",
        "unload",
        "unsubscribe",
        "withdraw",
    ];
    let missing: Vec<_> = wanted.iter().filter(|w| !shown.contains(**w)).collect();
    assert!(missing.is_empty(), "nothing shows {missing:?}");
}
