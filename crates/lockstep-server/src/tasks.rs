//! Questions to PostgreSQL: each a task that ends in one event.

use crate::config::Serve;
use crate::load::Rows;
use crate::metrics;
use crate::node::Event;
use anyhow::{Context, Result};
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::hub::{CatchUpError, CatchUpRequest, MutateRequest, MutateResult};
use lockstep_core::limits;
use lockstep_core::position::{Lsn, Xid};
use lockstep_pg::connect::Pool;
use lockstep_pg::lease::{Lease, within};
use lockstep_pg::mutate::Ran;
use lockstep_pg::readers::Readers;
use lockstep_pg::size::Size;
use lockstep_pg::target::Target;
use lockstep_pg::{PgError, catalog, catch_up, mutate, poll, size};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// Polls, fences and the look at the catalog: one at a time of each, and one to spare.
const CONTROL_CONNECTIONS: usize = 4;
/// Connections that mutations are tried on before whoever sent them is told to come back later.
const CONNECTIONS_TRIED: u32 = 3;

/// The ways to the database. Three pools: catch-ups may take long and writes may wait for locks, and neither may
/// keep a poll or a fence from being asked, for which everybody waits.
#[derive(Debug)]
pub struct Database {
    /// For small questions.
    pub control: Pool,
    /// For small questions about the role that writes.
    pub writer: Pool,
    reads: Readers,
    writes: Pool,
    /// How long a small question may stay unanswered.
    pub answer: Duration,
    /// One estimate at a time: they take the connection that is to spare.
    estimating: Mutex<()>,
}

impl Database {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// If the URL cannot be read.
    pub fn new(settings: &Serve) -> Result<Self> {
        let answer = settings.database_timeout;
        let target = Target::parse(&settings.database_url)?;
        let write = Target::parse(&settings.write_url).context("--write-url")?;
        let control = Pool::new(&target, CONTROL_CONNECTIONS, answer)?;
        let same = settings.write_url == settings.database_url;
        Ok(Self {
            writer: if same { control.clone() } else { Pool::new(&write, 1, answer)? },
            control,
            reads: Readers::new(&target, settings.read_connections.max(1), answer),
            writes: Pool::new(&write, settings.write_connections.max(1), answer)?,
            answer,
            estimating: Mutex::new(()),
        })
    }

    /// Takes S, F and the flush position.
    pub async fn poll(self: Arc<Self>, number: u64) -> Event {
        let answer = async {
            let lease = Lease::of(&self.control).await?;
            let polled = within(self.answer, poll::poll(&*lease, number)).await;
            lease.end(polled, self.answer).await
        };
        Event::Polled(number, answer.await)
    }

    /// Pushes the watermark past every fence.
    pub async fn push_fence(self: Arc<Self>, number: u64) -> Event {
        let pushed: Result<(), PgError> = async {
            let lease = Lease::of(&self.control).await?;
            let pushed = within(self.answer, poll::push_fence(&*lease)).await;
            lease.end(pushed, self.answer).await
        }
        .await;
        if let Err(error) = &pushed {
            tracing::info!(%error, "a fence could not be pushed; it is tried again");
        }
        Event::Pushed(number, pushed.is_ok())
    }

    /// Reads the catalog in one snapshot.
    pub async fn read_catalog(&self) -> Result<Arc<Catalog>, PgError> {
        let lease = Lease::of(&self.control).await?;
        let loaded = within(self.answer, catalog::load(&*lease)).await;
        lease.end(loaded, self.answer).await.map(Arc::new)
    }

    /// The same, for the hub.
    pub async fn catalog(self: Arc<Self>) -> Event {
        Event::Catalog(self.read_catalog().await)
    }

    /// Which of these transactions wrote.
    pub async fn gap(self: Arc<Self>, xids: Vec<Xid>) -> Event {
        let answer = async {
            let lease = Lease::of(&self.control).await?;
            let wrote = within(self.answer, poll::wrote(&*lease, &xids)).await;
            lease.end(wrote, self.answer).await
        };
        Event::Gap(answer.await)
    }

