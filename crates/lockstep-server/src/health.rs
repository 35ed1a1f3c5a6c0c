//! What `/health` says.

use lockstep_core::fanout::Hub;
use lockstep_core::fanout::hub::Mode;
use lockstep_core::position::Lsn;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether clients can be served, how, and what is wrong.
#[derive(Debug)]
pub struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    mode: Mode,
    sessions: usize,
    watermark: Lsn,
    /// The database answered the last time it was asked who it is.
    reachable: bool,
    problem: Option<String>,
    /// GRANTs that are to be run; the node goes on with what it may do.
    lacking: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new(State {
            mode: Mode::Starting,
            sessions: 0,
            watermark: Lsn(0),
            reachable: false,
            problem: None,
            lacking: None,
        }))
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the node can tell clients what the database says now, and the body. `live`: by the stream;
    /// `polling`: by repeated questions; `unreachable`: clients stay connected and see what was last known.
    pub fn report(&self) -> (bool, serde_json::Value) {
        let state = self.state();
        let status = match state.mode {
            Mode::Starting => "starting",
            Mode::Polling if !state.reachable => "unreachable",
            Mode::Polling => "polling",
            Mode::Streaming => "live",
        };
        let body = serde_json::json!({
            "status": status, "sessions": state.sessions, "watermark": state.watermark.to_string(),
            "problem": state.problem.as_ref().or(state.lacking.as_ref()),
        });
        (matches!(status, "polling" | "live"), body)
    }

    /// The node's state.
    pub fn update(&self, hub: &Hub) {
        let mut state = self.state();
        state.mode = hub.mode();
        state.sessions = hub.sessions();
        state.watermark = hub.watermark();
    }

    /// The database answered. Returns whether it did not before.
    pub fn reached(&self) -> bool {
        let mut state = self.state();
        let again = !std::mem::replace(&mut state.reachable, true);
        if again {
            state.problem = None;
        }
        again
    }

    /// Rights that the node or its writer lacks, if any. Returns whether that is news.
    pub fn lacking(&self, grants: Option<String>) -> bool {
        let mut state = self.state();
        let news = state.lacking != grants;
        state.lacking = grants;
        news
    }

    /// Whether GRANTs were lacking at the last look.
    pub fn lacks_rights(&self) -> bool {
        self.state().lacking.is_some()
    }

    /// It streams: all is well.
    pub fn streaming(&self) {
        self.state().problem = None;
    }

    /// Something keeps the node from being fed.
    pub fn trouble(&self, problem: &str, reachable: bool) {
        let mut state = self.state();
        state.problem = Some(problem.to_owned());
        state.reachable = reachable;
    }
}
