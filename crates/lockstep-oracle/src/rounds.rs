//! The life of a world: rounds of writing, one fault each, and a judgement after each.

use crate::disk;
use crate::faults::{self, Kind};
use crate::options::Options;
use crate::reader::{Compared, Order};
use crate::report::Report;
use crate::shapes::Truth;
use crate::world::World;
use anyhow::{Context, Result};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Faults of one world.
const FAULTS: usize = 9;
/// A client that is not in step after this has hung.
const IN_STEP: Duration = Duration::from_secs(40);
/// The same where a fault is planted, and hanging is what is looked for.
const IN_STEP_PLANTED: Duration = Duration::from_secs(6);
/// A round that is not over after this hangs somewhere else.
const ROUND: Duration = Duration::from_secs(180);
/// In so many seconds every kind of fault and statement takes place.
const COMPLETE: u64 = 300;
/// A node streams again after this.
const LIVE: Duration = Duration::from_secs(30);

/// Worlds until time is up or something is wrong.
pub async fn run(options: &Options) -> Result<Report> {
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let mut seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let mut total = Report::default();
    let mut major = 0;
    while Instant::now() < deadline && total.violations.is_empty() {
        let kinds = kinds(seed, options)?;
        let mut world = World::start(seed, options, kinds.contains(&disk::FULL) && !options.no_disk).await?;
        let wrong = world.live(&kinds, deadline).await;
        let wrong = match wrong {
            Ok(wrong) => wrong,
            Err(error) => Some(format!("the world broke: {error:#}")),
        };
        world.end(&mut total);
        major = world.cluster.major();
        if let Some(wrong) = wrong {
            let plant = options.plant.map(|p| format!(" --plant {p}")).unwrap_or_default();
            let fault = options.fault.as_ref().map(|f| format!(" --fault {f}")).unwrap_or_default();
            let line =
                format!("cargo x oracle --seconds 120 --pg {major} --seed {seed}{plant}{fault}: {wrong}");
            eprintln!("{line}");
            total.violations.push(line);
            if std::env::var_os("LOCKSTEP_ORACLE_LOGS").is_some() {
                world.print_logs();
            }
        }
        seed += 1;
    }
    let complete = options.seconds >= COMPLETE && options.fault.is_none() && total.violations.is_empty();
    let missing = if complete { total.missing(major) } else { Vec::new() };
    if !missing.is_empty() {
        let line = format!("in {} s none of these took place: {}", options.seconds, missing.join(", "));
        eprintln!("{line}");
        total.violations.push(line);
    }
    Ok(total)
}

/// A world's faults follow from its seed alone, so that it can be replayed.
fn kinds(seed: u64, options: &Options) -> Result<Vec<Kind>> {
    if let Some(named) = &options.fault {
        let kind = faults::ALL.iter().chain(&[faults::DEAD]).find(|k| **k == named.as_str());
        let kind = kind
            .with_context(|| format!("no fault is called {named}; there are {}", faults::ALL.join(", ")))?;
        return Ok(vec![*kind; FAULTS]);
    }
    let start = usize::try_from(seed % faults::ALL.len() as u64)? * FAULTS;
    Ok((start..start + FAULTS).map(|at| faults::ALL[at % faults::ALL.len()]).collect())
}

impl World {
    /// Rounds with and without faults. What is wrong, if anything.
    async fn live(&mut self, kinds: &[Kind], deadline: Instant) -> Result<Option<String>> {
        if let Some(wrong) = self.nodes_live().await {
            return Ok(Some(wrong));
        }
        let mut plan: Vec<Option<Kind>> = vec![None];
        for kind in kinds {
            plan.push(Some(*kind));
            if self.dice.chance(30) {
                plan.push(None);
            }
        }
        let last = plan.len() - 1;
        for (number, kind) in plan.into_iter().enumerate() {
            // Whatever the machine has to do besides, a world sees a fault before its time is up.
            if number > 1 && Instant::now() > deadline {
                break;
            }
            let round = tokio::time::timeout(ROUND, self.round(kind, number == last));
            let wrong = round.await.with_context(|| format!("round {number} is not over after {ROUND:?}"))?;
            if let Some(wrong) = wrong? {
                return Ok(Some(format!("round {number}, {}: {wrong}", kind.unwrap_or("no fault"))));
            }
        }
        Ok(None)
    }

