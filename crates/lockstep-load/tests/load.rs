//! A small `load`: that it works, that its client holds what SELECT says, and that it prints figures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value as Json;
use std::process::Command;

#[test]
fn a_small_load_tells_its_figures() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_lockstep-load"));
    let output = bench.args(["load", "--json", "--small", "--pairs", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told: Json = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        told["figures"].as_array().unwrap().iter().filter_map(|f| f["name"].as_str()).collect();
    assert_eq!((&told["name"], names), (&"load".into(), vec!["time", "node_memory_growth_mb", "copy"]));
}

#[test]
fn a_small_storm_tells_its_figures() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_lockstep-load"));
    let output = bench.args(["storm", "--json", "--small", "--runs", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told: Json = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        told["figures"].as_array().unwrap().iter().filter_map(|f| f["name"].as_str()).collect();
    assert_eq!(names, ["first_load_s", "resume_s", "full_refetches", "resume_queries"]);
}
