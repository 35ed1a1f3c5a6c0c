//! A PostgreSQL connection for replication and for large reads, over any byte stream.
//!
//! Ordinary clients do not speak CopyBoth, and begin a COPY with a prepared statement, which a pooler would leave behind
//! in somebody else's session. Framing, start-up and authentication use `postgres-protocol`; the rest
//! of the frontend/backend protocol that a walsender needs is here (manual, 55.2 and 55.4).

use crate::error::PgError;
use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message accepted: PostgreSQL's own limit of a field is 1 GB.
const MESSAGE_BYTES: usize = 1 << 30;

/// Room for one read, at least.
const READ_BYTES: usize = 64 << 10;

/// The same while rows are copied.
const COPY_BYTES: usize = 256 << 10;

/// One connection. `S` is a socket, or anything a test or simulation makes.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    buffer: BytesMut,
    received: u64,
    backend_pid: Option<i32>,
    secret: Option<i32>,
    /// Nothing was asked that is not answered to its end.
    ready: bool,
}

/// Who connects, and how the session is set.
#[derive(Debug, Clone)]
pub struct Startup {
    /// Role.
    pub user: String,
    /// Its password, if the server asks.
    pub password: Option<Vec<u8>>,
    /// Database and session settings, as in the startup packet.
    pub parameters: Vec<(String, String)>,
    /// Whether the password's proof is bound to the TLS session.
    pub binding: Binding,
}

/// Channel binding: SCRAM proves the password to the server whose certificate TLS saw, and to nobody between.
#[derive(Debug, Clone, Default)]
pub struct Binding {
    /// The certificate's hash, if TLS is spoken and binding is wanted.
    pub end_point: Option<Vec<u8>>,
    /// Without it no password is given.
    pub required: bool,
}

