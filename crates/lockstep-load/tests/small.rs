//! Each bench, a hundredth of it: that it works, that its clients hold what SELECT says, and that it prints figures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value as Json;
use std::process::Command;

fn run(bench: &str, figures: &[&str]) {
    let program = env!("CARGO_BIN_EXE_lockstep-load");
    let runs: &[&str] = if bench == "match" { &[] } else { &["--runs", "1"] };
    let output = Command::new(program).args([bench, "--json", "--small"]).args(runs).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{bench}: {said}");
    let told: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["name"], bench);
    let names: Vec<&str> =
        told["figures"].as_array().unwrap().iter().filter_map(|f| f["name"].as_str()).collect();
    assert!(figures.iter().all(|wanted| names.contains(wanted)), "{names:?}");
}

#[test]
fn latency() {
    run("latency", &["added_p50_ms", "added_p99_ms"]);
}

#[test]
fn fanout() {
    run("fanout", &["cpu_per_delivery_us_10", "last_client_p99_ms_50"]);
}

#[test]
fn diverse() {
    run("diverse", &["added_p99_ms", "flatness"]);
}

#[test]
fn memory() {
    run("memory", &["socket_kb", "shape_kb"]);
}

#[test]
fn hold() {
    run("hold", &["memory_growth_mb", "wrong_sessions", "final_lag_s"]);
}

#[test]
fn decode() {
    run("decode", &["small_tx", "large_tx"]);
}

#[test]
fn matching() {
    run("match", &["equality_8000_ns", "equality_flatness", "patterns_10k_ms"]);
}
