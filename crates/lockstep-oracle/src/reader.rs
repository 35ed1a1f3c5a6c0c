//! One client: it follows the protocol, checks every commit, and loses its connection now and then.

use crate::dice::Dice;
use crate::invariants::{self, Memory, References};
use crate::ledger::Ledger;
use crate::schema::Schema;
use crate::shapes::{Rows, Shape, Truth};
use lockstep_client::{Client, ClientError, Heard, Left, Replica};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Between two heartbeats. Shorter than the protocol's, so that half-open links are noticed within a batch.
const HEARTBEAT: Duration = Duration::from_millis(700);
/// A node that says nothing for so long is left.
const SILENCE: Duration = Duration::from_secs(4);

/// What a comparison found.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compared {
    /// Rows of all shapes.
    pub rows: u64,
    /// Rows that are not as they were at the last comparison.
    pub changed: u64,
}

/// What a client is told to do.
#[derive(Debug)]
pub enum Order {
    /// Answer once what it shows is exactly this.
    Expect(Arc<Truth>, oneshot::Sender<Compared>),
    /// How it differs from this, now.
    Differ(Arc<Truth>, oneshot::Sender<String>),
    /// Answer once the outbox is empty.
    Drain(oneshot::Sender<()>),
    /// Make mutations now and then, or stop doing so.
    Mutate(bool),
    /// Close the connection as a crash would, and stay away or come back.
    Online(bool),
    /// What is not decided yet.
    Outbox(oneshot::Sender<String>),
    /// Reasons of resets since the last such question.
    Resets(oneshot::Sender<Vec<String>>),
}

/// What all clients share.
#[derive(Debug)]
pub struct Shared {
    /// Where nodes listen.
    pub urls: Vec<String>,
    /// The tables.
    pub schema: Schema,
    /// Invariants checked.
    pub checks: AtomicU64,
    /// The first thing that was wrong.
    pub wrong: Mutex<Option<String>>,
    /// What became of mutations.
    pub ledger: Ledger,
    /// The plant `blind-update`.
    pub blind: bool,
}

impl Shared {
    /// Notes something wrong; the first one stays.
    pub fn fail(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }
}

/// A client's task, from outside.
#[derive(Debug)]
pub struct Handle {
    /// Its number.
    pub number: usize,
    /// What it subscribes to.
    pub shapes: Vec<Shape>,
    /// Whether it was told to be online.
    pub online: bool,
    orders: mpsc::UnboundedSender<Order>,
}

impl Handle {
    /// Starts a client.
    pub fn start(
        number: usize,
        seed: u64,
        shapes: Vec<Shape>,
        refs: References,
        shared: Arc<Shared>,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let replica = Replica::new(shapes.iter().map(|s| s.definition(&shared.schema)));
        let reader = Reader {
            number,
            dice: Dice::new(seed, &format!("reader {number}")),
            shapes: shapes.clone(),
            refs,
            shared,
            replica,
            memory: Memory::default(),
            inbox,
            expect: None,
            drain: Vec::new(),
            last: BTreeMap::new(),
            resets: Vec::new(),
            mutating: false,
            online: true,
            next_mutation: Instant::now(),
            resend: None,
            fresh: false,
            said: VecDeque::new(),
        };
        tokio::spawn(reader.run());
        Self { number, shapes, online: true, orders }
    }

    /// Tells it something.
    pub fn tell(&self, order: Order) {
        // The task ends with its runtime only.
        let _ = self.orders.send(order);
    }
}

struct Reader {
    number: usize,
    dice: Dice,
    shapes: Vec<Shape>,
    refs: References,
    shared: Arc<Shared>,
    /// What its store holds.
    replica: Replica,
    memory: Memory,
    inbox: mpsc::UnboundedReceiver<Order>,
    expect: Option<(Arc<Truth>, oneshot::Sender<Compared>)>,
    drain: Vec<oneshot::Sender<()>>,
    last: BTreeMap<Shape, Arc<Rows>>,
    resets: Vec<String>,
    mutating: bool,
    online: bool,
    next_mutation: Instant,
    resend: Option<Instant>,
    /// It shows something else than when it was last compared.
    fresh: bool,
    /// The newest commits and replies, for a message about a hang.
    said: VecDeque<String>,
}

