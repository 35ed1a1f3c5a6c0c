//! Clients' mutations as `lockstep-pg` runs them: compare-and-set, operations, refusal in a second transaction.

use super::asks::{Ask, Question, Run};
use super::{AskId, Event, Sync, Waiter, World};
use crate::pg::{Decided, Op, Stuck, TxId};
use crate::plant::Plant;
use crate::schema::{APP_TABLES, CLIENTS, Key, MUTATIONS, Row};
use lockstep_core::change::Text;
use lockstep_core::fanout::hub::{MutateResult, SessionId};
use lockstep_core::mutation::{Mutation, Operation, Refusal};
use lockstep_core::protocol::{Frame, ack_frame};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What the application's rule forbids.
pub const FORBIDDEN: u64 = 666;

#[derive(Debug)]
enum Attempt {
    Committing,
    Wait,
    Already,
    Stop(MutateResult),
    Refused(Refusal),
    Passing,
}

impl World {
    pub(super) fn run_mutation(&mut self, at: usize, session: SessionId) {
        let Some(request) = self.nodes[at].mutating.get(&session).and_then(|q| q.front()).cloned() else {
            return;
        };
        let run = Run {
            request,
            at: 0,
            attempt: 0,
            waited: 0,
            committed: Vec::new(),
            result: MutateResult::Decided,
        };
        self.ask(at, Question::Mutate(Box::new(run)));
    }

    /// Tries the mutation at hand.
    pub(super) fn mutation_step(&mut self, id: AskId) {
        let Some(Ask { question: Question::Mutate(run), failed, .. }) = self.asks.get_mut(&id) else {
            return;
        };
        let Some(mutation) = run.request.mutations.get(run.at).cloned() else {
            self.answer_soon(id);
            return;
        };
        if *failed {
            return;
        }
        let (client, confirmed, attempt) = (run.request.client.clone(), run.request.confirmed, run.attempt);
        let tx = self.db.begin();
        let mut step = self.attempt(tx, &client, confirmed, &mutation, None);
        if let Attempt::Refused(refusal) = step {
            self.db.end(tx);
            let tx = self.db.begin();
            step = self.attempt(tx, &client, confirmed, &mutation, Some(refusal));
            return self.attempted(id, tx, step, attempt);
        }
        self.attempted(id, tx, step, attempt);
    }

    fn attempted(&mut self, id: AskId, tx: TxId, step: Attempt, attempt: u32) {
        if let Some(Ask { question: Question::Mutate(run), node, .. }) = self.asks.get(&id) {
            let mutation = run.request.mutations.get(run.at).map(|m| (m.n, m.id.as_str()));
            let client = &run.request.client;
            self.trace(|| format!("node {node}, client {client}: mutation {mutation:?} tried: {step:?}"));
        }
        let Some(Ask { question: Question::Mutate(run), .. }) = self.asks.get_mut(&id) else { return };
        match step {
            Attempt::Committing => {
                self.commit(tx, Sync::On, Waiter::Mutation(id));
                return;
            }
            Attempt::Already => {
                run.at += 1;
                (run.attempt, run.waited) = (0, 0);
                self.after(50, Event::Mutation(id));
            }
            Attempt::Stop(result) => {
                run.result = result;
                self.answer_soon(id);
            }
            Attempt::Wait if run.waited < 3_000 => {
                run.waited += 1;
                self.after(3_000, Event::Mutation(id));
            }
            Attempt::Wait | Attempt::Passing | Attempt::Refused(_) if run.attempt < 5 => {
                (run.attempt, run.waited) = (run.attempt + 1, 0);
                let jitter = self.rng.below(10_000);
                self.after((5_000 << attempt) + jitter, Event::Mutation(id));
            }
            _ => {
                run.result = MutateResult::Busy;
                self.answer_soon(id);
            }
        }
        self.db.end(tx);
    }

