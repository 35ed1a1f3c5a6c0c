//! A replica on a socket.

use crate::freshness::Freshness;
use crate::replica::{Commit, Heard, Replica, ReplicaError};
use flate2::read::ZlibDecoder;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use std::io::Read;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

/// A bound on every wait: a failure, never a schedule.
const PATIENCE: Duration = Duration::from_secs(20);

/// Of one frame, inflated: a node's are of about 64 KiB, or of one row.
const MOST_BYTES: u64 = 1 << 30;

/// Whoever is told to come again for so long is never let in.
const TURN_PATIENCE: Duration = Duration::from_secs(180);

/// A node closes a connection on which it heard nothing for 60 s.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Between two looks at the time while nothing is heard.
const LOOK: Duration = Duration::from_millis(100);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be read.
    #[error("not a WebSocket address")]
    Address,
    /// The socket.
    #[error("socket: {0}")]
    Socket(#[from] tokio_websockets::Error),
    /// The node closed the connection.
    #[error("the node closed the connection: {0:?}")]
    Closed(Option<String>),
    /// Nothing came in time.
    #[error("nothing came in time while waiting for {0}")]
    Late(&'static str),
    /// The node answered with an error.
    #[error("refused: {0}")]
    Refused(Json),
    /// A frame against the protocol.
    #[error(transparent)]
    Protocol(#[from] ReplicaError),
}

/// A connected replica.
#[derive(Debug)]
pub struct Client {
    /// Its state; clone it to resume later or elsewhere.
    pub replica: Replica,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_ref: u64,
    /// Deflated frames that came.
    pub inflated: u64,
    /// How often the node told it to join again later.
    pub later: u32,
    /// How old its state may be.
    pub freshness: Freshness,
    /// Commits that were received while waiting for something else, oldest first.
    commits: std::collections::VecDeque<Commit>,
}

impl Client {
    /// Connects and joins. `url` is `ws://HOST:PORT/socket`.
    pub async fn join(url: &str, replica: Replica) -> Result<Self, ClientError> {
        Self::join_by(&format!("{url}/websocket?vsn=2.0.0"), replica).await
    }

    /// The same, with large frames deflated.
    pub async fn join_deflated(url: &str, replica: Replica) -> Result<Self, ClientError> {
        Self::join_by(&format!("{url}/websocket?vsn=2.0.0&deflate=1"), replica).await
    }

    async fn join_by(address: &str, mut replica: Replica) -> Result<Self, ClientError> {
        replica.disconnected();
        let address = address.parse().map_err(|_| ClientError::Address)?;
        let builder = ClientBuilder::from_uri(address);
        let (socket, _) = tokio::time::timeout(PATIENCE, builder.connect())
            .await
            .map_err(|_| ClientError::Late("a socket"))??;
        let mut client = Self {
            replica,
            socket,
            next_ref: 0,
            inflated: 0,
            later: 0,
            freshness: Freshness::new(Instant::now()),
            commits: Default::default(),
        };
        let joined = client.join_in_turn().await?;
        client.replica.client = joined["client"].as_str().map(str::to_owned);
        Ok(client)
    }

    /// Joins, as often as the node says when to come again.
    async fn join_in_turn(&mut self) -> Result<Json, ClientError> {
        let patience = Instant::now() + TURN_PATIENCE;
        loop {
            let join = self.replica.join();
            self.freshness = Freshness::new(Instant::now());
            let refusal = match self.call("phx_join", join).await {
                Err(ClientError::Refused(refusal)) => refusal,
                other => return other,
            };
            let Some(wait) = refusal["retry_in"].as_u64().filter(|_| Instant::now() < patience) else {
                return Err(ClientError::Refused(refusal));
            };
            self.later += 1;
            let mut wait = Duration::from_millis(wait);
            while wait > HEARTBEAT {
                tokio::time::sleep(HEARTBEAT).await;
                wait -= HEARTBEAT;
                self.call("heartbeat", json!({"cursor": false})).await?;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends an event and waits for its reply.
    pub async fn call(&mut self, event: &str, payload: Json) -> Result<Json, ClientError> {
        let reference = self.send(event, payload).await?;
        loop {
            match self.hear("a reply").await? {
                Heard::Reply(to, true, response) if to == reference => return Ok(response),
                Heard::Reply(to, false, response) if to == reference => {
                    return Err(ClientError::Refused(response));
                }
                Heard::Commit(commit) => self.commits.push_back(commit),
                Heard::Reply(..) | Heard::Provisional | Heard::Nothing => {}
            }
        }
    }

    /// Sends an event; its reply is left to come. Returns its ref.
    pub async fn send(&mut self, event: &str, payload: Json) -> Result<String, ClientError> {
        self.next_ref += 1;
        let topic = if event == "heartbeat" { "phoenix" } else { "sync" };
        let frame = json!(["1", self.next_ref.to_string(), topic, event, payload]).to_string();
        self.send_text(frame).await?;
        Ok(self.next_ref.to_string())
    }

    /// Sends any text.
    pub async fn send_text(&mut self, text: String) -> Result<(), ClientError> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// The next thing the node says.
    pub async fn hear(&mut self, what: &'static str) -> Result<Heard, ClientError> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match next.map_err(|_| ClientError::Late(what))? {
                Some(Ok(message)) => {
                    let inflated = message.is_binary().then(|| inflate(message.as_payload())).transpose()?;
                    self.inflated += u64::from(inflated.is_some());
                    if let Some(text) = inflated.as_deref().or(message.as_text()) {
                        let heard = self.replica.handle(text)?;
                        if let Heard::Reply(to, true, response) = &heard {
                            self.freshness.answered(to, response["age"].as_u64());
                        }
                        return Ok(heard);
                    }
                    if let Some((code, reason)) = message.as_close() {
                        return Err(ClientError::Closed(Some(format!("{} {reason}", u16::from(code)))));
                    }
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(ClientError::Closed(None)),
            }
        }
    }

    /// Goes on until `done`, which is asked after everything that is heard and several times a second besides: a client
    /// that hears nothing has to notice that as well.
    pub async fn watch(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<(), ClientError> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            if Instant::now() > deadline {
                return Err(ClientError::Late("a state to be watched"));
            }
            if self.freshness.is_due(Instant::now()) {
                let now = Instant::now();
                let reference = self.send("heartbeat", json!({"cursor": false})).await?;
                self.freshness.asked(reference, now);
            }
            // Nothing is lost when the time is up: a message is taken whole or not at all.
            match tokio::time::timeout(LOOK, self.hear("anything")).await {
                Ok(Ok(Heard::Commit(commit))) => self.commits.push_back(commit),
                Ok(Ok(Heard::Reply(..) | Heard::Provisional | Heard::Nothing)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next commit.
    pub async fn commit(&mut self) -> Result<Commit, ClientError> {
        if let Some(commit) = self.commits.pop_front() {
            return Ok(commit);
        }
        loop {
            if let Heard::Commit(commit) = self.hear("a commit").await? {
                return Ok(commit);
            }
        }
    }

    /// Reads commits until the state is as wanted; looks at every state on the way.
    pub async fn until(
        &mut self,
        mut wanted: impl FnMut(&Replica) -> bool,
    ) -> Result<Vec<Commit>, ClientError> {
        let mut commits: Vec<Commit> = std::mem::take(&mut self.commits).into();
        while !wanted(&self.replica) {
            if let Heard::Commit(commit) = self.hear("a state").await? {
                commits.push(commit);
            }
        }
        Ok(commits)
    }

    /// Puts a mutation into the outbox and sends all of it; waits for the reply, not for the outcome.
    pub async fn mutate(&mut self, id: &str, ops: Vec<Json>) -> Result<u64, ClientError> {
        let n = self.replica.push(id, ops);
        if let Some(payload) = self.replica.mutate() {
            self.call("mutate", payload).await?;
        }
        Ok(n)
    }

    /// Leaves as a crash would: without a word. Returns what a store would hold.
    pub fn crash(mut self) -> Replica {
        self.replica.disconnected();
        self.replica
    }
}

/// The text frame that a binary one stands for (docs/protocol.md, Deflated frames).
fn inflate(message: &[u8]) -> Result<String, ReplicaError> {
    let bad = || ReplicaError("a binary frame that is no deflated one".into());
    let [2, topic, event, rest @ ..] = message else { return Err(bad()) };
    let (topic, rest) = rest.split_at_checked(usize::from(*topic)).ok_or_else(bad)?;
    let (event, rest) = rest.split_at_checked(usize::from(*event)).ok_or_else(bad)?;
    let name = |bytes| std::str::from_utf8(bytes).map_err(|_| bad());
    let mut text = format!("[null,null,{},{},", json!(name(topic)?), json!(name(event)?));
    ZlibDecoder::new(rest).take(MOST_BYTES).read_to_string(&mut text).map_err(|_| bad())?;
    text.push(']');
    Ok(text)
}
