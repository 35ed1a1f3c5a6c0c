//! HTTP: the socket's upgrade, health, and files.

use crate::node::{Event, Health};
use crate::socket;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use base64::Engine;
use sha1::{Digest, Sha1};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tower_http::services::{ServeDir, ServeFile};
use tower_http::set_header::SetResponseHeaderLayer;

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// To the node.
    pub events: mpsc::Sender<Event>,
    /// From the node.
    pub health: Arc<Health>,
    /// Numbers connections.
    pub next_session: Arc<AtomicU64>,
}

/// Routes: `/socket/websocket`, `/health`, and the folder's files, with `index.html` for every other path.
pub fn router(shared: Shared, files: Option<&Path>) -> Router {
    let mut router = Router::new().route("/socket/websocket", get(upgrade)).route("/health", get(health));
    if let Some(folder) = files {
        let files = ServeDir::new(folder).fallback(ServeFile::new(folder.join("index.html")));
        router = router.fallback_service(files).layer(SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            // Browsers keep files and ask whether they changed.
            HeaderValue::from_static("no-cache"),
        ));
    }
    router.with_state(shared)
}

async fn health(State(shared): State<Shared>) -> impl IntoResponse {
    let (ready, body) = shared.health.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut tokens = values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tokens.any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// A page of another origin must not speak to a node on loopback in its visitor's name: there is no authentication.
fn foreign_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN).and_then(|o| o.to_str().ok()) else { return false };
    let host = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
    !matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

async fn upgrade(State(shared): State<Shared>, mut request: Request) -> Response<Body> {
    let refuse = |status: StatusCode, why: &'static str| (status, why).into_response();
    let headers = request.headers();
    let wanted =
        has_token(headers, header::CONNECTION, "upgrade") && has_token(headers, header::UPGRADE, "websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let (true, Some(key)) = (wanted, key) else {
        return refuse(StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket only\n");
    };
    if foreign_origin(headers) {
        return refuse(
            StatusCode::FORBIDDEN,
            "pages of other origins may not connect: there is no authentication yet\n",
        );
    }
    if let Some(version) =
        request.uri().query().unwrap_or_default().split('&').find_map(|p| p.strip_prefix("vsn="))
        && !version.starts_with("2.")
    {
        return refuse(StatusCode::FORBIDDEN, "this node speaks Phoenix Channels serializer version 2\n");
    }
    let phoenix = has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, "phoenix");
    let mut accept = Sha1::new();
    accept.update(key.as_bytes());
    accept.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"); // RFC 6455, 1.3
    let accept = base64::engine::general_purpose::STANDARD.encode(accept.finalize());
    let id = shared.next_session.fetch_add(1, Ordering::Relaxed);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => socket::run(upgraded, id, shared.events).await,
            Err(error) => tracing::debug!(%error, "a client left during the upgrade"),
        }
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    if phoenix {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, "phoenix");
    }
    response.body(Body::empty()).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
