//! Mutations of the clients, and whether each took effect exactly once.

use crate::dice::Dice;
use anyhow::Result;
use lockstep_client::Outcome;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio_postgres::SimpleQueryMessage;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not acknowledged yet.
    Open,
    Applied,
    Refused,
    /// Acknowledged by a server whose commits were lost.
    Lost,
}

#[derive(Debug, Clone)]
struct Entry {
    who: usize,
    fate: Fate,
    /// It breaks a rule of the database.
    doomed: bool,
    /// It is conditional: the word that the client saw and takes the place of. No word is written twice.
    seen: Option<String>,
}

/// The row of `pulse_b` whose word only conditional mutations write.
pub const CONTESTED: i64 = 12;

/// Every mutation by its id, which is also what its receipt says.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<String, Entry>>);

impl Ledger {
    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new mutation: its id and operations. The receipt has no key of its own: applied twice it is there twice.
    /// `seen` is the contested word as the client shows it; `blind`, a planted fault: what was seen is not said.
    pub fn make(
        &self,
        who: usize,
        dice: &mut Dice,
        seen: Option<String>,
        blind: bool,
    ) -> (String, Vec<Json>) {
        let id = dice.uuid();
        let seen = seen.filter(|_| dice.chance(25));
        let doomed = seen.is_none() && dice.chance(15);
        let receipt =
            json!({"op": "insert", "table": "receipts", "values": {"who": who, "what": id, "fine": !doomed}});
        let purse = json!({"op": "update", "table": "pulse_b", "key": {"writer": 11}, "set": {"note": id}});
        let ops = if let Some(seen) = &seen {
            let mut take = json!({"op": "update", "table": "pulse_b", "key": {"writer": CONTESTED}, "set": {"note": id}});
            if !blind {
                take["if"] = json!({"note": seen});
            }
            vec![receipt, take]
        } else if dice.chance(30) {
            vec![purse, receipt]
        } else {
            vec![receipt]
        };
        self.entries().insert(id.clone(), Entry { who, fate: Fate::Open, doomed, seen });
        (id, ops)
    }

    /// A client was told an outcome, and shows `word` with it.
    pub fn decided(&self, who: usize, outcome: &Outcome, word: Option<&str>) -> Result<(), String> {
        let mut entries = self.entries();
        let refused = outcome.refusal.as_ref().map(|(code, _)| code.as_str());
        if let Some(seen) = entries.get(&outcome.id).and_then(|e| e.seen.clone()) {
            let same = |e: &Entry| e.fate == Fate::Applied && e.seen.as_ref() == Some(&seen);
            match refused {
                None if entries.values().any(same) => {
                    return Err(format!("{outcome:?}: its {seen} had been replaced by another one before"));
                }
                Some("conflict") if word == Some(seen.as_str()) => {
                    return Err(format!("{outcome:?}, and the client still shows {seen}"));
                }
                _ => {}
            }
        }
        let Some(entry) = entries.get_mut(&outcome.id) else {
            return Err(format!("an outcome of a mutation that nobody made: {outcome:?}"));
        };
        if entry.who != who || entry.fate != Fate::Open {
            return Err(format!("{outcome:?} was told to client {who}, but is {entry:?}"));
        }
        let right = match &entry.seen {
            Some(_) => matches!(refused, None | Some("conflict")),
            None => refused.is_some() == entry.doomed,
        };
        if !right {
            return Err(format!("{outcome:?} is the wrong outcome of {entry:?}"));
        }
        entry.fate = if refused.is_some() { Fate::Refused } else { Fate::Applied };
        Ok(())
    }

    /// Commits of the server were lost: what was applied may be gone.
    pub fn commits_lost(&self) {
        for entry in self.entries().values_mut().filter(|e| e.fate == Fate::Applied) {
            entry.fate = Fate::Lost;
        }
    }

    /// Decided mutations.
    pub fn decisions(&self) -> u64 {
        self.entries().values().filter(|e| e.fate != Fate::Open).count() as u64
    }

    /// Conditional mutations that came first, and those that came too late.
    pub fn conditional(&self) -> (u64, u64) {
        let entries = self.entries();
        let count = |fates: &[Fate]| {
            entries.values().filter(|e| e.seen.is_some() && fates.contains(&e.fate)).count() as u64
        };
        (count(&[Fate::Applied, Fate::Lost]), count(&[Fate::Refused]))
    }

    /// Compares with what PostgreSQL has.
    pub async fn check(&self, client: &tokio_postgres::Client) -> Result<Result<(), String>> {
        let answer = client.simple_query("select what, count(*) from receipts group by what").await?;
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for message in answer {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let count = row.get(1).and_then(|c| c.parse().ok()).unwrap_or(0);
            counted.insert(row.get(0).unwrap_or_default().into(), count);
        }
        for (id, entry) in &*self.entries() {
            let times = counted.get(id).copied().unwrap_or(0);
            let right = match entry.fate {
                Fate::Applied => times == 1,
                Fate::Refused => times == 0,
                Fate::Lost | Fate::Open => times <= 1,
            };
            if !right {
                return Ok(Err(format!("mutation {id}, {entry:?}, took effect {times} times")));
            }
        }
        Ok(Ok(()))
    }
}
