//! One client's socket: WebSocket frames without a library, so that none of its costs is mistaken for the node's.

use super::Crowd;
use super::held::{Held, Said, Shape};
use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Text, close and pong of RFC 6455.
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It reads at once.
    Good,
    /// It reads now and then, into a small window.
    Slow,
    /// It leaves and comes back.
    Flapping,
}

/// One client.
#[derive(Debug)]
pub struct Socket {
    /// Its connection; None between two.
    pub stream: Option<TcpStream>,
    /// What it holds.
    pub held: Held,
    /// How it behaves.
    pub manner: Manner,
    number: usize,
    rest: Vec<u8>,
    references: u64,
    /// The node said when to join again.
    pub later: Option<Instant>,
}

/// The frame that the last client got: when all get the same one, it is understood once.
#[derive(Debug, Default)]
pub struct Memo {
    text: Vec<u8>,
    said: Option<Said>,
    /// The last `rows` and the last `commit`.
    pub shown: [Vec<u8>; 2],
}

/// What reading brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// There is nothing more for now.
    Nothing,
    /// The peer has gone, or said that it will.
    Closed,
}

impl Socket {
    /// A client that is not connected yet.
    pub fn new(number: usize, crowd: &Crowd, manner: Manner) -> Self {
        let first = crowd.first + i64::try_from(number / crowd.share.max(1) * crowd.shapes).unwrap_or(0);
        let scopes = (first..).take(crowd.shapes);
        let shape = |scope| Shape { scope: crowd.scope.is_some().then_some(scope), ..Shape::default() };
        let held = Held { shapes: scopes.map(shape).collect(), ..Held::default() };
        Self { stream: None, held, manner, number, rest: Vec::new(), references: 1, later: None }
    }

