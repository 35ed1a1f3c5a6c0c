//! Every example of docs/protocol.md, taken from the page: what a client says is said to a node, what a node says is
//! compared with what the page names and read by the reference client. An example that is not looked at fails.

use crate::notation::{Names, Notation, read};
use crate::world::{Node, Sql, World, connect};
use futures_util::{SinkExt, StreamExt};
use lockstep_client::{Heard, Replica};
use lockstep_pg::cluster::Cluster;
use lockstep_pg::install::{self, InstallOptions, Patience, TrackRequest};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

const PAGE: &str = include_str!("../../../../docs/protocol.md");

/// The table that the page's examples are about.
const TABLE: &str = "create table todos (id text primary key, list_id text not null default '5b3c…',
    title text not null, done bool not null default false, due date)";

/// The page's examples that were not looked at yet, in its order, and what its names stand for.
struct Page {
    left: Vec<String>,
    names: Names,
}

impl Page {
    fn open() -> Self {
        let mut left = Vec::new();
        for (nth, part) in PAGE.split("```").enumerate() {
            match (nth % 2, part.strip_prefix("json\n")) {
                (1, Some(block)) => left.push(block.trim().to_owned()),
                (1, None) => panic!("a block of another language: {part}"),
                _ => {
                    let spans = part.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
                    let json = |s: &&str| s.starts_with(['{', '[']) && (s.contains('"') || *s == "{}");
                    left.extend(spans.filter(json).map(str::to_owned));
                }
            }
        }
        let mut page = Self { left, names: Names::new() };
        for (name, starts) in [
            ("JOIN", "{\"protocol\": 1,\n"),
            ("SHAPE", "{\"ref\": \"text of"),
            ("JOINED", "{\"protocol\":1,"),
            ("ERROR", "{\"code\":"),
            ("MUTATE", "{\"confirmed\":"),
            ("MUTATION", "{\"n\":"),
        ] {
            assert!(PAGE.contains(&format!("\n{name}:")), "the page names {name}");
            let notation = page.take(starts);
            page.names.insert(name.into(), notation);
        }
        let answers = vec![page.take("{\"ref\":\"…\",\"ok\""), page.take("{\"ref\":\"…\",\"error\"")];
        page.names.insert("SHAPE_ANSWER".into(), Notation::Either(answers));
        let ops = page.take_text("{\"op\":\"insert\"");
        page.names.insert("OP".into(), Notation::Either(ops.lines().map(read).collect()));
        page
    }

    /// The first example left that begins so.
    fn take_text(&mut self, starts: &str) -> String {
        let at = self.left.iter().position(|example| example.starts_with(starts));
        self.left.remove(at.unwrap_or_else(|| panic!("no {starts} on the page: {:#?}", self.left)))
    }

    fn take(&mut self, starts: &str) -> Notation {
        read(&self.take_text(starts))
    }

    /// The first message that an example names.
    fn message(&mut self, starts: &str) -> Json {
        self.take(starts).examples(&self.names).remove(0)
    }

    #[track_caller]
    fn check(&self, notation: &Notation, message: &Json) {
        assert!(notation.is(message, &self.names), "{message} is not {notation:?}");
    }
}

/// A socket, and what was heard of it besides replies.
struct Line {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    heard: Vec<Json>,
    said: usize,
}

impl Line {
    async fn new(node: &Node) -> Self {
        let address = format!("{}/websocket?vsn=2.0.0", node.socket()).parse().unwrap();
        let socket = ClientBuilder::from_uri(address).connect().await.unwrap().0;
        Self { socket, heard: Vec::new(), said: 0 }
    }

    async fn hear(&mut self) -> Json {
        let next = tokio::time::timeout(Duration::from_secs(20), self.socket.next()).await;
        let message = next.expect("a message in time").expect("an open socket").unwrap();
        serde_json::from_str(message.as_text().expect("a text")).unwrap()
    }

