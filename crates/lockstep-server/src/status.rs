//! `lockstep status`: what a running node says of itself.

use anyhow::{Context, Result, bail};
use axum::body::{Body, to_bytes};
use axum::http::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long the node may take.
const ANSWER: Duration = Duration::from_secs(10);
/// An answer of a node with all the sessions that it may have.
const MOST_BYTES: usize = 256 << 20;
/// Lines of each table.
const LINES: usize = 20;

/// Asks the node at this address.
///
/// # Errors
/// If no node answers there.
pub async fn ask(node: &str) -> Result<Json> {
    let uri: Uri = node.parse().context("--node is no address such as http://127.0.0.1:4000")?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        bail!("--node: an address begins with http:// and a host");
    };
    let port = uri.port_u16().unwrap_or(80);
    let answer = async {
        let socket = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(connection);
        let path = format!("{}/v1/status", uri.path().trim_end_matches('/'));
        let request = Request::get(path).header(header::HOST, format!("{host}:{port}")).body(Body::empty())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), MOST_BYTES).await?;
        drop(sender);
        let _ = connection.await;
        anyhow::ensure!(status.is_success(), "it answers with {status}");
        serde_json::from_slice(&body).context("its answer is not a node's")
    };
    let answer = tokio::time::timeout(ANSWER, answer).await.context("it does not answer");
    answer
        .and_then(|answer| answer)
        .with_context(|| format!("no node at {node}; is one running? choose --node"))
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// For people: the node, its shapes by what they cost, its sessions by what waits for them.
pub fn describe(status: &Json) -> String {
    let mut out = String::new();
    let age = status["lag_ms"].as_u64().map_or("nothing proven yet".to_owned(), |ms| {
        format!("level as of {}.{} s ago", ms / 1000, ms % 1000 / 100)
    });
    let field = |name: &str| text(&status[name]);
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "lockstep {}: {}, {age}, {} bytes of WAL to come, at {}",
        field("version"),
        field("feed"),
        field("lag_bytes"),
        field("watermark"),
    );
    if let Some(problem) = status["problem"].as_str() {
        let _ = writeln!(out, "problem ({}): {problem}", field("code"));
    }
    let _ = writeln!(
        out,
        "{} sessions ({} wait for rows, {} more are to come again), {} subscriptions, {} bytes queued, {} catch-ups running, {} transactions with {} rows so far",
        field("sessions"),
        field("waiting"),
        field("later"),
        field("subscriptions"),
        field("queue_bytes"),
        field("catch_ups"),
        field("transactions"),
        field("rows"),
    );
    let _ = writeln!(
        out,
        "{} clients came back from memory, {} by asking PostgreSQL; {} bytes of recent commits kept",
        field("resumes_window"),
        field("resumes_read"),
        field("window_bytes"),
    );
    let shapes = rows(&status["shapes"], |s| {
        let scope: Vec<String> = s["scope"].as_array().into_iter().flatten().map(text).collect();
        vec![
            text(&s["shape"]),
            format!("{}.{}", text(&s["table"][0]), text(&s["table"][1])),
            scope.join(",") + if s["where"] == true { " where …" } else { "" },
            text(&s["subscribers"]),
            text(&s["frames"]),
            text(&s["bytes"]),
        ]
    });
    table(&mut out, &["SHAPE", "TABLE", "SCOPE", "SUBSCRIBERS", "FRAMES", "BYTES"], &shapes);
    let mut sessions = status["connections"].as_array().cloned().unwrap_or_default();
    sessions.sort_by_key(|s| std::cmp::Reverse((s["queue_bytes"].as_u64(), s["age_ms"].as_u64())));
    let sessions = rows(&sessions.into(), |s| {
        vec![
            text(&s["session"]),
            text(&s["client"]),
            text(&s["address"]),
            text(&s["shapes"]),
            if s["live"] == true { "live" } else { "waits" }.to_owned(),
            text(&s["age_ms"]),
            text(&s["queue_bytes"]),
        ]
    });
    table(&mut out, &["SESSION", "CLIENT", "ADDRESS", "SHAPES", "STATE", "AGE MS", "QUEUED"], &sessions);
    out
}

fn rows(list: &Json, row: impl Fn(&Json) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().into_iter().flatten().map(row).collect()
}

/// As many lines as fit on a screen; the rest is in `--json`.
fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let head: Vec<String> = head.iter().map(|&h| h.to_owned()).collect();
    let shown: Vec<&Vec<String>> = std::iter::once(&head).chain(rows.iter().take(LINES)).collect();
    let width = |at: usize| shown.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    out.push('\n');
    for row in &shown {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    if rows.len() > LINES {
        let _ = writeln!(out, "… and {} more: --json", rows.len() - LINES);
    }
}