    fn attempt(
        &mut self,
        tx: TxId,
        client: &str,
        confirmed: u64,
        mutation: &Mutation,
        refusal: Option<Refusal>,
    ) -> Attempt {
        let applied = refusal.is_none();
        match self.claim(tx, client, confirmed, mutation, refusal.as_ref()) {
            Ok(true) => {}
            Ok(false) => return self.stored(tx, client, mutation),
            Err(_) => return Attempt::Wait,
        }
        if applied {
            // A deadlock or a serialization failure.
            if self.rng.one_in(12) {
                self.fault("commit_passing_failure");
                if self.plant == Some(Plant::RefuseDeadlock) {
                    return Attempt::Refused(Refusal::new("40P01", "deadlock detected"));
                }
                return Attempt::Passing;
            }
            let operations = match mutation.operations() {
                Ok(operations) => operations,
                Err(refusal) => return Attempt::Refused(refusal),
            };
            for operation in &operations {
                match self.operate(tx, operation) {
                    Ok(()) => {}
                    Err(Some(refusal)) => return Attempt::Refused(refusal),
                    Err(None) => return Attempt::Wait,
                }
            }
        }
        if let Some(open) = self.db.open.get_mut(&tx) {
            open.decided.push(Decided { id: mutation.id.clone(), applied });
        }
        Attempt::Committing
    }

    /// The compare-and-set. The client's row is published.
    fn claim(
        &mut self,
        tx: TxId,
        client: &str,
        confirmed: u64,
        mutation: &Mutation,
        refusal: Option<&Refusal>,
    ) -> Result<bool, Stuck> {
        let text = |t: &str| Some(Text::from(t));
        let outcome = text(if refusal.is_some() { "refused" } else { "applied" });
        let (code, message) = (refusal.and_then(|r| text(&r.code)), refusal.and_then(|r| text(&r.message)));
        let number = Some(Text::from(mutation.n.to_string()));
        let row: Row = vec![
            text(""),
            text(client),
            number.clone(),
            text(&mutation.id),
            outcome.clone(),
            code.clone(),
            message.clone(),
            text("now"),
        ];
        let key: Key = vec!["".into(), client.into()];
        let last = self.db.client_at(tx, client).map(|(last, _)| last);
        let again = self.plant == Some(Plant::DoubleApply) && last >= Some(mutation.n);
        match last {
            Some(last) if last + 1 == mutation.n || again => {
                self.db.statement(tx, CLIENTS, &[Op::Update(key, row)])?
            }
            None if mutation.n == 1 => self.db.statement(tx, CLIENTS, &[Op::Insert(row)])?,
            _ => return Ok(false),
        }
        let stored: Row = vec![text(""), text(client), number, text(&mutation.id), outcome, code, message];
        let key = self.db.schema.key_of(MUTATIONS, &stored);
        let known = self.db.row(tx, MUTATIONS, &key).is_some();
        let op = if known { Op::Update(key, stored) } else { Op::Insert(stored) };
        self.db.statement(tx, MUTATIONS, &[op])?;
        let low: Key = vec!["".into(), client.into(), "".into()];
        let own = self.db.visible[MUTATIONS].range(low..).map(|(k, _)| k).take_while(|k| &*k[1] == client);
        let forget = own.filter(|k| k[2].parse::<u64>().is_ok_and(|n| n <= confirmed));
        let forget: Vec<Op> = forget.map(|k| Op::Delete(k.clone())).collect();
        if !forget.is_empty() {
            self.db.statement(tx, MUTATIONS, &forget)?;
        }
        Ok(true)
    }

    fn stored(&mut self, tx: TxId, client: &str, mutation: &Mutation) -> Attempt {
        let Some((last, newest)) = self.db.client_at(tx, client) else {
            return Attempt::Stop(MutateResult::UnknownClient);
        };
        if last < mutation.n {
            return Attempt::Stop(MutateResult::Gap { last });
        }
        let key: Key = vec!["".into(), client.into(), mutation.n.to_string().into()];
        let id = self.db.row(tx, MUTATIONS, &key).and_then(|r| r[3].clone());
        let id = id.or(Some(newest).filter(|_| last == mutation.n));
        match id.as_deref() {
            Some(id) if id == mutation.id => Attempt::Already,
            Some(_) => Attempt::Stop(MutateResult::Renumber { last: mutation.n - 1 }),
            None => Attempt::Stop(MutateResult::UnknownClient),
        }
    }

