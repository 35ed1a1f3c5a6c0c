//! The SQL console under the demo's panes: statements of the page, run in the demo's database.
//!
//! It listens on 127.0.0.1, answers only pages of the demo's own address (no other page that the same browser shows may
//! write here in its visitor's name), and speaks to PostgreSQL as a role that owns nothing: the rows are all it can touch.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::StreamExt;
use lockstep_pg::cluster::Cluster;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::database;

const ROLE: &str = "demo_console";
/// Rows of a result that are shown; the rest is counted.
const ROWS_SHOWN: usize = 50;
/// Rows that are counted before a statement is cut off.
const ROWS_MAX: usize = 100_000;
/// Bytes of a request: statements are typed.
const REQUEST_BYTES: usize = 64 * 1024;

/// The running console; dropping it stops it.
#[derive(Debug)]
pub struct SqlConsole {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    database: Config,
    /// Whose pages may ask.
    origins: [String; 2],
}

impl SqlConsole {
    /// Listens for pages that this port of 127.0.0.1 hands out.
    pub fn start(cluster: &Cluster, app_port: u16) -> Result<SqlConsole> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let database = runtime.block_on(make_role(cluster))?;
        let origins = ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{app_port}"));
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { database, origins });
        let router = Router::new()
            .route("/", post(answer))
            .layer(axum::extract::DefaultBodyLimit::max(REQUEST_BYTES))
            .layer(from_fn_with_state(Arc::clone(&shared), only_the_app))
            .with_state(shared);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let serve = axum::serve(listener, router);
                tokio::select! {
                    ended = serve => if let Err(error) = ended { eprintln!("warning: the SQL console ended: {error}") },
                    _ = stopped => {}
                }
            });
        });
        Ok(SqlConsole { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where pages send their statements.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for SqlConsole {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed.
            let _ = thread.join();
        }
    }
}

/// The role, and how to connect as it. Its password is the cluster's own: whoever knows that may do more anyway.
async fn make_role(cluster: &Cluster) -> Result<Config> {
    let mut config: Config = cluster.url_for(database::NAME).parse()?;
    let client = database::connect(&cluster.url_for(database::NAME)).await?;
    let exists = client.query_opt("select from pg_roles where rolname = $1", &[&ROLE]).await?.is_some();
    if !exists {
        client.batch_execute(&format!("create role {ROLE}")).await?;
    }
    let password = config.get_password().map(|bytes| String::from_utf8_lossy(bytes).replace('\'', "''"));
    client
        .batch_execute(&format!(
            "alter role {ROLE} login password '{password}';
             alter role {ROLE} set statement_timeout = '5s';
             grant usage on schema public, lockstep to {ROLE};
             grant select, insert, update, delete, truncate on all tables in schema public to {ROLE};
             grant usage on all sequences in schema public to {ROLE};
             grant select on all tables in schema lockstep to {ROLE}",
            password = password.unwrap_or_default()
        ))
        .await
        .context("the console's role cannot be made")?;
    config.user(ROLE);
    Ok(config)
}

/// Requests of the demo's pages alone, told to the browser as CORS wants it.
async fn only_the_app(
    State(shared): State<Arc<Shared>>,
    request: Request<axum::body::Body>,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let Some(origin) = origin.filter(|o| shared.origins.iter().any(|known| o == known.as_str())) else {
        return (StatusCode::FORBIDDEN, "the console answers the demo's own page\n").into_response();
    };
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    allow(response.headers_mut(), origin);
    response
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
}

/// `{"sql": …}` to `{"results": […], "ms": …}` or `{"error": …}`.
async fn answer(State(shared): State<Arc<Shared>>, Json(asked): Json<Value>) -> Json<Value> {
    let begun = Instant::now();
    let answer = match run(&shared.database, asked["sql"].as_str().unwrap_or_default()).await {
        Ok(results) => json!({"results": results, "ms": begun.elapsed().as_secs_f64() * 1000.0}),
        Err(error) => json!({"error": explain(&error)}),
    };
    Json(answer)
}

fn explain(error: &tokio_postgres::Error) -> Value {
    match error.as_db_error() {
        Some(said) => json!({
            "code": said.code().code(), "message": said.message(), "detail": said.detail(), "hint": said.hint(),
        }),
        None => json!({"code": null, "message": error.to_string(), "detail": null, "hint": null}),
    }
}

/// On a connection of its own: a transaction that is left open ends with it.
async fn run(database: &Config, sql: &str) -> Result<Vec<Value>, tokio_postgres::Error> {
    let (client, connection) = database.connect(NoTls).await?;
    tokio::spawn(connection);
    let mut messages = pin!(client.simple_query_raw(sql).await?);
    let (mut results, mut columns, mut rows, mut count) =
        (Vec::new(), Vec::<String>::new(), Vec::new(), 0usize);
    while let Some(message) = messages.next().await {
        match message? {
            SimpleQueryMessage::RowDescription(described) => {
                columns = described.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                count += 1;
                if rows.len() < ROWS_SHOWN {
                    rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect::<Vec<_>>());
                }
                if count == ROWS_MAX {
                    results.push(json!({"columns": columns, "rows": rows, "count": count, "cut": true}));
                    return Ok(results);
                }
            }
            SimpleQueryMessage::CommandComplete(affected) => {
                let shown = (std::mem::take(&mut columns), std::mem::take(&mut rows));
                results.push(json!({"columns": shown.0, "rows": shown.1, "count": affected, "cut": false}));
                count = 0;
            }
            _ => {}
        }
    }
    Ok(results)
}
