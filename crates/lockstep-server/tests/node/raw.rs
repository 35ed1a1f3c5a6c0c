//! A client that keeps the bytes of every value as they came.

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

/// Rows by the text of their first column; each value the JSON that was sent.
pub type RawRows = BTreeMap<String, Vec<String>>;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Rows<'a> {
    reset: Option<String>,
    #[serde(borrow)]
    remove: Vec<Vec<&'a RawValue>>,
    #[serde(borrow)]
    put: Vec<Vec<&'a RawValue>>,
    #[serde(borrow)]
    patch: Vec<(Vec<&'a RawValue>, Vec<usize>)>,
}

/// One shape whose key is its first column.
pub struct Raw {
    shape: Json,
    client: Json,
    cursor: Json,
    fingerprint: Json,
    socket: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    /// Name and `wire` of each column.
    pub columns: Vec<(String, String)>,
    pub rows: RawRows,
    /// The reasons of resets so far.
    pub resets: Vec<String>,
    pub patches: usize,
    aside: BTreeMap<String, Vec<String>>,
}

impl Raw {
    pub fn new(shape: Json) -> Self {
        Self {
            shape,
            client: Json::Null,
            cursor: Json::Null,
            fingerprint: Json::Null,
            socket: None,
            columns: Vec::new(),
            rows: RawRows::new(),
            resets: Vec::new(),
            patches: 0,
            aside: BTreeMap::new(),
        }
    }

    /// Connects, joins and hears the first commit.
    pub async fn join(&mut self, url: &str) {
        let address = format!("{url}/websocket?vsn=2.0.0").parse().unwrap();
        self.socket = Some(ClientBuilder::from_uri(address).connect().await.unwrap().0);
        let mut shape = self.shape.clone();
        shape["ref"] = "0".into();
        shape["have"] = self.fingerprint.is_string().into();
        shape["fingerprint"] = self.fingerprint.clone();
        let join = json!({"protocol": 1, "client": self.client, "cursor": self.cursor, "shapes": [shape]});
        self.send("phx_join", &join.to_string()).await;
        self.commit().await;
    }

    pub fn leave(&mut self) {
        self.socket = None;
    }

    /// Sends an event; the payload as it stands.
    pub async fn send(&mut self, event: &str, payload: &str) {
        let text = format!(r#"["1","{event}","sync","{event}",{payload}]"#);
        self.socket.as_mut().unwrap().send(Message::text(text)).await.unwrap();
    }

    async fn hear(&mut self) -> String {
        loop {
            let next = self.socket.as_mut().unwrap().next();
            let message =
                tokio::time::timeout(Duration::from_secs(20), next).await.expect("a message in time");
            if let Some(text) = message.expect("an open socket").unwrap().as_text() {
                return text.to_owned();
            }
        }
    }

    /// Waits for the reply to the event.
    pub async fn reply(&mut self, event: &str) -> Json {
        loop {
            let text = self.hear().await;
            let frame: Json = serde_json::from_str(&text).unwrap();
            if frame[1] == event {
                return frame[4].clone();
            }
            self.take(&text);
        }
    }

    /// Hears until a commit.
    pub async fn commit(&mut self) {
        loop {
            let text = self.hear().await;
            if self.take(&text) {
                return;
            }
        }
    }

    /// Hears commits until the state is as wanted.
    pub async fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        while !wanted(self) {
            self.commit().await;
        }
    }

    fn take(&mut self, text: &str) -> bool {
        type Frame<'a> = (Option<String>, Option<String>, String, String, &'a RawValue);
        let (_, _, _, event, payload): Frame<'_> = serde_json::from_str(text).unwrap();
        let fields = || serde_json::from_str::<Json>(payload.get()).unwrap();
        match event.as_str() {
            "shape" => {
                let fields = fields();
                self.fingerprint = fields["fingerprint"].clone();
                let word = |c: &Json, name: &str| c[name].as_str().unwrap().to_owned();
                let columns = fields["columns"].as_array().unwrap().iter();
                self.columns = columns.map(|c| (word(c, "name"), word(c, "wire"))).collect();
            }
            "rows" => self.take_rows(serde_json::from_str(payload.get()).unwrap()),
            "load" => {
                let name = fields()["load"].as_str().unwrap().to_owned();
                self.aside.entry(name).or_default().push(payload.get().to_owned());
            }
            "loaded" | "unload" => {
                for name in fields()["loads"].as_array().unwrap() {
                    let rows = self.aside.remove(name.as_str().unwrap()).expect("what was set aside");
                    for rows in rows.iter().filter(|_| event == "loaded") {
                        self.take_rows(serde_json::from_str(rows).unwrap());
                    }
                }
            }
            "phx_reply" => {
                let fields = fields();
                assert_eq!(fields["status"], "ok", "{fields}");
                let client = &fields["response"]["client"];
                if client.is_string() {
                    self.client = client.clone();
                }
                for shape in fields["response"]["shapes"].as_array().into_iter().flatten() {
                    assert_eq!(shape["ok"], true, "{shape}");
                }
            }
            "commit" => {
                self.cursor = fields()["cursor"].clone();
                return true;
            }
            _ => {}
        }
        false
    }

    fn take_rows(&mut self, rows: Rows<'_>) {
        if let Some(reason) = rows.reset {
            self.rows.clear();
            self.resets.push(reason);
        }
        let owned = |row: &[&RawValue]| row.iter().map(|v| v.get().to_owned()).collect::<Vec<_>>();
        for key in rows.remove {
            self.rows.remove(key[0].get());
        }
        for row in rows.put {
            self.rows.insert(row[0].get().to_owned(), owned(&row));
        }
        for (row, kept) in rows.patch {
            let before = self.rows.get(row[0].get()).expect("a patch of a row that is held").clone();
            let mut row = owned(&row);
            for at in kept {
                assert_eq!(row[at], "null");
                row[at].clone_from(&before[at]);
            }
            self.patches += 1;
            self.rows.insert(row[0].clone(), row);
        }
    }
}
