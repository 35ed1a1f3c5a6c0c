//! How old is what the client shows? It asks every other second, and adds up what the answers prove.
//!
//! ```text
//!  asked at t ──► the node answers: as of `age` ms ago you have been sent everything ──► so at t − age it was so
//! ```
//! How long the answer travelled does not matter, nor that a frame before it waited in a buffer: the moment is counted
//! from when the client asked. A node that stops, a wire that carries nothing, and a node that PostgreSQL does not
//! reach look alike: no newer moment is proven.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two questions.
pub const ASK: Duration = Duration::from_secs(2);
/// What is shown is behind when no moment newer than so long ago is proven. With [`ASK`], what a node's own polls take,
/// and a second and more for the way, an idle connection does not get there; and a stall is told within 5 s.
pub const BEHIND: Duration = Duration::from_millis(4_500);

/// What one session has proven. Time is an argument.
#[derive(Debug, Clone)]
pub struct Freshness {
    proven: Instant,
    asked: VecDeque<(String, Instant)>,
}

impl Freshness {
    /// A session that begins: its first commit is read later than this.
    pub fn new(now: Instant) -> Self {
        Self { proven: now, asked: VecDeque::new() }
    }

    /// Whether it is time to ask.
    pub fn is_due(&self, now: Instant) -> bool {
        self.asked.back().is_none_or(|(_, at)| now.duration_since(*at) >= ASK)
    }

    /// A heartbeat was sent under this ref.
    pub fn asked(&mut self, reference: String, now: Instant) {
        self.asked.push_back((reference, now));
    }

    /// It was answered: `age` as the node gave it, in milliseconds; None while it has no proof.
    pub fn answered(&mut self, reference: &str, age: Option<u64>) {
        let Some(at) = self.asked.iter().position(|(r, _)| r == reference) else { return };
        // Kept until the next question, which is due from then on.
        let asked = self.asked[at].1;
        self.asked.drain(..at);
        if let Some(proven) = age.and_then(|age| asked.checked_sub(Duration::from_millis(age))) {
            self.proven = self.proven.max(proven);
        }
    }

    /// The newest moment of which it is proven that everything committed by then is shown.
    pub fn proven(&self) -> Instant {
        self.proven
    }

    /// How long the state has been out of date, perhaps; None while it is as good as new.
    pub fn behind(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.proven)).filter(|age| *age >= BEHIND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_counts_from_the_question_and_never_goes_back() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut fresh = Freshness::new(began);
        assert!(fresh.is_due(began));
        fresh.asked("1".into(), at(1_000));
        assert!(!fresh.is_due(at(2_999)) && fresh.is_due(at(3_000)));
        fresh.asked("2".into(), at(3_000));
        fresh.answered("2", Some(400));
        assert_eq!(fresh.proven(), at(2_600), "whenever the answer came");
        fresh.answered("1", Some(0));
        fresh.answered("7", Some(0));
        fresh.asked("3".into(), at(5_000));
        fresh.answered("3", None);
        fresh.asked("4".into(), at(7_000));
        fresh.answered("4", Some(6_000));
        assert_eq!(fresh.proven(), at(2_600));
        assert_eq!(fresh.behind(at(7_099)), None);
        assert_eq!(fresh.behind(at(7_100)), Some(BEHIND));
    }
}
