//! A client's WebSocket, which has buffers only while something is on its way.
//!
//! The library reads into 8 kB, which it keeps for as long as its stream lives. Of thousands of clients nearly all wait
//! at any moment, so the library's stream lives from the first byte, or the first frame to be sent, until everything is
//! read and written; in between there is the connection alone.
//!
//! It may end only where nothing is lost: nothing is to be written, and no part of a message was read. What the messages
//! that it told had taken at least, in frames, is at most what it took of the bytes that it read. If that is all of them,
//! its buffer is empty, and so is what it keeps of messages in several frames.

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_websockets::{Error, Limits, Message, ServerBuilder, WebSocketStream};

/// A connection that counts what is read of it.
#[derive(Debug)]
struct Counted {
    connection: TcpStream,
    /// Read before it was a WebSocket's.
    early: Bytes,
    read: u64,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.connection).poll_read(cx, into))?;
        } else {
            let most = self.early.len().min(into.remaining());
            into.put_slice(&self.early[..most]);
            self.early.advance(most);
            if self.early.is_empty() {
                self.early = Bytes::new();
            }
        }
        self.read += (into.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

/// The least that a message of a client's takes: one frame, its length written as short as it can be, and masked.
fn least(message: &Message) -> u64 {
    let payload = message.as_payload().len() as u64;
    let length = match payload {
        0..126 => 0,
        126..65_536 => 2,
        _ => 8,
    };
    2 + length + 4 + payload
}

#[derive(Debug)]
enum Line {
    /// Nothing is on its way.
    Waits(Counted),
    Runs(Box<WebSocketStream<Counted>>),
    /// Only while it becomes another.
    Between,
}

#[derive(Debug)]
struct State {
    line: Line,
    /// What the messages that were told took at least.
    told: u64,
    /// A farewell was said or heard, or something failed: the library knows how to go on, and nothing else does.
    ends: bool,
    limits: Limits,
}

impl State {
    /// The library's stream, made if there is none.
    fn stream(&mut self) -> &mut WebSocketStream<Counted> {
        if let Line::Waits(_) = self.line
            && let Line::Waits(counted) = std::mem::replace(&mut self.line, Line::Between)
        {
            self.line = Line::Runs(Box::new(ServerBuilder::new().limits(self.limits).serve(counted)));
        }
        match &mut self.line {
            Line::Runs(stream) => stream,
            Line::Waits(_) | Line::Between => unreachable!("it was just made"),
        }
    }

    /// Lets go of the stream if nothing is lost by it. What wakes its task is left with the connection.
    fn rest(&mut self, cx: &mut Context<'_>) {
        let Line::Runs(stream) = &mut self.line else { return };
        let read = stream.get_ref();
        if self.ends || read.read != self.told || !read.early.is_empty() {
            return;
        }
        match stream.poll_flush_unpin(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) | Poll::Pending => return,
        }
        if let Line::Runs(stream) = std::mem::replace(&mut self.line, Line::Between) {
            self.line = Line::Waits(stream.into_inner());
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if let Line::Waits(counted) = &self.line
            && counted.early.is_empty()
        {
            ready!(counted.connection.poll_read_ready(cx))?;
        }
        let next = self.stream().poll_next_unpin(cx);
        match &next {
            Poll::Pending => self.rest(cx),
            Poll::Ready(Some(Ok(message))) if !message.is_close() => self.told += least(message),
            Poll::Ready(_) => self.ends = true,
        }
        next
    }
}

/// Reads and writes may wait side by side, as long as one task waits for both.
#[derive(Debug)]
pub struct Socket(Mutex<State>);

impl Socket {
    /// Of a connection that has become a WebSocket, and what was already read of it.
    pub fn new(connection: TcpStream, early: &[u8], limits: Limits) -> Self {
        // A copy: these may be the last bytes of a buffer of 8 kB, all of which would be kept with them.
        let early = Bytes::copy_from_slice(early);
        let line = Line::Waits(Counted { connection, early, read: 0 });
        Self(Mutex::new(State { line, told: 0, ends: false, limits }))
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next message, None at the end.
    pub async fn next(&self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| self.with(|s| s.poll_next(cx))).await
    }

    /// Takes a message to be sent, and waits until there is room for it.
    ///
    /// # Errors
    /// If the connection failed, or has ended.
    pub async fn feed(&self, message: Message) -> Result<(), Error> {
        let mut message = Some(message);
        poll_fn(|cx| {
            self.with(|s| {
                ready!(s.stream().poll_ready_unpin(cx))?;
                let Some(message) = message.take() else { return Poll::Ready(Ok(())) };
                s.ends |= message.is_close();
                Poll::Ready(s.stream().start_send_unpin(message))
            })
        })
        .await
    }

    /// Sends what was taken.
    ///
    /// # Errors
    /// If the connection failed.
    pub async fn flush(&self) -> Result<(), Error> {
        poll_fn(|cx| {
            self.with(|s| {
                let Line::Runs(stream) = &mut s.line else { return Poll::Ready(Ok(())) };
                ready!(stream.poll_flush_unpin(cx))?;
                s.rest(cx);
                Poll::Ready(Ok(()))
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A client's frame: its first byte, and the payload under a mask.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match u8::try_from(payload.len()) {
            Ok(short @ 0..126) => bytes.push(0x80 | short),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    async fn pair(early: &[u8]) -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (connection, _) = listener.accept().await.unwrap();
        (client, Socket::new(connection, early, Limits::default()))
    }

    impl Socket {
        fn waits(&self) -> bool {
            self.with(|s| matches!(s.line, Line::Waits(_)))
        }

        fn read(&self) -> u64 {
            self.with(|s| match &s.line {
                Line::Runs(stream) => stream.get_ref().read,
                Line::Waits(counted) => counted.read,
                Line::Between => 0,
            })
        }

        /// Looks for a message once.
        async fn look(&self) -> Option<Message> {
            let polled = poll_fn(|cx| Poll::Ready(self.with(|s| s.poll_next(cx)))).await;
            match polled {
                Poll::Ready(message) => Some(message.unwrap().unwrap()),
                Poll::Pending => None,
            }
        }
    }

    fn texts(messages: &[Message]) -> Vec<String> {
        messages.iter().filter_map(|m| m.as_text().map(str::to_owned)).collect()
    }

    /// Two messages, a ping, and one in pieces with another ping between them, cut in two at every place: whatever came
    /// so far is read before the rest is sent.
    #[tokio::test]
    async fn nothing_is_lost_wherever_the_bytes_are_cut() {
        let long = "x".repeat(300);
        let parts = [
            frame(0x81, b"one"),
            frame(0x81, long.as_bytes()),
            frame(0x89, b"ping"),
            frame(0x01, b"in "),
            frame(0x89, b"p"),
            frame(0x80, b"pieces"),
        ];
        let whole = parts.concat();
        let between: Vec<usize> = (0..=3).map(|n| parts[..n].concat().len()).collect();
        for cut in 0..=whole.len() {
            let (mut client, socket) = pair(b"").await;
            let mut heard = Vec::new();
            client.write_all(&whole[..cut]).await.unwrap();
            loop {
                match socket.look().await {
                    Some(message) => heard.push(message),
                    None if socket.read() == cut as u64 => break,
                    None => tokio::task::yield_now().await,
                }
            }
            assert_eq!(socket.waits(), between.contains(&cut), "cut at {cut} of {}", whole.len());
            client.write_all(&whole[cut..]).await.unwrap();
            while texts(&heard).len() < 3 {
                heard.push(socket.next().await.unwrap().unwrap());
            }
            assert_eq!(texts(&heard), ["one", long.as_str(), "in pieces"], "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_came_with_the_handshake_is_heard_first() {
        let (mut client, socket) = pair(&frame(0x81, b"early")).await;
        client.write_all(&frame(0x81, b"late")).await.unwrap();
        let heard = [socket.next().await.unwrap().unwrap(), socket.next().await.unwrap().unwrap()];
        assert_eq!(texts(&heard), ["early", "late"]);
    }

    #[tokio::test]
    async fn it_rests_after_a_message_and_after_what_was_sent() {
        let (mut client, socket) = pair(b"").await;
        assert!(socket.look().await.is_none() && socket.waits());
        client.write_all(&frame(0x89, b"are you there")).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_ping());
        assert!(socket.look().await.is_none() && socket.waits(), "its answer was sent");
        socket.feed(Message::text("a")).await.unwrap();
        socket.feed(Message::text("b")).await.unwrap();
        assert!(!socket.waits());
        socket.flush().await.unwrap();
        assert!(socket.waits());
        let mut bytes = [0; 21];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"\x8a\x0dare you there\x81\x01a\x81\x01b");
    }

    #[tokio::test]
    async fn farewells_are_the_librarys() {
        let (mut client, socket) = pair(b"").await;
        client.write_all(&frame(0x88, &[0x03, 0xe8])).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_close());
        assert!(socket.next().await.is_none() && !socket.waits());
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [0x88, 2, 0x03, 0xe8]);
        let (mut client, socket) = pair(b"").await;
        client.write_all(b"\x81\x01a").await.unwrap();
        assert!(socket.next().await.unwrap().is_err(), "it is not masked");
        assert!(socket.next().await.is_none());
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes[..1], [0x88]);
    }

    #[tokio::test]
    async fn an_end_is_an_end() {
        let (client, socket) = pair(b"").await;
        assert!(socket.look().await.is_none());
        drop(client);
        assert!(!matches!(socket.next().await, Some(Ok(_))));
    }
}
