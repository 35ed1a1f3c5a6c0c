//! A client's join over a plain socket: what it hears is kept as it came, to be understood when the clock has stopped.

use anyhow::{Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::time::Duration;
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

/// How long a refused join is to wait before it is sent again; None for every other frame.
pub fn retry_in(frame: &[u8]) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Answer {
        response: Response,
    }
    #[derive(Deserialize)]
    struct Response {
        retry_in: u64,
    }
    type Reply<'a> = (&'a str, &'a str, &'a str, &'a str, Answer);
    // Only replies begin with a ref of the client's.
    let reply = frame.starts_with(b"[\"").then(|| serde_json::from_slice::<Reply<'_>>(frame).ok()).flatten();
    reply.map(|(.., answer)| Duration::from_millis(answer.response.retry_in))
}

/// Joins, and hears everything up to the first commit.
///
/// # Errors
/// If the node closes the connection.
pub async fn join<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    join: Json,
) -> Result<Vec<Payload>> {
    let join = json!(["1", "1", "sync", "phx_join", join]).to_string();
    socket.send(Message::text(join.clone())).await?;
    let mut frames = Vec::new();
    while let Some(message) = socket.next().await {
        let message = message?;
        if !message.is_text() {
            bail!("the node closed the connection: {message:?}");
        }
        let payload = message.into_payload();
        if let Some(wait) = retry_in(&payload) {
            tokio::time::sleep(wait).await;
            socket.send(Message::text(join.clone())).await?;
            continue;
        }
        let last = payload.starts_with(br#"[null,null,"sync","commit","#);
        frames.push(payload);
        if last {
            return Ok(frames);
        }
    }
    bail!("the node ended the connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_says_when_to_come_again() {
        let refusal = br#"["1","1","sync","phx_reply",{"response":{"code":"crowded","message":"m","retry_in":1500},"status":"error"}]"#;
        assert_eq!(retry_in(refusal), Some(Duration::from_millis(1500)));
        for other in [
            &br#"["1","1","sync","phx_reply",{"response":{"code":"malformed"},"status":"error"}]"#[..],
            br#"[null,null,"sync","commit",{"retry_in":7}]"#,
            b"[",
        ] {
            assert_eq!(retry_in(other), None);
        }
    }
}
