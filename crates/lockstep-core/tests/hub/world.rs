//! A hub, and the bytes that a walsender would send it.

use lockstep_core::catalog::{Catalog, Column, Table};
use lockstep_core::fanout::hub::{CatchUpAnswer, CatchUpRequest, Identity, PollAnswer, ReadAnswer};
use lockstep_core::fanout::{Hub, Output};
use lockstep_core::limits::Bounds;
use lockstep_core::mutation::Outcome;
use lockstep_core::position::{Facts, Lsn};
use lockstep_core::protocol::{Delta, rows_frames};
use serde_json::{Value as Json, json};

pub const ITEMS: u32 = 100;
pub const CLIENTS: u32 = 900;

/// `items(id, a, body)`, scope `(a)`.
pub fn catalog() -> Catalog {
    let column = |name: &str, attnum| Column {
        name: name.into(),
        attnum,
        type_oid: 25,
        type_name: "text".into(),
        type_sql: "text".into(),
        ..Column::default()
    };
    let items = Table {
        oid: ITEMS,
        log: 1,
        tombstones: ITEMS + 1,
        schema: "public".into(),
        name: "items".into(),
        columns: vec![column("id", 1), column("a", 2), column("body", 3)],
        key: vec![0],
        scope_columns: vec![1],
        scopes: vec![vec![1]],
        schema_id: "1".into(),
        ..Table::default()
    };
    Catalog::new(vec![items], CLIENTS, "installation".into())
}

pub fn relation(oid: u32, name: &str, columns: &[&str]) -> Vec<u8> {
    let mut out = vec![b'R'];
    out.extend(oid.to_be_bytes());
    out.extend(b"public\0");
    out.extend(name.bytes().chain([0, b'd']));
    out.extend((columns.len() as u16).to_be_bytes());
    for column in columns {
        out.push(u8::from(*column == "id"));
        out.extend(column.bytes().chain([0]));
        out.extend(25u32.to_be_bytes());
        out.extend((-1i32).to_be_bytes());
    }
    out
}

/// `-` is NULL, `~` an unchanged large value.
fn tuple(values: &[&str]) -> Vec<u8> {
    let mut out = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match *value {
            "-" => out.push(b'n'),
            "~" => out.push(b'u'),
            text => {
                out.push(b't');
                out.extend((text.len() as i32).to_be_bytes());
                out.extend(text.bytes());
            }
        }
    }
    out
}

pub fn insert(oid: u32, values: &[&str]) -> Vec<u8> {
    let mut out = vec![b'I'];
    out.extend(oid.to_be_bytes());
    out.push(b'N');
    out.extend(tuple(values));
    out
}

pub fn update(oid: u32, values: &[&str]) -> Vec<u8> {
    let mut out = insert(oid, values);
    out[0] = b'U';
    out
}

/// The database on this timeline.
pub fn identity(timeline: u32) -> Identity {
    Identity { system: 1, timeline, database: 5, incarnation: 7 }
}

pub struct World {
    /// Marks that the server knows, and where they were left.
    pub marks: Vec<(i64, Lsn)>,
    pub hub: Hub,
    ahead: bool,
    /// What the newest poll was answered with.
    pub polled: (String, u64),
    pub now: u64,
    /// Outputs not asked for yet.
    pub outputs: Vec<Output>,
}

impl World {
    /// A hub that knows its database and polls.
    pub fn polling() -> Self {
        Self::polling_within(Bounds::default())
    }

    pub fn polling_within(bounds: Bounds) -> Self {
        let mut hub = Hub::with_bounds(bounds);
        hub.handle_database(identity(1), catalog());
        Self {
            marks: vec![(7, Lsn(0))],
            hub,
            ahead: false,
            polled: Default::default(),
            now: 0,
            outputs: vec![],
        }
    }

    /// A hub that streams; Z was `snapshot`, and the watermark has reached it.
    pub fn streaming(snapshot: &str) -> Self {
        Self::streaming_within(Bounds::default(), snapshot)
    }

