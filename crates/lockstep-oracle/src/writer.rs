//! One connection of the application that writes random transactions.

use crate::dice::Dice;
use crate::statements::{Statements, Step};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::SinkExt;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

/// A statement that waits longer has met a fault; its connection is made anew.
const STATEMENT: Duration = Duration::from_secs(15);

/// What all writers share.
#[derive(Debug)]
pub struct Application {
    /// The primary's URL; it changes at a failover.
    pub url: RwLock<String>,
    /// Statements.
    pub statements: Statements,
    /// Transactions that committed.
    pub committed: AtomicU64,
    /// What they did, by kind of statement.
    pub done: Mutex<BTreeMap<&'static str, u64>>,
}

impl Application {
    /// The primary's URL now.
    pub fn url(&self) -> String {
        self.url.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Opens a connection; waits while the server is down, until `deadline`.
pub async fn connect(url: impl Fn() -> String, deadline: Instant) -> Result<Client> {
    loop {
        let attempt =
            tokio::time::timeout(Duration::from_secs(5), tokio_postgres::connect(&url(), NoTls)).await;
        match attempt {
            Ok(Ok((client, connection))) => {
                tokio::spawn(connection);
                return Ok(client);
            }
            Ok(Err(error)) if Instant::now() > deadline => {
                return Err(error).context("PostgreSQL cannot be reached");
            }
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("PostgreSQL cannot be reached");
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A writer. Its number is its row in the pulse tables.
#[derive(Debug)]
pub struct Writer {
    number: usize,
    dice: Dice,
    app: Arc<Application>,
    client: Option<Client>,
    prepared: u64,
    /// What the transaction that runs has done.
    done: Vec<&'static str>,
}

impl Writer {
    /// A writer that is not connected yet.
    pub fn new(number: usize, seed: u64, app: Arc<Application>) -> Self {
        let dice = Dice::new(seed, &format!("writer {number}"));
        Self { number, dice, app, client: None, prepared: 0, done: Vec::new() }
    }

    /// Writes until told to stop; returns itself for the next batch.
    pub async fn run(mut self, until: Instant, at_most: usize) -> Self {
        for _ in 0..at_most {
            if Instant::now() > until {
                break;
            }
            let Some(client) = self.connected(until).await else { break };
            match tokio::time::timeout(STATEMENT, self.transaction(&client)).await {
                Ok(Ok(committed)) => {
                    if committed {
                        self.count();
                    }
                    self.client = Some(client);
                }
                // Refused by a rule of the database, or a deadlock: the connection is still good.
                Ok(Err(_)) if !client.is_closed() => {
                    let ended = tokio::time::timeout(STATEMENT, client.batch_execute("rollback")).await;
                    if ended.is_ok() {
                        self.client = Some(client);
                    }
                }
                _ => {}
            }
        }
        self
    }

    fn count(&mut self) {
        self.app.committed.fetch_add(1, Ordering::Relaxed);
        let mut all = self.app.done.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in self.done.drain(..) {
            *all.entry(kind).or_default() += 1;
        }
    }

    async fn connected(&mut self, until: Instant) -> Option<Client> {
        if let Some(client) = self.client.take().filter(|c| !c.is_closed()) {
            return Some(client);
        }
        let app = self.app.clone();
        let client = connect(|| app.url(), until).await.ok()?;
        client.batch_execute("set lock_timeout = '3s'; set statement_timeout = '10s'").await.ok()?;
        Some(client)
    }

    async fn transaction(&mut self, client: &Client) -> Result<bool> {
        self.done.clear();
        let levels = ["read committed", "read committed", "repeatable read", "serializable"];
        let level = *self.dice.pick(&levels);
        client.batch_execute(&format!("begin isolation level {level}")).await?;
        if self.dice.chance(50) {
            let how = *self.dice.pick(&["on", "off", "local", "remote_write"]);
            client.batch_execute(&format!("set local synchronous_commit = {how}")).await?;
        }
        let pulse = format!(
            "update pulse_a set n = n + 1 where writer = {w}; update pulse_b set n = n + 1 where writer = {w}",
            w = self.number
        );
        let early = self.dice.chance(50);
        if early {
            client.batch_execute(&pulse).await?;
        }
        for _ in 0..1 + self.dice.below(5) {
            self.step(client).await?;
        }
        if !early {
            client.batch_execute(&pulse).await?;
        }
        match self.dice.below(100) {
            0..8 => client.batch_execute("rollback").await.map(|()| false).map_err(Into::into),
            8..15 => self.two_phase(client).await,
            _ => client.batch_execute("commit").await.map(|()| true).map_err(Into::into),
        }
    }

    /// One thing, mostly in a savepoint: what fails in it is undone, and some of what succeeds too.
    async fn step(&mut self, client: &Client) -> Result<()> {
        let (kind, steps) = match self.dice.below(10) {
            0 | 1 => ("money", vec![Step::Sql(self.app.statements.move_money(&mut self.dice))]),
            2 => ("family", vec![Step::Sql(self.app.statements.family(&mut self.dice))]),
            _ => self.app.statements.random(&mut self.dice),
        };
        if self.dice.chance(10) {
            run(client, &steps).await?;
            self.done.push(kind);
            return Ok(());
        }
        client.batch_execute("savepoint s").await?;
        let ran = run(client, &steps).await;
        if ran.is_err() || self.dice.chance(15) {
            client.batch_execute("rollback to s").await?;
            self.done.extend(ran.is_ok().then_some("savepoint-undone"));
            return Ok(());
        }
        self.done.push(kind);
        if self.dice.chance(70) {
            client.batch_execute("release s").await?;
            self.done.push("savepoint-released");
        }
        Ok(())
    }

    /// The end may come from another connection, and after others have written.
    async fn two_phase(&mut self, client: &Client) -> Result<bool> {
        self.prepared += 1;
        let name = format!("w{}-{}-{}", self.number, self.prepared, self.dice.below(1_000_000));
        client.batch_execute(&format!("prepare transaction '{name}'")).await?;
        tokio::time::sleep(Duration::from_millis(self.dice.between(0, 40))).await;
        let commit = self.dice.chance(80);
        let end = if commit { "commit prepared" } else { "rollback prepared" };
        client.batch_execute(&format!("{end} '{name}'")).await?;
        self.done.push("two-phase");
        Ok(commit)
    }
}

async fn run(client: &Client, steps: &[Step]) -> Result<()> {
    for step in steps {
        match step {
            Step::Sql(sql) => drop(client.simple_query(sql).await?),
            Step::Copy(sql, data) => {
                let sink = client.copy_in::<_, Bytes>(sql).await?;
                let mut sink = pin!(sink);
                sink.send(Bytes::from(data.clone())).await?;
                sink.finish().await?;
            }
        }
    }
    Ok(())
}
