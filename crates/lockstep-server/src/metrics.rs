//! Every metric of a node: its name, its kind and what it says. docs/operation.md has the same list for people; a test
//! compares both with what `/metrics` serves.

use crate::node::Asked;
use anyhow::{Context, Result};
use lockstep_core::fanout::hub::{Bound, Mode, MutateResult};
use lockstep_pg::figures::{LogFigures, SlotFigures};
use lockstep_pg::mutate::Ran;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Seconds since the moment of which the node is proven to have everything.
pub const LAG_SECONDS: &str = "lockstep_lag_seconds";
const LAG_BYTES: &str = "lockstep_lag_bytes";
const FEED: &str = "lockstep_feed";
const SESSIONS: &str = "lockstep_sessions";
const SESSIONS_WAITING: &str = "lockstep_sessions_waiting";
const SESSIONS_LATER: &str = "lockstep_sessions_later";
const SHAPES: &str = "lockstep_shapes";
const SUBSCRIPTIONS: &str = "lockstep_subscriptions";
const QUEUE_BYTES: &str = "lockstep_queue_bytes";
const QUEUE_BYTES_LARGEST: &str = "lockstep_queue_bytes_largest";
const RING_BYTES: &str = "lockstep_ring_bytes";
const WINDOW_BYTES: &str = "lockstep_window_bytes";
const RESUMES: &str = "lockstep_resumes_total";
const HELD_BYTES: &str = "lockstep_held_bytes";
const CATCH_UPS_RUNNING: &str = "lockstep_catch_ups_running";
const CATCH_UPS: &str = "lockstep_catch_ups_total";
const TRANSACTIONS: &str = "lockstep_transactions_total";
const PASSED: &str = "lockstep_passed_transactions_total";
const PASSED_FALLEN: &str = "lockstep_passed_fallen_total";
const ROWS: &str = "lockstep_rows_total";
const STREAMS: &str = "lockstep_streams_total";
const MUTATIONS: &str = "lockstep_mutations_total";
const CLOSES: &str = "lockstep_closes_total";
const BOUNDS: &str = "lockstep_bounds_reached_total";
const SLOT_ACTIVE: &str = "lockstep_slot_active";
const SLOT_RETAINED_BYTES: &str = "lockstep_slot_retained_bytes";
const LOG_ROWS: &str = "lockstep_log_rows";
const LOG_BYTES: &str = "lockstep_log_bytes";
const HORIZON_AGE_SECONDS: &str = "lockstep_horizon_age_seconds";

/// Whether a metric may go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
}

/// Name, kind, and what it says.
const ALL: &[(&str, Kind, &str)] = &[
    (LAG_SECONDS, Kind::Gauge, "seconds since the moment of which the node is proven to have everything"),
    (LAG_BYTES, Kind::Gauge, "bytes of WAL that the stream has still to bring"),
    (FEED, Kind::Gauge, "1 for how the node is fed now"),
    (SESSIONS, Kind::Gauge, "connections"),
    (SESSIONS_WAITING, Kind::Gauge, "sessions that wait for rows to be read from PostgreSQL"),
    (SESSIONS_LATER, Kind::Gauge, "sessions that were told to come again, and have not yet"),
    (SHAPES, Kind::Gauge, "shapes that somebody subscribes to, each counted once"),
    (SUBSCRIPTIONS, Kind::Gauge, "subscriptions of all sessions"),
    (QUEUE_BYTES, Kind::Gauge, "bytes that wait for sockets"),
    (QUEUE_BYTES_LARGEST, Kind::Gauge, "bytes that wait for the socket with most of them"),
    (RING_BYTES, Kind::Gauge, "bytes of recently delivered rows"),
    (WINDOW_BYTES, Kind::Gauge, "bytes of recent commits kept for clients that come back"),
    (RESUMES, Kind::Counter, "clients that came back with all their shapes, by what answered them"),
    (HELD_BYTES, Kind::Gauge, "bytes that wait for a synchronous standby"),
    (CATCH_UPS_RUNNING, Kind::Gauge, "catch-up transactions that run"),
    (CATCH_UPS, Kind::Counter, "catch-ups by how they ended"),
    (TRANSACTIONS, Kind::Counter, "transactions that the stream brought"),
    (PASSED, Kind::Counter, "transactions among them that were passed through in parts"),
    (PASSED_FALLEN, Kind::Counter, "sessions that were caught up past such a transaction"),
    (ROWS, Kind::Counter, "rows that they changed"),
    (STREAMS, Kind::Counter, "replication streams that began"),
    (MUTATIONS, Kind::Counter, "clients' mutations by what became of them"),
    (CLOSES, Kind::Counter, "connections that the node closed, by close code"),
    (BOUNDS, Kind::Counter, "how often each bound was reached"),
    (SLOT_ACTIVE, Kind::Gauge, "1 while this node's replication slot is in use"),
    (SLOT_RETAINED_BYTES, Kind::Gauge, "bytes of WAL that PostgreSQL keeps for this node's slot"),
    (LOG_ROWS, Kind::Gauge, "entries in a table's change log, about"),
    (LOG_BYTES, Kind::Gauge, "bytes of a table's change log on disk"),
    (HORIZON_AGE_SECONDS, Kind::Gauge, "how far back a table's change log reaches, at least"),
];