    pub fn streaming_within(bounds: Bounds, snapshot: &str) -> Self {
        let mut world = Self::polling_within(bounds);
        world.begin_stream(snapshot, 1);
        world
    }

    /// A stream begins; Z is `snapshot`, and the watermark reaches `lsn`.
    pub fn begin_stream(&mut self, snapshot: &str, lsn: u64) {
        self.hub.handle_stream_started(700);
        let push = self.take(|o| matches!(o, Output::PushFence(_)).then(|| number(o)));
        self.hub.handle_pushed(push, true);
        self.poll(snapshot, lsn);
        self.keepalive(lsn);
        for (oid, name, columns) in [
            (ITEMS, "items", &["id", "a", "body"][..]),
            (ITEMS + 1, "tombstones_1", &["id", "s1", "k1", "xid", "kind"]),
            (
                CLIENTS,
                "clients",
                &["subject", "client", "last", "id", "outcome", "code", "message", "seen_at"],
            ),
        ] {
            self.data(&relation(oid, name, columns));
        }
    }

    /// Takes all outputs there are.
    pub fn drain(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            self.outputs.push(output);
        }
    }

    /// Takes the first output that is of interest; panics if there is none.
    pub fn take<T>(&mut self, wanted: impl Fn(&Output) -> Option<T>) -> T {
        self.drain();
        let at = self.outputs.iter().position(|o| wanted(o).is_some());
        let at = at.unwrap_or_else(|| panic!("not among {:?}", self.outputs));
        wanted(&self.outputs.remove(at)).expect("it was of interest")
    }

    pub fn has(&mut self, wanted: impl Fn(&Output) -> bool) -> bool {
        self.drain();
        self.outputs.iter().any(wanted)
    }

    pub fn later(&mut self, millis: u64) {
        self.now += millis;
        self.hub.handle_timeout(self.now);
    }

    /// Waits until the hub polls, and answers.
    pub fn poll(&mut self, snapshot: &str, fence: u64) {
        self.later(10_000);
        let number = self.take(|o| matches!(o, Output::Poll(_)).then(|| number(o)));
        self.answer_poll(number, snapshot, fence);
    }

    pub fn answer_poll(&mut self, number: u64, snapshot: &str, fence: u64) {
        self.polled = (snapshot.to_owned(), fence);
        let fence = Lsn(fence);
        self.hub.handle_poll(PollAnswer {
            number,
            snapshot: snapshot.parse().unwrap(),
            fence,
            flushed: fence,
        });
    }

    pub fn keepalive(&mut self, lsn: u64) {
        let mut frame = vec![b'k'];
        frame.extend(lsn.to_be_bytes());
        frame.extend(0i64.to_be_bytes());
        frame.push(0);
        self.hub.handle_stream(&frame);
    }

    /// A message of the stream. As a node does, what it gives out is taken before anything else happens.
    pub fn data(&mut self, message: &[u8]) {
        self.feed(message);
        self.drain();
    }

    /// The same, and nothing is taken.
    pub fn feed(&mut self, message: &[u8]) {
        let mut frame = vec![b'w'];
        frame.extend([0; 24]);
        frame.extend(message);
        self.hub.handle_stream(&frame);
    }

    pub fn begin(&mut self, xid: u32, lsn: u64) {
        let mut begin = vec![b'B'];
        begin.extend((lsn - 1).to_be_bytes());
        begin.extend(0i64.to_be_bytes());
        begin.extend(xid.to_be_bytes());
        self.data(&begin);
    }

    pub fn commit(&mut self, lsn: u64) {
        let mut commit = vec![b'C', 0];
        commit.extend((lsn - 1).to_be_bytes());
        commit.extend(lsn.to_be_bytes());
        commit.extend(0i64.to_be_bytes());
        self.data(&commit);
    }

    /// One transaction that ends at `lsn`.
    pub fn transaction(&mut self, xid: u32, lsn: u64, messages: &[Vec<u8>]) {
        self.begin(xid, lsn);
        messages.iter().for_each(|m| self.data(m));
        self.commit(lsn);
    }

    pub fn join(&mut self, session: u64, scope: &str) {
        self.join_from(session, scope, None);
    }

    pub fn join_from(&mut self, session: u64, scope: &str, cursor: Option<&str>) {
        self.join_able(session, scope, cursor, &[]);
    }

    /// As a client with these capabilities.
    pub fn join_able(&mut self, session: u64, scope: &str, cursor: Option<&str>, able: &[&str]) {
        self.hub.handle_open(session);
        self.join_again(session, scope, cursor, able);
    }

    /// On a socket that is open.
    pub fn join_again(&mut self, session: u64, scope: &str, cursor: Option<&str>, able: &[&str]) {
        let client = format!("c{session}");
        let join = json!(["1", "1", "sync", "phx_join", {"protocol": 1, "client": client, "cursor": cursor,
            "capabilities": able, "shapes": [{"ref": "0", "table": "items", "scope": {"a": scope}}]}]);
        self.hub.handle_text(session, &join.to_string(), "fresh");
    }

    pub fn catch_up(&mut self) -> CatchUpRequest {
        self.take(|o| match o {
            Output::CatchUp(request) => Some(request.clone()),
            _ => None,
        })
    }

    /// Answers with a full load of no rows for every read.
    pub fn answer(&mut self, request: &CatchUpRequest, snapshot: &str, fence: u64) {
        self.answer_from(1, request, snapshot, fence, &[]);
    }

    /// Answers when all rows went ahead, or there were none.
    pub fn answer_ahead(&mut self, request: &CatchUpRequest, snapshot: &str, fence: u64) {
        self.ahead = true;
        self.answer(request, snapshot, fence);
        self.ahead = false;
    }

    /// The same, by the server on this timeline.
    pub fn answer_on(&mut self, timeline: u32, request: &CatchUpRequest, snapshot: &str, fence: u64) {
        self.answer_from(timeline, request, snapshot, fence, &[]);
    }

    /// The same, with what is stored of each client's mutations.
    pub fn answer_telling(&mut self, request: &CatchUpRequest, snapshot: &str, fence: u64, told: &[Outcome]) {
        self.answer_from(1, request, snapshot, fence, told);
    }

    fn answer_from(
        &mut self,
        timeline: u32,
        request: &CatchUpRequest,
        snapshot: &str,
        fence: u64,
        told: &[Outcome],
    ) {
        let facts = Facts {
            system: 1,
            timeline,
            history: vec![],
            database: 5,
            snapshot: snapshot.parse().unwrap(),
            insert_lsn: Lsn(fence),
            incarnations: self.marks.clone(),
        };
        let reset = Some(lockstep_core::position::ResetReason::First);
        let read = |shape| match self.ahead {
            false => ReadAnswer { frames: rows_frames(shape, &Delta { reset, ..Delta::default() }, 1000) },
            true => ReadAnswer { frames: vec![] },
        };
        let reads = request.reads.iter().map(|r| read(&r.shape)).collect();
        let clients = request.clients.iter().map(|_| told.to_vec()).collect();
        self.hub.handle_catch_up(request.id, Ok(CatchUpAnswer { facts, reads, clients }));
    }

    /// Events and payloads of the data frames sent to a session since the last call.
    pub fn heard(&mut self, session: u64) -> Vec<(String, Json)> {
        self.drain();
        let mut heard = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Send(to, frame) if *to == session => {
                let frame: (Json, Json, String, String, Json) = serde_json::from_slice(frame).unwrap();
                if frame.3 != "phx_reply" {
                    heard.push((frame.3, frame.4));
                }
                false
            }
            _ => true,
        });
        heard
    }

    pub fn events(&mut self, session: u64) -> Vec<String> {
        self.heard(session).into_iter().map(|(event, _)| event).collect()
    }
}

pub fn number(output: &Output) -> u64 {
    match output {
        Output::PushFence(number) | Output::Poll(number) => *number,
        other => panic!("{other:?} has no number"),
    }
}
