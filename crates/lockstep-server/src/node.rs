//! The node: one task owns the hub and carries its outputs out.

use crate::deflate::Packer;
use crate::drain::{self, Drain};
use crate::health::Health;
use crate::post::Posts;
use crate::socket::{Outbox, Room, SWEEP};
use crate::tasks::Database;
use anyhow::{Result, bail};
use bytes::Bytes;
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::hub::{
    Bound, CatchUpAnswer, CatchUpError, CatchUpId, Identity, MutateRequest, MutateResult, PollAnswer,
    ReplyTo, Report, SessionId, SessionReport, ShapeReport,
};
use lockstep_core::fanout::{Hub, Output};
use lockstep_core::limits::Bounds;
use lockstep_core::position::{Lsn, Xid};
use lockstep_core::protocol::Frame;
use lockstep_pg::PgError;
use lockstep_pg::replication_stream::Feedback;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

/// A running stream's ends.
#[derive(Debug)]
pub struct StreamHandle {
    /// A recent 64-bit xid.
    pub reference: Xid,
    /// The server's earlier timelines.
    pub history: Vec<(u32, Lsn)>,
    /// Status updates to be sent.
    pub feedback: mpsc::UnboundedSender<Feedback>,
    /// CopyData as it comes: all messages that came together.
    pub bytes: mpsc::Receiver<Vec<Bytes>>,
}

/// Longer than this the node does nothing but take the stream, or nothing but hear its clients, only within one message.
const SLICE: Duration = Duration::from_millis(5);

/// The stream, and what came of it and was not taken yet.
#[derive(Debug)]
struct Stream {
    handle: StreamHandle,
    untaken: VecDeque<Bytes>,
}

impl Stream {
    /// Waits until there is something to be taken; false at its end.
    async fn has_more(&mut self) -> bool {
        if self.untaken.is_empty() {
            let Some(messages) = self.handle.bytes.recv().await else { return false };
            self.untaken = messages.into();
        }
        true
    }
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// A socket was opened.
    Opened(SessionId, Arc<Outbox>),
    /// Somebody was not let in, for the node is full.
    TurnedAway,
    /// A text frame, and the room that it takes of its session's bound until it is served.
    Text(SessionId, String, Room),
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
    /// About how many rows one of its reads has.
    Size(CatchUpId, usize, u64),
    /// An answer.
    CaughtUp(CatchUpId, Result<CatchUpAnswer, CatchUpError>),
    /// An answer.
    Mutated(SessionId, ReplyTo, Vec<Xid>, MutateResult),
    /// Mutations came another way than over a socket; these transactions' COMMIT returned.
    Committed(Vec<Xid>),
    /// They were beyond a bound.
    Reached(Bound),
    /// A look at the catalog, asked for or not.
    Catalog(Result<Arc<Catalog>, PgError>),
    /// Somebody wants to know; also of each shape and session, if the flag is set.
    Ask(bool, oneshot::Sender<Asked>),
    /// A task panicked: somebody would wait for its answer for ever.
    Defect,
}

/// What a node says of itself.
#[derive(Debug)]
pub struct Asked {
    /// The hub's numbers.
    pub report: Report,
    /// What waits for sockets.
    pub queue_bytes: usize,
    /// What waits for the one with most.
    pub queue_bytes_largest: usize,
    /// Shapes, if they were asked for.
    pub shapes: Vec<ShapeReport>,
    /// Sessions, where they come from, and what waits for their sockets, if they were asked for.
    pub sessions: Vec<(SessionReport, String, usize)>,
}

/// What a node is given.
#[derive(Debug)]
pub struct Links {
    /// The database.
    pub database: Arc<Database>,
    /// Asks the source for another stream.
    pub restart: Arc<Notify>,
    /// Events, for tasks that the node starts.
    pub events_out: mpsc::Sender<Event>,
    /// Events, as they come.
    pub events: mpsc::Receiver<Event>,
    /// For operators.
    pub health: Arc<Health>,
    /// Writes without a socket.
    pub posts: Arc<Posts>,
    /// Becomes true when clients are to be sent away.
    pub stopped: watch::Receiver<bool>,
    /// How long that may take.
    pub drain: Duration,
    /// Bounds of the hub.
    pub bounds: Bounds,
}

/// The task that owns the hub.
#[derive(Debug)]
pub struct Node {
    hub: Hub,
    began: Instant,
    links: Links,
    sockets: HashMap<SessionId, Arc<Outbox>>,
    /// Frames were queued for it and it was not told yet.
    unsent: Option<(SessionId, Arc<Outbox>)>,
    /// One request of a session at a time, so that they arrive in order.
    mutating: HashMap<SessionId, VecDeque<(MutateRequest, Option<Room>)>>,
    /// What the message being handled takes of its session's bound; a mutation keeps it until it is decided.
    serving: Option<Room>,
    /// Catch-ups that run, to be stopped when the hub has thrown them away.
    reading: HashMap<CatchUpId, AbortHandle>,
    stream: Option<Stream>,
    history: Arc<Vec<(u32, Lsn)>>,
    /// Clients are being sent away.
    draining: Option<Drain>,
    packer: Packer,
    /// What the hub gives out at a time: of a transaction that is passed through, one part.
    turn: u64,
}