/// A row of a simple query: text or NULL.
pub type TextRow = Vec<Option<String>>;

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Starts a session and authenticates.
    pub async fn start(stream: S, startup: &Startup) -> Result<Self, PgError> {
        let mut wire = Self {
            stream,
            buffer: BytesMut::with_capacity(READ_BYTES),
            received: 0,
            backend_pid: None,
            secret: None,
            ready: false,
        };
        let user = ("user", startup.user.as_str());
        let parameters = startup.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let mut out = BytesMut::new();
        frontend::startup_message(std::iter::once(user).chain(parameters), &mut out)?;
        wire.stream.write_all(&out).await?;
        wire.authenticate(startup).await?;
        loop {
            match wire.read().await? {
                (b'Z', _) => {
                    wire.ready = true;
                    return Ok(wire);
                }
                (b'K', mut body) if body.len() >= 4 => {
                    wire.backend_pid = Some(body.get_i32());
                    wire.secret = (body.len() == 4).then(|| body.get_i32());
                }
                (b'S' | b'K' | b'N', _) => {}
                _ => return Err(PgError::Protocol("after authentication")),
            }
        }
    }

    async fn authenticate(&mut self, startup: &Startup) -> Result<(), PgError> {
        let mut bound = false;
        let password =
            || startup.password.as_deref().ok_or(PgError::Protocol("a password is asked for, none is given"));
        loop {
            let message = self.parse().await?;
            let mut out = BytesMut::new();
            let asks_for_less = matches!(
                message,
                backend::Message::AuthenticationOk
                    | backend::Message::AuthenticationCleartextPassword
                    | backend::Message::AuthenticationMd5Password(_)
            );
            if asks_for_less && startup.binding.required && !bound {
                return Err(PgError::Protocol("channel_binding=require, and the server does without it"));
            }
            match message {
                backend::Message::AuthenticationOk => return Ok(()),
                backend::Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?, &mut out)?;
                }
                backend::Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(startup.user.as_bytes(), password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut out)?;
                }
                backend::Message::AuthenticationSasl(body) => {
                    let mechanisms: Vec<String> = body.mechanisms().map(|m| Ok(m.to_owned())).collect()?;
                    let (mechanism, binding) = mechanism(&mechanisms, &startup.binding)?;
                    self.scram(mechanism, password()?, binding).await?;
                    bound = mechanism == sasl::SCRAM_SHA_256_PLUS;
                    continue;
                }
                _ => return Err(PgError::Protocol("an authentication method that is not supported")),
            }
            self.stream.write_all(&out).await?;
        }
    }

    async fn scram(
        &mut self,
        mechanism: &str,
        password: &[u8],
        binding: sasl::ChannelBinding,
    ) -> Result<(), PgError> {
        let mut scram = sasl::ScramSha256::new(password, binding);
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut out)?;
        self.stream.write_all(&out).await?;
        let backend::Message::AuthenticationSaslContinue(body) = self.parse().await? else {
            return Err(PgError::Protocol("during SCRAM"));
        };
        scram.update(body.data())?;
        out.clear();
        frontend::sasl_response(scram.message(), &mut out)?;
        self.stream.write_all(&out).await?;
        let backend::Message::AuthenticationSaslFinal(body) = self.parse().await? else {
            return Err(PgError::Protocol("at the end of SCRAM"));
        };
        scram.finish(body.data())?;
        Ok(())
    }

    /// Reads one message: its tag and its body. An ErrorResponse is an error.
    pub async fn read(&mut self) -> Result<(u8, Bytes), PgError> {
        let whole = self.read_whole().await?;
        if whole[0] == b'E' {
            return Err(server_error(&whole));
        }
        Ok((whole[0], whole.slice(5..)))
    }

    async fn parse(&mut self) -> Result<backend::Message, PgError> {
        let whole = self.read_whole().await?;
        if whole[0] == b'E' {
            return Err(server_error(&whole));
        }
        let parsed = backend::Message::parse(&mut BytesMut::from(&whole[..]))?;
        parsed.ok_or(PgError::Protocol("a message cut short"))
    }

    /// The process that is said to serve this connection. A pooler says another one than the server would.
    pub fn backend_pid(&self) -> Option<i32> {
        self.backend_pid
    }

    /// What a request to cancel must name.
    pub fn cancel_key(&self) -> Option<(i32, i32)> {
        self.backend_pid.zip(self.secret)
    }

    /// Bytes read so far, also of a message that is not complete yet.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Cancellation-safe: what was read stays in the buffer.
    async fn read_whole(&mut self) -> Result<Bytes, PgError> {
        loop {
            if self.buffer.len() >= 5 {
                let length = (&self.buffer[1..5]).get_i32();
                let total =
                    usize::try_from(length).ok().filter(|l| (4..MESSAGE_BYTES).contains(l)).map(|l| l + 1);
                let total = total.ok_or(PgError::Protocol("an impossible length"))?;
                if self.buffer.len() >= total {
                    return Ok(self.buffer.split_to(total).freeze());
                }
                // Grows with what came: a length is only a claim.
                let have = self.buffer.len();
                self.buffer.reserve((total - have).min(have.max(READ_BYTES)));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), PgError> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            read => self.received += read as u64,
        }
        Ok(())
    }

    /// Whether the connection may be asked: the last question was answered to its end.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    async fn send(&mut self, sql: &str) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.ready = false;
        self.stream.write_all(&out).await?;
        Ok(())
    }

    /// Runs one simple query and collects its rows.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>, PgError> {
        self.send(sql).await?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            let whole = self.read_whole().await?;
            match whole[0] {
                b'D' => rows.push(data_row(&whole)?),
                b'E' => failed = Some(server_error(&whole)),
                b'Z' => {
                    self.ready = true;
                    return failed.map_or(Ok(rows), Err);
                }
                _ => {}
            }
        }
    }

    /// Sends `COPY … TO STDOUT` and waits until rows may come.
    pub async fn start_copy_out(&mut self, sql: &str) -> Result<(), PgError> {
        self.send(sql).await?;
        loop {
            let whole = self.read_whole().await?;
            match whole[0] {
                b'H' => return Ok(()),
                b'E' => return Err(self.until_ready(server_error(&whole)).await),
                b'N' | b'S' => {}
                _ => return Err(PgError::Protocol("instead of CopyOutResponse")),
            }
        }
    }

    /// Hands over rows of a COPY that are there, or waits for some. False: it has ended, and the connection may be
    /// asked again.
    pub async fn copy_rows(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), PgError>,
    ) -> Result<bool, PgError> {
        let mut at = 0;
        let mut any = false;
        // Most messages are one row: they are looked at where they lie, and let go together.
        while let Some((b'd', end)) = whole_message(&self.buffer[at..])? {
            any = true;
            let data = &self.buffer[at + 5..at + end];
            let rows = data.strip_suffix(b"\n").ok_or(PgError::Protocol("a row of COPY without its end"))?;
            rows.split(|b| *b == b'\n').try_for_each(&mut each)?;
            at += end;
        }
        self.buffer.advance(at);
        if any {
            return Ok(true);
        }
        if whole_message(&self.buffer)?.is_none() {
            self.buffer.reserve(COPY_BYTES);
            self.receive().await?;
            return Ok(true);
        }
        let whole = self.read_whole().await?;
        match whole[0] {
            b'E' => Err(self.until_ready(server_error(&whole)).await),
            b'Z' => {
                self.ready = true;
                Ok(false)
            }
            b'c' | b'C' | b'N' | b'S' => Ok(true),
            _ => Err(PgError::Protocol("during COPY")),
        }
    }

    /// After an error the server says when it listens again.
    async fn until_ready(&mut self, error: PgError) -> PgError {
        loop {
            match self.read_whole().await {
                Ok(whole) if whole[0] == b'Z' => {
                    self.ready = true;
                    return error;
                }
                Ok(_) => {}
                Err(broken) => return broken,
            }
        }
    }

    /// Sends START_REPLICATION and waits until both directions carry CopyData.
    pub async fn start_copy_both(&mut self, sql: &str) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.stream.write_all(&out).await?;
        loop {
            match self.read().await?.0 {
                b'W' => return Ok(()),
                b'N' | b'S' => {}
                _ => return Err(PgError::Protocol("instead of CopyBothResponse")),
            }
        }
    }

    /// Sends one CopyData message.
    pub async fn send_copy_data(&mut self, data: &[u8]) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        frontend::CopyData::new(data)?.write(&mut out);
        self.stream.write_all(&out).await?;
        Ok(())
    }

    /// Says goodbye, so that the server ends the session and its temporary slot at once.
    pub async fn terminate(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // The peer may be gone already; then there is nobody to tell.
        let _ = self.stream.write_all(&out).await;
        let _ = self.stream.shutdown().await;
    }
}

