//! The judge's memory: what every shape looked like after every commit, as digests.
//!
//! Two orders matter. Commit records lie in *WAL order*; the stream brings clients from one prefix of it to the
//! next. Snapshots see commits in the order in which they became *visible*; a node without a stream shows such
//! states. Digests are sums over rows, and a commit that is not visible holds its rows locked, so the effects of
//! several of them add up whatever their order.

use crate::pg::{Commit, Write};
use crate::schema::Schema;
use lockstep_client::row_digest;
use std::collections::HashMap;

/// One line of history in WAL order.
#[derive(Debug, Clone, Default)]
struct Branch {
    ends: Vec<u64>,
    /// By shape: (commits so far, digest), only where it changes.
    digests: Vec<Vec<(usize, u64)>>,
    /// Shapes whose table got another schema with so many commits, and the digest before.
    old_forms: Vec<(usize, usize, u64)>,
}

impl Branch {
    fn at(&self, shape: usize, commits: usize) -> u64 {
        let changes = &self.digests[shape];
        let after = changes.partition_point(|(n, _)| *n <= commits);
        after.checked_sub(1).map_or(0, |at| changes[at].1)
    }

    /// Whether the digest is that of the shape as it looked before a change of its schema, and nothing was written to it
    /// since, whatever other changes of its schema came: whoever only follows the stream hears of them with the next
    /// row, or from a look at the catalog.
    fn is_old_form(&self, shape: usize, commits: usize, digest: u64) -> bool {
        let changes = &self.digests[shape];
        let so_far = &changes[..changes.partition_point(|(n, _)| *n <= commits)];
        for (at, _) in so_far.iter().rev() {
            match self.old_forms.iter().find(|(s, n, _)| s == &shape && n == at) {
                Some((_, _, before)) if *before == digest => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }

    fn commits_at(&self, lsn: u64) -> usize {
        self.ends.partition_point(|end| *end <= lsn)
    }
}

/// Where a client stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// It has every one of the first so many commits.
    pub commits: usize,
    /// And everything that was visible at this number.
    pub seen: usize,
    /// On which line of history.
    pub branch: usize,
}

/// How a line of history ended.
#[derive(Debug)]
struct Fork {
    /// Commits kept.
    keep: usize,
    /// Nothing of what is lost can have been shown: a crash loses only what was never flushed.
    silent: bool,
    lost: Vec<Commit>,
    before: Branch,
}

/// See the module's text.
#[derive(Debug)]
pub struct History {
    now: Branch,
    forks: Vec<Fork>,
    /// By shape: (visibility number, digest), only where it changes.
    seen: Vec<Vec<(usize, u64)>>,
    /// By visibility number: every commit below this count may be visible.
    reach: Vec<usize>,
    /// Snapshots that catch-ups were answered from: F and S as in a cursor, to the visibility number. Another line of
    /// history may have the same F and S.
    snapshots: HashMap<String, Vec<usize>>,
}

/// A state that never was, and why one may say so.
pub type Wrong = String;

impl History {
    /// For so many shapes.
    pub fn new(shapes: usize) -> Self {
        Self {
            now: Branch { ends: Vec::new(), digests: vec![Vec::new(); shapes], old_forms: Vec::new() },
            forks: Vec::new(),
            seen: vec![Vec::new(); shapes],
            reach: vec![0],
            snapshots: HashMap::new(),
        }
    }

    /// What writes do to each shape's digest.
    pub fn deltas(&self, schema: &Schema, writes: &[Write]) -> Vec<(usize, u64)> {
        let mut deltas = Vec::new();
        for (index, shape) in schema.shapes.iter().enumerate() {
            let mut delta = 0u64;
            for write in writes.iter().filter(|w| w.table == shape.table) {
                let digest = |row: &Option<_>| {
                    row.as_ref().and_then(|r| schema.row_text(shape, r)).map_or(0, |t| row_digest(&t))
                };
                delta = delta.wrapping_add(digest(&write.after)).wrapping_sub(digest(&write.before));
            }
            if delta != 0 {
                deltas.push((index, delta));
            }
        }
        deltas
    }

