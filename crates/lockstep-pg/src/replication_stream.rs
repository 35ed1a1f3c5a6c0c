//! The slot and its stream.

use crate::error::PgError;
use crate::lease::within;
use crate::wire::Wire;
use bytes::Bytes;
use lockstep_core::pgoutput::POSTGRES_EPOCH_MICROS;
use lockstep_core::position::Lsn;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What IDENTIFY_SYSTEM and TIMELINE_HISTORY say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// `system_identifier`.
    pub system: u64,
    /// Current timeline.
    pub timeline: u32,
    /// Earlier timelines and where each ended.
    pub history: Vec<(u32, Lsn)>,
}

/// Names of the publications that `install` makes.
pub const PUBLICATIONS: &str = "\"lockstep_tables\",\"lockstep_tombstones\"";

/// How often a status update is sent though nothing changed; wal_sender_timeout is 60 s by default.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Messages handed over together, at most.
const BATCH: usize = 1024;

/// SQLSTATE.
const SYNTAX_ERROR: &str = "42601";

/// Who the server is. `pg_control_checkpoint()` lags after a promotion; this does not.
pub async fn identify<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<System, PgError> {
    let rows = match wire.query("IDENTIFY_SYSTEM").await {
        // An ordinary session: somebody between us took `replication` for a parameter that may be left out.
        Err(PgError::Server { code, .. }) if code == SYNTAX_ERROR => return Err(PgError::Pooler),
        rows => rows?,
    };
    let row = rows.first().ok_or(PgError::Protocol("no answer to IDENTIFY_SYSTEM"))?;
    let number = |at: usize| row.get(at).and_then(|v| v.as_deref()).and_then(|v| v.parse::<u64>().ok());
    let (Some(system), Some(timeline)) = (number(0), number(1).and_then(|t| u32::try_from(t).ok())) else {
        return Err(PgError::Protocol("IDENTIFY_SYSTEM"));
    };
    let mut history = Vec::new();
    if timeline > 1 {
        let rows = wire.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let text = rows.first().and_then(|r| r.get(1)).and_then(|v| v.as_deref()).unwrap_or_default();
        history = parse_history(text);
    }
    Ok(System { system, timeline, history })
}

/// Lines of `timeline<TAB>end LSN<TAB>reason`; comments and blank lines are passed over.
fn parse_history(text: &str) -> Vec<(u32, Lsn)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect()
}

/// Makes a temporary slot. Waits for every writing transaction that is open in the cluster, other databases
/// included.
///
/// By the SQL function, not by CREATE_REPLICATION_SLOT: only there does the server look after the connection while it
/// waits (`client_connection_check_interval`). A node that is killed meanwhile would leave its slot behind, and hold
/// WAL, for as long as the transactions stay open.
pub async fn create_slot<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    name: &str,
) -> Result<(), PgError> {
    wire.query(&format!("SELECT pg_catalog.pg_create_logical_replication_slot('{name}', 'pgoutput', true)"))
        .await?;
    Ok(())
}

/// Copies another node's temporary slot, which also works while that node streams from it and while writing
/// transactions are open. Stream from the copy's own position.
pub async fn copy_slot<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    theirs: &str,
    name: &str,
) -> Result<(), PgError> {
    wire.query(&format!("SELECT pg_catalog.pg_copy_logical_replication_slot('{theirs}', '{name}', true)"))
        .await?;
    Ok(())
}

/// Starts streaming from the slot's own confirmed position.
pub async fn start<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, slot: &str) -> Result<(), PgError> {
    wire.start_copy_both(&format!(
        "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', messages 'true', publication_names '{}')",
        PUBLICATIONS
    ))
    .await
}

/// What the hub says back: how far the slot may advance, and whether a keepalive is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Feedback {
    /// Flush position.
    pub flush: Lsn,
    /// Ask the server for a keepalive.
    pub reply: bool,
}

/// Carries the stream to `out`, messages that came together in one piece, and feedback back, until either ends, or the
/// server is silent for `silence` although it was asked to speak: a half-open connection must not look like an idle
/// database.
///
/// Keepalives are answered and status is sent while `out` is full: a slow consumer never looks dead to PostgreSQL.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut wire: Wire<S>,
    out: mpsc::Sender<Vec<Bytes>>,
    mut feedback: mpsc::UnboundedReceiver<Feedback>,
    silence: Duration,
) -> Result<(), PgError> {
    let mut flush = Lsn(0);
    let mut waiting: Option<Vec<Bytes>> = None;
    let mut status = tokio::time::interval(STATUS_EVERY.min(silence / 4));
    let (mut received, mut heard) = (wire.received(), Instant::now());
    loop {
        tokio::select! {
            biased;
            given = feedback.recv() => match given {
                Some(given) => {
                    flush = flush.max(given.flush);
                    within(silence, wire.send_copy_data(&status_update(flush, given.reply))).await?;
                }
                None => break,
            },
            permit = out.reserve(), if waiting.is_some() => match (permit, waiting.take()) {
                (Ok(permit), Some(bytes)) => permit.send(bytes),
                _ => break,
            },
            message = wire.read(), if waiting.is_none() => {
                let mut batch = Vec::new();
                let mut next = Some(message?);
                while let Some(message) = next {
                    match message {
                        (b'd', body) => batch.push(body),
                        (b'c', _) => return Err(PgError::Protocol("the server ended the stream")),
                        (b'N' | b'S', _) => {}
                        _ => return Err(PgError::Protocol("in the stream")),
                    }
                    // What came with it: handing over each by itself costs more than understanding it.
                    next = if batch.len() < BATCH { wire.read_at_once()? } else { None };
                }
                waiting = Some(batch).filter(|batch| !batch.is_empty());
            },
            _ = status.tick() => {
                // While `out` is full nothing is read: then the silence is this side's.
                let spoke = wire.received() != received || waiting.is_some();
                if spoke {
                    (received, heard) = (wire.received(), Instant::now());
                } else if heard.elapsed() >= silence {
                    return Err(PgError::Silent(silence));
                }
                within(silence, wire.send_copy_data(&status_update(flush, !spoke))).await?;
            }
        }
    }
    // The goodbye is a courtesy; closing the socket says the same.
    let _ = tokio::time::timeout(silence, wire.terminate()).await;
    Ok(())
}

/// A standby status update (manual, 55.4): written and flushed are both what need not be sent again.
fn status_update(flush: Lsn, reply: bool) -> Vec<u8> {
    let micros =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(0));
    let mut message = vec![b'r'];
    for lsn in [flush, flush, flush] {
        message.extend(lsn.0.to_be_bytes());
    }
    message.extend((micros - POSTGRES_EPOCH_MICROS).to_be_bytes());
    message.push(u8::from(reply));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_timeline_history() {
        let text = "1\t0/2057D428\tno recovery target specified\n\n2\t0/3000000\tx\n";
        assert_eq!(parse_history(text), [(1, Lsn(0x2057_D428)), (2, Lsn(0x300_0000))]);
    }
}
