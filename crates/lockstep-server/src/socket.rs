//! One client's socket: frames in, queued frames out.

use crate::deflate::{Packed, Packer};
use crate::metrics;
use crate::node::Event;
use crate::quiet::Socket;
use hyper_util::rt::TokioIo;
use lockstep_core::limits;
use lockstep_core::protocol::{Frame, is_load};
use lockstep_core::session::{Full, SendQueue};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_websockets::proto::ProtocolError;
use tokio_websockets::{CloseCode, Error, Limits, Message};

/// A client that says nothing for so long is gone; the phoenix client sends a heartbeat every 30 s.
const IDLE: Duration = Duration::from_secs(60);

/// What waits to be served is counted in pieces of so many bytes; the least message is one.
const ROOM: usize = 256;

/// How long a close frame may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// Between two looks at all sockets. One timer for all of them: thousands would cost more than what they wait for.
pub const SWEEP: Duration = FAREWELL;
/// So many looks are [`IDLE`].
#[allow(clippy::cast_possible_truncation, reason = "thirty")]
const LOOKS: u16 = (IDLE.as_secs() / SWEEP.as_secs()) as u16;

/// What waits for one socket. The node pushes, the socket's task sends.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    changed: Notify,
    node: Arc<NodeBounds>,
    /// Its client takes deflated frames.
    deflates: bool,
    /// Where it comes from.
    address: String,
}

/// What all sockets of a node have together.
#[derive(Debug)]
pub struct NodeBounds {
    /// What may wait for one client.
    pub queue_bytes: usize,
    /// What may wait for all of them.
    pub node_queue_bytes: usize,
    queued: AtomicUsize,
    unserved: Arc<Semaphore>,
}

impl NodeBounds {
    /// Nothing waits yet.
    pub fn new(queue_bytes: usize, node_queue_bytes: usize, unserved_bytes: usize) -> Self {
        // The largest message must find room, or it would wait for ever.
        let unserved = unserved_bytes.max(limits::CLIENT_FRAME_BYTES + ROOM);
        let unserved = Arc::new(Semaphore::new(unserved / ROOM));
        Self { queue_bytes, node_queue_bytes, queued: AtomicUsize::new(0), unserved }
    }
}

/// Room that a message takes of its session's bound and, beyond what is free, of its node's, until it is served.
pub type Room = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// Waits for room; None when the node is stopping.
async fn room_in(bound: &Arc<Semaphore>, wanted: u32, name: &'static str) -> Option<OwnedSemaphorePermit> {
    if let Ok(room) = bound.clone().try_acquire_many_owned(wanted) {
        return Some(room);
    }
    metrics::reached(name);
    bound.clone().acquire_many_owned(wanted).await.ok()
}

/// Pongs that the library holds until they are flushed.
#[derive(Debug, Default)]
struct Pongs {
    held: AtomicUsize,
    flushed: Notify,
}

impl Pongs {
    /// A ping was read: its pong is to be flushed, and too many of them are waited for.
    async fn held(&self, outbox: &Outbox) {
        outbox.send();
        if self.held.fetch_add(1, Ordering::Relaxed) < limits::PONGS {
            return;
        }
        metrics::reached(metrics::PONGS);
        while self.held.load(Ordering::Relaxed) >= limits::PONGS {
            self.flushed.notified().await;
        }
    }

    /// Flushes them, and whatever else was fed.
    async fn flush(&self, socket: &Socket) -> Result<(), Error> {
        let held = self.held.load(Ordering::Relaxed);
        socket.flush().await?;
        self.held.fetch_sub(held, Ordering::Relaxed);
        self.flushed.notify_one();
        Ok(())
    }
}

/// Room for a message of so many bytes.
async fn room_for(bytes: usize, own: &Arc<Semaphore>, node: &Arc<Semaphore>) -> Option<Room> {
    let wanted = u32::try_from(1 + bytes / ROOM).unwrap_or(u32::MAX);
    let room = room_in(own, wanted, metrics::UNSERVED).await?;
    let taken = limits::UNSERVED_BYTES / ROOM - own.available_permits();
    if taken <= limits::UNSERVED_FREE_BYTES / ROOM {
        return Some((room, None));
    }
    Some((room, Some(room_in(node, wanted, metrics::NODE_UNSERVED).await?)))
}