    /// Says a message of the page under a number of its own; the reply's payload.
    async fn say(&mut self, message: &Json) -> Json {
        self.said += 1;
        let mut message = message.clone();
        message[1] = self.said.to_string().into();
        self.socket.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let frame = self.hear().await;
            if frame[1] == message[1] && frame[3] == "phx_reply" {
                assert_eq!((&frame[0], &frame[2]), (&message[0], &message[2]), "{frame}");
                return frame[4].clone();
            }
            self.heard.push(frame);
        }
    }

    /// Hears until an event has come that is like this.
    async fn until(&mut self, event: &str, like: impl Fn(&Json) -> bool) -> Json {
        loop {
            if let Some(found) = self.heard.iter().find(|f| f[3] == event && like(&f[4])) {
                return found[4].clone();
            }
            let frame = self.hear().await;
            self.heard.push(frame);
        }
    }
}

/// What the table of events says of each.
fn events(page: &mut Page) -> Names {
    let mut events = Names::new();
    for event in ["shape", "rows", "loaded", "unload", "progress", "provisional", "withdraw", "ack", "commit"]
    {
        let row = format!("\n| `{event}` | `");
        let (_, rest) = PAGE.split_once(&row).unwrap_or_else(|| panic!("no row for {event}"));
        let text = rest.split('`').next().unwrap();
        page.take_text(text);
        events.insert(event.into(), read(text));
    }
    assert!(PAGE.contains("\n| `load` | as `rows`, and `\"load\"`: a name |"));
    let Notation::Fields(mut load) = events["rows"].clone() else { panic!("{events:?}") };
    load.push(("load".into(), false, Notation::Named("name".into())));
    events.insert("load".into(), Notation::Fields(load));
    events
}

async fn world() -> World {
    let cluster = tokio::task::block_in_place(|| Cluster::builder().start()).expect("a private PostgreSQL");
    let mut client = connect(&cluster.url()).await;
    client.batch_execute(TABLE).await.unwrap();
    install::install(&mut client, &InstallOptions::default()).await.unwrap();
    let scopes = vec![vec!["list_id".to_owned()]];
    let request = TrackRequest { table: "todos".into(), scopes, ..TrackRequest::default() };
    install::track(&mut client, &request, &Patience::default()).await.unwrap();
    World { cluster, sql: Sql { client } }
}

/// The join as it stands asks for a feature that nobody has; without it, it is answered.
async fn join(page: &mut Page, line: &mut Line) {
    let join = page.take("[j, ref, \"sync\", \"phx_join\"").examples(&page.names);
    let (joined, refused) =
        (page.take("{\"status\":\"ok\",\"response\":JOINED"), page.take("{\"status\":\"error\""));
    let reply = line.say(&join[0]).await;
    page.check(&refused, &reply);
    assert_eq!(reply["response"]["code"], "capability_unsupported");
    // Rows of one list, and all of them.
    let plain = |join: &&Json| {
        let shape = &join[4]["shapes"][0];
        shape["scope"].is_object() && shape["where"].is_null() && shape["columns"].is_null()
    };
    let mut join = join.iter().find(plain).expect("a scope").clone();
    join[4]["required"] = json!([]);
    join[4]["shapes"][0]["columns"] = json!(["id", "list_id", "title", "done"]);
    let reply = line.say(&join).await;
    page.check(&joined, &reply);
    assert_eq!(reply["response"]["shapes"][0]["ok"], true);
    line.until("commit", |_| true).await;
}

/// Each variant of a shape that the page allows is served, and those without what it asks for are refused by name.
async fn shapes(page: &mut Page, line: &mut Line) {
    let subscribe = page.take("[j, ref, \"sync\", \"subscribe\"").examples(&page.names);
    let answers = page.take("{\"shapes\":[SHAPE_ANSWER");
    let mut unsubscribe = page.message("[j, ref, \"sync\", \"unsubscribe\"");
    let nothing = page.take("{}");
    assert!(subscribe.len() >= 32, "{subscribe:#?}");
    for message in subscribe {
        let shape = &message[4]["shapes"][0];
        unsubscribe[4]["refs"] = json!([shape["ref"]]);
        page.check(&nothing, &line.say(&unsubscribe).await["response"]);
        let reply = line.say(&message).await;
        page.check(&answers, &reply["response"]);
        let expected = if shape["scope"].is_null() {
            Some("scope_required")
        } else {
            (shape["where"].is_string() && shape["params"].is_null()).then_some("bad_where")
        };
        let answer = &reply["response"]["shapes"][0];
        assert_eq!(answer["error"]["code"].as_str(), expected, "{shape}: {answer}");
    }
}