/// Whether to stay connected.
enum Next {
    Stay,
    Leave,
}

impl Reader {
    async fn run(mut self) {
        loop {
            while !self.online {
                match self.inbox.recv().await {
                    Some(order) => self.obey_alone(order),
                    None => return,
                }
            }
            let url = self.dice.pick(&self.shared.urls).clone();
            let join = Client::join(&url, self.replica.clone());
            match tokio::time::timeout(SILENCE, join).await {
                Ok(Ok(client)) => {
                    let goes_on = self.follow(client).await;
                    if !goes_on {
                        return;
                    }
                }
                Ok(Err(ClientError::Refused(error))) if error["retry_in"].is_null() => {
                    self.shared.fail(format!("client {}: its join was refused: {error}", self.number));
                }
                _ => {}
            }
            // A node that is down is not asked in a tight loop; orders are heard meanwhile.
            tokio::time::sleep(Duration::from_millis(30 + self.dice.between(0, 80))).await;
            while let Ok(order) = self.inbox.try_recv() {
                self.obey_alone(order);
            }
        }
    }

    /// Lives on one connection. False when the world has ended.
    async fn follow(&mut self, mut client: Client) -> bool {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut heard_at = Instant::now();
        let mut beat = None;
        self.resend = Some(Instant::now());
        self.fresh = true;
        loop {
            let next_act = self.next_act();
            let next = tokio::select! {
                heard = client.hear("anything") => {
                    heard_at = Instant::now();
                    match heard {
                        Ok(heard) => self.heard(&mut client, heard, beat.as_deref()),
                        Err(ClientError::Protocol(error)) => {
                            self.shared.fail(format!("client {}: {error}", self.number));
                            Next::Leave
                        }
                        Err(ClientError::Late(_)) => Next::Stay,
                        Err(_) => Next::Leave,
                    }
                }
                order = self.inbox.recv() => match order {
                    Some(order) => {
                        self.obey(order, &client.replica);
                        Next::Stay
                    }
                    None => return false,
                },
                _ = heartbeat.tick() => {
                    let sent = tokio::time::timeout(SILENCE, client.send("heartbeat", json!({}))).await;
                    match sent {
                        Ok(Ok(reference)) if heard_at.elapsed() < SILENCE => {
                            beat = Some(reference);
                            Next::Stay
                        }
                        _ => Next::Leave,
                    }
                }
                () = tokio::time::sleep_until(next_act.into()) => self.act(&mut client).await,
            };
            self.answer(&client.replica);
            if matches!(next, Next::Leave) || !self.online {
                self.replica = client.crash();
                return true;
            }
        }
    }