#[derive(Debug)]
struct State {
    queue: SendQueue,
    /// For each frame of the queue: how it leaves if it is deflated.
    packed: VecDeque<Option<Arc<Packed>>>,
    /// The turn in which rows that are set aside came last, and how much of such waited before.
    turn: (u64, usize),
    close: Option<(u16, &'static str)>,
    /// Looks since the socket last took a frame, or had none to take.
    unmoved: u16,
    /// Looks since the client last said something.
    unheard: u16,
    /// Ends the socket whatever its writer hangs in.
    abandon: Option<oneshot::Sender<()>>,
    /// It was told to close at the last look.
    closing: bool,
}

enum Next {
    Frame(Frame, Option<Arc<Packed>>),
    Close(u16, &'static str),
    Nothing,
}

impl Outbox {
    /// Empty, with room for as much as the node gives one client.
    pub fn new(node: Arc<NodeBounds>, deflates: bool, address: String) -> Self {
        let state = State {
            queue: SendQueue::new(node.queue_bytes),
            packed: VecDeque::new(),
            turn: (0, 0),
            close: None,
            unmoved: 0,
            unheard: 0,
            abandon: None,
            closing: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), node, deflates, address }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Queues a frame, or closes the session if it does not read. It is sent when [`Self::send`] is called. Says whether
    /// so many rows that are set aside wait that of a transaction which is passed through no more should come. `turn` is
    /// another number for each part of it: in a crowded node it is what waited before the part that counts, since nobody
    /// reads while the node tells it.
    pub fn push(&self, frame: Frame, turn: u64, packer: &mut Packer) -> bool {
        let packed = if self.deflates { packer.pack(&frame) } else { None };
        let (bytes, load) = (frame.len(), is_load(&frame));
        let crowded = self.node.queued.load(Ordering::Relaxed) > self.node.node_queue_bytes;
        let most = if crowded { limits::QUEUE_FAIR_BYTES } else { usize::MAX };
        let (full, slow) = self.with(|s| {
            if s.close.is_some() {
                return (false, false);
            }
            let aside = s.queue.aside();
            if load && s.turn.0 != turn {
                s.turn = (turn, aside);
            }
            let slow = load && (s.turn.1 > most || aside > limits::PASSED_BYTES);
            let pushed = s.queue.push_within(frame, most);
            if pushed.is_ok() {
                s.packed.push_back(packed);
                self.node.queued.fetch_add(bytes, Ordering::Relaxed);
            }
            (pushed == Err(Full), slow)
        });
        if full {
            self.unread(if crowded { metrics::NODE_QUEUES_FULL } else { metrics::QUEUE_FULL });
        }
        slow
    }

    /// Where its client comes from.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.with(|s| s.queue.bytes())
    }

    /// Wakes the socket's task. Once for a batch: woken for its first frame, it would send each by itself.
    pub fn send(&self) {
        self.changed.notify_one();
    }

    fn unread(&self, bound: &'static str) {
        metrics::reached(bound);
        let address = self.address();
        tracing::warn!(address, bound, "a client does not read what it is sent; it is closed and may resume");
        self.close(1013, "this client does not read; come back and resume");
    }

    /// Ends the session.
    pub fn close(&self, code: u16, reason: &'static str) {
        self.with(|s| s.close.get_or_insert((code, reason)).0);
        self.changed.notify_one();
    }

    /// Ends a socket that is silent, whose writer hangs after it was told to close, or that takes nothing for too long.
    pub fn look_after(&self) {
        let (silent, unread) = self.with(|s| {
            if s.close.is_some() && std::mem::replace(&mut s.closing, true) {
                // It ends now, or has ended.
                drop(s.abandon.take());
            }
            s.unheard = s.unheard.saturating_add(1);
            s.unmoved = if s.queue.bytes() > 0 { s.unmoved.saturating_add(1) } else { 0 };
            let open = s.close.is_none();
            (open && s.unheard > LOOKS, open && s.unmoved > LOOKS)
        });
        if silent {
            self.close(1001, "no heartbeat came");
        } else if unread {
            self.unread(metrics::UNREAD);
        }
    }

