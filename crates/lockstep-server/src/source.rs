//! Keeps the node fed: who the database is, what is tracked, and a replication stream.

use crate::node::{Event, StreamHandle};
use anyhow::Result;
use bytes::Bytes;
use deadpool_postgres::Pool;
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::hub::Identity;
use lockstep_core::position::Lsn;
use lockstep_pg::{PgError, catalog, connect, poll, replication_stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// Between two looks at the catalog: tables tracked or changed meanwhile.
const CATALOG_EVERY: Duration = Duration::from_secs(2);
/// Between two tries to reach the database, first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Stream messages between the socket and the hub. Small: TCP holds the rest back.
const STREAM_MESSAGES: usize = 1024;

/// What the source's loop needs.
#[derive(Debug)]
pub struct Source {
    /// The primary.
    pub config: tokio_postgres::Config,
    /// Connections to it.
    pub pool: Pool,
    /// To the node.
    pub events: mpsc::Sender<Event>,
    /// The node asks for another stream.
    pub restart: Arc<Notify>,
    /// Becomes true when the node stops.
    pub stop: watch::Receiver<bool>,
}

impl Source {
    /// Runs until the node stops. Every failure is logged once with what is done about it, and tried again.
    pub async fn run(mut self) {
        let mut wait = RETRY.0;
        let mut mark = None;
        loop {
            let mut streamed = false;
            let ended = tokio::select! {
                result = feed(&self.config, &self.pool, &self.events, &self.restart, &mut mark, &mut streamed) => result,
                _ = self.stop.wait_for(|stop| *stop) => return,
            };
            if streamed {
                wait = RETRY.0;
            }
            match ended {
                Ok(()) => tracing::info!("the replication stream is started anew"),
                Err(error) => {
                    tracing::warn!("{error:#}; trying again in {} ms", wait.as_millis());
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = self.stop.wait_for(|stop| *stop) => return,
                    }
                    wait = (wait * 2).min(RETRY.1);
                }
            }
            if self.events.send(Event::StreamLost).await.is_err() {
                return;
            }
        }
    }
}

/// One life of a stream. Ends in Ok when another one is wanted.
async fn feed(
    config: &tokio_postgres::Config,
    pool: &Pool,
    events: &mpsc::Sender<Event>,
    restart: &Notify,
    mark: &mut Option<i64>,
    streamed: &mut bool,
) -> Result<()> {
    let client = pool.get().await.map_err(|e| PgError::Pool(e.to_string()))?;
    let (system, timeline, database) = poll::identify(&**client).await?;
    let loaded = Arc::new(catalog::load(&**client).await?);
    let incarnation = match *mark {
        Some(mark) => mark,
        None => *mark.insert(poll::mark(&**client).await?),
    };
    let identity = Identity { system, timeline, database, incarnation };
    events.send(Event::Database(identity, loaded.clone())).await?;
    drop(client);
    tokio::select! {
        result = stream(config, pool, events, system, streamed) => result,
        result = watch_catalog(pool, &loaded) => result,
        () = restart.notified() => Ok(()),
    }
}

async fn stream(
    config: &tokio_postgres::Config,
    pool: &Pool,
    events: &mpsc::Sender<Event>,
    system: u64,
    streamed: &mut bool,
) -> Result<()> {
    let mut wire = connect::replication(config).await?;
    let identified = replication_stream::identify(&mut wire).await?;
    anyhow::ensure!(identified.system == system, "replication and queries reach different servers");
    let slot = format!("lockstep_{:016x}", rand::random::<u64>());
    let sibling = {
        let client = pool.get().await.map_err(|e| PgError::Pool(e.to_string()))?;
        poll::sibling_slot(&**client).await?
    };
    let copied = match &sibling {
        Some(theirs) => replication_stream::copy_slot(&mut wire, theirs, &slot).await.inspect_err(|error| {
            tracing::info!(%error, "another node's slot could not be copied; making one");
        }),
        None => Err(PgError::Protocol("no other node")),
    };
    if copied.is_err() {
        tracing::info!(
            "making a slot; this waits for writing transactions that are open, clients are polled for meanwhile"
        );
        replication_stream::create_slot(&mut wire, &slot).await?;
    }
    let reference = {
        let client = pool.get().await.map_err(|e| PgError::Pool(e.to_string()))?;
        poll::poll(&**client, 0).await?.snapshot.xmax()
    };
    replication_stream::start(&mut wire, &slot).await?;
    let (feedback, feedback_in) = mpsc::unbounded_channel();
    let (bytes_out, bytes) = mpsc::channel::<Bytes>(STREAM_MESSAGES);
    let history: Vec<(u32, Lsn)> = identified.history;
    events.send(Event::StreamStarted(StreamHandle { reference, history, feedback, bytes })).await?;
    *streamed = true;
    tracing::info!(slot, copied_from = sibling.filter(|_| copied.is_ok()), "streaming");
    replication_stream::run(wire, bytes_out, feedback_in).await?;
    Ok(())
}

/// Ends when what is tracked, or how it looks, is no longer what was loaded.
async fn watch_catalog(pool: &Pool, loaded: &Catalog) -> Result<()> {
    let mut every = tokio::time::interval(CATALOG_EVERY);
    loop {
        every.tick().await;
        let client = pool.get().await.map_err(|e| PgError::Pool(e.to_string()))?;
        if catalog::load(&**client).await? != *loaded {
            tracing::info!("tracked tables changed");
            return Ok(());
        }
    }
}