/// Bounds that sockets and requests meet; the others are [`Bound`].
pub const QUEUE_FULL: &str = "queue_bytes";
/// See [`QUEUE_FULL`].
pub const FRAME_TOO_LARGE: &str = "client_frame_bytes";
/// See [`QUEUE_FULL`].
pub const UNSERVED: &str = "unserved_bytes";
/// See [`QUEUE_FULL`].
pub const POSTS: &str = "posts_in_flight";
/// See [`QUEUE_FULL`].
pub const NODE_QUEUES_FULL: &str = "node_queue_bytes";
/// See [`QUEUE_FULL`].
pub const NODE_UNSERVED: &str = "node_unserved_bytes";
/// A socket that took nothing for a minute.
pub const UNREAD: &str = "unread";
/// A load waited for a socket.
pub const CATCH_UP_AHEAD: &str = "catch_up_ahead_bytes";
/// Pings that came faster than their answers were taken.
pub const PONGS: &str = "pongs";
/// Connections wait to be accepted.
pub const HTTP_CONNECTIONS: &str = "http_connections";
const SERVER_BOUNDS: [&str; 10] = [
    HTTP_CONNECTIONS,
    PONGS,
    QUEUE_FULL,
    FRAME_TOO_LARGE,
    UNSERVED,
    POSTS,
    NODE_QUEUES_FULL,
    NODE_UNSERVED,
    UNREAD,
    CATCH_UP_AHEAD,
];
const OUTCOMES: [&str; 6] = ["applied", "refused", "renumber", "gap", "unknown_client", "busy"];
const CLOSE_CODES: [u16; 7] = [1001, 1002, 1003, 1007, 1009, 1012, 1013];

/// Begins counting. Everything that has a fixed set of labels is there from the beginning, as zero: a rate over what
/// has not happened yet must not be missing.
///
/// # Errors
/// If the process counts already.
pub fn start() -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new().install_recorder().context("metrics")?;
    for (name, kind, help) in ALL {
        match kind {
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Counter => describe_counter!(*name, *help),
        }
    }
    for outcome in OUTCOMES {
        counter!(MUTATIONS, "outcome" => outcome).absolute(0);
    }
    for code in CLOSE_CODES {
        counter!(CLOSES, "code" => code.to_string()).absolute(0);
    }
    for bound in SERVER_BOUNDS {
        counter!(BOUNDS, "bound" => bound).absolute(0);
    }
    slot(None);
    Ok(handle)
}

/// A bound was reached outside of the hub.
pub fn reached(bound: &'static str) {
    counter!(BOUNDS, "bound" => bound).increment(1);
}

/// The node closed a connection.
pub fn closed(code: u16) {
    counter!(CLOSES, "code" => code.to_string()).increment(1);
}

