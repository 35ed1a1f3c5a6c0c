//! A small `load`: that it works, that its client holds what SELECT says, and that it prints figures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value as Json;
use std::process::Command;

/// The bench's name, and the names of its figures.
fn told_by(arguments: &[&str]) -> (Json, Vec<String>) {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_lockstep-load"));
    let output = bench.args(arguments).args(["--json", "--small"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told: Json = serde_json::from_slice(&output.stdout).unwrap();
    let figures = told["figures"].as_array().unwrap().iter();
    (told["name"].clone(), figures.filter_map(|f| f["name"].as_str()).map(str::to_owned).collect())
}

#[test]
fn a_small_load_tells_its_figures() {
    let (name, figures) = told_by(&["load", "--pairs", "1"]);
    assert_eq!(name, "load");
    assert_eq!(figures, ["time", "node_memory_growth_mb", "copy"]);
}

#[test]
fn a_small_storm_tells_its_figures() {
    let (name, figures) = told_by(&["storm", "--runs", "1"]);
    assert_eq!(name, "storm");
    assert_eq!(figures, ["first_load_s", "resume_s", "full_refetches", "resume_queries"]);
}