    fn operate(&mut self, tx: TxId, operation: &Operation) -> Result<(), Option<Refusal>> {
        let (name, given) = match operation {
            Operation::Insert { table, values } => (table, values),
            Operation::Update { table, set, .. } => (table, set),
            Operation::Delete { table, key, .. } => (table, key),
        };
        if given.get("n").and_then(Json::as_u64) == Some(FORBIDDEN) {
            return Err(Some(Refusal::new("P0001", "forbidden")));
        }
        let names = self.db.schema.tables[..APP_TABLES].iter().position(|t| t.table.name == *name);
        let Some(table) = names else { return Err(Some(Refusal::new("unknown_table", "no such table"))) };
        let columns: Vec<String> =
            self.db.schema.tables[table].table.columns.iter().map(|c| c.name.clone()).collect();
        let value = |values: &BTreeMap<String, Json>, name: &String| values.get(name).map(text_of);
        let key_columns = self.db.schema.tables[table].table.key.clone();
        let key_of = |key: &BTreeMap<String, Json>| -> Key {
            key_columns.iter().map(|c| value(key, &columns[*c]).unwrap_or_else(|| "".into())).collect()
        };
        let op = match operation {
            Operation::Insert { values, .. } => {
                Op::Insert(columns.iter().map(|c| value(values, c)).collect())
            }
            Operation::Update { key, set, .. } => {
                let key = key_of(key);
                let Some(mut row) = self.db.row(tx, table, &key).cloned() else { return Ok(()) };
                for (at, name) in columns.iter().enumerate() {
                    if let Some(new) = value(set, name) {
                        row[at] = Some(new);
                    }
                }
                Op::Update(key, row)
            }
            Operation::Delete { key, .. } => Op::Delete(key_of(key)),
        };
        match self.db.statement(tx, table, &[op]) {
            Ok(()) => Ok(()),
            Err(Stuck::Locked) => Err(None),
            Err(Stuck::Duplicate) => Err(Some(Refusal::new("23505", "duplicate key"))),
        }
    }

    /// COMMIT has returned.
    pub(super) fn mutation_committed(&mut self, id: AskId, xid: Option<u64>) {
        let Some(Ask { question: Question::Mutate(run), .. }) = self.asks.get_mut(&id) else { return };
        run.committed.extend(xid);
        run.at += 1;
        (run.attempt, run.waited) = (0, 0);
        self.after(50, Event::Mutation(id));
    }

    /// The answer to a mutate message has come, or never will.
    pub(super) fn mutated(&mut self, at: usize, run: Run, failed: bool) {
        let fresh = self.fresh_client();
        let result = if failed { MutateResult::Busy } else { run.result };
        let request = run.request;
        if self.plant == Some(Plant::AckBeforeRows) && !run.committed.is_empty() {
            self.acknowledge_early(
                at,
                request.session,
                &request.mutations[..run.at.min(request.mutations.len())],
            );
        }
        self.nodes[at].hub.handle_mutated(request.session, &request.reply, &run.committed, result, &fresh);
        let queue = self.nodes[at].mutating.entry(request.session).or_default();
        queue.pop_front();
        if queue.is_empty() {
            self.nodes[at].mutating.remove(&request.session);
        } else {
            self.run_mutation(at, request.session);
        }
    }

    /// The plant.
    fn acknowledge_early(&mut self, at: usize, session: SessionId, mutations: &[Mutation]) {
        let outcome = |m: &Mutation| lockstep_core::mutation::Outcome {
            n: m.n,
            id: m.id.as_str().into(),
            refusal: None,
        };
        let applied = |m: &&Mutation| self.decisions.get(&m.id).is_some_and(|d| d.0 > 0);
        let outcomes: Vec<_> = mutations.iter().filter(applied).map(outcome).collect();
        let Some((commit, _)) = self.nodes[at].last_commit.get(&session).cloned() else { return };
        let frames: [Frame; 2] = [ack_frame(&outcomes), commit.into_bytes().into()];
        if let Some(link) = self.links.get_mut(&session) {
            for frame in frames {
                // A full queue closes the session at the next frame.
                let _ = link.queue.push(frame);
            }
            self.deliver_soon(session);
        }
    }
}

fn text_of(value: &Json) -> Text {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).into()
}
