//! The replication connection: the same messages whatever the pieces they come in, memory only for what came.

use crate::split;
use futures_util::FutureExt;
use lockstep_pg::PgError;
use lockstep_pg::wire::{Binding, Startup, TextRow, Wire};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A session that needs no password.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

/// What a server says, in pieces of at most this size. Always ready; what is written to it is thrown away.
struct Said<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Said<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.rest.len().min(self.piece).min(buf.remaining());
        let (head, rest) = self.rest.split_at(length);
        buf.put_slice(head);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Start-up and authentication from the bytes, a query, or a stream of messages.
pub fn run(data: &[u8]) {
    let (how, rest) = split(data);
    let welcomed = [WELCOME, rest].concat();
    let (said, what) = if how % 3 == 0 { (rest, 0) } else { (&welcomed[..], how % 3) };
    let whole = session(said, usize::MAX, what);
    assert_eq!(session(said, 1 + usize::from(how >> 4), what), whole);
    if what == 2 {
        assert_eq!(whole, framed(rest));
    }
}

fn describe<T: std::fmt::Debug>(result: &Result<T, PgError>) -> String {
    format!("{result:?}")
}

fn session(said: &[u8], piece: usize, what: u8) -> Vec<String> {
    let said = Said { rest: said, piece };
    let startup = Startup {
        user: "u".into(),
        password: Some(b"p".to_vec()),
        parameters: vec![("database".into(), "d".into())],
        binding: Binding { end_point: Some(b"certificate".to_vec()), required: false },
    };
    let talk = async {
        let mut heard = Vec::new();
        let mut wire = match Wire::start(said, &startup).await {
            Ok(wire) => wire,
            Err(error) => return vec![describe::<()>(&Err(error))],
        };
        if what == 1 {
            let rows: Result<Vec<TextRow>, PgError> = wire.query("IDENTIFY_SYSTEM").await;
            heard.push(describe(&rows));
            heard.push(describe(&wire.start_copy_both("START_REPLICATION").await));
        }
        loop {
            let message = wire.read().await;
            heard.push(describe(&message));
            if message.is_err_and(|e| !matches!(e, PgError::Server { .. })) {
                return heard;
            }
        }
    };
    talk.now_or_never().expect("a server that is always ready")
}

/// The messages by the rule of the manual: a tag, a length that counts itself, a body.
fn framed(mut rest: &[u8]) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let message = message(&mut rest);
        // The text of an error is not judged here.
        heard.push(match &message {
            Ok((b'E', body)) => describe::<()>(&Err(server_error(body))),
            Ok((tag, body)) => describe(&Ok((*tag, bytes::Bytes::copy_from_slice(body)))),
            Err(_) => describe(&message),
        });
        if message.is_err() {
            return heard;
        }
    }
}

fn message<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), PgError> {
    let cut = || PgError::Io(io::ErrorKind::UnexpectedEof.into());
    let (head, body) = rest.split_first_chunk::<5>().ok_or_else(cut)?;
    let length = i32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if !(4..1 << 30).contains(&length) {
        return Err(PgError::Protocol("an impossible length"));
    }
    let (body, after) = body.split_at_checked(length as usize - 4).ok_or_else(cut)?;
    *rest = after;
    Ok((head[0], body))
}

fn server_error(body: &[u8]) -> PgError {
    let field = |kind: u8| {
        let named = |f: &&[u8]| f.first() == Some(&kind);
        let text = body.split(|b| *b == 0).rfind(named).map(|f| String::from_utf8_lossy(&f[1..]));
        text.unwrap_or_default().into_owned()
    };
    PgError::Server { code: field(b'C'), message: field(b'M') }
}