/// The strongest mechanism in common.
fn mechanism(offered: &[String], binding: &Binding) -> Result<(&'static str, sasl::ChannelBinding), PgError> {
    let offers = |name: &str| offered.iter().any(|m| m == name);
    match &binding.end_point {
        Some(end_point) if offers(sasl::SCRAM_SHA_256_PLUS) => {
            let bound = sasl::ChannelBinding::tls_server_end_point(end_point.clone());
            Ok((sasl::SCRAM_SHA_256_PLUS, bound))
        }
        _ if binding.required => Err(PgError::Protocol("channel_binding=require, and it cannot be had here")),
        _ if !offers(sasl::SCRAM_SHA_256) => Err(PgError::Protocol("no authentication mechanism in common")),
        // The server learns that we could have: somebody between us may have taken its offer away.
        Some(_) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
        None => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
    }
}

/// Tag and length of the first message, if it is there as a whole.
fn whole_message(buffer: &[u8]) -> Result<Option<(u8, usize)>, PgError> {
    let Some(length) = buffer.get(1..5) else { return Ok(None) };
    let mut length = length;
    let length = usize::try_from(length.get_i32()).ok().filter(|l| (4..MESSAGE_BYTES).contains(l));
    let total = length.ok_or(PgError::Protocol("an impossible length"))? + 1;
    Ok((buffer.len() >= total).then(|| (buffer[0], total)))
}

fn data_row(whole: &[u8]) -> Result<TextRow, PgError> {
    let mut rest = whole.get(5..).ok_or(PgError::Protocol("a short row"))?;
    let short = || PgError::Protocol("a short row");
    if rest.len() < 2 {
        return Err(short());
    }
    let count = rest.get_u16();
    // A lying count must not allocate: each column takes at least four bytes.
    if usize::from(count) > rest.len() / 4 {
        return Err(short());
    }
    let mut row = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        if rest.len() < 4 {
            return Err(short());
        }
        let Ok(length) = usize::try_from(rest.get_i32()) else {
            row.push(None);
            continue;
        };
        let value = rest.get(..length).ok_or_else(short)?;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest.advance(length);
    }
    Ok(row)
}

fn server_error(whole: &[u8]) -> PgError {
    let (mut code, mut message) = (String::new(), String::new());
    for field in whole.get(5..).unwrap_or_default().split(|b| *b == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        match kind {
            b'C' => code = String::from_utf8_lossy(text).into_owned(),
            b'M' => message = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    PgError::Server { code, message }
}