impl Node {
    /// A node that knows nothing yet.
    pub fn new(links: Links) -> Self {
        Self {
            hub: Hub::with_bounds(links.bounds),
            began: Instant::now(),
            links,
            sockets: HashMap::new(),
            unsent: None,
            mutating: HashMap::new(),
            serving: None,
            reading: HashMap::new(),
            stream: None,
            history: Arc::default(),
            draining: None,
            packer: Packer::default(),
            turn: 0,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs until it is told to stop and its clients have gone, or had the time to.
    ///
    /// # Errors
    /// If a part of it fails.
    pub async fn run(mut self) -> Result<()> {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let timeout = self.hub.next_timeout();
            let deadline = self.began + Duration::from_millis(timeout.unwrap_or(0));
            let stream = async {
                match &mut self.stream {
                    Some(stream) => stream.has_more().await,
                    None => std::future::pending().await,
                }
            };
            let stopped = async {
                // An error means that nobody is left to say stop.
                let _ = self.links.stopped.wait_for(|stop| *stop).await;
            };
            tokio::select! {
                () = stopped, if self.draining.is_none() => {
                    let sessions = self.sockets.keys().copied().collect();
                    self.draining = Some(Drain::new(sessions, self.links.drain, Instant::now()));
                }
                () = tokio::time::sleep(drain::STEP), if self.draining.is_some() => {}
                event = self.links.events.recv() => match event {
                    Some(event) => self.take_events(event)?,
                    None => bail!("nobody is left to say anything"),
                },
                more = stream => if more {
                    self.hub.handle_timeout(self.now());
                    self.take_stream();
                    // Others of the runtime's tasks may have been woken by it.
                    tokio::task::yield_now().await;
                } else {
                    // The source says why, as an event.
                    self.stream = None;
                },
                _ = sweep.tick() => self.sweep(),
                () = tokio::time::sleep_until(deadline.into()), if timeout.is_some() => {}
            }
            self.hub.handle_timeout(self.now());
            self.carry_out_all();
            self.serving = None;
            self.packer.forget();
            let hub = &self.hub;
            self.reading.retain(|id, task| {
                let awaited = hub.awaits(*id);
                if !awaited {
                    task.abort();
                }
                awaited
            });
            self.links.health.update(&self.hub, self.began);
            self.links.posts.update(&self.hub);
            if self.is_drained() {
                return Ok(());
            }
        }
    }

    /// Sends away whoever is to go now; true when nobody is left to be waited for.
    fn is_drained(&mut self) -> bool {
        let Some(drain) = &mut self.draining else { return false };
        let now = Instant::now();
        for outbox in drain.due(now).iter().filter_map(|id| self.sockets.get(id)) {
            outbox.close(1012, "the node is stopping; come back");
        }
        self.sockets.is_empty() || drain.is_over(now)
    }

    /// Messages of the stream, for a while: clients are heard in between. What a transaction gives out is carried out
    /// before the next one, which bounds it.
    fn take_stream(&mut self) {
        let began = Instant::now();
        while let Some(bytes) = self.stream.as_mut().and_then(|stream| stream.untaken.pop_front()) {
            self.hub.handle_stream(&bytes);
            self.carry_out_all();
            if began.elapsed() >= SLICE {
                return;
            }
        }
    }

    /// Events that have come, for a while.
    fn take_events(&mut self, first: Event) -> Result<()> {
        let began = Instant::now();
        let mut next = Some(first);
        while let Some(event) = next {
            if matches!(event, Event::Defect) {
                bail!("a task panicked; please report the lines above");
            }
            // What is said of now must not be said of when something last happened.
            self.hub.handle_timeout(self.now());
            self.handle(event);
            self.carry_out_all();
            self.serving = None;
            next = if began.elapsed() < SLICE { self.links.events.try_recv().ok() } else { None };
        }
        Ok(())
    }

    fn carry_out_all(&mut self) {
        self.turn += 1;
        while let Some(output) = self.hub.poll_output() {
            self.carry_out(output);
        }
        if let Some((_, outbox)) = self.unsent.take() {
            outbox.send();
        }
    }

    /// Looks after all sockets, beside the node's own work.
    fn sweep(&self) {
        let sockets: Vec<Arc<Outbox>> = self.sockets.values().cloned().collect();
        tokio::spawn(async move { sockets.iter().for_each(|outbox| outbox.look_after()) });
    }

    fn handle(&mut self, event: Event) {
        let hub = &mut self.hub;
        match event {
            // It came while the node was told to stop.
            Event::Opened(_, outbox) if self.draining.is_some() => {
                outbox.close(1012, "the node is stopping; come back");
            }
            Event::Opened(id, outbox) => {
                self.sockets.insert(id, outbox);
                hub.handle_open(id);
            }
            Event::TurnedAway => hub.handle_turned_away(),
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
                self.links.health.name_defects(hub.catalog());
            }
            Event::SameDatabase => hub.handle_same_database(),
            Event::StreamStarted(stream) => self.stream_started(stream),
            Event::StreamLost => {
                self.stream = None;
                hub.handle_stream_lost();
            }
            Event::Polled(_, Ok(answer)) => {
                tracing::trace!(?answer, watermark = %hub.watermark(), "polled");
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
            Event::Committed(xids) => hub.handle_committed(&xids),
            Event::Reached(bound) => hub.reached_bound(bound),
            Event::Rows(id, read, frames) => hub.handle_catch_up_rows(id, read, &frames),
            Event::Size(id, read, about) => hub.handle_catch_up_size(id, read, about),
            Event::CaughtUp(id, answer) => hub.handle_catch_up(id, answer),
            Event::Catalog(Ok(catalog)) => {
                if !catalog.same(hub.catalog()) {
                    tracing::info!("tracked tables changed");
                }
                hub.handle_catalog(catalog);
                self.links.health.name_defects(hub.catalog());
            }
            Event::Catalog(Err(error)) => {
                tracing::info!(%error, "the catalog could not be read");
                hub.handle_catalog_failed();
            }
            Event::Mutated(session, reply, committed, result) => {
                hub.handle_mutated(session, &reply, &committed, result, &fresh_client());
                self.next_mutation(session);
            }
            // Whoever asked may have gone.
            Event::Ask(details, answer) => drop(answer.send(self.asked(details))),
            Event::Defect => {}
        }
    }

    fn stream_started(&mut self, stream: StreamHandle) {
        self.history = Arc::new(stream.history.clone());
        self.hub.handle_stream_started(stream.reference);
        self.stream = Some(Stream { handle: stream, untaken: VecDeque::new() });
    }

    fn asked(&self, details: bool) -> Asked {
        let queues = || self.sockets.values().map(|outbox| outbox.bytes());
        let with_socket = |session: SessionReport| {
            let outbox = self.sockets.get(&session.id);
            let address = outbox.map_or_else(String::new, |o| o.address().to_owned());
            (session, address, outbox.map_or(0, |o| o.bytes()))
        };
        let sessions = if details { self.hub.report_sessions() } else { Vec::new() };
        Asked {
            report: self.hub.report(),
            queue_bytes: queues().sum(),
            queue_bytes_largest: queues().max().unwrap_or(0),
            shapes: if details { self.hub.report_shapes() } else { Vec::new() },
            sessions: sessions.into_iter().map(with_socket).collect(),
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(id, frame) => {
                // A session's frames come one after another.
                let mut slow = false;
                if let Some((to, outbox)) = &self.unsent
                    && *to == id
                {
                    slow = outbox.push(frame, self.turn, &mut self.packer);
                } else if let Some(outbox) = self.sockets.get(&id) {
                    slow = outbox.push(frame, self.turn, &mut self.packer);
                    if let Some((_, before)) = self.unsent.replace((id, outbox.clone())) {
                        before.send();
                    }
                }
                if slow {
                    self.hub.handle_slow(id);
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
                    let _ = stream.handle.feedback.send(Feedback { flush, reply });
                }
            }
            Output::RestartStream(reason) => {
                tracing::info!(reason, "the stream cannot be followed");
                self.stream = None;
                self.links.restart.notify_one();
            }
            Output::Mutate(request) => {
                let session = request.session;
                let queue = self.mutating.entry(session).or_default();
                queue.push_back((*request, self.serving.take()));
                if queue.len() == 1 {
                    self.run_mutation(session);
                }
            }
            Output::CatchUp(request) => {
                let id = request.id;
                let events = self.links.events_out.clone();
                let task =
                    self.spawn(self.links.database.clone().catch_up(request, self.history.clone(), events));
                self.reading.insert(id, task);
            }
            Output::Poll(number) => drop(self.spawn(self.links.database.clone().poll(number))),
            Output::PushFence(number) => drop(self.spawn(self.links.database.clone().push_fence(number))),
            Output::ReadCatalog => drop(self.spawn(self.links.database.clone().catalog())),
            Output::ReadGap(xids) => drop(self.spawn(self.links.database.clone().gap(xids))),
        }
    }

    /// Runs a task that ends in an event.
    fn spawn(&self, task: impl Future<Output = Event> + Send + 'static) -> AbortHandle {
        let events = self.links.events_out.clone();
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
        self.spawn(self.links.database.clone().mutate(request.clone(), self.hub.catalog().clone()));
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

/// An id for a client that has none.
pub(crate) fn fresh_client() -> String {
    format!("{:032x}", rand::random::<u128>())
}
