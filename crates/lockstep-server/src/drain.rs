//! Ending a node without a rush: clients are sent away one after another, and whoever has still to go is served.

use lockstep_core::fanout::hub::SessionId;
use lockstep_core::limits;
use std::time::{Duration, Instant};

/// Between two looks at who is to go.
pub const STEP: Duration = Duration::from_millis(20);
/// How long clients get to take their close frames.
const GOODBYE: Duration = Duration::from_secs(3);

/// Who is to go, and by when.
#[derive(Debug)]
pub struct Drain {
    began: Instant,
    spread: Duration,
    sessions: Vec<SessionId>,
    gone: usize,
}

impl Drain {
    /// Over as long as so many sessions need not to arrive elsewhere at once, and not longer than `most`.
    pub fn new(sessions: Vec<SessionId>, most: Duration, now: Instant) -> Self {
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        let spread = most.min(Duration::from_micros(limits::GOODBYE_EACH_US) * count);
        Self { began: now, spread, sessions, gone: 0 }
    }

    /// Those whose time has come.
    pub fn due(&mut self, now: Instant) -> &[SessionId] {
        let passed = now.saturating_duration_since(self.began);
        let share =
            if self.spread.is_zero() { 1.0 } else { passed.as_secs_f64() / self.spread.as_secs_f64() };
        // Truncation is meant; a share above one takes all.
        let until = ((self.sessions.len() as f64 * share) as usize).clamp(self.gone, self.sessions.len());
        let from = std::mem::replace(&mut self.gone, until);
        &self.sessions[from..until]
    }

    /// Whether those that are left are not waited for any longer.
    pub fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= self.spread + GOODBYE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_go_evenly_and_all_of_them_by_the_end() {
        let began = Instant::now();
        let mut drain = Drain::new((0..1000).collect(), Duration::from_secs(1), began);
        let at = |ms: u64| began + Duration::from_millis(ms);
        let gone: Vec<usize> = [0, 100, 100, 550, 1_000, 9_000].map(|ms| drain.due(at(ms)).len()).into();
        assert_eq!(gone, [0, 100, 0, 450, 450, 0]);
        assert!(!drain.is_over(at(3_999)) && drain.is_over(at(4_000)));
        let few = Drain::new(vec![1, 2], Duration::from_secs(10), began);
        assert_eq!(few.spread, Duration::from_micros(2 * limits::GOODBYE_EACH_US));
        assert_eq!(Drain::new(vec![], Duration::from_secs(10), began).due(began), [] as [u64; 0]);
        assert_eq!(Drain::new(vec![7], Duration::ZERO, began).due(began), [7]);
    }
}