    /// Connects, and joins if the peer is a node.
    pub fn connect(&mut self, crowd: &Crowd) -> Result<()> {
        let domain = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let socket = socket2::Socket::new(domain.0, domain.1, None)?;
        let source = crowd.source + u8::try_from(self.number / 5_000)?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2 + source), 0).into())?;
        if self.manner == Manner::Slow {
            socket.set_recv_buffer_size(4096)?;
        }
        socket.connect(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, crowd.port).into()).context("connect")?;
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(
            b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )?;
        let mut answer = [0; 1024];
        let mut length = 0;
        while !answer[..length].ends_with(b"\r\n\r\n") {
            ensure!(length < answer.len(), "the upgrade's answer has no end");
            // One byte more than the header would be a frame's; none comes before the join.
            let read = stream.read(&mut answer[length..])?;
            ensure!(read > 0, "closed during the upgrade");
            length += read;
            if crowd.bare && answer[..length].windows(4).any(|w| w == b"\r\n\r\n") {
                break;
            }
        }
        ensure!(
            answer.starts_with(b"HTTP/1.1 101"),
            "no upgrade: {}",
            String::from_utf8_lossy(&answer[..length])
        );
        self.rest = Vec::new();
        self.later = None;
        if crowd.bare {
            self.held.established = true;
        } else {
            let join = self.join(crowd);
            stream.write_all(&masked(&join))?;
        }
        stream.set_nonblocking(true)?;
        self.stream = Some(TcpStream::from_std(stream));
        Ok(())
    }

    fn join(&self, crowd: &Crowd) -> String {
        let cursor = self.held.cursor.as_deref();
        let shapes = self.held.shapes.iter().enumerate().map(|(number, shape)| {
            let scope = crowd.scope.as_ref().map(|column| json!({column: shape.scope}));
            json!({
                "ref": number.to_string(), "table": crowd.table, "scope": scope,
                "have": cursor.is_some(), "fingerprint": cursor.map(|_| &shape.fingerprint),
            })
        });
        let shapes: Vec<_> = shapes.collect();
        json!(["1", "1", "sync", "phx_join", {"protocol": 1, "cursor": cursor, "shapes": shapes}]).to_string()
    }

    /// Joins again, if it is time.
    pub fn join_again(&mut self, crowd: &Crowd, now: Instant) -> Result<()> {
        let Some(_) = self.later.take_if(|at| *at <= now) else { return Ok(()) };
        let join = masked(&self.join(crowd));
        let Some(stream) = &mut self.stream else { return Ok(()) };
        // A join is small, and nothing else waits to be sent.
        stream.write_all(&join).context("joining again")
    }

    /// Says that it is alive.
    pub fn heartbeat(&mut self) -> Result<()> {
        self.references += 1;
        let text = json!([null, self.references.to_string(), "phoenix", "heartbeat", {}]).to_string();
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match stream.write(&masked(&text)) {
            Ok(_) => Ok(()),
            // Closed meanwhile: the reader learns it too.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads all that is there. `commit` is called with the transaction of each commit.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        memo: &mut Memo,
        commit: &mut impl FnMut(u64),
    ) -> Result<Heard> {
        loop {
            let Some(stream) = &mut self.stream else { return Ok(Heard::Nothing) };
            let read = match stream.read(buffer) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Heard::Nothing),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Heard::Closed),
                Err(error) => return Err(error.into()),
            };
            let ended = if self.rest.is_empty() {
                let (taken, ended) = self.frames(&buffer[..read], memo, commit)?;
                self.rest.extend_from_slice(&buffer[taken..read]);
                ended
            } else {
                let mut rest = std::mem::take(&mut self.rest);
                rest.extend_from_slice(&buffer[..read]);
                let (taken, ended) = self.frames(&rest, memo, commit)?;
                if taken < rest.len() {
                    rest.drain(..taken);
                    self.rest = rest;
                }
                ended
            };
            if ended {
                return Ok(Heard::Closed);
            }
            // A short read of a stream has emptied it, epoll(7) says.
            if read < buffer.len() {
                return Ok(Heard::Nothing);
            }
        }
    }

    /// Takes whole frames; returns how many bytes they were, and whether the peer says goodbye.
    fn frames(
        &mut self,
        bytes: &[u8],
        memo: &mut Memo,
        commit: &mut impl FnMut(u64),
    ) -> Result<(usize, bool)> {
        let mut at = 0;
        while let Some((kind, start, end)) = frame(&bytes[at..]) {
            let payload = &bytes[at + start..at + end];
            at += end;
            match kind {
                TEXT => {
                    if memo.text != payload {
                        memo.said = Some(Said::parse(std::str::from_utf8(payload)?)?);
                        memo.text.clear();
                        memo.text.extend_from_slice(payload);
                        match memo.said {
                            Some(Said::Rows(..)) => memo.shown[0].clone_from(&memo.text),
                            Some(Said::Commit(..)) => memo.shown[1].clone_from(&memo.text),
                            _ => {}
                        }
                    }
                    let Some(said) = &memo.said else { continue };
                    if let Said::Later(wait) = said {
                        self.later = Some(Instant::now() + *wait);
                    }
                    if self.held.shapes.is_empty() {
                        // Of a peer that is no node commits are only timed.
                        if let Said::Commit(Some(xid), _) = said {
                            commit(*xid);
                        }
                    } else if let Some(Some(xid)) = self.held.hear(said, self.manner == Manner::Flapping)? {
                        commit(xid);
                    }
                }
                CLOSE => return Ok((at, true)),
                _ => {}
            }
        }
        Ok((at, false))
    }
}

/// Kind of the first frame, and where its payload begins and ends; None if it is not all there. A server does not mask.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, length) = (*bytes.first()?, *bytes.get(1)?);
    let big = |from: usize, to: usize| {
        bytes.get(from..to).map(|b| b.iter().fold(0usize, |n, byte| n << 8 | usize::from(*byte)))
    };
    let (start, length) = match length {
        126 => (4, big(2, 4)?),
        127 => (10, big(2, 10)?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= start + length).then_some((first & 15, start, start + length))
}

/// A client's text frame. It has to be masked; by zeros is allowed.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x80 | TEXT];
    match text.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap_or(0)),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}
