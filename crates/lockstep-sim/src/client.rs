//! A client: the reference client's state, and an application that uses it.

use crate::history::Position;
use crate::rng::Rng;
use crate::schema::Schema;
use crate::trace::Recorder;
use lockstep_client::{Heard, Replica, ReplicaError, Wanted};
use lockstep_core::fanout::hub::SessionId;
use std::collections::{BTreeMap, BTreeSet};

/// What a mutation was made to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant {
    /// Allowed by every rule.
    Allowed,
    /// Forbidden by the application's trigger.
    Forbidden,
    /// An insert under a key that may be taken.
    MaybeTaken,
}

/// See the module's text.
#[derive(Debug)]
pub struct Client {
    /// Its state. What is not in a batch is in its store: every step below is one transaction of it.
    pub replica: Replica,
    /// Its connection.
    pub session: Option<SessionId>,
    /// The join was answered.
    pub joined: bool,
    /// The join's first commit has come.
    pub established: bool,
    /// Of its messages.
    pub next_ref: u64,
    /// A mutate message that was not answered yet.
    pub mutating: bool,
    /// Where the judge found it last.
    pub position: Position,
    /// Shapes that are on the screen.
    pub shown: BTreeSet<usize>,
    /// Shapes that wait for their rows.
    pub fresh: BTreeSet<usize>,
    /// Shapes that were given up in this session: a ref that came back would name rows of the subscription before.
    pub left: BTreeSet<usize>,
    /// Mutations made.
    pub made: BTreeMap<String, Meant>,
    /// How often each outcome was told, and whether it was "applied".
    pub told: BTreeMap<String, (u32, bool)>,
    /// Mutations of unknown outcome that its application gave up.
    pub given_up: BTreeSet<String>,
    /// The node that its cursor comes from.
    pub node: Option<usize>,
    /// Not online before.
    pub offline_until: u64,
    /// The newest transaction it was shown.
    pub newest: String,
    /// Shapes that it asked for when it joined, and what was visible then.
    pub asked: (BTreeSet<usize>, usize),
    /// Writes its trace.
    pub recorder: Option<Box<Recorder>>,
}

impl Client {
    /// A new one that wants a few shapes.
    pub fn new(rng: &mut Rng, schema: &Schema) -> Self {
        let mut client = Self {
            replica: Replica::new([]),
            session: None,
            joined: false,
            established: false,
            next_ref: 0,
            mutating: false,
            position: Position::default(),
            shown: BTreeSet::new(),
            fresh: BTreeSet::new(),
            left: BTreeSet::new(),
            made: BTreeMap::new(),
            told: BTreeMap::new(),
            given_up: BTreeSet::new(),
            node: None,
            offline_until: 0,
            newest: String::new(),
            asked: Default::default(),
            recorder: None,
        };
        client.replica.takes_provisional = rng.one_in(2);
        for _ in 0..3 {
            let shape = rng.index(schema.shapes.len());
            client.want(schema, shape);
        }
        client
    }

    /// What its store holds, and what the judge knows of it: a copy of its profile.
    pub fn profile(&self) -> Self {
        let mut replica = self.replica.clone();
        replica.disconnected();
        Self {
            replica,
            session: None,
            joined: false,
            established: false,
            next_ref: self.next_ref,
            mutating: false,
            position: self.position,
            shown: self.shown.clone(),
            fresh: BTreeSet::new(),
            left: BTreeSet::new(),
            made: self.made.clone(),
            told: self.told.clone(),
            given_up: self.given_up.clone(),
            node: self.node,
            offline_until: 0,
            newest: self.newest.clone(),
            asked: Default::default(),
            recorder: None,
        }
    }

    /// Adds a shape, unless it is there.
    pub fn want(&mut self, schema: &Schema, shape: usize) -> bool {
        let reference = shape.to_string();
        if self.replica.wanted.iter().any(|w| w.reference == reference) {
            return false;
        }
        let definition = schema.shapes[shape].definition.clone();
        self.replica.wanted.push(Wanted { reference, definition });
        true
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.disconnected(&self.replica);
        }
        self.replica.disconnected();
        self.session = None;
        self.joined = false;
        self.established = false;
        self.mutating = false;
        self.fresh.clear();
        self.left.clear();
    }

    /// Takes a frame.
    pub fn hear(&mut self, text: &str) -> Result<Heard, ReplicaError> {
        let heard = self.replica.handle(text)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.frame(text, &heard, &self.replica);
        }
        Ok(heard)
    }

    /// Tells the recorder that something may have changed.
    pub fn record(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.observe(&self.replica);
        }
    }

    /// Indices of the shapes that it wants.
    pub fn wanted(&self) -> impl Iterator<Item = usize> {
        self.replica.wanted.iter().filter_map(|w| w.reference.parse().ok())
    }
}
