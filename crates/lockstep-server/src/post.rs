//! `POST /v1/mutations`: a client's writes without a socket, under the same numbers and the same rules.

use crate::metrics;
use crate::node::{Event, fresh_client};
use crate::tasks::Database;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse, Json};
use lockstep_core::catalog::Catalog;
use lockstep_core::fanout::Hub;
use lockstep_core::fanout::hub::{Bound, MutateRequest, MutateResult, ReplyTo, answer_to};
use lockstep_core::limits;
use lockstep_core::protocol::{ID_RULE, Post, is_id, unreadable, unreadable_depth};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(20);
/// Seconds after which a passing failure is worth another try.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What requests share.
#[derive(Debug)]
pub struct Posts {
    database: Arc<Database>,
    events: mpsc::Sender<Event>,
    catalog: Mutex<Option<Arc<Catalog>>>,
    room: Arc<Semaphore>,
}

impl Posts {
    /// None is served before [`Self::update`].
    pub fn new(database: Arc<Database>, events: mpsc::Sender<Event>) -> Self {
        let room = Arc::new(Semaphore::new(limits::POSTS_IN_FLIGHT));
        Self { database, events, catalog: Mutex::default(), room }
    }

    /// The node's state.
    pub fn update(&self, hub: &Hub) {
        let mut catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        let known = catalog.as_ref().is_some_and(|known| Arc::ptr_eq(known, hub.catalog()));
        if hub.is_ready() && !known {
            *catalog = Some(hub.catalog().clone());
        }
    }

    async fn reached(&self, bound: Bound) {
        // The node is stopping if this fails.
        let _ = self.events.send(Event::Reached(bound)).await;
    }

    /// Runs to its end whether or not somebody still waits for the answer.
    async fn run(self: Arc<Self>, post: Post, catalog: Arc<Catalog>) -> (StatusCode, Value) {
        let client = post.client.unwrap_or_default();
        let request = MutateRequest {
            session: 0,
            reply: ReplyTo { join_ref: None, reference: None, topic: String::new() },
            subject: post.subject,
            client: client.clone(),
            confirmed: post.frame.confirmed,
            mutations: post.frame.mutations,
        };
        let (ran, result, lsn) = self.database.mutate_durably(&request, &catalog).await;
        // The node is stopping if this fails.
        let _ = self.events.send(Event::Committed(ran.committed)).await;
        let decided: Vec<Value> = ran.outcomes.iter().map(Value::from).collect();
        let mut body = match result {
            MutateResult::Decided => json!({"client": client}),
            _ => answer_to(result, &fresh_client()).response,
        };
        body["mutations"] = decided.into();
        body["lsn"] = lsn.map(|lsn| lsn.to_string()).into();
        let status = match result {
            MutateResult::Decided => StatusCode::OK,
            MutateResult::Busy => StatusCode::SERVICE_UNAVAILABLE,
            MutateResult::Renumber { .. } | MutateResult::Gap { .. } | MutateResult::UnknownClient => {
                StatusCode::CONFLICT
            }
        };
        (status, body)
    }
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    respond(status, json!({"code": code, "message": message}))
}

fn respond(status: StatusCode, body: Value) -> Response<Body> {
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

fn is_too_long(error: &axum::Error) -> bool {
    error.to_string().contains("length limit exceeded")
}

/// A page of another site can post without asking first, but not with this type.
fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn check(post: &Post) -> Result<(), String> {
    post.frame.check()?;
    if !post.subject.is_empty() {
        return Err("a subject needs a token, and this node has none to check".into());
    }
    match post.client.as_deref() {
        Some(client) if is_id(client) => Ok(()),
        Some(_) => Err(ID_RULE.into()),
        None if post.frame.mutations.is_empty() => Ok(()),
        None => Err(
            "`client` is missing; post no mutations first, and keep the id in the answer: only under one \
                     that you keep can a lost answer be asked for again"
                .into(),
        ),
    }
}

/// What a body asks for; the bounds that it goes beyond are counted.
async fn parsed(posts: &Posts, body: &[u8]) -> Result<Post, String> {
    let post: Post = match serde_json::from_slice(body) {
        Ok(post) => post,
        Err(error) => {
            let why = unreadable(&error);
            if why == unreadable_depth() {
                posts.reached(Bound::Nesting).await;
            }
            return Err(why);
        }
    };
    for bound in Bound::of_mutations(&post.frame) {
        posts.reached(bound).await;
    }
    check(&post)?;
    Ok(post)
}

/// Answers one request. `foreign`: a page of another origin sent it.
pub async fn answer(posts: Arc<Posts>, request: Request, foreign: bool) -> Response<Body> {
    if foreign {
        let why = "pages of other origins may not write: there is no authentication yet";
        return refuse(StatusCode::FORBIDDEN, "foreign_origin", why);
    }
    if !is_json(request.headers()) {
        let why = "send the header Content-Type: application/json";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", why);
    }
    let Ok(room) = posts.room.clone().try_acquire_owned() else {
        metrics::reached(metrics::POSTS);
        return respond(StatusCode::SERVICE_UNAVAILABLE, answer_to(MutateResult::Busy, "").response);
    };
    let body =
        match tokio::time::timeout(BODY, to_bytes(request.into_body(), limits::CLIENT_FRAME_BYTES)).await {
            Ok(Ok(body)) => body,
            // The connection broke off: nobody hears this.
            Ok(Err(error)) if !is_too_long(&error) => {
                return refuse(StatusCode::BAD_REQUEST, "malformed", "the body broke off; send it again");
            }
            Ok(Err(_)) => {
                metrics::reached(metrics::FRAME_TOO_LARGE);
                let why = format!(
                    "a body has at most {} bytes; send fewer mutations at once",
                    limits::CLIENT_FRAME_BYTES
                );
                return refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &why);
            }
            Err(_) => {
                return refuse(
                    StatusCode::REQUEST_TIMEOUT,
                    "too_slow",
                    "the body did not arrive in time; send it again",
                );
            }
        };
    let post = match parsed(&posts, &body).await {
        Ok(post) => post,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, "malformed", &why),
    };
    if post.frame.mutations.is_empty() {
        let client = post.client.unwrap_or_else(fresh_client);
        return respond(StatusCode::OK, json!({"client": client, "mutations": [], "lsn": null}));
    }
    let catalog = posts.catalog.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(catalog) = catalog else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the node is starting; try again");
    };
    let run = tokio::spawn(async move {
        let answer = posts.run(post, catalog).await;
        drop(room);
        answer
    });
    match run.await {
        Ok((status, body)) => respond(status, body),
        // A defect, and told as such by the panic's own lines.
        Err(_) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "defect", "a defect of the node; send the same again")
        }
    }
}