    /// A commit record was written.
    pub fn committed(&mut self, end: u64, deltas: &[(usize, u64)]) {
        self.now.ends.push(end);
        let count = self.now.ends.len();
        for (shape, delta) in deltas {
            let changes = &mut self.now.digests[*shape];
            let before = changes.last().map_or(0, |c| c.1);
            changes.push((count, before.wrapping_add(*delta)));
        }
    }

    /// The newest commit changed a table's schema.
    pub fn migrated(&mut self, deltas: &[(usize, u64)]) {
        let count = self.now.ends.len();
        for (shape, delta) in deltas {
            let before = self.now.at(*shape, count).wrapping_sub(*delta);
            self.now.old_forms.push((*shape, count, before));
        }
    }

    /// A commit became visible. Returns the visibility number from which on it is.
    pub fn became_visible(&mut self, index: usize, deltas: &[(usize, u64)]) -> usize {
        let number = self.reach.len();
        self.reach.push(self.reach[number - 1].max(index + 1));
        self.add_seen(number, deltas, u64::wrapping_add);
        number
    }

    fn add_seen(&mut self, number: usize, deltas: &[(usize, u64)], add: fn(u64, u64) -> u64) {
        for (shape, delta) in deltas {
            let changes = &mut self.seen[*shape];
            let before = changes.last().map_or(0, |c| c.1);
            changes.push((number, add(before, *delta)));
        }
    }

    /// All commits from `keep` on are lost; `deltas` are of those that had been visible.
    pub fn forked(&mut self, keep: usize, deltas: &[(usize, u64)], lost: Vec<Commit>) {
        let number = self.reach.len();
        self.reach.push(keep.min(self.reach[number - 1]));
        self.add_seen(number, deltas, u64::wrapping_sub);
        let before = self.now.clone();
        self.forks.push(Fork { keep, silent: false, lost, before });
        self.now.ends.truncate(keep);
        for changes in &mut self.now.digests {
            changes.truncate(changes.partition_point(|(n, _)| *n <= keep));
        }
    }

    /// The last fork was a crash.
    pub fn was_silent(&mut self) {
        if let Some(fork) = self.forks.last_mut() {
            fork.silent = true;
        }
    }

    /// A catch-up took a snapshot; `key` is its F and S.
    pub fn took_snapshot(&mut self, key: String) {
        self.snapshots.insert(key, vec![self.reach.len() - 1]);
    }

    /// F of a snapshot has been read.
    pub fn rename_snapshot(&mut self, from: &str, to: String) {
        if let Some(seen) = self.snapshots.remove(from) {
            self.snapshots.entry(to).or_default().extend(seen);
        }
    }

    /// Whether the last fork can have lost nothing that was shown.
    pub fn last_was_silent(&self) -> bool {
        self.forks.last().is_none_or(|f| f.silent)
    }

    /// What the last fork lost.
    pub fn last_lost(&self) -> &[Commit] {
        self.forks.last().map_or(&[], |f| &f.lost)
    }

    /// A lost commit that decided a mutation.
    pub fn lost_commit(&self, id: &str) -> Option<&Commit> {
        let lost = self.forks.iter().rev().flat_map(|f| &f.lost);
        lost.into_iter().find(|c| c.decided.iter().any(|d| d.id == id))
    }

    /// How many lines of history there were before this one.
    pub fn branch(&self) -> usize {
        self.forks.len()
    }

    fn branch_at(&self, branch: usize) -> &Branch {
        self.forks.get(branch).map_or(&self.now, |f| &f.before)
    }

    fn seen_at(&self, shape: usize, number: usize) -> u64 {
        let changes = &self.seen[shape];
        let after = changes.partition_point(|(n, _)| *n <= number);
        after.checked_sub(1).map_or(0, |at| changes[at].1)
    }

    /// The digest of a shape as snapshots see it now.
    pub fn newest(&self, shape: usize) -> u64 {
        self.seen[shape].last().map_or(0, |c| c.1)
    }

