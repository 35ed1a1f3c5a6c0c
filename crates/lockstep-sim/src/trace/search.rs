//! Chooses traces: as few as it takes to show everything that worlds show.

use super::Trace;
use crate::world::World;
use std::collections::BTreeSet;

/// How many at most.
const TRACES: usize = 12;

/// Looks at the worlds of so many seeds.
pub fn search(seeds: u64) -> Vec<Trace> {
    let mut found: Vec<Trace> = Vec::new();
    for seed in 1..=seeds {
        found.extend(World::new(seed, None).record(seed).into_iter().filter(|t| t.events.len() > 40));
        found = choose(found);
    }
    found
}

/// The one that adds most first; shorter ones before longer ones.
fn choose(mut from: Vec<Trace>) -> Vec<Trace> {
    let mut shown: BTreeSet<String> = BTreeSet::new();
    let mut chosen: Vec<Trace> = Vec::new();
    while chosen.len() < TRACES {
        let adds = |t: &Trace| t.covers.difference(&shown).count();
        let Some((at, best)) =
            from.iter().enumerate().max_by_key(|(_, t)| (adds(t), std::cmp::Reverse(t.events.len())))
        else {
            break;
        };
        if adds(best) == 0 {
            break;
        }
        shown.extend(best.covers.iter().cloned());
        chosen.push(from.remove(at));
    }
    chosen
}
