//! What `/health` and `/ready` say.

use crate::metrics::feed;
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::Hub;
use lockstep_core::fanout::hub::Mode;
use lockstep_core::limits;
use lockstep_core::position::Lsn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Whether clients can be served, how, and what is wrong.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    slot_changed: Notify,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    follows: bool,
    sessions: usize,
    watermark: Lsn,
    /// The moment of which the node is proven to have everything.
    proven: Option<Instant>,
    /// The database answered the last time it was asked who it is.
    reachable: bool,
    /// A word and a sentence.
    problem: Option<(&'static str, String)>,
    /// What keeps tracked tables from being followed; the node goes on with the others.
    defects: Option<String>,
    /// GRANTs that are to be run; the node goes on with what it may do.
    lacking: Option<String>,
    slot: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        let state = State {
            mode: Mode::Starting,
            follows: false,
            sessions: 0,
            watermark: Lsn(0),
            proven: None,
            reachable: false,
            problem: None,
            defects: None,
            lacking: None,
            slot: None,
        };
        Self { state: Mutex::new(state), slot_changed: Notify::new() }
    }
}

impl State {
    /// Why there is no stream; else what is not served, and what would let it be. The word is that of the first.
    fn problem(&self) -> Option<(&'static str, String)> {
        let others = [("not_followed", &self.defects), ("rights", &self.lacking)];
        let others = others.into_iter().filter_map(|(code, text)| Some((code, text.as_deref()?)));
        let (codes, texts): (Vec<_>, Vec<_>) = others.unzip();
        self.problem.clone().or_else(|| Some((*codes.first()?, texts.join("; "))))
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the node can tell clients what the database says now, and the body. `live`: by the stream;
    /// `polling`: by repeated questions; `unreachable`: clients stay connected and see what was last known.
    pub fn report(&self) -> (bool, serde_json::Value) {
        let state = self.state();
        let lag = state.proven.map(|proven| proven.elapsed());
        let feed = feed(state.mode, state.follows, state.reachable);
        let serves = matches!(feed, "polling" | "catching_up" | "live");
        let ready = serves && lag.is_some_and(|lag| lag <= Duration::from_millis(limits::READY_AGE_MS));
        let status = if feed == "catching_up" { "live" } else { feed };
        let (code, problem) = state.problem().unzip();
        let body = serde_json::json!({
            "status": status, "feed": feed, "ready": ready,
            "lag_ms": lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
            "sessions": state.sessions, "watermark": state.watermark.to_string(),
            "code": code, "problem": problem,
        });
        (ready, body)
    }

    /// How the node is fed.
    pub fn feed(&self) -> &'static str {
        let state = self.state();
        feed(state.mode, state.follows, state.reachable)
    }

    /// The node's state; its clock began at `began`.
    pub fn update(&self, hub: &Hub, began: Instant) {
        let mut state = self.state();
        state.mode = hub.mode();
        state.follows = hub.follows_stream();
        state.sessions = hub.sessions();
        state.watermark = hub.watermark();
        state.proven = hub.proven().map(|at| began + Duration::from_millis(at));
    }

    /// Connections of clients.
    pub fn sessions(&self) -> usize {
        self.state().sessions
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

    /// Says what keeps tracked tables from being followed. They are withdrawn, and nothing else would tell: from 18 on a
    /// stream goes on without a publication that is gone.
    pub fn name_defects(&self, catalog: &Catalog) {
        let text = (!catalog.defects.is_empty()).then(|| catalog.defects.join("; "));
        let mut state = self.state();
        if state.defects != text {
            if let Some(text) = &text {
                tracing::warn!("{text}");
            }
            state.defects = text;
        }
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

    /// It streams from this slot: all is well.
    pub fn streaming(&self, slot: &str) {
        let mut state = self.state();
        state.problem = None;
        state.slot = Some(slot.to_owned());
        self.slot_changed.notify_one();
    }

    /// The slot of the newest stream.
    pub fn slot(&self) -> Option<String> {
        self.state().slot.clone()
    }

    /// Waits for another slot.
    pub async fn slot_changed(&self) {
        self.slot_changed.notified().await;
    }

    /// Something keeps the node from being fed.
    pub fn trouble(&self, code: &'static str, problem: &str, reachable: bool) {
        let mut state = self.state();
        state.problem = Some((code, problem.to_owned()));
        state.reachable = reachable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mode: Mode, proven: Option<Instant>, reachable: bool) -> (bool, serde_json::Value) {
        let health = Health::default();
        {
            let mut state = health.state();
            (state.mode, state.follows, state.proven, state.reachable) = (mode, true, proven, reachable);
        }
        health.report()
    }

    #[test]
    fn a_node_whose_proof_is_old_asks_not_to_be_sent_clients() {
        let ago = |ms: u64| Instant::now().checked_sub(Duration::from_millis(ms));
        for mode in [Mode::Streaming, Mode::Polling] {
            assert!(at(mode, ago(limits::READY_AGE_MS - 5_000), true).0);
            let (ready, body) = at(mode, ago(limits::READY_AGE_MS + 1), true);
            assert!(!ready && body["lag_ms"].as_u64() > Some(limits::READY_AGE_MS), "{body}");
            assert!(!at(mode, None, true).0, "nothing is proven");
        }
        assert!(!at(Mode::Polling, ago(0), false).0, "no database");
        assert!(!at(Mode::Starting, ago(0), true).0);
    }

    #[test]
    fn the_stream_comes_before_what_is_not_served() {
        let health = Health::default();
        let said = || (health.report().1["code"].clone(), health.report().1["problem"].clone());
        assert_eq!(said(), (serde_json::Value::Null, serde_json::Value::Null));
        health.lacking(Some("grant".into()));
        assert_eq!(said(), ("rights".into(), "grant".into()));
        health.state().defects = Some("a table".into());
        assert_eq!(said(), ("not_followed".into(), "a table; grant".into()));
        health.trouble("login", "no", false);
        assert_eq!(said(), ("login".into(), "no".into()));
    }
}
