//! Quiet points: faults and writers rest, everything heals, and within a bound everyone shows the same.

use super::{Event, Micros, World};
use crate::node::Step;

/// Virtual time within which everything must be in step again: a few of the longest back-offs.
const PATIENCE: Micros = 40_000_000;

impl World {
    pub(super) fn settle(&mut self) {
        self.quiet = true;
        self.standby_answers();
        for at in 0..self.nodes.len() {
            self.nodes[at].stalled_until = self.now;
        }
        for link in self.links.values_mut() {
            link.stalled_until = self.now;
        }
        let deadline = self.now + PATIENCE;
        while self.violation.is_none() {
            self.end_prepared(true);
            let step = self.now + 20_000;
            self.run_until(step);
            match self.unsettled() {
                None => break,
                Some(why) if self.now > deadline => self.violate(format!("no progress: {why}")),
                Some(_) => {}
            }
        }
        if self.violation.is_none() {
            self.compare();
        }
        self.quiet = false;
        for at in 0..self.writers.len() {
            let wait = self.rng.below(5_000);
            self.after(wait, Event::Writer(at));
        }
    }

    /// What is not in step yet.
    fn unsettled(&self) -> Option<String> {
        if let Some(open) = self.db.open.values().next() {
            return Some(format!("a transaction is open: {open:?}"));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if !self.is_streaming(at) || node.feed.step != Step::Streaming {
                return Some(format!(
                    "node {at} does not stream: {:?}, {:?}",
                    node.hub.mode(),
                    node.feed.step
                ));
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            if !client.joined {
                return Some(format!("client {at} is not online"));
            }
            if !client.replica.outbox.is_empty() {
                return Some(format!("client {at} has an outbox of {:?}", client.replica.outbox));
            }
            for shape in client.wanted() {
                let digest = client.replica.digest(&shape.to_string());
                if !client.shown.contains(&shape) || digest != Some(self.db.history.newest(shape)) {
                    return Some(format!(
                        "client {at} does not show the newest state of shape {shape}; it is at {:?} of {}, its last \
                         commit was {}; node {:?}; shown: {}",
                        client.position,
                        self.db.commits.len(),
                        client.newest,
                        client.node,
                        client.shown.contains(&shape),
                    ));
                }
            }
        }
        None
    }
}
