//! A client's join over a plain socket: what it hears is kept as it came, to be understood when the clock has stopped.

use anyhow::{Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_websockets::{ClientBuilder, Limits, Message, Payload, WebSocketStream};

/// Upgrades a connection to the node at this port of the loopback.
///
/// # Errors
/// If the node refuses.
pub async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(stream: S, port: u16) -> Result<WebSocketStream<S>> {
    let address = format!("ws://127.0.0.1:{port}/socket/websocket?vsn=2.0.0").parse()?;
    let limits = Limits::default().max_payload_len(None);
    Ok(ClientBuilder::from_uri(address).limits(limits).connect_on(stream).await?.0)
}

/// Joins, and hears everything up to the first commit.
///
/// # Errors
/// If the node closes the connection.
pub async fn join<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    join: Json,
) -> Result<Vec<Payload>> {
    let join = json!(["1", "1", "sync", "phx_join", join]);
    socket.send(Message::text(join.to_string())).await?;
    let mut frames = Vec::new();
    while let Some(message) = socket.next().await {
        let message = message?;
        if !message.is_text() {
            bail!("the node closed the connection: {message:?}");
        }
        let payload = message.into_payload();
        let last = payload.starts_with(br#"[null,null,"sync","commit","#);
        frames.push(payload);
        if last {
            return Ok(frames);
        }
    }
    bail!("the node ended the connection")
}