    fn heard(&mut self, client: &mut Client, heard: Heard, beat: Option<&str>) -> Next {
        let said = match &heard {
            Heard::Commit(commit) => {
                Some(format!("commit {} {:?} {:?}", commit.lsn, commit.resets.first(), commit.outcomes))
            }
            Heard::Reply(reference, ok, response) if beat != Some(reference) => {
                Some(format!("{reference} {ok} {response}"))
            }
            _ => None,
        };
        self.said.extend(said);
        while self.said.len() > 12 {
            self.said.pop_front();
        }
        match heard {
            Heard::Provisional | Heard::Nothing => {}
            Heard::Commit(commit) => {
                self.fresh = true;
                self.resets.extend(commit.resets.iter().map(|(_, why)| why.clone()));
                let word = invariants::contested(&client.replica, &self.refs);
                for outcome in &commit.outcomes {
                    let decided = self.shared.ledger.decided(self.number, outcome, word.as_deref());
                    if let Err(wrong) = decided {
                        self.shared.fail(format!("client {}: {wrong}", self.number));
                    }
                }
                let within = invariants::scopes(&client.replica, &self.shared.schema, &self.shapes);
                let checked = invariants::check(&client.replica, &commit, &self.refs, &mut self.memory);
                match within.and(checked) {
                    Ok(checks) => drop(self.shared.checks.fetch_add(checks, Ordering::Relaxed)),
                    Err(wrong) => {
                        let (number, lsn, xid) = (self.number, &commit.lsn, &commit.xid);
                        self.shared.fail(format!("client {number} at {lsn}, xid {xid:?}: {wrong}"));
                    }
                }
                match commit.left {
                    Some(Left::Renumbered) => return Next::Leave,
                    Some(Left::Unknown(_)) => {
                        let number = self.number;
                        self.shared
                            .fail(format!("client {number}: no profile is copied here, and one was found"));
                    }
                    None => {}
                }
            }
            Heard::Reply(reference, true, response) => {
                if beat == Some(&reference)
                    && client.replica.waiting() == 0
                    && let Some(cursor) = response["cursor"].as_str()
                {
                    client.replica.cursor = Some(cursor.into());
                }
            }
            Heard::Reply(_, false, error) => return self.refused(client, &error),
        }
        Next::Stay
    }

    fn refused(&mut self, client: &mut Client, error: &Json) -> Next {
        match error["code"].as_str() {
            Some("renumber") => {
                let last = error["last"].as_str().and_then(|l| l.parse().ok()).unwrap_or(0);
                let fresh = error["client"].as_str().unwrap_or_default();
                client.replica.renumber_when_told(fresh, last);
                Next::Leave
            }
            Some("unknown_client") => {
                // An unknown client's mutations were lost with its row, which was written in the same transaction.
                client.replica.renumber(error["client"].as_str().unwrap_or_default());
                Next::Leave
            }
            Some("gap") => {
                let last = error["last"].as_str().and_then(|l| l.parse().ok()).unwrap_or(0);
                client.replica.renumber_after(last);
                self.resend = Some(Instant::now());
                Next::Stay
            }
            Some("busy") => {
                self.resend = Some(Instant::now() + Duration::from_millis(300));
                Next::Stay
            }
            _ => {
                self.shared.fail(format!("client {}: refused: {error}", self.number));
                Next::Leave
            }
        }
    }

    fn next_act(&self) -> Instant {
        let idle = Instant::now() + Duration::from_secs(60);
        let mutation = if self.mutating { self.next_mutation } else { idle };
        self.resend.map_or(mutation, |resend| resend.min(mutation))
    }

    /// Sends what is due. Sometimes the connection is lost right after: the answer never comes.
    async fn act(&mut self, client: &mut Client) -> Next {
        let mut due = false;
        if self.resend.is_some_and(|at| at <= Instant::now()) {
            self.resend = None;
            due = true;
        }
        if self.mutating && self.next_mutation <= Instant::now() {
            self.next_mutation = Instant::now() + Duration::from_millis(self.dice.between(20, 250));
            let seen = invariants::contested(&client.replica, &self.refs);
            let (id, ops) = self.shared.ledger.make(self.number, &mut self.dice, seen, self.shared.blind);
            client.replica.push(id, ops);
            due = true;
        }
        let Some(payload) = client.replica.mutate().filter(|_| due) else { return Next::Stay };
        match tokio::time::timeout(SILENCE, client.send("mutate", payload)).await {
            Ok(Ok(_)) if !self.dice.chance(8) => Next::Stay,
            _ => Next::Leave,
        }
    }

    /// Without a connection.
    fn obey_alone(&mut self, order: Order) {
        let replica = std::mem::take(&mut self.replica);
        self.obey(order, &replica);
        self.replica = replica;
    }

