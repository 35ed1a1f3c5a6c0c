//! HTTP: the socket's upgrade, health, and files.

use crate::health::Health;
use crate::node::Event;
use crate::post::{self, Posts};
use crate::socket::{NodeBounds, Outbox};
use crate::tasks::Database;
use crate::{operate, socket};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use base64::Engine;
use metrics_exporter_prometheus::PrometheusHandle;
use sha1::{Digest, Sha1};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tower_http::services::{ServeDir, ServeFile};

/// Seconds after which a client may find room in a full node: any of them, so that those who were turned away together
/// do not come together.
const FULL_FOR: std::ops::RangeInclusive<u16> = 5..=15;

/// What handlers share.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "the metrics' handle has none")]
pub struct Shared {
    /// To the node.
    pub events: mpsc::Sender<Event>,
    /// From the node.
    pub health: Arc<Health>,
    /// Questions of an operator's.
    pub database: Arc<Database>,
    /// All that was counted.
    pub metrics: PrometheusHandle,
    /// Writes without a socket.
    pub posts: Arc<Posts>,
    /// Numbers connections.
    pub next_session: Arc<AtomicU64>,
    /// How many clients may be connected.
    pub sessions: usize,
    /// Clients' addresses are what the proxy says.
    pub trust_proxy: bool,
    /// What sockets may take together.
    pub sockets: Arc<NodeBounds>,
}

/// Routes: `/socket/websocket`, `/v1/mutations`, an operator's, and the folder's files, with `index.html` for every
/// other page.
pub fn router(shared: Shared, files: Option<&Path>) -> Router {
    // Under `/socket` nothing else is found: an HTML page would only confuse a client that tries long polling.
    let mut router = Router::new()
        .route("/socket/websocket", get(upgrade))
        .route("/socket/{*rest}", any(|| async { StatusCode::NOT_FOUND }))
        .route("/v1/mutations", axum::routing::post(mutations))
        .route("/v1/{*rest}", any(|| async { StatusCode::NOT_FOUND }))
        .route("/v1/status", get(operate::status))
        .route("/health", get(operate::health))
        .route("/ready", get(operate::ready))
        .route("/metrics", get(operate::metrics));
    if let Some(folder) = files {
        let index: PathBuf = folder.join("index.html");
        let page = Router::new().fallback_service(ServeFile::new(index)).layer(from_fn(only_pages));
        router = router.fallback_service(ServeDir::new(folder).fallback(page));
    }
    router.layer(map_response(headers)).layer(from_fn(known_host)).with_state(shared)
}

/// An application's own paths (`/lists/7`) are answered with its index. A file that is missing is missing: a page in
/// place of a script breaks the browser in ways that are hard to understand.
async fn only_pages(request: Request, next: Next) -> Response<Body> {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    if name.contains('.') { StatusCode::NOT_FOUND.into_response() } else { next.run(request).await }
}

async fn headers(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    // Browsers keep files and ask whether they changed.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A name that an attacker lets point at 127.0.0.1 makes their page one of this origin (DNS rebinding): only
/// loopback's own names are answered.
async fn known_host(request: Request, next: Next) -> Response<Body> {
    let named = match request.headers().get(header::HOST) {
        Some(host) => host.to_str().ok().map(str::to_owned),
        None => request.uri().authority().map(ToString::to_string).or(Some("localhost".into())),
    };
    if named.as_deref().is_some_and(is_loopback) {
        return next.run(request).await;
    }
    let why = "this node answers to localhost, 127.0.0.1 and [::1] only: there is no authentication yet\n";
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

async fn mutations(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let foreign = foreign_origin(request.headers());
    post::answer(shared.posts, request, foreign).await
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut tokens = values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tokens.any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// `host` or `host:port`.
fn is_loopback(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
    matches!(name.to_ascii_lowercase().as_str(), "localhost" | "127.0.0.1" | "[::1]")
}

/// A page of another origin must not speak to a node on loopback in its visitor's name: there is no authentication.
fn foreign_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    // What cannot be read is foreign.
    let host = origin.to_str().ok().and_then(|o| o.parse::<Uri>().ok()?.authority().map(ToString::to_string));
    !host.as_deref().is_some_and(is_loopback)
}

/// Whose connection it is; of a proxy's, the address that it appended: whatever stands before it, anybody may have written.
fn address(shared: &Shared, peer: SocketAddr, headers: &HeaderMap) -> String {
    let forwarded = headers.get_all("x-forwarded-for").iter().next_back().and_then(|v| v.to_str().ok());
    let last =
        forwarded.and_then(|list| list.rsplit(',').next()).and_then(|a| a.trim().parse::<IpAddr>().ok());
    last.filter(|_| shared.trust_proxy).unwrap_or(peer.ip()).to_string()
}

async fn upgrade(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response<Body> {
    let refuse = |status: StatusCode, why: &'static str| (status, why).into_response();
    let headers = request.headers();
    let wanted =
        has_token(headers, header::CONNECTION, "upgrade") && has_token(headers, header::UPGRADE, "websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let (true, Some(key)) = (wanted, key) else {
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket only\n");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, "this node speaks WebSocket version 13\n");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
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
    // A balancer may ask another node. Whoever slips through, for the number is of a moment ago, is closed by the hub.
    if shared.health.sessions() >= shared.sessions {
        // The node is gone if this fails.
        let _ = shared.events.send(Event::TurnedAway).await;
        let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, "this node is full; try another\n");
        let seconds = rand::random_range(FULL_FOR);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        return response;
    }
    let address = address(&shared, peer, request.headers());
    let deflates = request.uri().query().unwrap_or_default().split('&').any(|p| p == "deflate=1");
    let phoenix = has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, "phoenix");
    let mut accept = Sha1::new();
    accept.update(key.as_bytes());
    accept.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"); // RFC 6455, 1.3
    let accept = base64::engine::general_purpose::STANDARD.encode(accept.finalize());
    let id = shared.next_session.fetch_add(1, Ordering::Relaxed);
    let upgrade = hyper::upgrade::on(&mut request);
    // What is moved into the task is kept for as long as the socket.
    let (events, outbox) = (shared.events, Arc::new(Outbox::new(shared.sockets, deflates, address)));
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => socket::run(upgraded, id, events, outbox).await,
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
