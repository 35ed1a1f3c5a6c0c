//! What a run counted.

use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Every kind of fault; each must have struck in a run that is long enough.
pub const FAULTS: [&str; 40] = [
    "abort",
    "async_commit",
    "async_lost",
    "catch_up_broke_within_rows",
    "catch_up_failed_early",
    "client_blip",
    "client_cleared",
    "client_cut",
    "client_killed",
    "client_offline",
    "client_stall",
    "column_added",
    "column_dropped",
    "column_renamed",
    "commit_passing_failure",
    "compaction",
    "crash",
    "gc",
    "half_open",
    "key_swap",
    "long_transaction",
    "node_killed",
    "node_pg_cut",
    "node_pg_stall",
    "pg_restart",
    "prepared",
    "profile_copied",
    "profile_restored",
    "promotion_clean",
    "promotion_lost_commits",
    "savepoint_rollback",
    "scope_move",
    "slot_copied",
    "slot_created",
    "slow_reader_closed",
    "standby_silent",
    "table_rewritten",
    "truncate",
    "truncate_several",
    "volume_rollback",
];

/// Sums over seeds.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Worlds run.
    pub seeds: u64,
    /// Transactions that some client received.
    pub transactions: u64,
    /// Of those counted before their commit was lost in a failover.
    pub received_and_lost: u64,
    /// Commit frames judged.
    pub commits_seen: u64,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Catch-ups whose S lay between a commit record and its visibility.
    pub catchups_racing_commit: u64,
    /// Cursors of one node taken to another.
    pub resumes_other_node: u64,
    /// Sessions that came back and were brought to the present from a node's memory.
    pub resumes_from_window: u64,
    /// Those for which the model was asked, though the node knew their state.
    pub resumes_read: u64,
    /// First loads that were shown before they were settled.
    pub provisional: u64,
    /// Transactions that nodes passed through in parts.
    pub passed: u64,
    /// Sessions that were caught up past one of them.
    pub passed_fallen: u64,
    /// Refusals told to clients.
    pub refusals: u64,
    /// Mutations told as applied.
    pub applied: u64,
    /// Full comparisons at quiet points.
    pub comparisons: u64,
    /// Resets told to clients, by reason.
    pub resets: BTreeMap<String, u64>,
    /// Seeds with a violation.
    pub violations: u64,
}

impl Report {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.transactions += other.transactions;
        self.commits_seen += other.commits_seen;
        self.catchups_racing_commit += other.catchups_racing_commit;
        self.resumes_other_node += other.resumes_other_node;
        self.resumes_from_window += other.resumes_from_window;
        self.resumes_read += other.resumes_read;
        self.provisional += other.provisional;
        self.passed += other.passed;
        self.passed_fallen += other.passed_fallen;
        self.refusals += other.refusals;
        self.applied += other.applied;
        self.comparisons += other.comparisons;
        self.violations += other.violations;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (reason, count) in &other.resets {
            *self.resets.entry(reason.clone()).or_default() += count;
        }
    }

    /// The one object that `--json` prints.
    pub fn json(&self) -> Json {
        let mut faults: BTreeMap<&str, u64> = FAULTS.iter().map(|kind| (*kind, 0)).collect();
        faults.extend(self.faults.iter().map(|(k, n)| (*k, *n)));
        json!({
            "seeds": self.seeds,
            "transactions": self.transactions,
            "commits_seen": self.commits_seen,
            "faults": faults,
            "catchups_racing_commit": self.catchups_racing_commit,
            "resumes_other_node": self.resumes_other_node,
            "resumes_from_window": self.resumes_from_window,
            "resumes_read": self.resumes_read,
            "provisional": self.provisional,
            "passed": self.passed,
            "passed_fallen": self.passed_fallen,
            "refusals": self.refusals,
            "violations": self.violations,
        })
    }
}
