//! The process that plays the clients: all connect at once; what they hear is read now, and understood when all have
//! heard their commit.

use crate::join;
use anyhow::{Context, Result, bail, ensure};
use lockstep_client::{Heard, Replica};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio_websockets::{Payload, WebSocketStream};

/// So many clients share a source address.
const PER_ADDRESS: usize = 2_000;
/// A bound on every wait: a failure, never a schedule.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Where the node listens.
    pub port: u16,
    /// How many clients.
    pub count: usize,
    /// All have scope 0; otherwise client n has scope n + 1.
    pub same: bool,
    /// Come back with what was held, which must be told by what changed.
    pub resume: bool,
    /// Lines of a scope, a tab, and a row.
    pub truth: PathBuf,
}

/// How it went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// From the first connection to the last client's commit.
    pub seconds: f64,
    /// Shapes that were loaded in full.
    pub resets: usize,
    /// What went wrong first.
    pub error: Option<String>,
}

type Truth = BTreeMap<i64, BTreeSet<String>>;
type Socket = WebSocketStream<TcpStream>;

/// Takes orders from the standard input until it ends.
///
/// # Errors
/// If an order cannot be read. What goes wrong with a client is told in the answer.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut held: Vec<(Replica, Option<Socket>)> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let answer = runtime.block_on(carry_out(&order, &mut held));
        let answer = answer.unwrap_or_else(|e| Answer { error: Some(format!("{e:#}")), ..Answer::default() });
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}

async fn carry_out(order: &Order, held: &mut Vec<(Replica, Option<Socket>)>) -> Result<Answer> {
    let truth = read_truth(order)?;
    let scope = |nth: usize| if order.same { 0 } else { i64::try_from(nth).unwrap_or(0) + 1 };
    let replicas: Vec<Replica> = if order.resume {
        std::mem::take(held).into_iter().map(|(replica, _)| replica).collect()
    } else {
        let shape = |nth| json!({"table": "items", "scope": {"org": scope(nth)}});
        (0..order.count).map(|nth| Replica::new([shape(nth)])).collect()
    };
    ensure!(replicas.len() == order.count, "{} clients can come back", replicas.len());
    let begun = Instant::now();
    let tasks = replicas.into_iter().enumerate().map(|(nth, mut replica)| {
        let port = order.port;
        tokio::spawn(async move {
            replica.disconnected();
            let heard = tokio::time::timeout(PATIENCE, hear(nth, port, &replica)).await;
            heard.context("no commit came in time")?.map(|(frames, at, socket)| (replica, frames, at, socket))
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut clients = Vec::with_capacity(tasks.len());
    for task in tasks {
        clients.push(task.await??);
    }
    let last = clients.iter().map(|(_, _, at, _)| *at).max().unwrap_or(begun);
    let mut answer = Answer { seconds: (last - begun).as_secs_f64(), ..Answer::default() };
    for (nth, (mut replica, frames, _, socket)) in clients.into_iter().enumerate() {
        answer.resets += understand(&mut replica, &frames)?;
        let rows = replica.rows_of("0").context("a client without its shape")?;
        let rows: BTreeSet<String> = rows
            .values()
            .map(|row| json!([row["id"], row["org"], row["v"], row["body"]]).to_string())
            .collect();
        let wanted = truth.get(&scope(nth)).context("a scope of no rows")?;
        ensure!(rows == *wanted, "client {nth} holds {} rows, SELECT {}", rows.len(), wanted.len());
        if !order.same {
            held.push((replica, Some(socket)));
        }
    }
    Ok(answer)
}

fn read_truth(order: &Order) -> Result<Arc<Truth>> {
    let mut truth = Truth::new();
    for line in std::fs::read_to_string(&order.truth)?.lines() {
        let (scope, row) = line.split_once('\t').context("a line of the truth")?;
        let row: Json = serde_json::from_str(row)?;
        truth.entry(scope.parse()?).or_default().insert(row.to_string());
    }
    Ok(Arc::new(truth))
}

/// Connects, joins, and hears everything up to the first commit.
async fn hear(nth: usize, port: u16, replica: &Replica) -> Result<(Vec<Payload>, Instant, Socket)> {
    let socket = TcpSocket::new_v4()?;
    let source = u8::try_from(2 + nth / PER_ADDRESS)?;
    socket.bind(SocketAddr::from(([127, 0, 0, source], 0)))?;
    let stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    stream.set_nodelay(true)?;
    let mut socket = join::upgrade(stream, port).await?;
    let frames = join::join(&mut socket, replica.join()).await?;
    Ok((frames, Instant::now(), socket))
}

/// Takes the frames; how many shapes were loaded in full.
fn understand(replica: &mut Replica, frames: &[Payload]) -> Result<usize> {
    let mut resets = 0;
    for frame in frames {
        match replica.handle(std::str::from_utf8(frame)?)? {
            Heard::Commit(commit) => resets += commit.resets.len(),
            Heard::Reply(_, true, response) => {
                replica.client = response["client"].as_str().map(str::to_owned);
            }
            Heard::Reply(_, false, response) => bail!("refused: {response}"),
            Heard::Provisional | Heard::Nothing => {}
        }
    }
    Ok(resets)
}
