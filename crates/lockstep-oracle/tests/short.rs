//! A short run of the oracle, and proof that it finds what is planted.

use lockstep_oracle::options::Options;
use std::path::PathBuf;
use std::process::Command;

/// The binary `lockstep`, built by the cargo that runs this test.
fn node() -> PathBuf {
    if let Some(named) = std::env::var_os("LOCKSTEP_NODE") {
        return named.into();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--package", "lockstep-server", "--bin", "lockstep", "--message-format=json"])
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&built.stdout).into_owned();
    let message = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    let program = |m: serde_json::Value| Some(PathBuf::from(m["executable"].as_str()?));
    text.lines().filter_map(message).filter_map(program).next_back().expect("cargo names the binary")
}

fn options(seed: u64) -> Options {
    Options { seconds: 8, pg: None, seed: Some(seed), plant: None, fault: None, json: true, node: node() }
}

#[test]
fn the_product_passes() {
    let report = lockstep_oracle::run(&options(1)).expect("a run");
    assert_eq!(report.violations, Vec::<String>::new());
    assert!(report.states_checked > 0 && report.invariant_checks > 0, "{}", report.json());
    assert!(!report.faults.is_empty());
}

#[test]
fn what_is_planted_is_found() {
    for plant in ["torn-commit", "swap-commits"] {
        let mut options = options(1);
        options.plant = Some(plant.parse().expect("a name"));
        let report = lockstep_oracle::run(&options).expect("a run");
        assert!(!report.violations.is_empty(), "{plant} was not found: {}", report.json());
    }
}
