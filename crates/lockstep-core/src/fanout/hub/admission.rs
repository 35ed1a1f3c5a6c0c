//! Who is let in when more come than can be brought up to date: the others are told when to come again.
//!
//! ```text
//!  join ─► room beside those whose turn is soon? ── yes ──► waits for its first batch
//!    ▲                     no                                        └ each one served makes room
//!    └── after `retry_in` ◄┴─ a turn of its own, one after another at the measured pace
//! ```
//! A turn is a place: whoever has one goes before all with a later one, and before whoever has none. So room that is made
//! goes to the earliest turn whose session is there, and each is let in as long as any session is served at all. Who comes
//! early, as a `phoenix` client does by timers of its own, keeps its place.

use super::{Hub, Millis, SessionId};
use crate::limits;
use crate::protocol::Reply;
use std::collections::{BTreeMap, BTreeSet};

/// A place among those who were told to come again.
#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Millis,
    /// Forgotten then, unless its session was heard of.
    until: Millis,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Admission {
    /// Have joined, and wait for their first batch.
    arriving: BTreeSet<SessionId>,
    turns: BTreeMap<SessionId, Turn>,
    /// By their order.
    places: BTreeSet<(Millis, SessionId)>,
    /// By when they are forgotten.
    ends: BTreeSet<(Millis, SessionId)>,
    /// The latest turn, in microseconds.
    last_us: u64,
    /// Microseconds from one session that is served to the next, lately.
    each_us: u64,
    /// Served since then.
    served: u64,
    since: Millis,
    /// There was a crowd then: what is served says how fast that can be.
    pressed: bool,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            arriving: BTreeSet::new(),
            turns: BTreeMap::new(),
            places: BTreeSet::new(),
            ends: BTreeSet::new(),
            last_us: 0,
            each_us: limits::ARRIVAL_FIRST_US,
            served: 0,
            since: 0,
            pressed: false,
        }
    }
}

impl Admission {
    /// Lets a session in, or says in how many milliseconds it is to come again.
    fn admit(&mut self, id: SessionId, now: Millis, most: usize) -> Result<(), Millis> {
        while let Some((_, gone)) = self.ends.first().copied().filter(|(end, _)| *end < now) {
            self.forget(gone);
        }
        let others = self.arriving.len() - usize::from(self.arriving.contains(&id));
        let room = most.saturating_sub(others);
        let turn = self.turns.get(&id).copied();
        // What is earlier than this goes first.
        let soon = (now + limits::TURN_SOON_MS, SessionId::MAX);
        let place = turn.map_or(soon, |turn| soon.min((turn.at, id)));
        if self.places.range(..place).take(room).count() < room {
            self.forget(id);
            return Ok(());
        }
        self.measure(now, most);
        let at = turn.map_or_else(|| self.next_turn(now), |turn| turn.at);
        let wait =
            if turn.is_some() && at <= now { limits::RETRY_IN_LEAST_MS } else { at.saturating_sub(now) };
        let wait = wait.min(limits::RETRY_IN_MOST_MS);
        self.forget(id);
        let turn = Turn { at, until: now + wait + limits::TURN_KEPT_MS };
        self.turns.insert(id, turn);
        self.places.insert((turn.at, id));
        self.ends.insert((turn.until, id));
        Err(wait)
    }

    fn next_turn(&mut self, now: Millis) -> Millis {
        let least = (now + limits::RETRY_IN_LEAST_MS) * 1_000;
        self.last_us = least.max(self.last_us + self.each_us);
        self.last_us / 1_000
    }

    fn forget(&mut self, id: SessionId) {
        if let Some(turn) = self.turns.remove(&id) {
            self.places.remove(&(turn.at, id));
            self.ends.remove(&(turn.until, id));
        }
    }

    /// What is served while few wait says how many come, not how many could.
    fn measure(&mut self, now: Millis, most: usize) {
        let passed = now - self.since;
        if passed < limits::RETRY_IN_LEAST_MS {
            return;
        }
        if self.pressed {
            let each = (passed * 1_000 / self.served.max(1)).clamp(1, limits::ARRIVAL_MOST_US);
            self.each_us = self.each_us.midpoint(each);
        }
        (self.since, self.served) = (now, 0);
        self.pressed = self.arriving.len() * 2 >= most;
    }

