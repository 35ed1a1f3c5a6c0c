//! The model PostgreSQL and a real one, through the same history.
//!
//! One random script is run on both: several connections with open transactions between each other's statements,
//! savepoints, prepared transactions, key changes and swaps, scope moves, large values, TRUNCATE. The model decides
//! what can run without waiting; the real one must agree, for it waits for a lock no longer than a second.
//! After every step both must have assigned ids to the same transactions, in the same order, and their snapshots must
//! see the same ones. After every commit rows and change logs must be equal, now and then what catch-ups from older
//! states bring, and in the end what the stream brought of every transaction, message by message, read by the core's
//! decoder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compare;
mod real;
mod script;

use lockstep_pg::cluster::Cluster;
use real::Real;
use script::Script;

/// The histories; more of them with `LOCKSTEP_MODEL_SEEDS=100`.
const SEEDS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_model_and_a_real_postgresql_live_through_the_same_history() {
    let seeds = std::env::var("LOCKSTEP_MODEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let builder = Cluster::builder()
        .setting("wal_level", "logical")
        .setting("max_prepared_transactions", "20")
        .setting("autovacuum", "off");
    let cluster = tokio::task::block_in_place(|| builder.start()).expect("a private PostgreSQL");
    let mut steps = std::collections::BTreeMap::new();
    for seed in 1..=seeds {
        let real = Real::new(&cluster, seed).await;
        let done = Script::new(seed, real).run().await;
        for (step, times) in done {
            *steps.entry(step).or_insert(0) += times;
        }
    }
    let never: Vec<_> = script::STEPS.iter().filter(|s| !steps.contains_key(*s)).collect();
    assert!(never.is_empty(), "no history had {never:?}: {steps:?}");
}
