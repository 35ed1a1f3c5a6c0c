//! Connections as they come: HTTP/1.1 on each, until it is a client's socket or ends.

use crate::metrics;
use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How long the first request's head may take to arrive. Each that waits for one takes a descriptor that a client could
/// have.
const HEAD: Duration = Duration::from_secs(20);
/// The same of the next one on a connection that is kept: longer than proxies keep theirs, a minute mostly. One that finds
/// its connection closed just as it sends a request over it answers with 502.
const KEPT: Duration = Duration::from_secs(75);
/// Bytes of a head that is not whole yet.
const HEAD_BYTES: usize = 64 << 10;
/// Before the next try when the system gives no connection.
const PAUSE: Duration = Duration::from_secs(1);
/// What is still wrong is said again.
const SAY_AGAIN: Duration = Duration::from_secs(300);

/// Serves until told to stop, and then until what was asked before is answered. `room`: connections that are no client's
/// socket; while there is none for another one, it waits to be accepted.
///
/// # Errors
/// None today: whatever the system says, the next connection may come.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    room: usize,
) -> io::Result<()> {
    let all = u32::try_from(room).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(room));
    let stop = stopped.clone();
    let accept = async {
        let mut said = None;
        loop {
            let place = place(&room).await;
            match listener.accept().await {
                Ok((socket, peer)) => {
                    tokio::spawn(converse(socket, peer, router.clone(), stop.clone(), place));
                }
                Err(error) => {
                    if is_lack(&error, &mut said) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        // An error means that nobody is left to say stop.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    // It fails only if the semaphore were closed.
    let _ = room.acquire_many(all).await;
    Ok(())
}

/// Room for one more; None if there never is any.
async fn place(room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = room.clone().try_acquire_owned() {
        return Some(place);
    }
    metrics::reached(metrics::HTTP_CONNECTIONS);
    room.clone().acquire_owned().await.ok()
}

/// Whether the system has no room for another connection, which is said: one that was gone again is nobody's trouble.
fn is_lack(error: &io::Error, said: &mut Option<Instant>) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return false;
    }
    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
        tracing::warn!(%error, "no connection can be accepted; each client takes one open file: see ulimit -n, or lower --sessions");
        *said = Some(Instant::now());
    }
    true
}

/// One connection's requests. It ends here also when it becomes a socket.
async fn converse(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    _place: Option<OwnedSemaphorePermit>,
) {
    // A commit is a small frame, and the next one must not wait for the first to be acknowledged.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays slow");
    }
    let router = TowerToHyperService::new(router);
    let asked = AtomicBool::new(false);
    let service = service_fn(|mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(KEPT).max_buf_size(HEAD_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(socket), service).with_upgrades());
    let stop = async {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let silent = async {
        tokio::time::sleep(HEAD).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silent => return,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    async fn answered(socket: &mut TcpStream) -> String {
        let mut answer = vec![0; 500];
        let n = socket.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..n]).into_owned()
    }

    /// Those beyond wait in the system's queue, and are served when others have gone.
    #[tokio::test]
    async fn so_many_connections_are_accepted_and_others_after_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = tokio::spawn(serve(listener, router, stopped, 2));
        let mut held =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        for socket in &mut held {
            socket.write_all(ASK).await.unwrap();
            assert!(answered(socket).await.ends_with("here"));
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(ASK).await.unwrap();
        // The first is served as before, and the third is not meanwhile.
        held[0].write_all(ASK).await.unwrap();
        assert!(answered(&mut held[0]).await.ends_with("here"));
        assert_eq!(third.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let [first, second] = held;
        drop(first);
        assert!(answered(&mut third).await.ends_with("here"));
        // Those that are kept and ask nothing do not hold up the end.
        stop.send_replace(true);
        server.await.unwrap().unwrap();
        drop((second, third));
    }

    #[test]
    fn a_lack_of_descriptors_is_said_once() {
        let lack = io::Error::from_raw_os_error(24);
        let mut said = None;
        assert!(!is_lack(&ErrorKind::ConnectionAborted.into(), &mut said), "it had left again");
        assert_eq!(said, None);
        assert!(is_lack(&lack, &mut said));
        let first = said;
        assert!(is_lack(&lack, &mut said));
        assert!(first.is_some() && said == first);
    }
}
