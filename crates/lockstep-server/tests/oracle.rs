//! A short run of the oracle on this binary, and proof that it finds what is planted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use lockstep_oracle::options::Options;
use lockstep_oracle::report::Report;

fn run(seed: u64, seconds: u64, plant: Option<&str>) -> Report {
    let options = Options {
        seconds,
        pg: None,
        seed: Some(seed),
        plant: plant.map(|name| name.parse().unwrap()),
        fault: None,
        json: true,
        no_disk: true,
        node: env!("CARGO_BIN_EXE_lockstep").into(),
    };
    lockstep_oracle::run(&options).unwrap()
}

#[test]
fn the_product_passes() {
    let report = run(1, 8, None);
    assert_eq!(report.violations, Vec::<String>::new());
    assert!(report.states_checked > 0 && report.invariant_checks > 0, "{}", report.json());
    let (applied, conflicts) = report.conditional;
    assert!(applied > 0 && conflicts > 0, "{}", report.json());
    assert!(!report.faults.is_empty() && !report.statements.is_empty(), "{}", report.json());
}

/// The time is a bound: a plant is found in the first or second round.
fn is_found(seed: u64, plant: &str) {
    let report = run(seed, 150, Some(plant));
    assert!(!report.violations.is_empty(), "{plant} was not found: {}", report.json());
}

#[test]
fn a_torn_commit_is_found() {
    is_found(2, "torn-commit");
}

#[test]
fn a_lost_row_is_found() {
    is_found(3, "lost-row");
}

#[test]
fn a_missing_tombstone_is_found() {
    is_found(4, "no-tombstones");
}

#[test]
fn a_condition_that_is_not_looked_at_is_found() {
    is_found(6, "blind-update");
}

#[test]
fn a_mutation_that_is_applied_twice_is_found() {
    is_found(5, "double-apply");
}
