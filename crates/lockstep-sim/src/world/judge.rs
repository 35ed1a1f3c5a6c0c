//! The judge: looks at every state that a client shows, and at everything it is told.

use super::World;
use crate::client::Meant;
use crate::history::Position;
use lockstep_client::Commit;
use lockstep_core::position::Lsn;

impl World {
    /// A batch became visible at a client.
    pub(super) fn judge(&mut self, at: usize, commit: &Commit) {
        self.report.commits_seen += 1;
        let rolled_back = commit.resets.iter().any(|(_, reason)| reason == "rolled_back");
        if rolled_back && !self.lost_history && !self.report.faults.contains_key("volume_rollback") {
            self.violate(format!("client {at}: loaded anew as rolled back, and nothing was ever lost"));
            return;
        }
        let client = &mut self.clients[at];
        for (reference, reason) in &commit.resets {
            if let Ok(shape) = reference.parse() {
                client.fresh.remove(&shape);
                if client.replica.wanted.iter().any(|w| w.reference == *reference) {
                    client.shown.insert(shape);
                }
            }
            *self.report.resets.entry(reason.clone()).or_default() += 1;
        }
        if !std::mem::replace(&mut client.established, true) {
            let held: Vec<usize> =
                client.wanted().filter(|s| client.replica.digest(&s.to_string()).is_some()).collect();
            client.shown.extend(held.into_iter().filter(|s| !client.fresh.contains(s)));
        }
        client.node = client.session.and_then(|s| self.links.get(&s)).map(|l| l.node);
        client.newest = format!("{} {:?}", commit.lsn, commit.xid);
        let digest = |s: &usize| client.replica.digest(&s.to_string()).map(|d| (*s, d));
        let shown: Vec<(usize, u64)> = client.shown.iter().filter_map(digest).collect();
        let Some(lsn) = commit.lsn.parse::<Lsn>().ok().map(|l| l.0) else {
            self.violate(format!("client {at}: a commit at no LSN"));
            return;
        };
        let cursor = client.replica.cursor.clone().unwrap_or_default();
        let parts: Vec<&str> = cursor.split('~').collect();
        let key = format!("{}~{}", parts.get(5).unwrap_or(&""), parts.get(6).unwrap_or(&""));
        let placed = self.db.history.place(client.position, lsn, &key, &shown, &self.db.commits);
        match placed {
            Ok(position) => client.position = position,
            Err(wrong) => {
                let wrong = format!(
                    "client {at}, commit {} {:?}: {wrong}; cursor {cursor}{}",
                    commit.lsn,
                    commit.xid,
                    self.explain(at, lsn)
                );
                self.violate(wrong);
                return;
            }
        }
        if let Some(xid) = commit.xid.as_deref().and_then(|x| x.parse().ok())
            && let Some(index) = self.db.committed.get(&xid).copied()
            && self.db.commits[index].end_lsn == lsn
        {
            self.db.commits[index].received = true;
        }
        for outcome in &commit.outcomes {
            self.judge_outcome(at, &outcome.id, outcome.refusal.as_ref().map(|r| r.0.as_str()));
        }
    }

    /// A first load is shown that is not settled: all of it, as the database was at one moment since the join.
    pub(super) fn judge_provisional(&mut self, at: usize) {
        self.report.provisional += 1;
        let client = &self.clients[at];
        let digest = |r: &str| Some((r.parse().ok()?, client.replica.provisional_digest(r)?));
        let shown: Vec<(usize, u64)> = client.replica.provisional().into_iter().filter_map(digest).collect();
        let lacks =
            client.wanted().find(|s| client.asked.0.contains(s) && !shown.iter().any(|(t, _)| s == t));
        let what = if let Some(shape) = lacks {
            format!("lacks shape {shape}")
        } else if !self.db.history.was(&shown, client.asked.1) {
            "is a state that never was".into()
        } else {
            return;
        };
        self.violate(format!("client {at}: what is shown provisionally {what}"));
    }