    async fn round(&mut self, kind: Option<Kind>, last: bool) -> Result<Option<String>> {
        let began = Instant::now();
        let until = Instant::now() + Duration::from_millis(self.dice.between(500, 1400));
        // Writers go on for as long as a fault lasts.
        let running: Vec<_> =
            self.writers.drain(..).map(|w| tokio::spawn(w.run(until, usize::MAX))).collect();
        for at in 0..self.clients.len() {
            self.clients[at].tell(Order::Mutate(true));
            // Nobody's life ends unseen.
            if self.dice.chance(12) || last && !self.clients[at].online {
                let client = &mut self.clients[at];
                client.online = !client.online;
                client.tell(Order::Online(client.online));
            }
        }
        tokio::time::sleep(Duration::from_millis(self.dice.between(50, 500))).await;
        if let Some(kind) = kind
            && faults::strike(self, kind).await.with_context(|| kind.to_owned())?
        {
            self.report.count(kind);
        }
        for writer in running {
            self.writers.push(writer.await?);
        }
        for client in &self.clients {
            client.tell(Order::Mutate(false));
        }
        self.calm();
        let wrong = self.judge(kind).await;
        if std::env::var_os("LOCKSTEP_ORACLE_TRACE").is_some() {
            let states = self.report.states_checked;
            eprintln!(
                "{:>6} ms {} tx {states} states {}",
                began.elapsed().as_millis(),
                self.transactions(),
                kind.unwrap_or("-")
            );
        }
        wrong
    }