/// Mutations were run. What was decided before is not counted again.
pub fn mutated(ran: &Ran, result: MutateResult) {
    counter!(MUTATIONS, "outcome" => "applied").increment(ran.applied);
    counter!(MUTATIONS, "outcome" => "refused").increment(ran.refused);
    let stopped = match result {
        MutateResult::Decided => return,
        MutateResult::Renumber { .. } => "renumber",
        MutateResult::Gap { .. } => "gap",
        MutateResult::UnknownClient => "unknown_client",
        MutateResult::Busy => "busy",
    };
    counter!(MUTATIONS, "outcome" => stopped).increment(1);
}

/// What the database says of the node's slot; None while there is none.
pub fn slot(figures: Option<&SlotFigures>) {
    gauge!(SLOT_ACTIVE).set(f64::from(u8::from(figures.is_some_and(|f| f.active))));
    gauge!(SLOT_RETAINED_BYTES).set(figures.map_or(0, |f| f.retained_bytes) as f64);
}

/// What the database says of one table's change log.
pub fn log(figures: &LogFigures) {
    let table = &figures.table;
    gauge!(LOG_ROWS, "table" => table.clone()).set(figures.rows as f64);
    gauge!(LOG_BYTES, "table" => table.clone()).set(figures.bytes as f64);
    gauge!(HORIZON_AGE_SECONDS, "table" => table.clone()).set(figures.horizon_age as f64);
}

/// What the node says, now. Numbers beyond 2^53 lose digits; none comes near.
pub fn take(asked: &Asked, feed: &'static str) {
    let report = &asked.report;
    let bytes = |n: usize| n as f64;
    // Of a node that has proven nothing yet, no number would be true.
    gauge!(LAG_SECONDS).set(report.age.map_or(f64::NAN, |age| age as f64 / 1000.0));
    gauge!(LAG_BYTES).set(report.lag_bytes as f64);
    for name in FEEDS {
        gauge!(FEED, "feed" => name).set(f64::from(u8::from(name == feed)));
    }
    gauge!(SESSIONS).set(bytes(report.sessions));
    gauge!(SESSIONS_WAITING).set(bytes(report.waiting));
    gauge!(SESSIONS_LATER).set(bytes(report.later));
    gauge!(SHAPES).set(bytes(report.shapes));
    gauge!(SUBSCRIPTIONS).set(bytes(report.subscriptions));
    gauge!(QUEUE_BYTES).set(bytes(asked.queue_bytes));
    gauge!(QUEUE_BYTES_LARGEST).set(bytes(asked.queue_bytes_largest));
    gauge!(RING_BYTES).set(bytes(report.ring_bytes));
    gauge!(WINDOW_BYTES).set(bytes(report.window_bytes));
    gauge!(HELD_BYTES).set(bytes(report.held_bytes));
    gauge!(CATCH_UPS_RUNNING).set(bytes(report.catch_ups));
    let counters = &report.counters;
    for (outcome, count) in [
        ("settled", counters.catch_ups_settled),
        ("failed", counters.catch_ups_failed),
        ("discarded", counters.catch_ups_discarded),
    ] {
        counter!(CATCH_UPS, "outcome" => outcome).absolute(count);
    }
    counter!(RESUMES, "from" => "window").absolute(counters.resumes_window);
    counter!(RESUMES, "from" => "postgresql").absolute(counters.resumes_read);
    counter!(TRANSACTIONS).absolute(counters.transactions);
    counter!(PASSED).absolute(counters.passed);
    counter!(PASSED_FALLEN).absolute(counters.passed_fallen);
    counter!(ROWS).absolute(counters.rows);
    counter!(STREAMS).absolute(counters.streams);
    for (bound, count) in Bound::ALL.iter().zip(counters.bounds) {
        counter!(BOUNDS, "bound" => bound.as_str()).absolute(count);
    }
}

/// How a node is fed.
pub const FEEDS: [&str; 5] = ["starting", "unreachable", "polling", "catching_up", "live"];

/// One of [`FEEDS`]. `catching_up`: there is a stream, and sessions do not follow it yet.
pub fn feed(mode: Mode, follows: bool, reachable: bool) -> &'static str {
    match mode {
        Mode::Starting => "starting",
        Mode::Polling if !reachable => "unreachable",
        Mode::Polling => "polling",
        Mode::Streaming if !follows => "catching_up",
        Mode::Streaming => "live",
    }
}
