//! What a client may show, or say, before a batch is there: a first load that is not settled, and how far a load has come.

use super::{Commit, Held, Replica, ReplicaError, Row, bad};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// See the module's text. Nothing of it is stored.
#[derive(Debug, Clone, Default)]
pub(super) struct Ahead {
    /// By the name of its load: a shape as one snapshot had it.
    shown: BTreeMap<String, Held>,
    /// By the name of a load: about how many rows it will have.
    about: BTreeMap<String, u64>,
}

impl Ahead {
    /// A load is over: part of the batch, or forgotten. What is shown of it stays until the commit.
    /// Returns whether its size was told.
    pub(super) fn end(&mut self, load: &str, taken: bool) -> bool {
        if !taken {
            self.shown.remove(load);
        }
        self.about.remove(load).is_some()
    }

    /// A batch is about to become visible: nothing is provisional any more. Of all that was, the batch takes the rows, or
    /// they were forgotten before.
    pub(super) fn committed(&mut self, aside: &BTreeMap<String, Vec<Json>>) -> Result<(), ReplicaError> {
        match std::mem::take(&mut self.shown).keys().find(|load| aside.contains_key(*load)) {
            None => Ok(()),
            Some(_) => Err(bad("a commit that does not take what was provisional")),
        }
    }

    pub(super) fn note(&mut self, payload: &Json) -> Result<(), ReplicaError> {
        let load = payload["load"].as_str().ok_or_else(|| bad("progress of no load"))?;
        let about = payload["about"].as_u64().ok_or_else(|| bad("progress without a number"))?;
        match self.about.insert(load.into(), about) {
            None => Ok(()),
            Some(_) => Err(bad("progress of one load told twice")),
        }
    }
}

impl Replica {
    /// All that a session shows at first, as of one snapshot.
    pub(super) fn show(&mut self, payload: &Json) -> Result<(), ReplicaError> {
        if !self.takes_provisional || self.cursor.is_some() {
            return Err(bad("a provisional load for a client that cannot take it"));
        }
        let mut whole = Self::default();
        for (_, shape) in self.batch.iter().filter(|(event, _)| event == "shape") {
            whole.shape(shape)?;
        }
        let mut commit = Commit::at("");
        for name in payload["loads"].as_array().ok_or_else(|| bad("no names of loads"))? {
            let name = name.as_str().unwrap_or_default();
            let frames = self.aside.get(name).ok_or_else(|| bad("the name of a load that was not sent"))?;
            let mut shape = None;
            for rows in frames {
                whole.rows(rows, &mut commit)?;
                shape = rows["shape"].as_str();
            }
            let held =
                shape.and_then(|id| whole.shapes.remove(id)).ok_or_else(|| bad("a load of no shape"))?;
            self.ahead.shown.insert(name.into(), held);
        }
        Ok(())
    }

    fn shown(&self, reference: &str) -> Option<&Held> {
        self.ahead.shown.values().find(|held| held.reference == reference)
    }

    /// The rows that a subscription may show although they are not settled; None if there are none.
    pub fn provisional_rows_of(&self, reference: &str) -> Option<BTreeMap<String, Row>> {
        self.shown(reference).map(Held::named)
    }

    /// A digest of them, as [`Replica::digest`].
    pub fn provisional_digest(&self, reference: &str) -> Option<u64> {
        self.shown(reference).map(|held| held.digest)
    }

    /// The subscriptions that may show something that is not settled.
    pub fn provisional(&self) -> Vec<&str> {
        self.ahead.shown.values().map(|held| held.reference.as_str()).collect()
    }

    /// Of each load that is on its way and of which the node said so: rows that are here, and about how many there will be.
    pub fn progress(&self) -> Vec<(usize, u64)> {
        let rows = |frame: &Json| frame["put"].as_array().map_or(0, Vec::len);
        let here = |load: &String| self.aside.get(load).into_iter().flatten().map(rows).sum();
        self.ahead.about.iter().map(|(load, about)| (here(load), *about)).collect()
    }
}