    fn next(&self) -> Next {
        self.with(|s| {
            s.unmoved = 0;
            let (next, packed) = (s.queue.pop(), s.packed.pop_front().flatten());
            self.node.queued.fetch_sub(next.as_ref().map_or(0, |frame| frame.len()), Ordering::Relaxed);
            match (s.close, next) {
                // What was queued before an orderly close is still sent; a client that does not read gets no more.
                (Some((code, reason)), None) => Next::Close(code, reason),
                (Some((code @ 1013, reason)), Some(_)) => Next::Close(code, reason),
                (_, Some(frame)) => Next::Frame(frame, packed),
                (None, None) => {
                    s.queue.rest();
                    if s.packed.capacity() > 8 {
                        s.packed = VecDeque::new();
                    }
                    Next::Nothing
                }
            }
        })
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.node.queued.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

/// Speaks with one client until either side ends.
pub async fn run(
    upgraded: hyper::upgrade::Upgraded,
    id: u64,
    events: mpsc::Sender<Event>,
    outbox: Arc<Outbox>,
) {
    let Some(socket) = connection(upgraded) else {
        tracing::error!("a connection is not what was accepted; its client is not served");
        return;
    };
    tracing::debug!(session = id, address = outbox.address(), "a client connected");
    if events.send(Event::Opened(id, outbox.clone())).await.is_err() {
        return;
    }
    talk(&socket, id, &outbox, &events).await;
    // The node is stopping if this fails; then it has forgotten the session anyway.
    let _ = events.send(Event::Closed(id)).await;
}

/// The connection itself: what HTTP keeps for it is let go, a buffer of 16 kB above all.
fn connection(upgraded: hyper::upgrade::Upgraded) -> Option<Socket> {
    let limits = Limits::default().max_payload_len(Some(limits::CLIENT_FRAME_BYTES));
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some(Socket::new(parts.io.into_inner(), &parts.read_buf, limits))
}

async fn talk(socket: &Socket, id: u64, outbox: &Outbox, events: &mpsc::Sender<Event>) {
    let (abandon, abandoned) = oneshot::channel();
    outbox.with(|s| s.abandon = Some(abandon));
    let pongs = Pongs::default();
    let read = async {
        let unserved = Arc::new(Semaphore::new(limits::UNSERVED_BYTES / ROOM));
        loop {
            let message = socket.next().await;
            outbox.with(|s| s.unheard = 0);
            match message {
                Some(Ok(message)) if message.is_text() => {
                    let text = message.as_text().unwrap_or_default().to_owned();
                    let room = room_for(text.len(), &unserved, &outbox.node.unserved).await?;
                    if events.send(Event::Text(id, text, room)).await.is_err() {
                        return None;
                    }
                }
                Some(Ok(message)) if message.is_binary() => {
                    return Some((1003, "binary frames are not understood"));
                }
                Some(Ok(message)) if message.is_ping() => pongs.held(outbox).await,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let end = broken(&error)?;
                    // The library has a farewell of its own ready for most of these, and says it when it is asked to go on.
                    let _ = tokio::time::timeout(FAREWELL, socket.next()).await;
                    return Some(end);
                }
                None => return None,
            }
        }
    };
    let write = async {
        loop {
            match outbox.next() {
                Next::Frame(frame, packed) => {
                    let message = match packed.and_then(|packed| packed.message()) {
                        Some(deflated) => Message::binary(deflated),
                        None => Message::text(frame),
                    };
                    socket.feed(message).await?;
                }
                Next::Close(code, reason) => return Ok((code, reason)),
                Next::Nothing => {
                    pongs.flush(socket).await?;
                    outbox.changed.notified().await;
                }
            }
        }
    };
    let end: Result<_, Error> = tokio::select! {
        end = read => Ok(end),
        end = write => end.map(Some),
        _ = abandoned => Ok(outbox.with(|s| s.close)),
    };
    if let Ok(Some((code, reason))) = end {
        metrics::closed(code);
        let code = CloseCode::try_from(code).unwrap_or(CloseCode::INTERNAL_SERVER_ERROR);
        // A peer that takes no farewell gets none.
        let farewell = async {
            socket.feed(Message::close(Some(code), reason)).await?;
            socket.flush().await
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

/// What a client is told whose bytes cannot be read; None if it is the connection that failed.
fn broken(error: &Error) -> Option<(u16, &'static str)> {
    match error {
        Error::PayloadTooLong { .. } => {
            metrics::reached(metrics::FRAME_TOO_LARGE);
            Some((1009, "a message above the limit"))
        }
        Error::Protocol(ProtocolError::InvalidUtf8) => Some((1007, "text that is not UTF-8")),
        Error::Protocol(_) => Some((1002, "not a WebSocket frame")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(bytes: usize) -> Frame {
        format!(r#"[null,null,"sync","load",{{"load":"1.0","put":"{}"}}]"#, "l".repeat(bytes)).into()
    }

    /// The node tells a part at one go, and no socket takes a frame meanwhile.
    #[test]
    fn in_a_crowded_node_who_had_nothing_waiting_gets_all_of_a_part() {
        let node = Arc::new(NodeBounds::new(limits::QUEUE_BYTES, 0, 0));
        let outbox = || Outbox::new(node.clone(), false, String::new());
        let (other, outbox, mut packer) = (outbox(), outbox(), Packer::default());
        other.push("it waits".into(), 1, &mut packer);
        let mut push = |turn| outbox.push(load(limits::ROWS_FRAME_BYTES), turn, &mut packer);
        assert_eq!([push(1), push(1), push(1)], [false; 3]);
        assert_eq!([push(2), push(2)], [true; 2], "nothing was taken since the last part");
        while matches!(outbox.next(), Next::Frame(..)) {}
        assert_eq!([push(3), push(3)], [false; 2]);
    }

    /// Also of one part, which has many shapes' rows perhaps.
    #[test]
    fn one_socket_has_so_many_rows_waiting_and_no_more() {
        let node = Arc::new(NodeBounds::new(limits::QUEUE_BYTES, limits::NODE_QUEUE_BYTES, 0));
        let (outbox, mut packer) = (Outbox::new(node, false, String::new()), Packer::default());
        let mut push = |bytes| outbox.push(load(bytes), 1, &mut packer);
        assert_eq!([push(2 * limits::PASSED_BYTES), push(1), push(1)], [false, true, true]);
    }
}