/// Somebody else's transaction comes as the page shows it, and the reference client understands the page's own.
async fn rows(page: &mut Page, line: &mut Line, world: &World, events: &Names) {
    let example = page.take_text("[null,null,\"sync\",\"rows\"");
    let frames: Vec<Json> = example.lines().map(|text| serde_json::from_str(text).unwrap()).collect();
    for frame in &frames {
        page.check(&events[frame[3].as_str().unwrap()], &frame[4]);
    }
    world.sql.run("insert into todos values ('7f0c…', '5b3c…', 'Buy milk', false)").await;
    let put = &frames[0][4]["put"];
    let rows = line.until("rows", |rows| rows["put"] == *put).await;
    line.until("commit", |commit| commit["xid"].is_string()).await;
    let names = |of: &Json| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&rows), names(&frames[0][4]));
    let mut replica = Replica::new([json!({"table": "todos", "scope": {"list_id": "5b3c…"}})]);
    let shape = line.until("shape", |shape| shape["shape"] == rows["shape"]).await;
    let mut described = json!([null, null, "sync", "shape", shape]);
    described[4]["shape"] = frames[0][4]["shape"].clone();
    described[4]["ref"] = "0".into();
    assert_eq!(replica.handle(&described.to_string()), Ok(Heard::Nothing));
    let mut heard = Vec::new();
    for text in example.lines() {
        heard.push(replica.handle(text).unwrap());
    }
    let [Heard::Nothing, Heard::Commit(commit)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((commit.rows, commit.xid.as_deref()), (1, frames[1][4]["xid"].as_str()));
    assert_eq!(replica.column("0", "title"), ["Buy milk"]);
    assert_eq!(replica.unknown, 0);
    // What no transaction of this test brings about.
    let mut load = frames[0][4].clone();
    load["load"] = "name".into();
    page.check(&events["load"], &load);
    let progress = json!({"load": "name", "about": 20_000});
    page.check(&events["progress"], &progress);
    let provisional = page.take_text("[null,null,\"sync\",\"provisional\"");
    let shown: Json = serde_json::from_str(&provisional).unwrap();
    page.check(&events["provisional"], &shown[4]);
    let mut first = Replica::new([json!({"table": "todos", "scope": {"list_id": "5b3c…"}})]);
    first.takes_provisional = true;
    let mut early = load.clone();
    early["load"] = shown[4]["loads"][0].clone();
    for frame in [described, json!([null, null, "sync", "load", early])] {
        assert_eq!(first.handle(&frame.to_string()), Ok(Heard::Nothing));
    }
    assert_eq!(first.handle(&provisional), Ok(Heard::Provisional));
    assert_eq!(first.provisional_rows_of("0").map(|rows| rows.len()), Some(1));
    for event in ["loaded", "unload", "withdraw"] {
        let mut payload = events[event].examples(&page.names).remove(0);
        if event == "withdraw" {
            payload["shape"] = frames[0][4]["shape"].clone();
        }
        let mut fresh = replica.clone();
        for (event, payload) in [("progress", &progress), ("load", &load), (event, &payload)] {
            let frame = json!([null, null, "sync", event, payload]).to_string();
            assert_eq!(fresh.handle(&frame), Ok(Heard::Nothing), "{frame}");
        }
        assert_eq!(fresh.unknown, 0, "{event}");
    }
}