    /// Its first batch is made.
    pub(super) fn arrived(&mut self, id: SessionId, now: Millis, most: usize) {
        if self.arriving.remove(&id) {
            self.served += 1;
            self.measure(now, most);
            self.relieve(most);
        }
    }

    /// It has left, or joins anew.
    pub(super) fn left(&mut self, id: SessionId, most: usize) {
        self.arriving.remove(&id);
        self.forget(id);
        self.relieve(most);
    }

    /// The crowd is gone before it was measured: the quiet that follows says nothing of its pace.
    fn relieve(&mut self, most: usize) {
        self.pressed &= self.arriving.len() * 2 >= most;
    }

    /// It has joined.
    pub(super) fn joined(&mut self, id: SessionId) {
        self.arriving.insert(id);
    }

    /// Whether no batch was made for it since it joined.
    pub(super) fn is_arriving(&self, id: SessionId) -> bool {
        self.arriving.contains(&id)
    }

    /// How many were told to come again, and have not yet.
    pub(super) fn later(&self) -> usize {
        self.turns.len()
    }
}

impl Hub {
    /// Whether there is room for one more who waits to be brought up to date. `chance` is a random text.
    pub(super) fn let_in(&mut self, id: SessionId, chance: &str) -> Result<(), Reply> {
        let admitted = self.admission.admit(id, self.now, self.bounds.waiting_sessions);
        admitted.map_err(|wait| {
            self.reached_bound(super::Bound::WaitingSessions);
            // The turns are even by themselves; not so those of several nodes that were left together.
            let wait = wait + spread(chance, wait / 8);
            later(
                "crowded",
                "too many clients wait to be brought up to date; join again when it is time",
                wait,
            )
        })
    }

    /// A node that starts is asked by everybody at once: they are to come as evenly as they can be served.
    pub(super) fn not_ready(&self, chance: &str) -> Reply {
        let sessions = u64::try_from(self.sessions.len()).unwrap_or(u64::MAX);
        let long = sessions.saturating_mul(self.admission.each_us) / 1_000;
        let long = long.clamp(limits::RETRY_IN_LEAST_MS, limits::RETRY_IN_MOST_MS);
        let wait = limits::RETRY_IN_LEAST_MS / 2 + spread(chance, long);
        later("not_ready", "the node is starting; try again", wait)
    }
}

fn later(code: &str, message: &str, wait: Millis) -> Reply {
    let mut reply = Reply::error(code, message);
    reply.response["retry_in"] = wait.into();
    reply
}