    /// What is visible now, as a number.
    pub fn visible_now(&self) -> usize {
        self.reach.len() - 1
    }

    /// Whether shapes looked so at one moment, all together, since then.
    pub fn was(&self, shown: &[(usize, u64)], since: usize) -> bool {
        let at = |number: usize| shown.iter().all(|(shape, digest)| self.seen_at(*shape, number) == *digest);
        (since..self.reach.len()).any(at)
    }

    /// Finds the state that a client shows. `shown` are its shapes with their digests; `key` is F and S of its cursor.
    pub fn place(
        &self,
        from: Position,
        lsn: u64,
        key: &str,
        shown: &[(usize, u64)],
        commits: &[Commit],
    ) -> Result<Position, Wrong> {
        let current = self.branch();
        let mut why = String::new();
        for seen in self.snapshots.get(key).into_iter().flatten().rev() {
            match self.polled(from, *seen, shown, commits) {
                Ok(position) => return Ok(position),
                Err(wrong) => why = wrong,
            }
        }
        // Frames of a line that has ended may still be on their way, so the oldest line that explains a state stands.
        for branch in from.branch..=current {
            let line = self.branch_at(branch);
            let count = line.commits_at(lsn);
            let differs = |(shape, digest): &&(usize, u64)| {
                line.at(*shape, count) != *digest && !line.is_old_form(*shape, count, *digest)
            };
            match shown.iter().find(differs) {
                None => match self.moved(from, Position { commits: count, seen: 0, branch }) {
                    Ok(position) => return Ok(position),
                    Err(wrong) => why = format!("{why} {wrong};"),
                },
                Some((shape, _)) => {
                    why = format!("{why} shape {shape} is not as after commit {count} (line {branch});");
                }
            }
        }
        Err(format!("a state that never was:{why}"))
    }

    /// Never back in time, unless what was there is lost.
    fn moved(&self, from: Position, to: Position) -> Result<Position, Wrong> {
        let mut had = from.commits.max(self.reach[from.seen.min(self.reach.len() - 1)]);
        let mut seen = from.seen;
        for fork in &self.forks[from.branch.min(to.branch)..to.branch] {
            if fork.silent && had > fork.keep {
                return Err(format!("it showed commit {had}, and a crash lost all from {} on", fork.keep));
            }
            if had > fork.keep {
                had = fork.keep;
                seen = 0;
            }
        }
        if to.commits < had {
            return Err(format!("back in time: it had {had} commits and shows {}", to.commits));
        }
        Ok(Position { seen, ..to })
    }

    /// A state read from a snapshot: what was visible, and what the client had beyond it.
    fn polled(
        &self,
        from: Position,
        seen: usize,
        shown: &[(usize, u64)],
        commits: &[Commit],
    ) -> Result<Position, Wrong> {
        let current = self.branch();
        let mut had = from.commits;
        for fork in &self.forks[from.branch.min(current)..] {
            if fork.silent && had > fork.keep {
                return Err(format!("it showed commit {had}, and a crash lost all from {} on", fork.keep));
            }
            had = had.min(fork.keep);
        }
        if from.branch == current && seen < from.seen {
            return Err(format!("back in time: it showed snapshot {} and shows {seen}", from.seen));
        }
        let unseen = |c: &&Commit| c.visible.is_none_or(|v| v > seen);
        // What is not visible yet cannot be older than the longest silence of the standby.
        let had_here = had.min(commits.len());
        let recent = &commits[had_here.saturating_sub(6_000)..had_here];
        let extra: Vec<&Commit> = recent.iter().filter(unseen).collect();
        for (shape, digest) in shown {
            let more = extra.iter().flat_map(|c| &c.deltas).filter(|(s, _)| s == shape);
            let wanted = more.fold(self.seen_at(*shape, seen), |sum, (_, d)| sum.wrapping_add(*d));
            if wanted != *digest {
                return Err(format!(
                    " shape {shape} is not as snapshot {seen} saw it ({} more);",
                    extra.len()
                ));
            }
        }
        Ok(Position { commits: had, seen, branch: current })
    }
}
