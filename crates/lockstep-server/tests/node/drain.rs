//! A node with thousands of clients is told to stop.

use crate::world::{World, lists, todos};
use futures_util::{SinkExt, StreamExt};
use lockstep_client::{Client, ClientError, Replica};
use lockstep_core::limits;
use lockstep_pg::cluster::process::{Signal, send};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_websockets::{ClientBuilder, Message};

const SOCKETS: usize = 2_000;
const WRITERS: usize = 40;
/// Of one client at a time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects a client that only listens, and waits for its first commit; then for the end, and when it came.
async fn listener(url: String) -> tokio::task::JoinHandle<(u16, Instant)> {
    let address = format!("{url}/websocket?vsn=2.0.0").parse().unwrap();
    let (mut socket, _) = ClientBuilder::from_uri(address).connect().await.unwrap();
    let mut shape = lists();
    shape["ref"] = "0".into();
    let join = json!(["1", "1", "sync", "phx_join", {"protocol": 1, "shapes": [shape]}]);
    socket.send(Message::text(join.to_string())).await.unwrap();
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        if message.as_text().is_some_and(|text| text.starts_with(r#"[null,null,"sync","commit""#)) {
            break;
        }
    }
    tokio::spawn(async move {
        loop {
            let message = socket.next().await.expect("a farewell").unwrap();
            if let Some((code, _)) = message.as_close() {
                return (code.into(), Instant::now());
            }
        }
    })
}

/// Writes rows of its own until it is sent away. What it holds then, the rows it made, and those that were taken.
async fn writer(mut client: Client, number: usize) -> (Replica, Vec<usize>, BTreeSet<usize>) {
    let (mut made, mut taken) = (Vec::new(), BTreeSet::new());
    loop {
        let id = number * 100_000 + made.len();
        made.push(id);
        let values = json!({"id": id, "list_id": 1, "title": "t"});
        let ops = vec![json!({"op": "insert", "table": "todos", "values": values})];
        match client.mutate(&format!("m{id}"), ops).await {
            Ok(_) => drop(taken.insert(id)),
            Err(ClientError::Closed(Some(why))) => {
                assert!(why.starts_with("1012"), "{why}");
                return (client.crash(), made, taken);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_are_sent_away_one_after_another_and_no_write_is_lost() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let world = World::new().await;
    let mut node = world.node().await;
    let mut listeners = Vec::new();
    while listeners.len() < SOCKETS {
        let some: Vec<_> = (0..100).map(|_| tokio::spawn(listener(node.socket()))).collect();
        for one in some {
            listeners.push(one.await.unwrap());
        }
    }
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let client = node.join([todos(1)]).await;
        writers.push(tokio::spawn(writer(client, number)));
    }
    world.sql.until("select (count(*) >= 40)::text from todos", "true").await;
    let told = Instant::now();
    send(node.pid(), Signal::SIGTERM).unwrap();
    let mut ends = Vec::new();
    for one in listeners {
        let (code, at) = tokio::time::timeout(PATIENCE, one).await.unwrap().unwrap();
        assert_eq!(code, 1012);
        ends.push(at.duration_since(told).as_secs_f64());
    }
    assert!(node.ended(PATIENCE).await.success(), "{:#?}", node.log());
    let each = Duration::from_micros(limits::GOODBYE_EACH_US).as_secs_f64();
    let spread = each * (SOCKETS + WRITERS) as f64;
    ends.sort_by(f64::total_cmp);
    for nth in [SOCKETS / 4, SOCKETS / 2, SOCKETS * 3 / 4, SOCKETS - 1] {
        // Those who write go among the others. A slow machine may be late, never early.
        let planned = nth as f64 / SOCKETS as f64 * spread;
        assert!(ends[nth] > planned * 0.9 - 0.1, "{nth} were gone after {:.2} of {spread:.2} s", ends[nth]);
        assert!(ends[nth] < planned + 3.0, "{nth} were gone after {:.2} of {spread:.2} s", ends[nth]);
    }
    let mut sent_away = Vec::new();
    for one in writers {
        sent_away.push(tokio::time::timeout(PATIENCE, one).await.unwrap().unwrap());
    }
    let rows = world.sql.rows("select id from todos").await;
    let rows: BTreeSet<usize> =
        rows.into_iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
    for (_, _, taken) in &sent_away {
        assert!(taken.is_subset(&rows), "a write that was taken is not there");
    }
    // What had no answer is sent again elsewhere, and applied once: a second time its key would be taken.
    let next = world.node().await;
    let mut all = 0;
    for (replica, made, _) in sent_away {
        let mut client = next.resume(replica).await;
        if let Some(mutations) = client.replica.mutate() {
            client.call("mutate", mutations).await.unwrap();
        }
        let commits = client.until(|replica| replica.outbox.is_empty()).await.unwrap();
        let refused = commits.iter().flat_map(|c| &c.outcomes).filter(|o| o.refusal.is_some()).count();
        assert_eq!(refused, 0);
        all += made.len();
    }
    assert_eq!(world.sql.one("select count(*) from todos").await, all.to_string());
}