/// A number below `most`, by a random text (FNV-1a).
fn spread(chance: &str, most: Millis) -> Millis {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = chance.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
    (hash ^ hash >> 32) % most.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A crowd that is served so many a second, in which new ones go on coming: who was told to come again comes on time, or
    /// too early, or too late.
    fn crowd(most: usize, pace: u64, coming: u64, late: u64) -> (BTreeMap<SessionId, Millis>, Millis) {
        let mut admission = Admission::default();
        let mut due: BTreeSet<(Millis, SessionId)> = (0..200).map(|id| (0, id)).collect();
        let (mut admitted, mut next) = (BTreeMap::new(), 200);
        for now in (0..).step_by(50) {
            while let Some((at, id)) = due.first().copied().filter(|(at, _)| *at <= now) {
                due.remove(&(at, id));
                match admission.admit(id, now, most) {
                    Ok(()) => {
                        admission.joined(id);
                        admitted.insert(id, now);
                    }
                    Err(wait) => drop(due.insert((now + (wait * late / 4).max(1), id))),
                }
            }
            let served: Vec<_> = admission.arriving.iter().copied().take(pace as usize / 20).collect();
            served.into_iter().for_each(|id| admission.arrived(id, now, most));
            if now % 1_000 == 0 && now < 20_000 {
                for id in next..next + coming {
                    due.insert((now, id));
                }
                next += coming;
            }
            assert!(admission.arriving.len() <= most && now < 600_000, "{} wait", due.len());
            if due.is_empty() && now > 20_000 {
                return (admitted, now);
            }
        }
        unreachable!()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn everybody_gets_in(most in 10usize..60, pace in 20u64..400, coming in 0u64..60, late in 1u64..8) {
            let (admitted, _) = crowd(most, pace, coming, late);
            prop_assert_eq!(admitted.len() as u64, 200 + 20 * coming);
        }
    }

    #[test]
    fn a_crowd_is_let_in_at_the_pace_at_which_it_is_served() {
        // 200 at 100 a second take 2 s; what is not known of the pace at first costs some more.
        let (admitted, _) = crowd(50, 100, 0, 4);
        let last = admitted.values().max().copied().unwrap_or(0);
        assert!((1_000..8_000).contains(&last), "{last}");
    }

    /// Twice as many come as are served: those of the beginning are not passed by those who come later.
    #[test]
    fn who_was_first_does_not_wait_for_who_comes_later() {
        let (admitted, end) = crowd(20, 60, 120, 4);
        let first: Vec<Millis> = (0..200).map(|id| admitted[&id]).collect();
        let last = first.iter().max().copied().unwrap_or(0);
        let passed = admitted.iter().filter(|(id, at)| **id >= 400 && **at < last).count();
        assert!(passed <= 20, "{passed} of those who came two seconds later went first; {last} of {end} ms");
    }

    #[test]
    fn turns_are_one_after_another_and_kept_by_who_comes_early() {
        let mut admission = Admission::default();
        admission.joined(0);
        let told: Vec<Millis> = (1..=2_000).filter_map(|id| admission.admit(id, 0, 1).err()).collect();
        assert_eq!((told[0], told[999], told[1_999]), (1_000, 1_999, 2_999), "1 ms each");
        assert_eq!(admission.admit(2_000, 500, 1), Err(2_499));
        assert_eq!(admission.admit(2_000, 1_500, 1), Err(1_499));
        assert_eq!(admission.admit(2, 2_000, 1), Err(limits::RETRY_IN_LEAST_MS), "there is no room yet");
        admission.arrived(0, 2_100, 1);
        assert_eq!(admission.admit(2, 3_000, 1), Err(1_000), "1 goes first");
        assert_eq!(admission.admit(2_001, 3_000, 1), Err(1_000), "and so do all of them");
        admission.left(1, 1);
        assert_eq!(admission.admit(2, 4_000, 1), Ok(()));
        // Who does not come is not waited for.
        let much_later = 4_000 + 10 * limits::TURN_KEPT_MS;
        assert_eq!(admission.admit(3_000, much_later, 1), Ok(()));
        assert_eq!(admission.later(), 0);
    }

    /// A crowd that is answered from memory, all at one moment, then an hour of quiet in which somebody comes now and then.
    #[test]
    fn quiet_after_a_crowd_is_not_its_pace() {
        let mut admission = Admission::default();
        (0..10).for_each(|id| admission.joined(id));
        admission.arrived(0, 10_000, 10);
        (1..10).for_each(|id| admission.arrived(id, 10_000, 10));
        admission.joined(10);
        admission.arrived(10, 3_600_000, 10);
        assert_eq!(admission.each_us, limits::ARRIVAL_FIRST_US);
        (20..30).for_each(|id| admission.joined(id));
        admission.arrived(20, 3_610_000, 10);
        (21..30).for_each(|id| admission.left(id, 10));
        admission.joined(30);
        admission.arrived(30, 7_200_000, 10);
        assert_eq!(admission.each_us, limits::ARRIVAL_FIRST_US, "neither if the crowd left");
    }

    #[test]
    fn chance_spreads() {
        let mut tenths = [0u32; 10];
        for n in 0..1_000u64 {
            tenths[usize::try_from(spread(&format!("{n:032x}"), 1_000) / 100).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|n| (60..140).contains(n)), "{tenths:?}");
        assert_eq!(spread("x", 0), 0);
    }
}
