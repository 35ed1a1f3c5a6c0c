//! `lockstep serve`: the parts of a node, started together and ended together.

use crate::accept;
use crate::config::Serve;
use crate::health::Health;
use crate::http::{Shared, router};
use crate::janitor;
use crate::node::{Links, Node};
use crate::operate;
use crate::post::Posts;
use crate::socket::NodeBounds;
use crate::source::Source;
use crate::tasks::Database;
use anyhow::{Context, Result, bail};
use lockstep_core::limits::{self, Bounds};
use lockstep_pg::target::Target;
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

/// After a node's death all of its clients come at once. Whoever finds the queue full tries again after 1, 3, 7 and 15 s:
/// it is as long as the kernel allows (`net.core.somaxconn`).
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` has it: a node can be started again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(u32::from(u16::MAX))
}

/// Events from sockets and tasks on their way to the hub.
const EVENTS: usize = 4096;

/// How long requests get that were on their way when the last client had gone.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// The parts of a running node.
struct Parts {
    node: JoinHandle<Result<()>>,
    source: JoinHandle<()>,
    server: JoinHandle<std::io::Result<()>>,
}

/// One descriptor per client: as many as the system allows this process.
fn raise_descriptors() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// If the address cannot be bound, a URL cannot be read, or a part of the node fails. A database that cannot be
/// reached is waited for.
pub async fn serve(settings: Serve) -> Result<()> {
    crate::log::start(settings.log_format)?;
    let metrics = crate::metrics::start()?;
    if let Err(error) = raise_descriptors() {
        tracing::info!(%error, "the limit of open files stays as it is: each client takes one");
    }
    anyhow::ensure!(
        settings.read_database_url == settings.database_url,
        "reading from another server than the primary is not supported yet; leave --read-database-url out"
    );
    let (stop, stopped) = watch::channel(false);
    // The node is fed until its last client has gone.
    let (end, ended) = watch::channel(false);
    let mut parts = start(&settings, metrics, stopped, ended).await?;
    // A node without one of its parts would look alive and serve nobody: it ends, and whoever runs it starts another.
    tokio::select! {
        signal = wait_for_signal() => signal?,
        ended = &mut parts.node => {
            ended.context("the node failed")??;
            bail!("the node ended by itself");
        }
        ended = &mut parts.source => bail!("the replication task ended by itself: {ended:?}"),
        ended = &mut parts.server => bail!("the web server ended by itself: {ended:?}"),
    }
    tracing::info!("stopping; once more ends it at once");
    stop.send_replace(true);
    let orderly = async {
        parts.node.await.context("the node failed")??;
        end.send_replace(true);
        // Connections that are not sockets end by themselves; ones that linger are cut with the process.
        if let Ok(ended) = tokio::time::timeout(LAST_ANSWERS, parts.server).await {
            ended??;
        }
        Ok(())
    };
    tokio::select! {
        result = orderly => result,
        again = wait_for_signal() => again,
    }
}

async fn start(
    settings: &Serve,
    metrics: PrometheusHandle,
    stopped: watch::Receiver<bool>,
    ended: watch::Receiver<bool>,
) -> Result<Parts> {
    let database = Arc::new(Database::new(settings)?);
    let target = Target::parse(&settings.database_url)?;
    let replication = Target::parse(&settings.replication_url).context("--replication-url")?;
    let listener = listen(settings.listen).with_context(|| {
        format!("cannot listen on {}; is another node running? choose --listen", settings.listen)
    })?;
    let address = listener.local_addr()?;
    tracing::info!("listening on http://{address}, for the database at {}", target.place());
    let (events_out, events) = mpsc::channel(EVENTS);
    let health = Arc::new(Health::default());
    let restart = Arc::new(Notify::new());
    let posts = Arc::new(Posts::new(database.clone(), events_out.clone()));
    tokio::spawn(janitor::run(target.clone(), settings.database_timeout, settings.gc.clone(), ended.clone()));
    let source = Source {
        target,
        replication,
        database: database.clone(),
        events: events_out.clone(),
        restart: restart.clone(),
        stop: ended.clone(),
        health: health.clone(),
    };
    let node = Node::new(Links {
        database: database.clone(),
        restart,
        events_out: events_out.clone(),
        events,
        health: health.clone(),
        posts: posts.clone(),
        stopped: stopped.clone(),
        drain: settings.drain,
        bounds: Bounds {
            sessions: settings.sessions,
            waiting_sessions: settings.waiting_sessions,
            window_bytes: settings.window_bytes,
            ..Bounds::default()
        },
    });
    let shared = Shared {
        events: events_out,
        health,
        database,
        metrics,
        posts,
        next_session: Arc::new(AtomicU64::new(1)),
        sessions: settings.sessions,
        trust_proxy: settings.trust_proxy,
        sockets: Arc::new(NodeBounds::new(
            settings.queue_bytes,
            settings.node_queue_bytes,
            settings.node_unserved_bytes,
        )),
    };
    tokio::spawn(operate::keep_figures(shared.clone(), ended));
    let router = router(shared, settings.static_files.as_deref());
    Ok(Parts {
        node: tokio::spawn(node.run()),
        source: tokio::spawn(source.run()),
        server: tokio::spawn(accept::serve(listener, router, stopped, limits::HTTP_CONNECTIONS)),
    })
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// If signals cannot be listened for.
pub async fn wait_for_signal() -> Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
