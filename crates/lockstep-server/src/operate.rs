//! What an operator and a balancer ask over HTTP: `/health`, `/ready`, `/metrics`, `/v1/status`.

use crate::http::Shared;
use crate::metrics;
use crate::node::{Asked, Event};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use lockstep_core::fanout::hub::{SessionReport, ShapeReport};
use lockstep_pg::figures;
use lockstep_pg::lease::{Lease, within};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// A node that does not answer for so long hangs.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks at the slot and the logs.
const FIGURES_EVERY: Duration = Duration::from_secs(15);

/// The process lives: starting another one would not help with what else may be wrong.
pub async fn health(State(shared): State<Shared>) -> impl IntoResponse {
    Json(shared.health.report().1)
}

/// Whether clients should be sent here.
pub async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let (ready, body) = shared.health.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

async fn ask(shared: &Shared, details: bool) -> Option<Asked> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        shared.events.send(Event::Ask(details, answer)).await.ok()?;
        answered.await.ok()
    };
    tokio::time::timeout(ANSWER, asked).await.ok().flatten()
}

fn hangs() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the node does not answer\n").into_response()
}

/// Prometheus' text format.
pub async fn metrics(State(shared): State<Shared>) -> Response {
    let Some(asked) = ask(&shared, false).await else { return hangs() };
    metrics::take(&asked, shared.health.feed());
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, shared.metrics.render()).into_response()
}

/// Everything that `lockstep status` shows. No values of rows: of a scope only the columns are named.
pub async fn status(State(shared): State<Shared>) -> Response {
    let Some(asked) = ask(&shared, true).await else { return hangs() };
    let (_, mut body) = shared.health.report();
    let report = &asked.report;
    let shape = |s: &ShapeReport| {
        json!({"shape": s.id, "table": [s.table.0, s.table.1], "scope": s.scope, "where": s.filtered,
            "subscribers": s.subscribers, "frames": s.frames, "bytes": s.bytes})
    };
    let session = |(s, address, queued): &(SessionReport, String, usize)| {
        json!({"session": s.id, "client": s.client, "address": address, "shapes": s.shapes, "live": s.live, "age_ms": s.age,
            "queue_bytes": queued})
    };
    let details: [(&str, Value); 14] = [
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("lag_bytes", report.lag_bytes.into()),
        ("subscriptions", report.subscriptions.into()),
        ("waiting", report.waiting.into()),
        ("later", report.later.into()),
        ("catch_ups", report.catch_ups.into()),
        ("resumes_window", report.counters.resumes_window.into()),
        ("resumes_read", report.counters.resumes_read.into()),
        ("window_bytes", report.window_bytes.into()),
        ("transactions", report.counters.transactions.into()),
        ("rows", report.counters.rows.into()),
        ("queue_bytes", asked.queue_bytes.into()),
        ("shapes", asked.shapes.iter().map(shape).collect()),
        ("connections", asked.sessions.iter().map(session).collect()),
    ];
    for (name, value) in details {
        body[name] = value;
    }
    Json(body).into_response()
}

/// Looks at the slot and the logs now and then, until the node stops. A database that does not answer leaves the
/// figures as they were.
pub async fn keep_figures(shared: Shared, mut stop: watch::Receiver<bool>) {
    loop {
        if let Err(error) = look(&shared).await {
            tracing::debug!(%error, "the sizes of slot and logs could not be asked");
        }
        tokio::select! {
            () = tokio::time::sleep(FIGURES_EVERY) => {}
            () = shared.health.slot_changed() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

async fn look(shared: &Shared) -> Result<(), lockstep_pg::PgError> {
    let (database, slot) = (&shared.database, shared.health.slot());
    let lease = Lease::of(&database.control).await?;
    let asked = within(database.answer, async {
        let logs = figures::logs(&*lease).await?;
        let slot = match &slot {
            Some(name) => figures::slot(&*lease, name).await?,
            None => None,
        };
        Ok((logs, slot))
    })
    .await;
    let (logs, slot) = lease.end(asked, database.answer).await?;
    metrics::slot(slot.as_ref());
    logs.iter().for_each(metrics::log);
    Ok(())
}
