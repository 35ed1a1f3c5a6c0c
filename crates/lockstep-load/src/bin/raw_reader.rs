//! The limit of `latency` and `decode`: reads a slot's stream and throws it away.
//!
//! `raw_reader PORT USER PASSWORD DATABASE SLOT PUBLICATIONS [COMMITS]`. Without COMMITS it prints each commit's
//! transaction and when it came, in nanoseconds of the wall clock; with it, after so many commits, the seconds that
//! they took. A slot called `temporary` is made, and goes with the connection.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::{backend, frontend};
use std::io::{Error, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Wire {
    fn send(&mut self, write: impl FnOnce(&mut bytes::BytesMut) -> std::io::Result<()>) -> Result<(), Error> {
        let mut out = bytes::BytesMut::new();
        write(&mut out)?;
        self.stream.write_all(&out)
    }

    /// Where the next message lies in the buffer, its tag included.
    fn next(&mut self) -> Result<std::ops::Range<usize>, Error> {
        loop {
            let have = &self.buffer[self.start..self.end];
            let mut needed = 5;
            if have.len() >= 5 {
                needed = 1 + u32::from_be_bytes([have[1], have[2], have[3], have[4]]) as usize;
                if have.len() >= needed {
                    let message = self.start..self.start + needed;
                    self.start = message.end;
                    return Ok(message);
                }
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < needed {
                self.buffer.resize(needed, 0);
            }
            match self.stream.read(&mut self.buffer[self.end..])? {
                0 => return Err(Error::other("the server closed the connection")),
                read => self.end += read,
            }
        }
    }

    fn until(&mut self, tag: u8) -> Result<(), Error> {
        loop {
            let message = self.next()?;
            match self.buffer[message.start] {
                found if found == tag => return Ok(()),
                b'E' => {
                    return Err(Error::other(String::from_utf8_lossy(&self.buffer[message]).into_owned()));
                }
                _ => {}
            }
        }
    }

    fn authenticate(&mut self, password: &str) -> Result<(), Error> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let message = self.next()?;
            let mut bytes = bytes::BytesMut::from(&self.buffer[message]);
            match backend::Message::parse(&mut bytes)? {
                Some(backend::Message::AuthenticationSasl(body)) => {
                    let mechanism = body.mechanisms().find(|m| Ok(*m == "SCRAM-SHA-256"))?;
                    let mechanism = mechanism.unwrap_or_default().to_owned();
                    self.send(|out| frontend::sasl_initial_response(&mechanism, scram.message(), out))?;
                }
                Some(backend::Message::AuthenticationSaslContinue(body)) => {
                    scram.update(body.data())?;
                    self.send(|out| frontend::sasl_response(scram.message(), out))?;
                }
                Some(backend::Message::AuthenticationSaslFinal(body)) => scram.finish(body.data())?,
                Some(backend::Message::AuthenticationOk) => return self.until(b'Z'),
                _ => return Err(Error::other("the server refuses")),
            }
        }
    }
}

fn clock() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos())
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, user, password, database, slot, publications, rest @ ..] = &arguments[..] else {
        return Err(Error::other("PORT USER PASSWORD DATABASE SLOT PUBLICATIONS [COMMITS]"));
    };
    let commits: Option<u64> = rest.first().and_then(|n| n.parse().ok());
    let stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut wire = Wire { stream, buffer: vec![0; 256 << 10], start: 0, end: 0 };
    let parameters = [("user", user.as_str()), ("database", database), ("replication", "database")];
    wire.send(|out| frontend::startup_message(parameters, out))?;
    wire.authenticate(password)?;
    if slot == "temporary" {
        wire.send(|out| {
            frontend::query(
                "CREATE_REPLICATION_SLOT temporary TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT",
                out,
            )
        })?;
        wire.until(b'Z')?;
    }
    let start = format!(
        "START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', messages 'true', publication_names '{publications}')"
    );
    wire.send(|out| frontend::query(&start, out))?;
    wire.until(b'W')?;
    println!("ready");
    let (mut seen, mut xid, mut began) = (0, 0, None);
    loop {
        let message = wire.next()?;
        let bytes = &wire.buffer[message];
        match (bytes.first(), bytes.get(5), bytes.get(30)) {
            (Some(b'd'), Some(b'w'), Some(b'B')) => {
                began.get_or_insert_with(Instant::now);
                xid = u32::from_be_bytes([bytes[47], bytes[48], bytes[49], bytes[50]]);
            }
            (Some(b'd'), Some(b'w'), Some(b'C')) if commits.is_none() => println!("{xid} {}", clock()),
            (Some(b'd'), Some(b'w'), Some(b'C')) => seen += 1,
            (Some(b'd'), Some(b'k'), _) if bytes.last() == Some(&1) => {
                // Nothing is acknowledged: the same can be read again.
                let mut status = vec![b'r'];
                status.resize(34, 0);
                wire.send(|out| frontend::CopyData::new(&status[..]).map(|data| data.write(out)))?;
            }
            (Some(b'E' | b'c'), ..) => return Err(Error::other("the stream ended")),
            _ => {}
        }
        if let (Some(began), true) = (began, Some(seen) == commits) {
            println!("{}", began.elapsed().as_secs_f64());
            return Ok(());
        }
    }
}
