//! The limit of `fanout`: sends the same messages to everybody with the node's WebSocket library, and does nothing else.
//!
//! Prints its port; each line of the standard input is messages with tabs between, for all who are connected.

use futures_util::SinkExt;
use std::io::{BufRead, Write};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_websockets::{Message, Payload, ServerBuilder};

type Messages = Arc<Vec<Payload>>;

async fn serve(stream: tokio::net::TcpStream, mut messages: broadcast::Receiver<Messages>) {
    let Ok((_, mut socket)) = ServerBuilder::new().accept(stream).await else { return };
    while let Ok(batch) = messages.recv().await {
        for payload in batch.iter() {
            if socket.feed(Message::text(payload.clone())).await.is_err() {
                return;
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    let (sender, _) = broadcast::channel::<Messages>(64);
    let accepting = sender.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if stream.set_nodelay(true).is_ok() {
                tokio::spawn(serve(stream, accepting.subscribe()));
            }
        }
    });
    let lines = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let batch = line.split('\t').map(|text| Payload::from(text.to_owned())).collect();
            // Nobody may be connected.
            let _ = sender.send(Arc::new(batch));
        }
    });
    lines.await.map_err(std::io::Error::other)
}