    fn obey(&mut self, order: Order, replica: &Replica) {
        match order {
            Order::Expect(truth, answer) => {
                self.expect = Some((truth, answer));
                self.fresh = true;
            }
            Order::Differ(truth, answer) => drop(answer.send(self.difference(&truth, replica))),
            Order::Drain(answer) => self.drain.push(answer),
            Order::Mutate(on) => self.mutating = on,
            Order::Online(on) => self.online = on,
            Order::Outbox(answer) => {
                let numbers: Vec<_> = replica.outbox.iter().map(|p| (p.n, &p.id)).collect();
                let (last, confirmed) = (replica.last, replica.confirmed);
                let said = &self.said;
                let client = replica.client.as_deref().unwrap_or_default();
                drop(answer.send(format!(
                    "{client}: outbox {numbers:?}, last {last}, confirmed {confirmed}; heard {said:?}"
                )));
            }
            Order::Resets(answer) => drop(answer.send(std::mem::take(&mut self.resets))),
        }
    }

    fn answer(&mut self, replica: &Replica) {
        if replica.outbox.is_empty() {
            self.drain.drain(..).for_each(|answer| {
                let _ = answer.send(());
            });
        }
        if std::mem::take(&mut self.fresh)
            && let Some((truth, answer)) = self.expect.take()
        {
            if self.first_difference(&truth, replica).is_none() {
                let _ = answer.send(self.compared(&truth));
            } else if !answer.is_closed() {
                self.expect = Some((truth, answer));
            }
        }
    }

    fn first_difference(&self, truth: &Truth, replica: &Replica) -> Option<usize> {
        let differs = |(at, shape): &(usize, &Shape)| {
            replica.rows_of(&at.to_string()).as_ref() != truth.of(shape).map(|rows| &**rows)
        };
        self.shapes.iter().enumerate().find(differs).map(|(at, _)| at)
    }

    fn difference(&self, truth: &Truth, replica: &Replica) -> String {
        let Some(at) = self.first_difference(truth, replica) else { return "nothing".into() };
        let shape = &self.shapes[at];
        let empty = Rows::new();
        let held = replica.rows_of(&at.to_string());
        let wanted = truth.of(shape).map_or(&empty, |rows| &**rows);
        let Some(held) = held else {
            return format!("shape {} was never loaded", shape.definition(&self.shared.schema));
        };
        let missing: Vec<_> = wanted.keys().filter(|k| !held.contains_key(*k)).collect();
        let ghosts: Vec<_> = held.keys().filter(|k| !wanted.contains_key(*k)).collect();
        let other: Vec<_> =
            wanted.iter().filter(|(k, row)| held.get(*k).is_some_and(|h| h != *row)).collect();
        let columns = other.first().map(|(k, row)| {
            let differ = |(name, value): &(&String, &Json)| held[*k].get(*name) != Some(value);
            let cut = |v: &Json| v.to_string().chars().take(60).collect::<String>();
            let list = row.iter().filter(differ).map(|(n, v)| {
                format!("{n}: {} for {}", held[*k].get(n).map_or_else(String::new, cut), cut(v))
            });
            let too_many = held[*k].keys().filter(|name| !row.contains_key(*name));
            list.chain(too_many.map(|name| format!("{name}: is no column"))).collect::<Vec<_>>()
        });
        format!(
            "{} rows missing {:?}, {} ghosts {:?}, {} stale {:?} {columns:?} in {}",
            missing.len(),
            missing.iter().take(3).collect::<Vec<_>>(),
            ghosts.len(),
            ghosts.iter().take(3).collect::<Vec<_>>(),
            other.len(),
            other.iter().take(3).map(|(k, _)| k).collect::<Vec<_>>(),
            shape.definition(&self.shared.schema),
        )
    }

    fn compared(&mut self, truth: &Truth) -> Compared {
        let mut compared = Compared::default();
        for shape in &self.shapes {
            let Some(rows) = truth.of(shape) else { continue };
            compared.rows += rows.len() as u64;
            let before = self.last.insert(shape.clone(), rows.clone()).unwrap_or_default();
            let fresh = rows.iter().filter(|(k, row)| before.get(*k) != Some(row)).count();
            let gone = before.keys().filter(|k| !rows.contains_key(*k)).count();
            compared.changed += (fresh + gone) as u64;
        }
        compared
    }
}