async fn mutations(page: &mut Page, line: &mut Line, world: &World) {
    let mutate = page.take("[j, ref, \"sync\", \"mutate\"").examples(&page.names);
    let reply = line.say(&mutate[0]).await;
    assert_eq!(reply["response"]["code"], "unknown_client", "nobody numbers from 5: {reply}");
    let nothing = page.take("{}");
    let conditional = page.message("{\"op\":\"update\"");
    let title = "select title || done from todos where id = '…'";
    let mut say = mutate.clone();
    let mut if_op = mutate[0].clone();
    if_op[4]["mutations"][0]["ops"] = json!([conditional]);
    if_op[4]["mutations"][0]["kind"] = "ops_if".into();
    say.insert(2, if_op.clone());
    say.insert(3, if_op);
    let after = ["Buy milkfalse", "Buy milktrue", "Buy milktrue", "Oat milktrue", ""];
    assert_eq!(say.len(), after.len(), "{say:#?}");
    for (nth, (mut message, after)) in (1..).zip(say.into_iter().zip(after)) {
        if nth == 4 {
            world.sql.run("update todos set title = 'Milk' where id = '…'").await;
        }
        message[4]["confirmed"] = "0".into();
        message[4]["mutations"][0]["n"] = nth.to_string().into();
        message[4]["mutations"][0]["id"] = format!("m{nth}").into();
        let reply = line.say(&message).await;
        page.check(&nothing, &reply["response"]);
        let number = &message[4]["mutations"][0]["n"];
        let told =
            |ack: &Json| ack["mutations"].as_array().is_some_and(|all| all.iter().any(|m| m["n"] == *number));
        let ack = line.until("ack", told).await;
        let code = ack["mutations"][0].get("code").and_then(Json::as_str);
        assert_eq!(code, (nth == 3).then_some("conflict"), "{message}: {ack}");
        assert_eq!(world.sql.one(title).await, after, "{message}");
    }
}

async fn posts(page: &mut Page, node: &Node, events: &Names) {
    const JSON: &str = "Content-Type: application/json\r\n";
    let bodies = page.take("{\"client\":\"client id\"").examples(&page.names);
    let nobody = page.message("{\"mutations\":[]}");
    let Notation::Fields(ack) = &events["ack"] else { panic!("{events:?}") };
    let Notation::List(outcome, _) = &ack[0].2 else { panic!("{ack:?}") };
    page.names.insert("OUTCOME".into(), outcome[0].clone());
    let answer = page.take("{\"client\":\"…\"");
    let (status, fresh) = node.post("/v1/mutations", JSON, nobody.to_string().as_bytes()).await;
    assert_eq!(status, 200, "{fresh}");
    page.check(&answer, &fresh);
    for (nth, mut body) in (1..).zip(bodies) {
        body["client"] = fresh["client"].clone();
        body["confirmed"] = "0".into();
        body["mutations"][0]["n"] = nth.to_string().into();
        body["mutations"][0]["id"] = format!("m{nth}").into();
        let (status, told) = node.post("/v1/mutations", JSON, body.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{body}: {told}");
        page.check(&answer, &told);
        assert_eq!(told["mutations"][0]["outcome"], "applied", "{body}: {told}");
        assert!(told["lsn"].is_string(), "{body}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_page_are_what_is_spoken() {
    let world = world().await;
    let node = world.node().await;
    let mut page = Page::open();
    let events = events(&mut page);
    let mut line = Line::new(&node).await;
    let beat = page.message("[null, ref, \"phoenix\", \"heartbeat\"");
    let Notation::List(reply, false) = page.take("[null, ref, \"phoenix\", \"phx_reply\"") else { panic!() };
    page.check(&reply[4], &line.say(&beat).await);
    join(&mut page, &mut line).await;
    rows(&mut page, &mut line, &world, &events).await;
    let answer = line.say(&beat).await;
    page.check(&reply[4], &answer);
    assert!(answer["response"]["cursor"].is_string(), "{answer}");
    for _ in 0..2 {
        let mut without = beat.clone();
        without[4] = page.message("{\"cursor\":false}");
        let answer = line.say(&without).await;
        assert_eq!(answer["response"].as_object().unwrap().keys().collect::<Vec<_>>(), ["age"]);
    }
    shapes(&mut page, &mut line).await;
    mutations(&mut page, &mut line, &world).await;
    posts(&mut page, &node, &events).await;
    let leave = page.message("[j, ref, \"sync\", \"phx_leave\"");
    let nothing = page.take("{}");
    page.check(&nothing, &line.say(&leave).await["response"]);
    line.until("phx_close", |_| true).await;
    let frame = page.take("[null, null, \"sync\", event, payload]");
    let mut seen = BTreeSet::new();
    for heard in line.heard.iter().filter(|heard| heard[3] != "phx_close") {
        page.check(&frame, heard);
        let event = heard[3].as_str().unwrap();
        page.check(&events[event], &heard[4]);
        seen.insert(event);
    }
    assert!(seen.is_superset(&BTreeSet::from(["ack", "commit", "rows", "shape"])), "{seen:?}");
    assert_eq!(page.left, Vec::<String>::new(), "nobody looks at these");
}
