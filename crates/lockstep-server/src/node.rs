//! The node: one task owns the hub and carries its outputs out.

use crate::config::Serve;
use crate::health::Health;
use crate::http::{Shared, router};
use crate::janitor;
use crate::socket::Outbox;
use crate::source::Source;
use crate::tasks::Database;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::hub::{
    CatchUpAnswer, CatchUpError, CatchUpId, Identity, MutateRequest, MutateResult, PollAnswer, ReplyTo,
    SessionId,
};
use lockstep_core::fanout::{Hub, Output};
use lockstep_core::position::{Lsn, Xid};
use lockstep_core::protocol::Frame;
use lockstep_pg::PgError;
use lockstep_pg::replication_stream::Feedback;
use lockstep_pg::target::Target;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tokio::task::AbortHandle;

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
    /// A text frame, and the room that it takes of its session's bound until it is served.
    Text(SessionId, String, OwnedSemaphorePermit),
    /// A socket is gone.
    Closed(SessionId),
    /// The database is known, and the server's earlier timelines as far as it could be asked for them.
    Database(Identity, Arc<Catalog>, Vec<(u32, Lsn)>),
    /// It is the same as before, and what is tracked too.
    SameDatabase,
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
    /// Rows of a catch-up that is still being read, of one of its reads.
    Rows(CatchUpId, usize, Vec<Frame>),
    /// An answer.
    CaughtUp(CatchUpId, Result<CatchUpAnswer, CatchUpError>),
    /// An answer.
    Mutated(SessionId, ReplyTo, Vec<Xid>, MutateResult),
    /// A look at the catalog, asked for or not.
    Catalog(Result<Arc<Catalog>, PgError>),
    /// A task panicked: somebody would wait for its answer for ever.
    Defect,
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// If the address cannot be bound, a URL cannot be read, or a part of the node fails. A database that cannot be
/// reached is waited for.
pub async fn serve(settings: Serve) -> Result<()> {
    crate::log::start(settings.log_json)?;
    anyhow::ensure!(
        settings.read_database_url == settings.database_url,
        "reading from another server than the primary is not supported yet; leave --read-database-url out"
    );
    let database = Arc::new(Database::new(&settings)?);
    let target = Target::parse(&settings.database_url)?;
    let replication = Target::parse(&settings.replication_url).context("--replication-url")?;
    let listener = listen(settings.listen).with_context(|| {
        format!("cannot listen on {}; is another node running? choose --listen", settings.listen)
    })?;
    let address = listener.local_addr()?;
    tracing::info!("listening on http://{address}, for the database at {}", target.place());
    let (stop, stopped) = watch::channel(false);
    let (events_out, events) = mpsc::channel(EVENTS);
    let health = Arc::new(Health::default());
    let restart = Arc::new(Notify::new());
    tokio::spawn(janitor::run(
        target.clone(),
        settings.database_timeout,
        settings.gc.clone(),
        stopped.clone(),
    ));
    let source = Source {
        target,
        replication,
        database: database.clone(),
        events: events_out.clone(),
        restart: restart.clone(),
        stop: stopped.clone(),
        health: health.clone(),
    };
    let node = Node::new(database, restart, events_out.clone(), events, health.clone(), stopped.clone());
    let shared = Shared {
        events: events_out,
        health,
        next_session: Arc::new(AtomicU64::new(1)),
        queue_bytes: settings.queue_bytes,
    };
    let mut source = tokio::spawn(source.run());
    let mut node = tokio::spawn(node.run());
    let mut server =
        tokio::spawn(crate::http::serve(listener, router(shared, settings.static_files.as_deref()), stopped));
    // A node without one of its parts would look alive and serve nobody: it ends, and whoever runs it starts another.
    tokio::select! {
        signal = wait_for_signal() => signal?,
        ended = &mut node => {
            ended.context("the node failed")??;
            bail!("the node ended by itself");
        }
        ended = &mut source => bail!("the replication task ended by itself: {ended:?}"),
        ended = &mut server => bail!("the web server ended by itself: {ended:?}"),
    }
    tracing::info!("stopping; once more ends it at once");
    stop.send_replace(true);
    let orderly = async {
        node.await.context("the node failed")??;
        // Connections that are not sockets end by themselves; ones that linger are cut with the process.
        if let Ok(ended) = tokio::time::timeout(GOODBYE, server).await {
            ended??;
        }
        Ok(())
    };
    tokio::select! {
        result = orderly => result,
        again = wait_for_signal() => again,
    }
}