    /// Reads shapes in one snapshot. Rows of large ones are told while they are read.
    pub async fn catch_up(
        self: Arc<Self>,
        request: CatchUpRequest,
        history: Arc<Vec<(u32, Lsn)>>,
        events: mpsc::Sender<Event>,
    ) -> Event {
        let answer = async {
            let mut reader = self.reads.lend().await?;
            let mut rows = Rows::of(request.id, events, self.clone());
            let read = catch_up::read(&mut reader, &request, &history, self.answer, &mut rows).await;
            reader.end(read).await
        };
        let answer = answer.await.map_err(|error| match error {
            PgError::SchemaChanged => CatchUpError::SchemaChanged,
            other => {
                tracing::info!(error = %other, "a catch-up failed and is tried again");
                CatchUpError::Passing(other.to_string())
            }
        });
        Event::CaughtUp(request.id, answer)
    }

    /// About how many rows a load has; None if that cannot be said, or not at once.
    pub async fn estimate(&self, size: &Size) -> Option<u64> {
        let estimate = async {
            let _alone = self.estimating.lock().await;
            let lease = Lease::of(&self.control).await?;
            let about = size::about(&*lease, size).await;
            lease.end(about, self.answer).await
        };
        let about = within(Duration::from_millis(2 * limits::ESTIMATE_MS), estimate).await;
        about.inspect_err(|error| tracing::debug!(%error, "how large a load is could not be asked")).ok()?
    }

    /// Runs a client's mutations.
    pub async fn mutate(self: Arc<Self>, request: MutateRequest, catalog: Arc<Catalog>) -> Event {
        let (ran, result) = self.run_mutations(&request, &catalog).await;
        Event::Mutated(request.session, request.reply, ran.committed, result)
    }

    async fn run_mutations(&self, request: &MutateRequest, catalog: &Catalog) -> (Ran, MutateResult) {
        let (ran, result) = match Lease::of(&self.writes).await {
            Ok(lease) => {
                let (ran, result) = mutate::run(&lease, request, catalog).await;
                let clean = match result {
                    MutateResult::Busy => Err(PgError::Protocol("during a mutation")),
                    _ => Ok(()),
                };
                // An error only decides whether the connection can be used again.
                let _ = lease.end(clean, self.answer).await;
                (ran, result)
            }
            Err(error) => {
                tracing::warn!(%error, "no connection for a client's write; the client sends it again");
                (Ran::default(), MutateResult::Busy)
            }
        };
        metrics::mutated(&ran, result);
        (ran, result)
    }

    /// The same for somebody who waits for the outcomes: also where all that was decided is durable. A connection that
    /// was lost says nothing of what it carried, so the same numbers are tried again on others.
    pub async fn mutate_durably(
        &self,
        request: &MutateRequest,
        catalog: &Catalog,
    ) -> (Ran, MutateResult, Option<Lsn>) {
        let mut committed = Vec::new();
        let (mut ran, mut result) = (Ran::default(), MutateResult::Busy);
        for _ in 0..CONNECTIONS_TRIED {
            (ran, result) = self.run_mutations(request, catalog).await;
            committed.append(&mut ran.committed);
            if result != MutateResult::Busy {
                break;
            }
        }
        ran.committed = committed;
        let durable = async {
            let lease = Lease::of(&self.writes).await?;
            let durable = within(self.answer, mutate::durable(&lease)).await;
            lease.end(durable, self.answer).await
        };
        match durable.await {
            Ok(lsn) => (ran, result, Some(lsn)),
            Err(error) => {
                tracing::info!(%error, "whether mutations are durable could not be asked; the client sends them again");
                (Ran { outcomes: Vec::new(), ..ran }, MutateResult::Busy, None)
            }
        }
    }
}
