//! The node: one task owns the hub and carries its outputs out.

use crate::config::Serve;
use crate::http::{Shared, router};
use crate::socket::Outbox;
use crate::source::Source;
use anyhow::{Context, Result};
use bytes::Bytes;
use deadpool_postgres::{Object, Pool};
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::hub::{
    CatchUpAnswer, CatchUpError, CatchUpId, Identity, Mode, MutateRequest, MutateResult, PollAnswer, ReplyTo,
    SessionId,
};
use lockstep_core::fanout::{Hub, Output};
use lockstep_core::position::{Lsn, Xid};
use lockstep_pg::replication_stream::Feedback;
use lockstep_pg::{PgError, catch_up, connect, mutate, poll};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

/// Events from sockets and tasks on their way to the hub.
const EVENTS: usize = 4096;
/// How long clients get to take their close frames.
const GOODBYE: Duration = Duration::from_secs(3);

/// A running stream's ends.
#[derive(Debug)]
pub struct StreamHandle {
    /// A recent 64-bit xid.
    pub reference: Xid,
    /// The server's earlier timelines.
    pub history: Vec<(u32, Lsn)>,
    /// Status updates to be sent.
    pub feedback: mpsc::UnboundedSender<Feedback>,
    /// CopyData as it comes.
    pub bytes: mpsc::Receiver<Bytes>,
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// A socket was opened.
    Opened(SessionId, Arc<Outbox>),
    /// A text frame.
    Text(SessionId, String),
    /// A socket is gone.
    Closed(SessionId),
    /// The database is known.
    Database(Identity, Arc<Catalog>),
    /// A stream began.
    StreamStarted(StreamHandle),
    /// It ended.
    StreamLost,
    /// An answer.
    Polled(u64, Result<PollAnswer, PgError>),
    /// An answer.
    Pushed(u64, bool),
    /// An answer.
    Gap(Result<Vec<(Xid, bool)>, PgError>),
    /// An answer.
    CaughtUp(CatchUpId, Result<CatchUpAnswer, CatchUpError>),
    /// An answer.
    Mutated(SessionId, ReplyTo, Vec<Xid>, MutateResult),
}

/// What `/health` says.
#[derive(Debug)]
pub struct Health {
    state: Mutex<(&'static str, usize, Lsn)>,
}

impl Default for Health {
    fn default() -> Self {
        Self { state: Mutex::new(("starting", 0, Lsn(0))) }
    }
}

impl Health {
    /// Whether clients can be served, and how.
    pub fn report(&self) -> (bool, serde_json::Value) {
        let (status, sessions, watermark) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let body =
            serde_json::json!({"status": status, "sessions": sessions, "watermark": watermark.to_string()});
        (status != "starting", body)
    }

    fn update(&self, hub: &Hub) {
        let status = match hub.mode() {
            Mode::Starting => "starting",
            Mode::Polling => "polling",
            Mode::Streaming => "live",
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) =
            (status, hub.sessions(), hub.watermark());
    }
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// If the address cannot be bound, a URL cannot be read, or the web server fails. A database that cannot be reached
/// is waited for.
pub async fn serve(settings: Serve) -> Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("LOCKSTEP_LOG").unwrap_or_else(|_| "info".into());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
    if settings.log_json {
        log.json().init()
    } else {
        log.init()
    }

    anyhow::ensure!(
        settings.read_database_url == settings.database_url,
        "reading from another server than the primary is not supported yet; leave --read-database-url out"
    );
    let listener = tokio::net::TcpListener::bind(settings.listen).await.with_context(|| {
        format!("cannot listen on {}; is another node running? choose --listen", settings.listen)
    })?;
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let (events_out, events) = mpsc::channel(EVENTS);
    let health = Arc::new(Health::default());
    let node = Node::new(&settings, events_out.clone(), events, health.clone(), stopped.clone())?;
    let node = tokio::spawn(node.run());
    let shared = Shared { events: events_out, health, next_session: Arc::new(AtomicU64::new(1)) };
    let router = router(shared, settings.static_files.as_deref());
    tracing::info!("listening on http://{address}");
    let mut http_stop = stopped;
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        // An error means that the sender is gone: stop as well.
        let _ = http_stop.wait_for(|stop| *stop).await;
    });
    let server = tokio::spawn(async move { server.await });
    wait_for_signal().await?;
    tracing::info!("stopping");
    stop.send_replace(true);
    node.await?;
    // Connections that are not sockets end by themselves; ones that linger are cut with the process.
    if let Ok(ended) = tokio::time::timeout(GOODBYE, server).await {
        ended??;
    }
    Ok(())
}