/// After a node's death all of its clients come at once. Whoever finds the queue full tries again after 1, 3, 7 and 15 s:
/// it is as long as the kernel allows (`net.core.somaxconn`).
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` has it: a node can be started again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(u32::from(u16::MAX))
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
    mutating: HashMap<SessionId, VecDeque<(MutateRequest, Option<OwnedSemaphorePermit>)>>,
    /// What the message being handled takes of its session's bound; a mutation keeps it until it is decided.
    serving: Option<OwnedSemaphorePermit>,
    /// Catch-ups that run, to be stopped when the hub has thrown them away.
    reading: HashMap<CatchUpId, AbortHandle>,
    stream: Option<StreamHandle>,
    history: Arc<Vec<(u32, Lsn)>>,
    database: Arc<Database>,
    restart: Arc<Notify>,
}

impl Node {
    fn new(
        database: Arc<Database>,
        restart: Arc<Notify>,
        events_out: mpsc::Sender<Event>,
        events: mpsc::Receiver<Event>,
        health: Arc<Health>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            hub: Hub::default(),
            began: Instant::now(),
            events_out,
            events,
            health,
            stopped,
            sockets: HashMap::new(),
            mutating: HashMap::new(),
            serving: None,
            reading: HashMap::new(),
            stream: None,
            history: Arc::default(),
            database,
            restart,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn run(mut self) -> Result<()> {
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
                    Some(Event::Defect) => bail!("a task panicked; please report the lines above"),
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
            self.serving = None;
            let hub = &self.hub;
            self.reading.retain(|id, task| {
                let awaited = hub.awaits(*id);
                if !awaited {
                    task.abort();
                }
                awaited
            });
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
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        let hub = &mut self.hub;
        match event {
            Event::Opened(id, outbox) => {
                self.sockets.insert(id, outbox);
                hub.handle_open(id);
            }
            Event::Text(id, text, room) => {
                self.serving = Some(room);
                hub.handle_text(id, &text, &fresh_client());
            }
            Event::Closed(id) => {
                self.sockets.remove(&id);
                hub.handle_closed(id);
            }
            Event::Database(identity, catalog, history) => {
                self.history = Arc::new(history);
                self.stream = None;
                hub.handle_database(identity, Catalog::clone(&catalog));
            }
            Event::SameDatabase => hub.handle_same_database(),
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
            Event::Rows(id, read, frames) => hub.handle_catch_up_rows(id, read, &frames),
            Event::CaughtUp(id, answer) => hub.handle_catch_up(id, answer),
            Event::Catalog(Ok(catalog)) => {
                if !catalog.same(hub.catalog()) {
                    tracing::info!("tracked tables changed");
                }
                hub.handle_catalog(catalog);
            }
            Event::Catalog(Err(error)) => {
                tracing::info!(%error, "the catalog could not be read");
                hub.handle_catalog_failed();
            }
            Event::Mutated(session, reply, committed, result) => {
                hub.handle_mutated(session, &reply, &committed, result, &fresh_client());
                self.next_mutation(session);
            }
            Event::Defect => {}
        }
    }

    fn carry_out(&mut self, output: Output) {
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
                queue.push_back((request, self.serving.take()));
                if queue.len() == 1 {
                    self.run_mutation(session);
                }
            }
            Output::CatchUp(request) => {
                let id = request.id;
                let events = self.events_out.clone();
                let task = self.spawn(self.database.clone().catch_up(request, self.history.clone(), events));
                self.reading.insert(id, task);
            }
            Output::Poll(number) => drop(self.spawn(self.database.clone().poll(number))),
            Output::PushFence(number) => drop(self.spawn(self.database.clone().push_fence(number))),
            Output::ReadCatalog => drop(self.spawn(self.database.clone().catalog())),
            Output::ReadGap(xids) => drop(self.spawn(self.database.clone().gap(xids))),
        }
    }

    /// Runs a task that ends in an event.
    fn spawn(&self, task: impl Future<Output = Event> + Send + 'static) -> AbortHandle {
        let events = self.events_out.clone();
        let task = tokio::spawn(task);
        let handle = task.abort_handle();
        tokio::spawn(async move {
            let event = match task.await {
                Ok(event) => event,
                Err(ended) if ended.is_panic() => Event::Defect,
                Err(_) => return,
            };
            // The node is gone if this fails.
            let _ = events.send(event).await;
        });
        handle
    }

    fn run_mutation(&self, session: SessionId) {
        let Some((request, _)) = self.mutating.get(&session).and_then(VecDeque::front) else { return };
        self.spawn(self.database.clone().mutate(request.clone(), self.hub.catalog().clone()));
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

fn fresh_client() -> String {
    format!("{:032x}", rand::random::<u128>())
}
