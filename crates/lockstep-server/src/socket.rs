//! One client's socket: frames in, queued frames out.

use crate::metrics;
use crate::node::Event;
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use lockstep_core::limits;
use lockstep_core::protocol::Frame;
use lockstep_core::session::{Full, SendQueue};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_websockets::{CloseCode, Limits, Message, ServerBuilder, WebSocketStream};

/// A client that says nothing for so long is gone; the phoenix client sends a heartbeat every 30 s.
const IDLE: Duration = Duration::from_secs(60);

/// What waits to be served is counted in pieces of so many bytes; the least message is one.
const ROOM: usize = 256;

/// How long a close frame may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// What waits for one socket. The node pushes, the socket's task sends.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: SendQueue,
    close: Option<(u16, &'static str)>,
    /// When the socket last took a frame, or had none to take.
    moved: Instant,
}

enum Next {
    Frame(Frame),
    Close(u16, &'static str),
    Nothing,
}

impl Outbox {
    /// Empty, with room for `most` bytes.
    pub fn new(most: usize) -> Self {
        let state = State { queue: SendQueue::new(most), close: None, moved: Instant::now() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Queues a frame, or closes the session if it does not read.
    pub fn push(&self, frame: Frame) {
        let full = self.with(|s| {
            if s.queue.bytes() == 0 {
                s.moved = Instant::now();
            }
            s.close.is_none() && s.queue.push(frame) == Err(Full)
        });
        if full {
            self.unread();
        } else {
            self.changed.notify_one();
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.with(|s| s.queue.bytes())
    }

    fn unread(&self) {
        metrics::reached(metrics::QUEUE_FULL);
        tracing::warn!("a client does not read what it is sent; it is closed and may resume");
        self.close(1013, "this client does not read; come back and resume");
    }

    /// Ends the session.
    pub fn close(&self, code: u16, reason: &'static str) {
        self.with(|s| s.close.get_or_insert((code, reason)).0);
        self.changed.notify_one();
    }

    fn next(&self) -> Next {
        self.with(|s| {
            s.moved = Instant::now();
            match (s.close, s.queue.pop()) {
                // What was queued before an orderly close is still sent; a client that does not read gets no more.
                (Some((code, reason)), None) => Next::Close(code, reason),
                (Some((code @ 1013, reason)), Some(_)) => Next::Close(code, reason),
                (_, Some(frame)) => Next::Frame(frame),
                (None, None) => Next::Nothing,
            }
        })
    }
}

/// Speaks with one client until either side ends.
pub async fn run(
    upgraded: hyper::upgrade::Upgraded,
    id: u64,
    events: mpsc::Sender<Event>,
    queue_bytes: usize,
) {
    let limits = Limits::default().max_payload_len(Some(limits::CLIENT_FRAME_BYTES));
    let socket = ServerBuilder::new().limits(limits).serve(TokioIo::new(upgraded));
    let outbox = Arc::new(Outbox::new(queue_bytes));
    if events.send(Event::Opened(id, outbox.clone())).await.is_err() {
        return;
    }
    talk(socket, id, &outbox, &events).await;
    // The node is stopping if this fails; then it has forgotten the session anyway.
    let _ = events.send(Event::Closed(id)).await;
}

async fn talk<S>(socket: WebSocketStream<S>, id: u64, outbox: &Outbox, events: &mpsc::Sender<Event>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let read = async {
        let unserved = Arc::new(Semaphore::new(limits::UNSERVED_BYTES / ROOM));
        loop {
            let deadline = Instant::now() + IDLE;
            let message = tokio::select! {
                message = stream.next() => message,
                () = sleep_until(deadline) => return Some((1001, "no heartbeat came")),
            };
            match message {
                Some(Ok(message)) if message.is_text() => {
                    let text = message.as_text().unwrap_or_default().to_owned();
                    let room = u32::try_from(1 + text.len() / ROOM).unwrap_or(u32::MAX);
                    if unserved.available_permits() < room as usize {
                        metrics::reached(metrics::UNSERVED);
                    }
                    let Ok(room) = unserved.clone().acquire_many_owned(room).await else { return None };
                    if events.send(Event::Text(id, text, room)).await.is_err() {
                        return None;
                    }
                }
                Some(Ok(message)) if message.is_binary() => {
                    return Some((1003, "binary frames are not understood"));
                }
                Some(Ok(_)) => {}
                Some(Err(tokio_websockets::Error::PayloadTooLong { .. })) => {
                    metrics::reached(metrics::FRAME_TOO_LARGE);
                    // The library has told the client.
                    metrics::closed(1009);
                    return None;
                }
                Some(Err(_)) | None => return None,
            }
        }
    };
    let write = async {
        loop {
            match outbox.next() {
                Next::Frame(frame) => sink.feed(Message::text(frame)).await?,
                Next::Close(code, reason) => return Ok((code, reason)),
                Next::Nothing => {
                    sink.flush().await?;
                    outbox.changed.notified().await;
                }
            }
        }
    };
    let end: Result<_, tokio_websockets::Error> = tokio::select! {
        end = read => Ok(end),
        end = write => end.map(Some),
        end = stuck(outbox) => Ok(Some(end)),
    };
    if let Ok(Some((code, reason))) = end {
        metrics::closed(code);
        let code = CloseCode::try_from(code).unwrap_or(CloseCode::INTERNAL_SERVER_ERROR);
        // A peer that takes no farewell gets none.
        let _ = tokio::time::timeout(FAREWELL, sink.send(Message::close(Some(code), reason))).await;
    }
}

/// Ends a session whose writer hangs in a full socket after it was told to close, or for too long.
async fn stuck(outbox: &Outbox) -> (u16, &'static str) {
    loop {
        tokio::time::sleep(FAREWELL).await;
        if let Some(close) = outbox.with(|s| s.close) {
            return close;
        }
        if outbox.with(|s| s.queue.bytes() > 0 && s.moved.elapsed() > IDLE) {
            outbox.unread();
        }
    }
}