async fn wait_for_signal() -> Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

struct Node {
    hub: Hub,
    began: Instant,
    events_out: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    health: Arc<Health>,
    stopped: watch::Receiver<bool>,
    sockets: HashMap<SessionId, Arc<Outbox>>,
    /// One request of a session at a time, so that they arrive in order.
    mutating: HashMap<SessionId, VecDeque<MutateRequest>>,
    stream: Option<StreamHandle>,
    history: Arc<Vec<(u32, Lsn)>>,
    reads: Pool,
    writes: Pool,
    restart: Arc<Notify>,
}

impl Node {
    fn new(
        settings: &Serve,
        events_out: mpsc::Sender<Event>,
        events: mpsc::Receiver<Event>,
        health: Arc<Health>,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self> {
        let config = connect::config(&settings.database_url)?;
        let reads = connect::pool(&config, settings.read_connections.max(2))?;
        // Writes run the application's triggers and functions, which expect the role's own settings.
        let writes = connect::pool(
            &connect::plain_config(&settings.database_url)?,
            settings.write_connections.max(1),
        )?;
        let restart = Arc::new(Notify::new());
        let source = Source {
            config,
            pool: reads.clone(),
            events: events_out.clone(),
            restart: restart.clone(),
            stop: stopped.clone(),
        };
        tokio::spawn(source.run());
        Ok(Self {
            hub: Hub::default(),
            began: Instant::now(),
            events_out,
            events,
            health,
            stopped,
            sockets: HashMap::new(),
            mutating: HashMap::new(),
            stream: None,
            history: Arc::default(),
            reads,
            writes,
            restart,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn run(mut self) {
        loop {
            let timeout = self.hub.next_timeout();
            let deadline = self.began + Duration::from_millis(timeout.unwrap_or(0));
            let stream = async {
                match &mut self.stream {
                    Some(stream) => stream.bytes.recv().await,
                    None => std::future::pending().await,
                }
            };
            let stopped = async {
                // An error means that nobody is left to say stop.
                let _ = self.stopped.wait_for(|stop| *stop).await;
            };
            tokio::select! {
                () = stopped => break,
                event = self.events.recv() => match event {
                    Some(event) => self.handle(event),
                    None => break,
                },
                bytes = stream => match bytes {
                    Some(bytes) => self.hub.handle_stream(&bytes),
                    // The source says why, as an event.
                    None => self.stream = None,
                },
                () = tokio::time::sleep_until(deadline.into()), if timeout.is_some() => {}
            }
            self.hub.handle_timeout(self.now());
            while let Some(output) = self.hub.poll_output() {
                self.carry_out(output);
            }
            self.health.update(&self.hub);
        }
        for outbox in self.sockets.values() {
            outbox.close(1012, "the node is stopping; come back");
        }
        let deadline = Instant::now() + GOODBYE;
        while !self.sockets.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.events.recv()).await {
                Ok(Some(Event::Closed(id))) => drop(self.sockets.remove(&id)),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let hub = &mut self.hub;
        match event {
            Event::Opened(id, outbox) => {
                self.sockets.insert(id, outbox);
                hub.handle_open(id);
            }
            Event::Text(id, text) => hub.handle_text(id, &text, &fresh_client()),
            Event::Closed(id) => {
                self.sockets.remove(&id);
                hub.handle_closed(id);
            }
            Event::Database(identity, catalog) => {
                self.stream = None;
                hub.handle_database(identity, Catalog::clone(&catalog));
            }
            Event::StreamStarted(stream) => {
                self.history = Arc::new(stream.history.clone());
                hub.handle_stream_started(stream.reference);
                self.stream = Some(stream);
            }
            Event::StreamLost => {
                self.stream = None;
                hub.handle_stream_lost();
            }
            Event::Polled(_, Ok(answer)) => {
                tracing::trace!(?answer, watermark = %hub.watermark());
                hub.handle_poll(answer);
            }
            Event::Polled(number, Err(error)) => {
                tracing::info!(%error, "a poll failed");
                hub.handle_poll_failed(number);
            }
            Event::Pushed(number, committed) => hub.handle_pushed(number, committed),
            Event::Gap(Ok(wrote)) => hub.handle_gap(&wrote),
            Event::Gap(Err(error)) => {
                tracing::info!(%error, "transactions at the stream's start could not be looked up");
                hub.handle_gap_failed();
            }
            Event::CaughtUp(id, answer) => hub.handle_catch_up(id, answer),
            Event::Mutated(session, reply, committed, result) => {
                hub.handle_mutated(session, &reply, &committed, result, &fresh_client());
                self.next_mutation(session);
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        if !matches!(output, Output::Send(..)) {
            tracing::trace!(?output);
        }
        match output {
            Output::Send(id, frame) => {
                if let Some(outbox) = self.sockets.get(&id) {
                    outbox.push(frame);
                }
            }
            Output::Close(id, code, reason) => {
                if let Some(outbox) = self.sockets.get(&id) {
                    outbox.close(code, reason);
                }
            }
            Output::Feedback { flush, reply } => {
                if let Some(stream) = &self.stream {
                    // A stream that has ended says so by itself.
                    let _ = stream.feedback.send(Feedback { flush, reply });
                }
            }
            Output::RestartStream(reason) => {
                tracing::info!(reason, "the stream cannot be followed");
                self.stream = None;
                self.restart.notify_one();
            }
            Output::Mutate(request) => {
                let session = request.session;
                let queue = self.mutating.entry(session).or_default();
                queue.push_back(request);
                if queue.len() == 1 {
                    self.run_mutation(session);
                }
            }
            Output::CatchUp(request) => {
                let history = self.history.clone();
                let id = request.id;
                self.ask(move |client| async move {
                    let result = match client {
                        Ok(client) => catch_up::read(&client, &request, &history).await,
                        Err(error) => Err(error),
                    };
                    Event::CaughtUp(id, result.map_err(catch_up_error))
                });
            }
            Output::Poll(number) => self.ask(move |client| async move {
                Event::Polled(
                    number,
                    match client {
                        Ok(client) => poll::poll(&**client, number).await,
                        Err(error) => Err(error),
                    },
                )
            }),
            Output::PushFence(number) => self.ask(move |client| async move {
                let pushed = match client {
                    Ok(client) => poll::push_fence(&**client).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = &pushed {
                    tracing::info!(%error, "a fence could not be pushed");
                }
                Event::Pushed(number, pushed.is_ok())
            }),
            Output::ReadGap(xids) => self.ask(move |client| async move {
                Event::Gap(match client {
                    Ok(client) => poll::wrote(&**client, &xids).await,
                    Err(error) => Err(error),
                })
            }),
        }
    }

    /// Runs something on a connection of the pool and sends its event to the node.
    fn ask<F, R>(&self, f: F)
    where
        F: FnOnce(Result<Object, PgError>) -> R + Send + 'static,
        R: Future<Output = Event> + Send,
    {
        let (pool, events) = (self.reads.clone(), self.events_out.clone());
        tokio::spawn(async move {
            let client = pool.get().await.map_err(|e| PgError::Pool(e.to_string()));
            let event = f(client).await;
            // The node is gone if this fails.
            let _ = events.send(event).await;
        });
    }

    fn run_mutation(&self, session: SessionId) {
        let Some(request) = self.mutating.get(&session).and_then(|q| q.front()).cloned() else { return };
        let (pool, events, catalog) =
            (self.writes.clone(), self.events_out.clone(), self.hub.catalog().clone());
        tokio::spawn(async move {
            let (committed, result) = match pool.get().await {
                Ok(client) => mutate::run(&client, &request, &catalog).await,
                Err(error) => {
                    tracing::warn!(%error, "no connection for a client's write; the client sends it again");
                    (Vec::new(), MutateResult::Busy)
                }
            };
            let _ = events.send(Event::Mutated(request.session, request.reply, committed, result)).await;
        });
    }

    fn next_mutation(&mut self, session: SessionId) {
        if let Some(queue) = self.mutating.get_mut(&session) {
            queue.pop_front();
            if queue.is_empty() {
                self.mutating.remove(&session);
            } else {
                self.run_mutation(session);
            }
        }
    }
}

fn catch_up_error(error: PgError) -> CatchUpError {
    match error {
        PgError::SchemaChanged => CatchUpError::SchemaChanged,
        other => {
            tracing::info!(error = %other, "a catch-up failed and is tried again");
            CatchUpError::Passing(other.to_string())
        }
    }
}

fn fresh_client() -> String {
    format!("{:032x}", rand::random::<u128>())
}