    fn judge_outcome(&mut self, at: usize, id: &str, refusal: Option<&str>) {
        self.trace(|| format!("client {at} is told of {id}: {refusal:?}"));
        let client = &mut self.clients[at];
        let told = client.told.entry(id.to_owned()).or_default();
        *told = (told.0 + 1, refusal.is_none());
        let (times, position) = (told.0, client.position);
        let Some(meant) = client.made.get(id).copied() else {
            self.violate(format!("client {at} was told of mutation {id}, which it never made"));
            return;
        };
        if times > 1 {
            self.violate(format!("client {at} was told of mutation {id} {times} times"));
        }
        let allowed = match (meant, refusal) {
            (Meant::Allowed | Meant::MaybeTaken, None) | (Meant::Forbidden, Some("P0001")) => true,
            (Meant::MaybeTaken, Some(code)) => code == "23505",
            // It was applied, and lost with the server's last history, where somebody saw its row and now has its key.
            (Meant::Allowed, Some("23505")) => self.db.history.lost_commit(id).is_some(),
            _ => false,
        };
        let sent_again = self.may_repeat(id);
        if !allowed && !sent_again {
            self.violate(format!("mutation {id}, meant as {meant:?}, ended in {refusal:?}"));
        }
        match refusal {
            Some(_) => self.report.refusals += 1,
            None => self.report.applied += 1,
        }
        self.judge_decision(at, id, refusal.is_none(), position);
    }

    /// An outcome is told with the rows or after them, and only once nothing can take it back.
    fn judge_decision(&mut self, at: usize, id: &str, applied: bool, position: Position) {
        let decided =
            self.db.commits.iter().enumerate().rev().find(|(_, c)| c.decided.iter().any(|d| d.id == id));
        if let Some((index, commit)) = decided {
            let said = commit.decided.iter().find(|d| d.id == id).is_some_and(|d| d.applied);
            if said != applied && !self.may_repeat(id) {
                self.violate(format!("mutation {id} was told as applied: {applied}, and is: {said}"));
                return;
            }
            let Some(seen) = commit.visible else {
                self.violate(format!(
                    "mutation {id} was acknowledged to client {at} before its COMMIT could return"
                ));
                return;
            };
            if position.branch == self.db.history.branch()
                && position.commits <= index
                && position.seen < seen
            {
                self.violate(format!("mutation {id} was acknowledged to client {at} ahead of its rows"));
            }
            return;
        }
        match self.db.history.lost_commit(id).map(|c| c.visible.is_some()) {
            None => self.violate(format!("mutation {id} was told, and never decided")),
            Some(false) => {
                self.violate(format!(
                    "mutation {id} was acknowledged to client {at}, was never visible, and is lost"
                ));
            }
            Some(true) => {}
        }
    }

    /// At a quiet point: every row of every client, and what became of every mutation.
    pub(super) fn compare(&mut self) {
        let mut wrong = Vec::new();
        for (at, client) in self.clients.iter().enumerate() {
            for shape in client.wanted() {
                let def = &self.db.schema.shapes[shape];
                let columns = &self.db.schema.tables[def.table].table.columns;
                let names: Vec<&str> = def.columns.iter().map(|c| columns[*c].name.as_str()).collect();
                let rows = client.replica.rows_of(&shape.to_string()).unwrap_or_default();
                let text = |row: &lockstep_client::Row| {
                    let values: Vec<_> =
                        names.iter().map(|n| row.get(*n).cloned().unwrap_or_default()).collect();
                    serde_json::Value::from(values).to_string()
                };
                let mut has: Vec<String> = rows.values().map(text).collect();
                let visible = self.db.visible[def.table].values();
                let mut wanted: Vec<String> =
                    visible.filter_map(|r| self.db.schema.row_text(def, r)).collect();
                has.sort();
                wanted.sort();
                if has != wanted {
                    wrong.push(format!("client {at}, shape {shape}: has {has:?}, the database {wanted:?}"));
                }
            }
            for id in client.made.keys() {
                let (count, _) = self.decisions.get(id).copied().unwrap_or_default();
                let lost = self.db.history.lost_commit(id).is_some();
                match client.told.get(id) {
                    None if client.given_up.contains(id) => {}
                    Some(_) if self.may_repeat(id) => {}
                    None => wrong.push(format!("client {at} was never told what became of mutation {id}")),
                    Some((_, applied)) if !lost && count != u32::from(*applied) => {
                        wrong.push(format!(
                            "mutation {id} was applied {count} times and told as applied: {applied}"
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        self.report.comparisons += 1;
        if let Some(first) = wrong.into_iter().next() {
            self.violate(first);
        }
    }
}
