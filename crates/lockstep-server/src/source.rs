//! Keeps the node fed: who the database is, what is tracked, and a replication stream.

use crate::health::Health;
use crate::janitor;
use crate::node::{Event, StreamHandle};
use crate::tasks::Database;
use bytes::Bytes;
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::hub::Identity;
use lockstep_core::position::Lsn;
use lockstep_pg::lease::{Lease, within};
use lockstep_pg::rights::{self, Kind};
use lockstep_pg::target::Target;
use lockstep_pg::{PgError, catalog, connect, poll, replication_stream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// Between two looks at the catalog: tables tracked or changed meanwhile.
const CATALOG_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at what the roles may do, but for those when the catalog has changed or something was lacking.
const RIGHTS_EVERY: Duration = Duration::from_secs(10);
/// So many looks may fail one after another before the stream is given up for it.
const CATALOG_MISSES: u32 = 3;
/// Between two tries to reach the database, first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A stream that lived so long begins anew with the shortest wait.
const STEADY: Duration = Duration::from_secs(5);
/// The same trouble is said again after so long.
const SAY_AGAIN: Duration = Duration::from_secs(300);
/// Batches of stream messages between the socket and the hub, each of what one read brought. Few: TCP holds the rest
/// back.
const STREAM_BATCHES: usize = 8;
/// A stream may be silent so many times longer than a question may stay unanswered.
const SILENCE: u32 = 6;

/// What the source's loop needs.
#[derive(Debug)]
pub struct Source {
    /// The primary.
    pub target: Target,
    /// The same, for replication: never through a pooler.
    pub replication: Target,
    /// Connections to it.
    pub database: Arc<Database>,
    /// To the node.
    pub events: mpsc::Sender<Event>,
    /// The node asks for another stream.
    pub restart: Arc<Notify>,
    /// Becomes true when the node stops.
    pub stop: watch::Receiver<bool>,
    /// For operators.
    pub health: Arc<Health>,
}

/// What outlives a stream.
#[derive(Debug, Default)]
struct Known {
    /// What the node was told last. Telling it anew throws running catch-ups away: a role that may not replicate
    /// would never get a load done that takes longer than the wait between two tries.
    told: Option<(Identity, Arc<Catalog>)>,
    said: Option<(String, Instant)>,
    reached: bool,
}

impl Source {
    /// Runs until the node stops. Every failure is tried again; one that stays is said once.
    pub async fn run(self) {
        let mut known = Known::default();
        let mut wait = RETRY.0;
        let mut stop = self.stop.clone();
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                result = self.feed(&mut known) => result,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            // Before any wait: until another stream runs, clients are served by polling.
            if self.events.send(Event::StreamLost).await.is_err() {
                return;
            }
            if began.elapsed() >= STEADY {
                wait = RETRY.0;
            }
            match ended {
                Ok(()) => {
                    tracing::info!("the replication stream is started anew");
                    known.told = None;
                }
                Err(error) => self.say(&error, &mut known),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            wait = (wait * 2).min(RETRY.1);
        }
    }

    fn say(&self, error: &PgError, known: &mut Known) {
        let place = self.target.place();
        let mut text = format!("{place}: {error}");
        if let Some(advice) = error.advice() {
            text = format!("{text}; {advice}");
        }
        self.health.trouble(error.code(), &text, known.reached);
        let said = known.said.as_ref().is_some_and(|(t, at)| *t == text && at.elapsed() < SAY_AGAIN);
        if said {
            tracing::debug!("{text}");
        } else {
            tracing::warn!(code = error.code(), "{text}; trying again until it works");
            known.said = Some((text, Instant::now()));
        }
    }

    async fn tell(&self, event: Event) -> Result<(), PgError> {
        self.events.send(event).await.map_err(|_| PgError::Protocol("the node has stopped"))
    }

    /// One life of a stream. Ends in Ok when another one is wanted.
    async fn feed(&self, known: &mut Known) -> Result<(), PgError> {
        known.reached = false;
        let (identity, loaded) = self.identify().await?;
        known.reached = true;
        if self.health.reached() {
            tracing::info!("connected to {}", self.target.place());
        }
        let (system, mark) = (identity.system, identity.incarnation);
        if known.told.as_ref().is_none_or(|(i, c)| *i != identity || !c.same(&loaded)) {
            // Before anybody is judged by it: clients come back from the old timeline at once, and a slot takes longer.
            let history = self.history(&identity).await;
            self.tell(Event::Database(identity.clone(), loaded.clone(), history)).await?;
            known.told = Some((identity, loaded.clone()));
        } else {
            self.tell(Event::SameDatabase).await?;
        }
        tokio::select! {
            result = self.stream(system, &mut known.said) => result,
            result = self.watch_catalog() => result,
            () = janitor::keep_mark(&self.database, mark) => {
                Err(PgError::Protocol("the database was rolled back to an earlier state"))
            }
            () = self.restart.notified() => Ok(()),
        }
    }

    async fn identify(&self) -> Result<(Identity, Arc<Catalog>), PgError> {
        let answer = self.database.answer;
        let lease = Lease::of(&self.database.control).await?;
        let asked = within(answer, async {
            // First: without rights the questions below fail one by one.
            let ours = rights::missing(&*lease, Kind::Node).await?.ours;
            if !ours.is_empty() {
                return Err(PgError::Rights(ours.join("; ")));
            }
            let (system, timeline, database) = poll::identify(&*lease).await?;
            let loaded = Arc::new(catalog::load(&*lease).await?);
            let mark = poll::mark(&*lease).await?;
            Ok((Identity { system, timeline, database, incarnation: mark }, loaded))
        })
        .await;
        let (identity, loaded) = lease.end(asked, answer).await?;
        self.check_writer(&identity).await?;
        self.look_at_rights().await;
        Ok((identity, loaded))
    }

    /// Clients' writes must come back in the stream.
    async fn check_writer(&self, identity: &Identity) -> Result<(), PgError> {
        let answer = self.database.answer;
        let lease = Lease::of(&self.database.writer).await?;
        let asked = within(answer, poll::identify(&*lease)).await;
        let (system, _, database) = lease.end(asked, answer).await?;
        let same = (system, database) == (identity.system, identity.database);
        if same { Ok(()) } else { Err(PgError::Elsewhere("--write-url")) }
    }

    /// Says which GRANTs would let this node serve and write everything that is tracked. Without those on one table,
    /// all others are served.
    async fn look_at_rights(&self) {
        let answer = self.database.answer;
        let mut grants = Vec::new();
        for (pool, kind) in [(&self.database.control, Kind::Node), (&self.database.writer, Kind::Writer)] {
            let Ok(lease) = Lease::of(pool).await else { return };
            let asked = within(answer, rights::missing(&*lease, kind)).await;
            // Whether the database can be asked at all is said elsewhere.
            let Ok(missing) = lease.end(asked, answer).await else { return };
            grants.extend(missing.ours.into_iter().chain(missing.theirs));
        }
        let text = (!grants.is_empty()).then(|| format!("rights are lacking; run: {}", grants.join("; ")));
        if self.health.lacking(text.clone())
            && let Some(text) = text
        {
            tracing::warn!("{text}");
        }
    }

    /// Where earlier timelines ended. Nothing for a role that may not replicate: clients from there load anew.
    async fn history(&self, identity: &Identity) -> Vec<(u32, Lsn)> {
        if identity.timeline == 1 {
            return Vec::new();
        }
        let answer = self.database.answer;
        let asked = async {
            let mut wire = connect::replication(&self.replication, answer).await?;
            let identified = within(answer, replication_stream::identify(&mut wire)).await?;
            wire.terminate().await;
            Ok::<_, PgError>(identified)
        };
        match asked.await {
            Ok(identified) if identified.system == identity.system => identified.history,
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::debug!(%error, "where earlier timelines ended is not known");
                Vec::new()
            }
        }
    }

    async fn stream(&self, system: u64, said: &mut Option<(String, Instant)>) -> Result<(), PgError> {
        let answer = self.database.answer;
        let mut wire = connect::replication(&self.replication, answer).await?;
        let identified = within(answer, replication_stream::identify(&mut wire)).await?;
        if identified.system != system {
            return Err(PgError::Elsewhere("--replication-url"));
        }
        let slot = format!("lockstep_{:016x}", rand::random::<u64>());
        let lease = Lease::of(&self.database.control).await?;
        let sibling = within(answer, poll::sibling_slot(&*lease)).await;
        let sibling = lease.end(sibling, answer).await?;
        let copied = match &sibling {
            Some(theirs) => {
                match within(answer, replication_stream::copy_slot(&mut wire, theirs, &slot)).await {
                    Err(error @ PgError::Server { .. }) => {
                        tracing::info!(%error, "another node's slot could not be copied; making one");
                        false
                    }
                    copied => copied.map(|()| true)?,
                }
            }
            None => false,
        };
        if !copied {
            tracing::info!(
                "making a slot; this waits for writing transactions that are open, clients are polled for meanwhile"
            );
            // As long as it takes. The kernel looks after the connection meanwhile.
            replication_stream::create_slot(&mut wire, &slot).await?;
        }
        let lease = Lease::of(&self.database.control).await?;
        let reference = within(answer, poll::poll(&*lease, 0)).await;
        let reference = lease.end(reference, answer).await?.snapshot.xmax();
        within(answer, replication_stream::start(&mut wire, &slot)).await?;
        let (feedback, feedback_in) = mpsc::unbounded_channel();
        let (bytes_out, bytes) = mpsc::channel::<Vec<Bytes>>(STREAM_BATCHES);
        let history: Vec<(u32, Lsn)> = identified.history;
        self.tell(Event::StreamStarted(StreamHandle { reference, history, feedback, bytes })).await?;
        *said = None;
        self.health.streaming(&slot);
        tracing::info!(slot, copied_from = sibling.filter(|_| copied), "streaming");
        replication_stream::run(wire, bytes_out, feedback_in, answer * SILENCE).await
    }

    /// Looks at what is tracked, and how it looks. Whatever else notices a change is faster; this notices all of them.
    async fn watch_catalog(&self) -> Result<(), PgError> {
        let mut every = tokio::time::interval(CATALOG_EVERY);
        let mut misses = 0;
        let mut last: Option<Arc<Catalog>> = None;
        let mut looked = Instant::now();
        loop {
            every.tick().await;
            match self.database.read_catalog().await {
                Ok(now) => {
                    misses = 0;
                    let changed = last.replace(now.clone()).is_none_or(|before| !before.same(&now));
                    if changed || self.health.lacks_rights() || looked.elapsed() >= RIGHTS_EVERY {
                        self.look_at_rights().await;
                        looked = Instant::now();
                    }
                    self.tell(Event::Catalog(Ok(now))).await?;
                }
                Err(error) => {
                    misses += 1;
                    tracing::info!(%error, misses, "the catalog could not be read");
                    if misses == CATALOG_MISSES {
                        return Err(error);
                    }
                }
            }
        }
    }
}