    async fn judge(&mut self, kind: Option<Kind>) -> Result<Option<String>> {
        self.finish_prepared().await?;
        if kind != Some("transaction-held") && self.dice.chance(50) {
            self.let_go().await;
        }
        let sql = self.sql().await?;
        let sum = "select ((select sum(amount) from purse_a) + (select sum(amount) from purse_b))::int8";
        let sum: i64 = sql.query_one(sum, &[]).await?.get(0);
        anyhow::ensure!(sum == crate::schema::MONEY, "the oracle's own writers lost money: {sum}");
        if let Some(wrong) = self.in_step().await? {
            return Ok(Some(wrong));
        }
        if let Err(wrong) = self.shared.ledger.check(&sql).await? {
            return Ok(Some(wrong));
        }
        if let Some(wrong) = self.resync_was_told(kind).await {
            return Ok(Some(wrong));
        }
        if self.held.is_none()
            && let Some(wrong) = self.nodes_live().await
        {
            return Ok(Some(wrong));
        }
        if let Some(wrong) = self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(Some(wrong));
        }
        Ok(self.logs_are_explained(kind))
    }

    async fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            let end = if self.dice.chance(70) { "commit" } else { "rollback" };
            // A fault may have ended it.
            let _ = held.batch_execute(end).await;
        }
    }

    /// Transactions whose writer lost its connection between the two phases.
    async fn finish_prepared(&mut self) -> Result<()> {
        let sql = self.sql().await?;
        for row in sql.query("select gid from pg_prepared_xacts", &[]).await? {
            let end = if self.dice.chance(50) { "commit" } else { "rollback" };
            sql.batch_execute(&format!("{end} prepared '{}'", row.get::<_, String>(0))).await?;
        }
        Ok(())
    }

    /// Every client that is online shows what PostgreSQL has, and every mutation is decided.
    async fn in_step(&mut self) -> Result<Option<String>> {
        let online: Vec<usize> = (0..self.clients.len()).filter(|c| self.clients[*c].online).collect();
        let patience = if self.planted { IN_STEP_PLANTED } else { IN_STEP };
        let deadline = Instant::now() + patience;
        for at in &online {
            let (tell, told) = oneshot::channel();
            self.clients[*at].tell(Order::Drain(tell));
            if tokio::time::timeout_at(deadline.into(), told).await.is_err() {
                let (tell, told) = oneshot::channel();
                self.clients[*at].tell(Order::Outbox(tell));
                let outbox = tokio::time::timeout(Duration::from_secs(5), told).await;
                let outbox = outbox.ok().and_then(Result::ok).unwrap_or_else(|| "it does not answer".into());
                let states = self.states().await;
                let stored = self.stored(outbox.split(':').next().unwrap_or_default()).await?;
                return Ok(Some(format!(
                    "client {at} hangs: its mutations are not decided within {patience:?}: {outbox}; stored {stored}{states}"
                )));
            }
        }
        let sql = self.sql().await?;
        let shapes = online.iter().flat_map(|c| self.clients[*c].shapes.clone());
        let truth = Arc::new(Truth::read(&self.shared.schema, &sql, shapes).await?);
        let mut waiting = Vec::new();
        for at in online {
            let (tell, told) = oneshot::channel();
            self.clients[at].tell(Order::Expect(truth.clone(), tell));
            waiting.push((at, told));
        }
        let deadline = Instant::now() + patience;
        for (at, told) in waiting {
            let Ok(Ok(Compared { rows, changed })) = tokio::time::timeout_at(deadline.into(), told).await
            else {
                let (tell, told) = oneshot::channel();
                self.clients[at].tell(Order::Differ(truth, tell));
                let differs = tokio::time::timeout(Duration::from_secs(5), told).await;
                let differs =
                    differs.ok().and_then(Result::ok).unwrap_or_else(|| "it does not answer".into());
                return Ok(Some(format!(
                    "client {at} is not in step after {patience:?}: {differs}{}",
                    self.states().await
                )));
            };
            self.report.rows_compared += rows;
            self.report.states_checked += u64::from(changed >= 10);
        }
        Ok(None)
    }

    /// What the database knows of a client's mutations.
    async fn stored(&self, client: &str) -> Result<String> {
        let sql = "select coalesce(string_agg(n || ' ' || id || ' ' || outcome, ', ' order by n), 'nothing') || '; last ' || \
                   coalesce((select last::text from lockstep.clients where client = $1), 'unknown') \
                   from lockstep.mutations where client = $1";
        Ok(self.sql().await?.query_one(sql, &[&client]).await?.get(0))
    }

    /// After lost commits a client must have been told so.
    async fn resync_was_told(&self, kind: Option<Kind>) -> Option<String> {
        let mut told_any = false;
        for client in self.clients.iter().filter(|c| c.online) {
            let (tell, told) = oneshot::channel();
            client.tell(Order::Resets(tell));
            told_any |= told.await.is_ok_and(|reasons| reasons.iter().any(|r| r == "other_timeline"));
        }
        (kind == Some("standby-promoted-lossy") && !told_any)
            .then(|| "commits were lost, and no client was told other_timeline".into())
    }

    async fn states(&self) -> String {
        let mut text = String::new();
        for site in &self.sites {
            let health = match &site.node {
                Some(node) => node.health().await,
                None => None,
            };
            text += &format!("; node: {}", health.unwrap_or_default());
        }
        text
    }

    /// Every node runs and streams.
    async fn nodes_live(&mut self) -> Option<String> {
        let deadline = Instant::now() + LIVE;
        for at in 0..self.sites.len() {
            loop {
                let Some(node) = &mut self.sites[at].node else { return Some("a node is missing".into()) };
                if !node.is_running() {
                    return Some(format!("a node ended by itself: {:?}", node.log_from(0).last()));
                }
                let health = node.health().await.unwrap_or_default();
                if health["status"] == "live" {
                    break;
                }
                if Instant::now() > deadline {
                    return Some(format!(
                        "node {at} is not live after {LIVE:?}: {health}; {:?}",
                        node.log_from(0).last()
                    ));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        None
    }

    /// A node warns of faults only.
    fn logs_are_explained(&mut self, kind: Option<Kind>) -> Option<String> {
        let quiet = kind.is_none_or(faults::is_quiet) && self.held.is_none();
        let mut found = None;
        for site in &mut self.sites {
            let lines = site.node.as_ref().map(|n| n.log_from(site.read)).unwrap_or_default();
            site.read += lines.len();
            let bad = |line: &&String| {
                // A pool finds out that a connection ended when it is next asked for one.
                let late = line.contains("could not be recycled");
                line.contains("panicked")
                    || quiet && !late && (line.contains(" WARN ") || line.contains("ERROR "))
            };
            found = found.or_else(|| lines.iter().find(bad).map(|line| format!("the node says: {line}")));
        }
        found
    }

    fn print_logs(&self) {
        for site in &self.sites {
            let lines = site.node.as_ref().map(|n| n.log_from(0)).unwrap_or_default();
            eprintln!("--- node\n{}", lines.join("\n"));
        }
        eprintln!("--- PostgreSQL\n{}", self.cluster.log_tail());
    }

    /// Adds what it counted.
    fn end(&mut self, total: &mut Report) {
        total.transactions += self.transactions();
        let (applied, conflicts) = self.shared.ledger.conditional();
        total.conditional = (total.conditional.0 + applied, total.conditional.1 + conflicts);
        total.invariant_checks += self.shared.checks.load(Ordering::Relaxed);
        total.states_checked += self.report.states_checked;
        total.rows_compared += self.report.rows_compared;
        for (kind, count) in &self.report.faults {
            *total.faults.entry(kind).or_default() += count;
        }
        for (kind, count) in &*self.app.done.lock().unwrap_or_else(PoisonError::into_inner) {
            *total.statements.entry(kind).or_default() += count;
        }
        total.skipped.extend(self.report.skipped.clone());
    }
}
